"""Which settings of a sweep name files, and when two files pass as the same."""

from pathlib import Path

import pytest

from sweeps.nodes.named_paths import END_BYTES, fingerprint, named_paths
from sweeps.spec.sections import SweepSpec
from tests.sweeps.toys import HEAD, OBJECTIVES


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(recipe: dict, space: list | None = None) -> SweepSpec:
    values = {"objectives": OBJECTIVES, "budget": {"trials": 1, "examples": 1}}
    return SweepSpec.model_validate({**HEAD, **values, "recipe": recipe, "space": space or []})


def test_files_and_folders_are_found_wherever_a_recipe_or_the_space_names_them(tmp_path: Path) -> None:
    for name in ("encoder", "other", "teacher", "minilm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "glove.txt").write_text("the 0.1")
    recipe = {
        "model": {"checkpoint": "encoder", "options": {"vectors": "glove.txt"}},
        "data": {"train": "train.json", "cross_domain": ["news.parquet", "owner/hub-set"]},
        "methods": {"distill": {"teacher": "teacher", "teacher_recipe": {"model": {"checkpoint": "minilm"}}}},
    }
    space = [
        {"set": "data.evaluation", "choice": ["dev.json.gz", "sample"]},
        {"set": "model.checkpoint", "choice": ["other", "tiny", "owner/hub-model"]},
        {"set": "train.learning_rate", "choice": [0.1, 0.2]},
    ]
    assert named_paths(spec(recipe, space)) == {
        "encoder": "model.checkpoint",
        "glove.txt": "model.options.vectors",
        "train.json": "data.train",
        "news.parquet": "data.cross_domain",
        "teacher": "methods.distill.teacher",
        "minilm": "methods.distill.teacher_recipe.model.checkpoint",
        "dev.json.gz": "data.evaluation",
        "other": "model.checkpoint",
    }


def test_of_a_folder_with_splits_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    recipe = {
        "data": {"train": "saved@train", "evaluation": "saved@test", "cross_domain": ["owner/name@test"]}
    }
    assert named_paths(spec(recipe)) == {"saved": "data.train"}


def test_a_folder_that_has_the_name_of_a_preset_or_of_a_choice_is_not_meant(tmp_path: Path) -> None:
    for name in ("tiny", "dot", "bert", "linear", "sample-tiny"):
        (tmp_path / name).mkdir()
    assert named_paths(spec({"model": {"family": "bert", "checkpoint": "sample-tiny"}})) == {}
    recipe = {
        "model": {"family": "bert", "checkpoint": "tiny", "options": {"attention": "dot"}},
        "train": {"schedule": "linear"},
    }
    assert named_paths(spec(recipe)) == {}


@pytest.mark.parametrize("path", ["/no/such/folder", "~/no such", "./none", "../none"])
def test_what_can_only_be_a_path_is_one_whether_it_is_there_or_not(path: str) -> None:
    assert named_paths(spec({"model": {"checkpoint": path}})) == {path: "model.checkpoint"}
    assert fingerprint(path) is None


def test_equal_content_has_one_fingerprint_and_each_change_another(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    content = bytes(range(256)) * 1024  # 4 times END_BYTES
    first.write_bytes(content)
    second.write_bytes(content)
    assert fingerprint("a.bin") == fingerprint(str(second))
    assert str(fingerprint("a.bin")).startswith("262144 bytes, ")
    seen = {fingerprint("a.bin")}
    for changed in (content + b"x", b"x" + content[1:], content[:-1] + b"x"):
        second.write_bytes(changed)
        seen.add(fingerprint("b.bin"))
    assert len(seen) == 4
    middle = END_BYTES + 1
    second.write_bytes(content[:middle] + b"x" + content[middle + 1 :])
    assert fingerprint("b.bin") == fingerprint("a.bin")  # known: only both ends are read


def test_a_short_file_is_read_whole(tmp_path: Path) -> None:
    for size in (0, 1, END_BYTES, END_BYTES + 1, 2 * END_BYTES):
        (tmp_path / "a").write_bytes(b"a" * size)
        (tmp_path / "b").write_bytes(b"a" * (size // 2) + b"b" + b"a" * (size - size // 2 - 1))
        assert (fingerprint("a") == fingerprint("b")) is False


def test_a_folder_is_known_by_names_sizes_and_content_of_what_is_in_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "inner" / "weights").write_text("123")
    assert fingerprint("a") == fingerprint("b")
    assert str(fingerprint("a")).startswith("5 bytes in 2 files, ")
    (tmp_path / "b" / "inner" / "weights").rename(tmp_path / "b" / "weights")
    assert fingerprint("a") != fingerprint("b")
    (tmp_path / "empty").mkdir()
    assert fingerprint("empty") is None  # a mount point without its mount
