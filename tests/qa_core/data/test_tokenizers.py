"""Which tokenizer a recipe gets, and what its hash covers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qa_core.config import ModelConfig
from qa_core.data import trained_tokenizers
from qa_core.data.squad import QaTable
from qa_core.data.tokenizers import load_tokenizer, prepare_tokenizer, tokenizer_hash, trained_tokenizer
from qa_core.errors import ConfigError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "tower", "##s", "oder"]


def family(kind: str = "word", *, is_preset: bool = True, **model: Any) -> Any:
    """Stand in for a family: what `prepare_tokenizer` reads of one."""
    return SimpleNamespace(
        model=ModelConfig(family="any", vocab_size=80, **model),
        is_preset=is_preset,
        place_of=lambda name: name,
        tokenizer_kind=kind,
    )


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


@pytest.mark.parametrize(
    ("kind", "pad_id", "eos_id", "separator_id"),
    [("wordpiece", 0, None, 3), ("unigram", 0, 1, None), ("bytes", 0, 0, None), ("word", 0, None, 3)],
)
def test_a_preset_gets_a_tokenizer_of_its_kind_trained_on_the_table(
    table: QaTable, tmp_path: Path, kind: str, pad_id: int, eos_id: int | None, separator_id: int | None
) -> None:
    tokenizer = prepare_tokenizer(family(kind), table, tmp_path)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id) == (
        pad_id,
        eos_id,
        separator_id,
    )
    assert tokenizer("tower", add_special_tokens=False)["input_ids"]


def test_a_trained_tokenizer_is_trained_once_for_a_table_kind_and_size(
    table: QaTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    train = trained_tokenizers.train_tokenizer

    def count(kind: str, texts: list[str], *, vocab_size: int) -> Any:
        trained.append((kind, vocab_size, len(texts)))
        return train(kind, texts, vocab_size=vocab_size)

    monkeypatch.setattr(trained_tokenizers, "train_tokenizer", count)
    first = trained_tokenizer("word", table, vocab_size=80, cache_dir=tmp_path)
    second = trained_tokenizer("word", table, vocab_size=80, cache_dir=tmp_path)
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert trained == [("word", 80, 3 + 6)]
    trained_tokenizer("word", table, vocab_size=70, cache_dir=tmp_path)
    trained_tokenizer("word", table.take([0, 1]), vocab_size=80, cache_dir=tmp_path)
    assert len(trained) == 3


def test_a_damaged_trained_tokenizer_is_trained_again(table: QaTable, tmp_path: Path) -> None:
    before = tokenizer_hash(trained_tokenizer("word", table, vocab_size=80, cache_dir=tmp_path))
    (file,) = (tmp_path / "tokenizers").glob("*.json")
    file.write_bytes(file.read_bytes()[:100])
    assert tokenizer_hash(trained_tokenizer("word", table, vocab_size=80, cache_dir=tmp_path)) == before


def test_a_bert_vocabulary_file_gives_a_lower_case_wordpiece_tokenizer(
    vocabulary: Path, table: QaTable
) -> None:
    tokenizer = prepare_tokenizer(family(tokenizer=str(vocabulary)), table, vocabulary.parent)
    assert tokenizer("The Towers")["input_ids"] == [2, 5, 6, 7, 3]
    assert tokenizer.pad_token_id == 0


def test_a_cased_vocabulary_keeps_case(vocabulary: Path) -> None:
    vocabulary.write_text("\n".join([*VOCABULARY, "Oder"]))
    assert load_tokenizer(str(vocabulary)).tokenize("Oder oder") == ["Oder", "oder"]


def test_a_file_a_folder_and_a_saved_copy_give_the_same_tokenizer(vocabulary: Path, tmp_path: Path) -> None:
    original = load_tokenizer(str(vocabulary))
    original.save_pretrained(tmp_path / "saved")
    copies = [
        load_tokenizer(str(tmp_path / "saved")),
        load_tokenizer(str(tmp_path / "saved" / "tokenizer.json")),
    ]
    for copy in copies:
        assert tokenizer_hash(copy) == tokenizer_hash(original)
        assert (copy.pad_token_id, copy.cls_token_id, copy.sep_token_id, copy.mask_token_id) == (0, 2, 3, 4)


def test_a_named_tokenizer_wins_over_the_checkpoint(vocabulary: Path, table: QaTable) -> None:
    chosen = family(is_preset=False, checkpoint="/no/such/folder", tokenizer=str(vocabulary))
    assert len(prepare_tokenizer(chosen, table, vocabulary.parent)) == len(VOCABULARY)


def test_the_hash_depends_on_the_vocabulary_and_not_on_the_last_call(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(str(vocabulary))
    before = tokenizer_hash(tokenizer)
    tokenizer("the tower", truncation=True, max_length=3, padding="max_length")
    assert tokenizer_hash(tokenizer) == before
    vocabulary.write_text("\n".join([*VOCABULARY[:-2], "oder", "##s"]))
    assert tokenizer_hash(load_tokenizer(str(vocabulary))) != before


def test_an_end_token_pads_where_there_is_no_padding_token(table: QaTable, tmp_path: Path) -> None:
    trained_tokenizer("bytes", table, vocab_size=300, cache_dir=tmp_path)
    (file,) = (tmp_path / "tokenizers").glob("*.json")
    tokenizer = load_tokenizer(str(file))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere/tokenizer.json", "found 'nowhere/tokenizer.json', and there is no such file or folder"),
        (
            "./nowhere",
            "found './nowhere', and there is no such file or folder; allowed: a hub name, a folder",
        ),
    ],
)
def test_a_path_that_does_not_exist_is_refused_without_asking_the_hub(
    table: QaTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ConfigError) as caught:
        prepare_tokenizer(family(tokenizer=name), table, tmp_path)
    assert str(caught.value).startswith(f"model.tokenizer: {expected}")
    with pytest.raises(ConfigError, match=r"model\.checkpoint: found"):
        prepare_tokenizer(family(is_preset=False, checkpoint=name), table, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer.json", "{", "from which no tokenizer can be loaded"),
        ("tokenizer.json", '{"model": {"type": "Nonsense"}}', "from which no tokenizer can be loaded"),
        ("vocab.txt", "[PAD]\nthe\n", "without [UNK], [CLS], [SEP], [MASK]; allowed: a BERT vocabulary"),
        ("vocab.csv", "the", "a file of another kind; allowed: a hub name, a folder with tokenizer files"),
    ],
)
def test_a_file_that_holds_no_tokenizer_is_refused(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(str(tmp_path / name))
    assert str(caught.value).startswith("model.tokenizer: found ")
    assert expected in str(caught.value)


def test_an_unreachable_hub_is_reported_with_the_setting(
    table: QaTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_pretrained(name: str, *, trust_remote_code: bool) -> None:
        assert trust_remote_code is False
        raise OSError("no route to the hub")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(ConfigError) as caught:
        prepare_tokenizer(family(is_preset=False, checkpoint="owner/name"), table, tmp_path)
    message = str(caught.value)
    assert (
        "model.checkpoint: found 'owner/name', from which no tokenizer can be loaded (OSError: no route"
        in message
    )
    assert "name a local folder" in message


def test_a_tokenizer_without_offsets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: slow)
    with pytest.raises(ConfigError, match="a tokenizer without a fast form"):
        load_tokenizer("owner/name")


def test_the_vocabulary_file_and_the_saved_tokenizer_of_a_real_model_agree(shared: Path) -> None:
    from_text = load_tokenizer(str(shared / "vocab" / "bert-base-uncased-vocab.txt"))
    from_folder = load_tokenizer(str(shared / "models" / "minilm-l6-bert"))
    assert tokenizer_hash(from_text) == tokenizer_hash(from_folder)
