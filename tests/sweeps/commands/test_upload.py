"""A copy of a sweep's folder through pyarrow: whole, checked, and good enough to go on with."""

import shutil
from pathlib import Path

import pytest

from qa_core.errors import StorageError
from sweeps import cli
from sweeps.commands import upload
from sweeps.run_folder.journal import held
from sweeps.run_folder.layout import DRIVER_LOCK


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    files = {
        "spec.json": b"{}",
        "records.jsonl": b'{"trial_id": "t0000"}\n',
        "trials/t0000/artifact/model.safetensors": bytes(range(256)) * 4096,
        "trials/t0001/checkpoint/state.json": b"[1]",
        "trials/t0001/empty": b"",
        "ray/experiment_state.json": b"Ray's own",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_everything_but_rays_own_files_and_the_lock_arrives(run_dir: Path, tmp_path: Path, capsys) -> None:
    with held(run_dir):
        pass  # leaves its file behind
    target = tmp_path / "bucket" / "first"
    assert cli.main(["upload", str(run_dir), target.as_uri()]) == 0
    expected = {name: data for name, data in contents(run_dir).items() if name[:4] != "ray/"}
    expected.pop(DRIVER_LOCK, None)
    assert contents(target) == expected
    assert len(expected) == 5
    assert f"{target.as_uri()}: 5 files, 1.0 MB" in capsys.readouterr().out


def test_a_second_copy_replaces_what_changed(run_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    upload.upload(run_dir, target.as_uri())
    with (run_dir / "records.jsonl").open("ab") as file:
        file.write(b'{"trial_id": "t0001"}\n')
    upload.upload(run_dir, target.as_uri())
    assert contents(target)["records.jsonl"] == contents(run_dir)["records.jsonl"]


def test_a_file_that_did_not_arrive_whole_is_named(run_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from pyarrow import fs

    def torn(source: str, destination: str, *, destination_filesystem: object) -> None:
        shutil.copy(source, destination)
        if Path(source).name == "model.safetensors":
            Path(destination).write_bytes(b"short")

    monkeypatch.setattr(fs, "copy_files", torn)
    words = r"model\.safetensors has 5 bytes there and 1048576 here"
    with pytest.raises(StorageError, match=words):
        upload.upload(run_dir, (tmp_path / "there").as_uri())


def test_a_running_sweep_is_not_copied(run_dir: Path, tmp_path: Path) -> None:
    with held(run_dir), pytest.raises(StorageError, match="another process is running this sweep"):
        upload.upload(run_dir, (tmp_path / "there").as_uri())
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("folder", "url", "words"),
    [
        ("run", "ftp://example.org/x", "URL: found 'ftp://example.org/x'; allowed: s3://, gs:// or file:///"),
        ("run", "bucket/path", "URL: found 'bucket/path'"),
        ("elsewhere", "file:///tmp/x", "is not the folder of a sweep: it has no spec.json"),
    ],
)
def test_what_cannot_be_copied_is_bad_input(
    folder: str, url: str, words: str, run_dir: Path, tmp_path: Path, capsys
) -> None:
    assert cli.main(["upload", str(tmp_path / folder), url]) == 2
    assert words in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        upload.upload(run_dir, (tmp_path / "file" / "below").as_uri())


def test_links_are_left_out_and_named_in_characters_that_a_terminal_shows(
    run_dir: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("mine")
    (run_dir / "trials" / "t0000" / "a\x1b[2Jb").symlink_to(tmp_path / "secret")
    (run_dir / "more").symlink_to(tmp_path / "secrets")
    target = tmp_path / "there"
    assert cli.main(["upload", str(run_dir), target.as_uri()]) == 0
    assert len(contents(target)) == 5
    assert not any(b"mine" in data for data in contents(target).values())
    said = capsys.readouterr().out
    assert said.count("left out: ") == 2
    assert "\x1b" not in said
    assert r"a\x1b[2Jb: a link" in said
