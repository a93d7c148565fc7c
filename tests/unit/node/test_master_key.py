"""The places of a master key: a file, the environment, the output of a command."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import ConfigurationError, WrongKey
from haptera.node import MasterKeySource, NodeConfig, load, master_key, misspelt
from haptera.storage import MasterKey

if TYPE_CHECKING:
    from pathlib import Path

SECRET = bytes(range(200, 232))
KEY = MasterKey.of(SECRET)
VARIABLE = "HAPTERA_MASTER_KEY"


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, neither in the environment nor taken out of it by a test before."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(master_key, "_taken", None)


def source(file: object = None, command: str | None = None) -> MasterKeySource:
    return MasterKeySource(NodeConfig(master_key_file=None if file is None else str(file), master_key_command=command))


def python(program: str) -> str:
    """The command that runs a program in Python."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def refused(source_: MasterKeySource) -> str:
    """The error of a source that cannot be read. It shows nothing of a key."""
    with pytest.raises(ConfigurationError) as caught:
        source_.read()
    text = f"{caught.value} {caught.value!r}"
    assert SECRET.hex()[:8] not in text.lower()
    return str(caught.value)


def test_without_a_source_the_key_is_generated() -> None:
    assert source().origin == "generated"
    assert source().read() is None


@pytest.mark.parametrize("data", [SECRET, SECRET.hex().encode(), SECRET.hex().upper().encode() + b"\n"])
def test_a_file_holds_32_bytes_or_64_hex_digits(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    assert source(path).origin == "file"
    assert source(path).read() == KEY


@pytest.mark.parametrize("data", [b"", SECRET[:31], SECRET + b"\n", SECRET.hex().encode()[:63] + b"x", bytes(5000)])
def test_a_file_of_anything_else_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    assert str(path) in refused(source(path))


WANTED = "a master key is 32 bytes, raw or as 64 hex digits"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "it has 0 bytes"),
        (SECRET[:31], "it has 31 bytes"),
        (SECRET + b"\n", "it has 33 bytes"),
        (SECRET.hex().encode()[:62] + b"\n", "it has 62 hex digits"),
        (SECRET.hex().encode()[:63] + b"x\n", "it has 64 bytes that are not all hex digits"),
        (SECRET.hex().encode() * 2, "it has 128 hex digits"),
        (bytes(4097), "it has more than 4096 bytes"),
    ],
)
def test_what_a_file_holds_and_should_hold_is_told(tmp_path: Path, data: bytes, found: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    assert refused(source(path)) == f"the master key file {path} cannot be used: {found}; {WANTED}"


def test_what_stands_in_the_place_of_a_file_and_should_be_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, found in (
        ("key", "it is a directory"),
        ("pipe", "it is no regular file"),
        ("none", "No such file or directory"),
    ):
        path = tmp_path / name
        assert refused(source(path)) == f"the master key file {path} cannot be used: {found}; {WANTED}"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("haptera.transport.secret_files.os.open", refusing)
    assert refused(source(tmp_path / "key")).endswith(f"key cannot be used: Permission denied; {WANTED}")


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    path.chmod(0o640)
    assert source(path).read() == KEY
    (record,) = [record for record in caplog.records if record.message == "key_file_open_to_others"]
    assert vars(record)["path"] == str(path)


def test_the_variable_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET.hex())
    found = source()
    assert VARIABLE not in os.environ
    assert (found.origin, found.read()) == ("environment", KEY)
    child = subprocess.run(["env"], capture_output=True, check=True)
    assert VARIABLE.encode() not in child.stdout
    assert SECRET.hex().encode() not in child.stdout


def test_a_second_store_of_the_process_has_the_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET.hex())
    assert source().read() == source().read() == KEY


@pytest.mark.parametrize("value", ["short", "x" * 32, "0f" * 33, "é" * 32])
def test_a_variable_of_anything_but_64_hex_digits_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    message = refused(source())
    assert VARIABLE in message
    assert value not in message
    assert message.endswith("; a master key is 64 hex digits there")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert source().origin == "generated"


def test_the_output_of_a_command_is_a_key() -> None:
    found = source(command=python(f"print('{SECRET.hex()}')"))
    assert (found.origin, found.read()) == ("command", KEY)
    raw = f"import sys; sys.stdout.buffer.write(bytes.fromhex('{SECRET.hex()}'))"
    assert source(command=python(raw)).read() == KEY


def test_a_command_is_run_without_a_shell_and_without_input() -> None:
    program = f"import sys; assert sys.argv[1] == '$HOME;' and not sys.stdin.read(); print('{SECRET.hex()}')"
    assert source(command=f"{python(program)} '$HOME;'").read() == KEY


def test_a_command_is_run_without_the_variable_of_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET.hex())
    with pytest.raises(ConfigurationError, match="one place"):
        source(command="true")
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/to/be/found", "cannot be started: No such file"),
        (python(f"print('{SECRET.hex()}'); raise SystemExit(3)"), "exit code 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "signal 9"),
        (python(f"print('{SECRET.hex()}' * 1000)"), "more than 4096 bytes"),
        (python(f"print('{SECRET.hex()}' * 2)"), f"it has 128 hex digits; {WANTED}"),
        ("true", f"it has 0 bytes; {WANTED}"),
        ("'unclosed", "No closing quotation"),
        ("''", "cannot be started"),
    ],
)
def test_a_command_that_gives_no_key_is_refused(command: str, reason: str) -> None:
    message = refused(source(command=command))
    assert "master_key_command" in message
    assert reason in message


def test_the_arguments_of_a_command_are_not_shown() -> None:
    message = refused(source(command=f"false --token={SECRET.hex()}"))
    assert "token" not in message


@pytest.mark.parametrize(
    "program",
    ["import time; time.sleep(60)", "import os, time; os.close(1); time.sleep(60)"],
    ids=["writes nothing", "does not end"],
)
def test_a_command_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(master_key, "COMMAND_TIMEOUT_S", 0.4)
    started = time.monotonic()
    assert "within 0.4 seconds" in refused(source(command=python(program)))
    assert time.monotonic() - started < 30


def test_more_than_one_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="master_key_file and master_key_command are given"):
        source(tmp_path / "key", "true")
    monkeypatch.setenv(VARIABLE, SECRET.hex())
    with pytest.raises(ConfigurationError, match=f"master_key_file and {VARIABLE} are given") as caught:
        source(tmp_path / "key")
    assert SECRET.hex() not in str(caught.value)


def test_the_options_come_from_flags_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "haptera.toml"
    file.write_text('master_key_file = "/a"\n')
    assert load({"config": str(file)}, {}).master_key_file == "/a"
    assert load({"config": str(file)}, {"HAPTERA_MASTER_KEY_FILE": "/b"}).master_key_file == "/b"
    assert load({"master_key_command": "pass show x"}, {}).master_key_command == "pass show x"
    with pytest.raises(ConfigurationError, match="master-key-command"):
        load({"master_key_command": " "}, {})


def test_the_variable_is_no_misspelt_option() -> None:
    assert list(misspelt({VARIABLE: "x"})) == []


async def test_an_embedded_store_takes_its_master_key_from_each_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    async with haptera.open(tmp_path / "data", master_key_file=path) as db:
        await db.set("a", b"1")
    async with haptera.open(tmp_path / "data", master_key_command=f"cat {path}") as db:
        assert await db.get("a") is not None
    monkeypatch.setenv(VARIABLE, SECRET.hex())
    async with haptera.open(tmp_path / "data") as db:
        assert await db.get("a") is not None
    assert "master.key" not in os.listdir(tmp_path / "data")
    assert "key_file_beside_data" not in caplog.text
    assert not any(SECRET.hex() in str(vars(record)) for record in caplog.records)


async def test_a_wrong_master_key_is_refused_and_a_source_that_cannot_be_read_makes_no_directory(
    tmp_path: Path,
) -> None:
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    for path, data in ((wrong, bytes(32)), (right, SECRET)):
        path.write_bytes(data)
        path.chmod(0o600)
    async with haptera.open(tmp_path / "data", master_key_file=right):
        pass
    with pytest.raises(WrongKey) as caught:
        async with haptera.open(tmp_path / "data", master_key_file=wrong):
            pass
    assert caught.value.expected == KEY.id.hex()
    with pytest.raises(ConfigurationError):
        async with haptera.open(tmp_path / "new", master_key_file=tmp_path / "none"):
            pass
    assert not (tmp_path / "new").exists()


async def test_a_generated_key_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with haptera.open(tmp_path / "data"):
        pass
    assert "key_file_open_to_others" not in caplog.text
    (tmp_path / "data" / "master.key").chmod(0o644)
    async with haptera.open(tmp_path / "data"):
        pass
    assert "key_file_open_to_others" in caplog.text


async def test_a_file_that_opens_nothing_any_more_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    async with haptera.open(tmp_path / "data", master_key_file=path):
        pass
    (tmp_path / "data" / "master.key").write_bytes(bytes(32))
    async with haptera.open(tmp_path / "data", master_key_file=path):
        pass
    assert "unused_master_key" in caplog.text
