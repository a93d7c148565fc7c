"""``haptera export``, and what comes out of a store into another one."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from haptera.client import connect
from haptera.testing import node_in_thread
from tests.integration.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator

AWKWARD = {
    "plain": b"v",
    "tab": b"a\tb",
    "line ends": b"a\nb\r\nc\r",
    "backslash": b"C:\\new\\table",
    "binary": bytes(range(256)),
    "empty": b"",
    "key\twith tab": b"x",
    "key\nwith line end": b"\xff",
    "ünïcode/\U0001f600": "é".encode(),
    " spaces ": b" v ",
    "json": b'{"a": "b\\n"}',
    "$'quoted'": b"$'x'",
    "#comment": b"# no comment",
    '"quotes"': b'"',
    "comma, semicolon;": b"a,b;c",
    "{": b"[",
    "\ufeffmark": b"\xef\xbb\xbf",
    "nbsp\u00a0\u2028\x9b": b"\x1b[2J",
    "k" * 4096: b"x" * 300_000,
}


@pytest.fixture
def urls() -> Iterator[tuple[str, str]]:
    """A store that is filled, and one that is empty."""
    with ExitStack() as nodes:
        first, second = (nodes.enter_context(node_in_thread(listen="tcp")) for _ in range(2))
        asyncio.run(fill(first, AWKWARD))
        yield first, second


async def fill(url: str, entries: dict[str, bytes]) -> None:
    async with connect(url) as db:
        await db.set_many(entries)


def content(url: str) -> dict[str, bytes]:
    async def scan() -> dict[str, bytes]:
        async with connect(url) as db:
            return {entry.key: entry.value async for entry in db.scan()}

    return asyncio.run(scan())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.tsv", "rows.csv", "rows", "rows.tsv.gz", "rows.jsonl.gz"])
def test_what_is_exported_is_imported_byte_for_byte(urls: tuple[str, str], name: str, tmp_path: Path) -> None:
    """Trap: one command's output that is no input of its twin."""
    source, target = urls
    file = str(tmp_path / name)
    told = json.loads(run("export", file, "--url", source, "--json").out)
    assert (told["exported"], told["revision"]) == (len(AWKWARD), 1)
    assert (Path(file).read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    ended = run("import", file, "--url", target)
    assert (ended.code, ended.err) == (0, "")
    assert content(target) == AWKWARD


@pytest.mark.parametrize(
    "command", [("scan",), ("scan", "--json"), ("export", "-"), ("export", "-", "--format", "tsv")]
)
def test_what_goes_into_a_pipe_is_imported_byte_for_byte(urls: tuple[str, str], command: tuple[str, ...]) -> None:
    """Trap: one command's output that is no input of its twin."""
    source, target = urls
    ended = subprocess.run(
        [sys.executable, "-m", "haptera", "import", "-", "--url", target],
        input=run(*command, "--url", source).out,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert content(target) == AWKWARD


def test_a_range_is_exported_and_a_store_without_entries_too(urls: tuple[str, str], tmp_path: Path) -> None:
    source, target = urls
    assert run("export", "-", "--prefix", "pl", "--format", "csv", "--url", source).out == b'"plain","v"\r\n'
    file = tmp_path / "none.tsv"
    ended = run("export", str(file), "--url", target)
    assert (ended.code, ended.text.partition(" in ")[0]) == (0, "0 entries exported")
    assert file.read_bytes() == b""
    assert run("import", str(file), "--url", target).text.startswith("0 rows stored in ")


def test_a_file_that_cannot_be_written_is_told_and_what_was_stays(urls: tuple[str, str], tmp_path: Path) -> None:
    source, _ = urls
    ended = run("export", str(tmp_path / "none" / "rows"), "--url", source)
    assert (ended.code, ended.err) == (14, f"haptera: cannot write {tmp_path}/none/rows: No such file or directory\n")
    file = tmp_path / "rows.jsonl"
    file.write_text("before")
    assert run("export", str(file), "--url", "haptera://127.0.0.1:1").code == 3
    assert run("export", str(file), "--glob", "[", "--url", source).code == 2
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file], "nothing is left behind"
    assert run("export", str(file), "--url", source).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_pipe_with_a_name_is_written_as_it_is(urls: tuple[str, str], tmp_path: Path) -> None:
    source, _ = urls
    fifo = tmp_path / "pipe.tsv"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reading.start()
    assert run("export", str(fifo), "--prefix", "plain", "--url", source).code == 0
    reading.join()
    assert got == [b"plain\tv\n"]


def test_a_link_stays_a_link_and_a_name_of_standard_output_is_that(urls: tuple[str, str], tmp_path: Path) -> None:
    """Trap: a file that is replaced by a new one of its name, and was a device or a link for everyone."""
    source, _ = urls
    (tmp_path / "link.tsv").symlink_to(tmp_path / "target")
    for _ in range(2):
        assert run("export", str(tmp_path / "link.tsv"), "--prefix", "plain", "--url", source).code == 0
        assert (tmp_path / "link.tsv").is_symlink()
        assert (tmp_path / "target").read_bytes() == b"plain\tv\n"
    out = tmp_path / "out"
    (tmp_path / "stdout.tsv").symlink_to("/proc/self/fd/1" if Path("/proc/self/fd/1").exists() else "/dev/fd/1")
    with out.open("wb") as file:
        exporting = ["export", str(tmp_path / "stdout.tsv"), "--prefix", "plain", "--url", source]
        subprocess.run([sys.executable, "-m", "haptera", *exporting], stdout=file, check=True)
    assert out.read_bytes() == b"plain\tv\n"
    assert (tmp_path / "stdout.tsv").is_symlink()


def test_the_list_of_packages_is_stored_as_it_stands(urls: tuple[str, str], tmp_path: Path) -> None:
    """Raw data of other programs, with backslashes and quotes that are no escapes."""
    _, target = urls
    rows = {
        "slashr": "1.0.0\t2024-09\t\\r Never lose it",
        "csv": '1.9\t2024\t"\\t"',
        "sql": "1\t2\tFlask\\SQLAlchemy\\",
    }
    file = tmp_path / "packages.tsv.gz"
    lines = "".join(f"{key}\t{value}\n" for key, value in rows.items())
    file.write_bytes(gzip.compress(f"name\tversion\tmonth\tsummary\n{lines}".encode()))
    assert run("import", str(file), "--header", "--url", target).code == 0
    assert content(target) == {key: value.encode() for key, value in rows.items()}
    again = tmp_path / "again.tsv"
    assert run("export", str(again), "--url", target).code == 0
    assert run("import", str(again), "--prefix", "again/", "--url", target).code == 0
    stored = {key: value.encode() for key, value in rows.items()}
    assert content(target) == stored | {f"again/{key}": value for key, value in stored.items()}


def test_csv_is_not_written_to_a_terminal(urls: tuple[str, str]) -> None:
    """Trap: control characters that a terminal obeys. CSV cannot escape them."""
    source, _ = urls
    for command in (("export", "-", "--format", "csv"), ("export", "-", "--format", "csv", "--json")):
        ended = run(*command, "--url", source, terminal=True)
        assert (ended.code, ended.out) == (2, b"")
        assert "--format tsv escapes them" in ended.err
    assert run("export", "-", "--format", "tsv", "--url", source, terminal=True).code == 0


def test_ctrl_c_in_an_import_says_what_is_certainly_stored(urls: tuple[str, str]) -> None:
    """Trap: Ctrl-C after which nobody knows what was stored."""
    _, target = urls
    with subprocess.Popen(
        [sys.executable, "-m", "haptera", "import", "-", "--url", target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as importing:
        assert importing.stdin is not None
        importing.stdin.write(b"".join(b"k%d\tv\n" % n for n in range(1000)))
        importing.stdin.flush()
        while run("count", "--url", target).text != "1000\n":
            assert importing.poll() is None
            time.sleep(0.02)
        importing.send_signal(signal.SIGINT)
        assert importing.wait() == 130
        assert importing.stderr is not None
        told = b"haptera: interrupted; 1000 rows are certainly stored; stopped at line 1001\n"
        assert importing.stderr.read() == told


def test_an_entry_that_expires_does_so_in_the_other_store_too(urls: tuple[str, str], tmp_path: Path) -> None:
    source, target = urls
    file = str(tmp_path / "rows.jsonl")
    for key, options in (("ttl/a", ("--ttl", "600")), ("ttl/b", ()), ("ttl/c", ("--ttl", "2"))):
        assert run("set", key, key, *options, "--url", source).code == 0
    assert run("export", file, "--prefix", "ttl/", "--url", source).code == 0
    time.sleep(2)
    told = json.loads(run("import", file, "--url", target, "--json").out)
    assert (told["stored"], told["expired"]) == (2, 1)
    assert 590 < float(run("ttl", "ttl/a", "--url", target).out) <= 600
    assert run("ttl", "ttl/b", "--url", target).out == b"none\n"
    assert run("get", "ttl/c", "--url", target).code == 1


@pytest.mark.parametrize("name", ["rows.jsonl", "-"])
def test_keys_of_leases_are_told_because_an_import_lets_them_stay(
    urls: tuple[str, str], name: str, tmp_path: Path
) -> None:
    source, _ = urls
    file = name if name == "-" else str(tmp_path / name)
    assert run("export", file, "--url", source).err == ""

    async def lease() -> None:
        async with connect(source) as db:
            await db.set_many({"lock/a": b"", "lock/b": b""}, lease=await db.grant_lease(600.0))

    asyncio.run(lease())
    ended = run("export", file, "--url", source)
    assert ended.code == 0
    told = ended.err
    assert told.startswith("haptera: warning: leased_keys: 2 keys of the store end with a lease")
    assert "\n  choose a range without them" in told
