"""A planted secret that a test shows fails that test, wherever it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.leaks import Leaks
from tests.support.planted import (
    MASTER_KEY,
    OTHER_PASSWORD,
    PASSWORD,
    SIGNING_KEY,
    VALUE,
    forms,
    found_in,
    note_private_key,
)

ROOT = Path(__file__).parents[2]
SECRETS = [PASSWORD.encode(), OTHER_PASSWORD.encode(), SIGNING_KEY, MASTER_KEY, VALUE]
#: Tests that leak in each way, and some that do not.
LEAKING = """
import logging, subprocess, sys
from tests.support.planted import PASSWORD, SIGNING_KEY, VALUE

def test_prints(): print("it is " + PASSWORD)
def test_writes_to_standard_error(): sys.stderr.write(SIGNING_KEY.hex())
def test_logs(caplog): logging.getLogger("haptera").warning("refused", extra={}), logging.getLogger("x").error(PASSWORD)
def test_stores_in_the_clear(tmp_path):
    folder = tmp_path / "deep" / "data"
    (folder / "log").mkdir(parents=True)
    (folder / "node.toml").write_text("")
    (folder / "log" / "1.seg").write_bytes(bytes(5000) + VALUE)
def test_gives_as_an_argument(): subprocess.run(["true", "--password", PASSWORD], check=True)
def test_is_quiet(tmp_path):
    (tmp_path / "node.toml").write_text("")
    (tmp_path / "audit.log").write_text("nothing")
    print("nothing")
def test_keeps_a_file_of_its_own(tmp_path): (tmp_path / "password").write_text(PASSWORD)
"""


@pytest.mark.parametrize("secret", SECRETS)
def test_a_planted_secret_is_found_in_each_form(secret: bytes) -> None:
    for form in forms(secret):
        (found,) = found_in(b'{"a": "' + form + b'"}')
        assert form.decode() in found
    assert found_in(secret[:20]) != []
    assert found_in(b"nothing is planted here") == []


def test_a_stored_value_may_stand_in_an_answer() -> None:
    assert found_in(VALUE, values=False) == []
    assert found_in(b"%s and %s" % (VALUE, PASSWORD.encode()), values=False) != []


def test_a_private_key_is_found_by_a_line_of_it() -> None:
    pem = b"-----BEGIN KEY-----\nMIGplantedA\nMIGplantedB\nMIGplantedC\n-----END KEY-----\n"
    assert found_in(pem) == []
    note_private_key(pem)
    assert len(found_in(pem)) == 1


def test_a_finding_is_told_once() -> None:
    leaks = Leaks()
    leaks.see("here", f"the {PASSWORD}")
    (found,) = leaks.take()
    assert found.startswith("here: the planted-password")
    assert leaks.take() == []


def test_each_test_that_shows_a_planted_secret_fails(tmp_path: Path) -> None:
    file = tmp_path / "test_leaking.py"
    file.write_text(LEAKING)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(file)]
    command += ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", f"--basetemp={tmp_path / 'base'}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    shutil.rmtree(tmp_path / "base")
    text = ended.stdout
    assert "5 errors" in text, text + ended.stderr
    for name in ("prints", "writes_to_standard_error", "logs", "stores_in_the_clear", "gives_as_an_argument"):
        assert f"ERROR at teardown of test_{name} _" in text
    for name in ("is_quiet", "keeps_a_file_of_its_own"):
        assert f"test_{name} _" not in text
