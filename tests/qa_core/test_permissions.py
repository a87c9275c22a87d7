"""What a user without rights gets instead of a traceback. Permission bits do not hold root: another user is asked."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]
# Each call is made below `top` by nobody, and must end in an error of the project that names a file.
PROGRAM = """
import os, sys, tokenizers, transformers
from pathlib import Path
from qa_core import files
from qa_core.scoring import decode
from qa_core.errors import QaError
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import load_tokenizer
from qa_core.artifact.manifest import fingerprint, read_manifest
from sweeps.run_folder import json_lines
from sweeps.commands import doctor, predict, results
from sweeps.spec.source import read_source

transformers.PreTrainedTokenizerFast  # all that is imported is imported as root: nobody may not read it
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
top = Path(sys.argv[1])
locked, closed, plain = top / "locked", top / "closed.json", top / "readonly"
calls = {
    "is_there": lambda: files.is_there(locked / "x"),
    "is_folder": lambda: files.is_folder(locked / "x"),
    "make_folder": lambda: files.make_folder(plain / "x" / "y"),
    "check_writable": lambda: files.check_writable(plain / "home"),
    "write": lambda: files.write_json(plain / "x.json", {}),
    "folder": lambda: files.written_folder(plain / "x").__enter__(),
    "read": lambda: files.read_json(closed),
    "data": lambda: load_table(str(closed), split="dev"),
    "yaml": lambda: read_source(closed),
    "lines": lambda: json_lines.read(closed),
    "append": lambda: json_lines.append(plain / "records.jsonl", {}, what="record"),
    "fingerprint": lambda: fingerprint(closed),
    "manifest": lambda: read_manifest(locked),
    "tokenizer": lambda: load_tokenizer(str(closed)),
    "front": lambda: results.read_front(locked),
    "output": lambda: predict.predict_file(top, "good.json", wanted=predict.Wanted(output=locked / "x")),
}
for name, call in calls.items():
    try:
        call()
    except QaError as error:
        if str(top) not in str(error):
            print(name, "names no file:", error)
        continue
    except Exception as error:
        print(name, type(error).__name__, error)
        continue
    print(name, "was done")
list(doctor._space())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
def test_a_user_without_rights_gets_an_error_that_names_the_file() -> None:
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own folders are root's alone
        top = Path(scratch)
        top.chmod(0o755)
        (top / "locked").mkdir(mode=0o700)
        (top / "readonly").mkdir(mode=0o755)
        (top / "closed.json").write_text("{}")
        (top / "closed.json").chmod(0o600)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(top / "readonly" / "home")}
        environment.pop("QA_SWEEPS_CACHE", None)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(top), str(NOBODY)],
            env=environment,
            cwd=top,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert not list((top / "readonly").iterdir())
