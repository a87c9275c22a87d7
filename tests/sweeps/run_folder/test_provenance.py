"""Provenance: complete, repeatable, and without secrets."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from sweeps.run_folder.masking import masked
from sweeps.run_folder.provenance import collect, command_line, git_state, source_hash

PROJECT = Path(__file__).resolve().parents[3]
SECRETS = ["hf_abcdefghijklmnop", "ghp_ABCdef123456", "AKIAIOSFODNN7EXAMPLE", "sk-proj-abc_DEF-123"]


def test_it_says_what_a_rebuild_needs_in_plain_json() -> None:
    found = collect(["sweeps/run.py"], gpus=["Some GPU"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["packages"]["torch"].startswith("2.")
    assert found["packages"]["numpy"] is not None
    assert set(found["git"]) == {"commit", "is_dirty", "reason"}
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_bytes"] > 10**8
    assert found["hardware"]["gpus"] == ["Some GPU"]
    assert socket.gethostname() not in json.dumps(found)


def test_the_commit_is_that_of_the_checkout_that_runs() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("not in a git checkout")
    head = subprocess.run(
        ["git", "-C", str(PROJECT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert collect(["sweeps/run.py"])["git"]["commit"] == head.stdout.strip()


def test_the_sources_are_those_that_run(tmp_path: Path) -> None:
    assert source_hash() == source_hash(PROJECT) != source_hash(tmp_path)  # the last one is of no file


def test_a_script_of_the_project_is_named_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line([str(PROJECT / "sweeps" / "run.py")]) == "python sweeps/run.py"


def test_the_command_is_what_one_would_type_again() -> None:
    inside = str(Path.cwd() / "sweeps" / "run.py")
    assert command_line([inside, "--set", "name=a b"]) == "python sweeps/run.py --set 'name=a b'"
    assert command_line(["/usr/local/bin/qa-sweep", "run"]) == "qa-sweep run"
    assert command_line(["/elsewhere/run.py"]) == "python run.py"


@pytest.mark.parametrize("secret", SECRETS)
def test_known_token_shapes_are_masked_wherever_they_stand(secret: str) -> None:
    for words in ([secret], [f"--set=recipe.x={secret}"], ["--hub", secret], [f"https://host/{secret}/x"]):
        assert secret not in " ".join(masked(words))
        assert "***" in " ".join(masked(words))


def test_named_secrets_and_passwords_in_addresses_are_masked() -> None:
    words = [
        "--api-key",
        "abc",
        "--password=def",
        "https://me:ghi@host/x",
        "Authorization: Bearer jkl",
        "bearer",
        "mno",
    ]
    assert masked(words) == [
        "--api-key",
        "***",
        "--password=***",
        "https://***@host/x",
        "Authorization: Bearer ***",
        "bearer",
        "***",
    ]


def test_settings_that_only_sound_like_secrets_are_kept() -> None:
    words = [
        "recipe.train.micro_batch_tokens=4096",
        "recipe.evaluation.max_answer_tokens=30",
        "recipe.model.tokenizer=some/folder",
        "--task-name",
        "ask-me",
    ]
    assert masked(words) == words


def test_the_state_of_a_checkout_is_its_commit_and_whether_it_differs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path)["commit"] is None
    assert git_state(tmp_path)["reason"] == "no git, or not in a git checkout"
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "is_dirty": False, "reason": None}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path)["is_dirty"] is True
    (tmp_path / "inner").mkdir()
    assert git_state(tmp_path / "inner")["commit"] is None
