"""Which tokenizer a recipe uses: the checkpoint's own, a named one, or one trained on the training data.

Training is in `trained_tokenizers.py`; how tokens become windows is in `windows.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from qa_core import files
from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.data.foreign_tokenizers import check_files, check_growth, panics_refused
from qa_core.data.table import QaTable
from qa_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from qa_core.config import ModelConfig

TRAINING = 3  # raise it when training changes: older cache files are then left alone
ALLOWED = "a hub name, a folder with tokenizer files, a tokenizer.json file or a BERT vocabulary (.txt)"
# The usual spellings of each role, for a tokenizer.json that comes without the file that names them.
ROLE_SPELLINGS = {
    "pad_token": ("[PAD]", "<pad>", "<|padding|>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]",),
    "eos_token": ("</s>", "<|endoftext|>"),
}


class NeedsTokenizer(Protocol):
    """What of a family decides which tokenizer it reads with."""

    model: "ModelConfig"

    @property
    def is_preset(self) -> bool:
        """True when no checkpoint brings a tokenizer."""

    def place_of(self, name: str) -> str:
        """Return what to load a checkpoint or tokenizer of this name from."""

    @property
    def tokenizer_kind(self) -> str:
        """The kind that is trained on the data then."""


def prepare_tokenizer(family: NeedsTokenizer, table: QaTable, cache_dir: Path) -> "PreTrainedTokenizerFast":
    """Return the recipe's tokenizer: `model.tokenizer` if named, else the checkpoint's own, else a trained
    one.

    Args:
        family: its model settings name checkpoint, tokenizer and vocabulary size; it knows its kind of
            tokenizer.
        table: the training questions, which a preset's tokenizer is trained on, once for each machine.
        cache_dir: where trained tokenizers are kept.

    Raises:
        ConfigError: a named tokenizer cannot be had or has no fast form.
        StorageError: the cache folder cannot be written to.
    """
    found = ready_tokenizer(family)
    if found is not None:
        return found
    vocab_size = family.model.vocab_size
    return trained_tokenizer(family.tokenizer_kind, table, vocab_size=vocab_size, cache_dir=cache_dir)


def ready_tokenizer(family: NeedsTokenizer) -> "PreTrainedTokenizerFast | None":
    """Return the recipe's tokenizer where one is named or comes with the checkpoint; None: it is trained on the data.

    Raises:
        ConfigError: it cannot be had or has no fast form.
    """
    model = family.model
    if model.tokenizer is not None:
        return load_tokenizer(family.place_of(model.tokenizer), setting="model.tokenizer")
    if not family.is_preset:
        return load_tokenizer(family.place_of(model.checkpoint), setting="model.checkpoint")
    return None


def trained_tokenizer(
    kind: str, table: QaTable, *, vocab_size: int, cache_dir: Path
) -> "PreTrainedTokenizerFast":
    """Return a tokenizer trained on all paragraphs and questions of a table, cached by the table's content.

    Raises:
        ConfigError: there is no such kind.
        StorageError: the cache folder cannot be written to.
    """
    import tokenizers

    from qa_core.data.trained_tokenizers import tokenizer_kind, train_tokenizer

    specials = tokenizer_kind(kind).specials

    def make() -> bytes:
        texts = [*table.contexts.to_pylist(), *table.rows.column("question").to_pylist()]
        return train_tokenizer(kind, texts, vocab_size=vocab_size).to_str().encode()

    def write(file: BinaryIO, content: bytes) -> None:
        file.write(content)

    def read(path: Path) -> "Tokenizer":
        text = path.read_bytes()
        try:
            return tokenizers.Tokenizer.from_buffer(text)
        except Exception as error:  # the library raises bare Exception and ValueError
            raise DamagedFile(path) from error

    name = f"{kind}-{vocab_size}-v{TRAINING}-{table.data_hash}-{tokenizers.__version__}.json"
    tokenizer = read_or_make(Path(cache_dir) / "tokenizers" / name, read=read, make=make, write=write)
    return _wrap(tokenizer, specials)


def load_tokenizer(name: str, *, setting: str = "model.tokenizer") -> "PreTrainedTokenizerFast":
    """Load a tokenizer from the hub, a folder, a tokenizer.json file or a BERT vocabulary.

    Args:
        name: what the recipe says.
        setting: the setting that says it, for messages.

    Raises:
        ConfigError: it is not there, cannot be read or has no fast form, without which there are no offsets.
    """
    path = Path(name).expanduser()
    is_path = files.is_there(path) or name.endswith((".json", ".txt")) or name.startswith((".", "/", "~"))
    if is_path and not files.is_there(path):
        raise ConfigError(
            f"{setting}: found {name!r}, and there is no such file or folder; allowed: {ALLOWED}"
        )
    try:
        with panics_refused():
            is_folder = files.is_folder(path)
            if is_folder:
                check_files(path)
            from_file = is_path and not is_folder
            tokenizer = _from_file(path) if from_file else _from_pretrained(str(path) if is_path else name)
            check_growth(tokenizer)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{setting}: {error}") from error
    except Exception as error:  # the libraries raise whatever their parsers raise, bare Exception too
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{setting}: found {name!r}, from which no tokenizer can be loaded ({reason}); allowed: "
            f"{ALLOWED}. Where the hub cannot be reached, name a local folder"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{setting}: found {name!r}, a tokenizer without a fast form; allowed: one with tokenizer.json"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(
                f"{setting}: found {name!r}, a tokenizer without padding or end token; allowed: {ALLOWED}"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_hash(tokenizer: "PreTrainedTokenizerFast") -> str:
    """First 16 hex digits of a SHA-256 over all that decides the tokens.

    Truncation and padding are left out: they are the state of the last call, not of the tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("truncation", None)
    content.pop("padding", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _from_pretrained(name: str) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)  # a union of backends
    return tokenizer


def _from_file(path: Path) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer

    if path.suffix == ".txt":
        return _from_bert_vocabulary(path)
    if path.suffix != ".json":
        raise ConfigError(f"found {str(path)!r}, a file of another kind; allowed: {ALLOWED}")
    place = files.checked_file(path, most_bytes=files.TOKENIZER_BYTES)
    tokenizer = Tokenizer.from_file(str(place))
    known = {
        role: next((text for text in spellings if tokenizer.token_to_id(text) is not None), None)
        for role, spellings in ROLE_SPELLINGS.items()
    }
    return _wrap(tokenizer, {role: text for role, text in known.items() if text is not None})


def _from_bert_vocabulary(path: Path) -> "PreTrainedTokenizerFast":
    from qa_core.data.trained_tokenizers import KINDS, wordpiece_tokenizer

    tokens = files.read_text(path, most_bytes=files.TOKENIZER_BYTES).splitlines()
    specials = KINDS["wordpiece"].specials
    missing = [token for token in specials.values() if token not in tokens]
    if missing:
        raise ConfigError(f"found {str(path)!r} without {', '.join(missing)}; allowed: a BERT vocabulary")
    is_lowercase = all(token == token.lower() for token in tokens if not token.startswith("["))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = wordpiece_tokenizer(vocabulary, lowercase=is_lowercase)
    tokenizer.add_special_tokens(list(specials.values()))
    return _wrap(tokenizer, specials)


def _wrap(tokenizer: "Tokenizer", specials: Mapping[str, str]) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
