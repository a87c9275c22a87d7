"""A BERT in DistilBERT's layout computes the same hidden states, and what it cannot represent is refused."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertModel

from qa_core.config import ModelConfig
from qa_core.errors import ConfigError
from qa_core.families.distilbert import DistilBert

pytestmark = pytest.mark.numeric


class _Tokens(SimpleNamespace):
    def __len__(self) -> int:
        return 120


TOKENIZER = _Tokens(pad_token_id=0)
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


def _bert(folder, **changes) -> BertModel:
    torch.manual_seed(0)
    bert = BertModel(BertConfig(vocab_size=120, hidden_dropout_prob=0.0, **{**SIZES, **changes}))
    with torch.no_grad():
        bert.embeddings.token_type_embeddings.weight.normal_(0, 0.5)
    bert.save_pretrained(folder)
    return bert.eval()


def _family(folder, **options) -> DistilBert:
    return DistilBert(ModelConfig("distilbert", checkpoint=str(folder), dropout=0.0, options=options))


def test_hidden_states_equal_those_of_the_bert_at_token_type_0(tmp_path):
    bert = _bert(tmp_path)
    model = _family(tmp_path, from_bert=True).build(TOKENIZER).eval()
    input_ids = torch.randint(1, 120, (3, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(input_ids)
    mask[0, 11:] = 0
    expected = bert(input_ids=input_ids, attention_mask=mask).last_hidden_state
    found = model.distilbert(input_ids=input_ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


def test_a_bert_is_not_converted_unless_the_option_says_so(tmp_path):
    _bert(tmp_path)
    with pytest.raises(ConfigError, match=r"is of type 'bert'; this family reads type 'distilbert'"):
        _family(tmp_path).build(TOKENIZER)


def test_an_epsilon_that_distilbert_lacks_is_refused(tmp_path):
    _bert(tmp_path, layer_norm_eps=1e-5)
    with pytest.raises(ConfigError, match="layer_norm_eps 1e-05"):
        _family(tmp_path, from_bert=True).build(TOKENIZER)


def test_the_conversion_of_minilm_equals_the_converted_folder(shared):
    from transformers import AutoTokenizer

    folders = shared / "models" / "minilm-l6-bert", shared / "models" / "minilm-l6-distilbert"
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    converted = _family(folders[0], from_bert=True).build(tokenizer).distilbert.state_dict()
    expected = _family(folders[1]).build(tokenizer).distilbert.state_dict()
    assert converted.keys() == expected.keys()
    for name, tensor in expected.items():
        # The folder stores float16: the sum of positions and token type is rounded once more there.
        torch.testing.assert_close(converted[name], tensor, rtol=1e-3, atol=1e-4)
