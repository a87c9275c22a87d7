"""One whole artifact, which the tests damage in copies."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def whole_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained micro BERT with a vocabulary of 300 tokens."""
    import torch

    from qa_core import registry
    from qa_core.artifact import artifact
    from qa_core.config import RunConfig
    from qa_core.data.squad import load_table
    from qa_core.data.tokenizers import prepare_tokenizer
    from qa_core.values import from_dict

    root = tmp_path_factory.mktemp("artifact")
    model = {"family": "bert", "checkpoint": "micro", "vocab_size": 300}
    lengths = {"max_length": 64, "stride": 8, "max_question_length": 16}
    config = from_dict(RunConfig, {"model": model, "data": lengths})
    family = registry.make_family(config)
    tokenizer = prepare_tokenizer(family, load_table("sample", split="dev"), root)
    torch.manual_seed(0)
    network = family.build(tokenizer)
    artifact.write(root / "whole", network, config=config, tokenizer=tokenizer, forms={})
    return root / "whole"
