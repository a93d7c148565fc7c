"""``haptera import`` against a served node."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from haptera.cli.transfer.import_state import ImportPlace
from haptera.client import connect
from haptera.testing import node_in_thread
from tests.integration.commands import run
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        yield url


def stored(url: str, prefix: str = "") -> dict[str, str]:
    async def scan() -> dict[str, str]:
        async with connect(url) as db:
            return {entry.key: entry.text async for entry in db.scan(prefix=prefix)}

    return asyncio.run(scan())


def rows(count: int) -> list[tuple[str, str]]:
    return [(f"name-{n:06}", f"1.{n}\t2024-0{n % 9}\tsummary \\ “{n}” of it") for n in range(count)]


def lines(pairs: list[tuple[str, str]]) -> bytes:
    return "".join(f"{key}\t{value}\n" for key, value in pairs).encode()


def test_compressed_file_is_stored_whole(url: str, tmp_path: Path) -> None:
    pairs = rows(4321)
    file = tmp_path / "rows.tsv.gz"
    file.write_bytes(gzip.compress(b"name\tversion\tmonth\tsummary\n" + lines(pairs)))
    ended = run("import", str(file), "--header", "--prefix", "pkg/")
    assert (ended.code, ended.err) == (0, "")
    assert ended.text.startswith("4321 rows stored in ")
    assert run("count", "--prefix", "pkg/").text == "4321\n"
    assert stored(url) == {f"pkg/{key}": value for key, value in pairs}


def test_later_row_of_a_key_wins(url: str, tmp_path: Path) -> None:
    pairs = [(f"k{n % 700}", str(n)) for n in range(7000)]
    file = tmp_path / "rows.tsv"
    file.write_bytes(lines(pairs))
    ended = run("import", str(file), "--json")
    assert json.loads(ended.out)["stored"] == 7000
    assert stored(url) == dict(pairs)


def test_options_that_are_no_utf8(url: str, tmp_path: Path) -> None:
    """Trap: an argument of the command line that is not UTF-8, and ends it with a traceback."""
    file = tmp_path / "rows.tsv"
    file.write_bytes(b"\xff no row\na\t1\n")
    ended = run("import", str(file), "--url", url, "--prefix", "\udcff", "--comment", "\udcff")
    assert ended.code == 2
    assert "line 2: a key that is not UTF-8; 0 rows are certainly stored" in ended.err


def test_columns(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(b"\xef\xbb\xbfid\tname\tsize\r\n1\tone\t10\r\n\n2\ttwo\t20\r\n")
    assert run("import", str(file), "--header", "--key-column", "name", "--value-column", "3").code == 0
    assert run("import", str(file), "--header", "--prefix", "id/").code == 0
    assert stored(url) == {"one": "10", "two": "20", "id/1": "one\t10", "id/2": "two\t20"}
    unknown = run("import", str(file), "--header", "--key-column", "nmae")
    assert unknown.code == 2
    assert "no key column 'nmae' (the header has id, name, size)" in unknown.err


def test_bad_line_ends_the_import_with_its_number_and_an_exact_count(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(lines(rows(1200)) + b"no tab in this line\n" + b"behind\tit\n")
    ended = run("import", str(file), "--json")
    assert ended.code == 2
    summary = json.loads(ended.out)
    assert (summary["stored"], summary["uncertain"], summary["stopped_at_line"]) == (1200, 0, 1201)
    assert json.loads(ended.err)["error"]["message"] == (
        "line 1201: 1 column where at least 2 are needed; 1200 rows are certainly stored; stopped at line 1201"
    )
    assert len(stored(url)) == 1200
    skipping = run("import", str(file), "--skip-bad")
    assert (skipping.code, skipping.err) == (0, "")
    assert skipping.text.endswith(", 1 bad line skipped\n")
    assert stored(url)["behind"] == "it"


def test_damaged_file_is_told_with_what_was_stored(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv.gz"
    file.write_bytes(gzip.compress(lines(rows(5000)))[:-2000])
    ended = run("import", str(file), "--json")
    summary = json.loads(ended.out)
    assert ended.code == 2
    assert "damaged" in ended.err
    assert summary["stored"] == len(stored(url)) == summary["stopped_at_line"] - 1 > 0


def test_missing_file_empty_file_and_file_without_rows(url: str, tmp_path: Path) -> None:
    assert run("import", str(tmp_path / "none")).code == 2
    assert run("import", str(tmp_path)).code == 2
    (tmp_path / "empty").write_bytes(b"")
    assert run("import", str(tmp_path / "empty"), "--header").code == 0
    (tmp_path / "blank").write_bytes(b"\n\n")
    blank = run("import", str(tmp_path / "blank"))
    assert (blank.code, blank.out) == (2, b"")
    assert blank.err.startswith("haptera: the file is not empty, and has no rows; 0 rows are certainly stored")
    assert stored(url) == {}


def test_refused_import_names_the_next_step(tmp_path: Path, short_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(lines(rows(2)))
    with serving(short_path / "data", auth=True) as served:
        url = served.ready().url
        ended = run("import", str(file), "--url", url)
        assert "0 rows are certainly stored; stopped at line 1\n  name a user: --user NAME" in ended.err
        told = json.loads(run("import", str(file), "--url", url, "--json").err)["error"]
        assert told["help"].startswith("name a user: --user NAME")


def test_progress_is_shown_on_a_terminal(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(lines(rows(1500)))
    ended = run("import", str(file), terminal=True)
    assert ended.code == 0
    assert "1,500 rows" in ended.err
    assert ended.text.startswith("1500 rows stored")


def haptera(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    environ.pop("HAPTERA_URL", None)
    return subprocess.Popen([sys.executable, "-m", "haptera", *args], env=environ, **options)


@contextmanager
def node(path: Path) -> Iterator[tuple[Serving, str]]:
    """A node in a process of its own, and its address, which the next one on the same data has as well."""
    with serving(path / "data") as process:
        process.ready()
        yield process, f"haptera+unix://{path}/data/haptera.sock"


def begin_import(url: str, pairs: list[tuple[str, str]], timeout: str) -> subprocess.Popen[bytes]:
    """An import that has stored ``pairs`` and waits for more."""
    importing = haptera(
        *("import", "-", "--url", url, "--timeout", timeout, "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert importing.stdin is not None
    importing.stdin.write(lines(pairs))
    importing.stdin.flush()
    while int(run("count", "--url", url).text) < len(pairs):
        assert importing.poll() is None
        time.sleep(0.02)
    return importing


def test_node_killed_in_the_middle_ends_the_import_with_an_honest_count(short_path: Path) -> None:
    pairs = rows(3000)
    with node(short_path) as (serve, url), begin_import(url, pairs[:1000], "0.5") as importing:
        serve.signal(signal.SIGKILL)
        serve.end()
        out, err = importing.communicate(lines(pairs[1000:]))
    summary = json.loads(out)
    assert importing.returncode == 3
    assert (summary["stored"], summary["stopped_at_line"]) == (1000, 1001)
    assert b"1000 rows are certainly stored" in err
    with node(short_path) as (_, url):
        assert stored(url) == dict(pairs[:1000])


def test_node_that_comes_back_in_time_is_only_a_delay(short_path: Path) -> None:
    pairs = rows(3000)
    with node(short_path) as (serve, url), begin_import(url, pairs[:1000], "60") as importing:
        serve.signal(signal.SIGKILL)
        serve.end()
        assert importing.stdin is not None
        importing.stdin.write(lines(pairs[1000:]))
        importing.stdin.close()
        with node(short_path):
            assert importing.wait() == 0
            assert importing.stdout is not None
            assert json.loads(importing.stdout.read())["stored"] == 3000
            assert stored(url) == dict(pairs)


# -- an import that goes on


def cut_import(path: Path) -> tuple[Path, Path]:
    """A file of 1,500 rows of which the 1,200th is bad, imported as far as that, and its place."""
    file = path / "rows.jsonl"
    rows_of_it = [json.dumps({"key": f"k{n}", "value": str(n)}) for n in range(1500)]
    rows_of_it[1199] = "bad"
    file.write_text("\n".join(rows_of_it) + "\n")
    ended = run("import", str(file), "--resume")
    assert ended.code == 2
    assert "1199 rows are certainly stored; stopped at line 1200" in ended.err
    assert "the same command goes on from there" in ended.err
    return file, path / "rows.jsonl.haptera-import"


def test_a_mended_row_behind_the_place_is_stored_by_the_same_command(url: str, tmp_path: Path) -> None:
    file, place = cut_import(tmp_path)
    run("set", "k7", "changed")  # it is before the place, and stays
    file.write_text(file.read_text().replace("bad", '{"key": "k1199", "value": "mended"}'))
    ended = run("import", str(file), "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert ended.text.startswith("301 rows stored in ")
    assert ended.text.endswith(", 1199 rows before\n")
    assert not place.exists()
    wanted = {f"k{n}": str(n) for n in range(1500)}
    assert stored(url) == wanted | {"k1199": "mended", "k7": "changed"}


def test_a_file_whose_stored_beginning_has_changed_is_refused(url: str, tmp_path: Path) -> None:
    file, place = cut_import(tmp_path)
    before, noted = stored(url), place.read_bytes()
    content = file.read_bytes()
    for changed in (content.replace(b'"k3"', b'"k4"', 1), content[:100]):
        file.write_bytes(changed)
        ended = run("import", str(file), "--resume")
        assert ended.code == 2
        assert "line 1199: the file has changed: the rows up to here are not the ones that are stored" in ended.err
        assert (stored(url), place.read_bytes()) == (before, noted)


def test_other_options_and_another_store_are_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = cut_import(tmp_path)
    ended = run("import", str(file), "--resume", "--prefix", "a/", "--skip-bad")
    assert ended.code == 2
    assert "was begun with other values of prefix, skip_bad" in ended.err
    with node_in_thread(listen="tcp") as other:
        monkeypatch.setenv("HAPTERA_URL", other)
        ended = run("import", str(file), "--resume")
        assert ended.code == 2
        assert "is of an import into another store" in ended.err
        assert stored(other) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"format":2}',
        b"\xff",
        b'"x"',
        b'{"format":1,"store":null,"options":{},"place":-1}',
    ],
)
def test_a_place_that_is_none_is_refused(url: str, tmp_path: Path, content: bytes) -> None:
    file, place = cut_import(tmp_path)
    place.write_bytes(content)
    ended = run("import", str(file), "--resume")
    assert ended.code == 2
    assert "is not the place of an import that this version knows" in ended.err
    assert place.read_bytes() == content


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_a_place_that_is_no_regular_file_is_refused_and_nothing_is_written_through_it(
    url: str, tmp_path: Path, kind: str
) -> None:
    file, place = cut_import(tmp_path)
    target = tmp_path / "target"
    if kind == "pipe":
        place.unlink()
        os.mkfifo(place)
    else:
        place.rename(target)
        place.symlink_to(target)
    content = target.read_bytes() if kind == "link" else None
    if kind == "link to nothing":
        target.unlink()
    ended = run("import", str(file), "--resume")
    assert ended.code == 2
    assert f"{place} is no regular file; without that file the import begins at the first line" in ended.err
    assert (target.read_bytes() if target.exists() else None) == content


def test_a_link_that_is_put_in_the_place_of_the_place_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    found = ImportPlace(str(tmp_path / "rows.tsv"), None, {})
    Path(found.path).symlink_to(target)
    found.note()
    assert target.read_text() == "precious"
    assert not Path(found.path).is_symlink()


def test_the_place_of_another_user_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, place = cut_import(tmp_path)
    other = os.geteuid() + 54321
    if os.geteuid() == 0:
        os.chown(place, other, -1)
    else:
        monkeypatch.setattr("haptera.cli.transfer.import_state.os.geteuid", lambda: other)
    ended = run("import", str(file), "--resume")
    assert ended.code == 2
    assert f"{place} belongs to another user" in ended.err


def test_names_in_a_place_reach_no_terminal_as_they_are(url: str, tmp_path: Path) -> None:
    file, place = cut_import(tmp_path)
    state = json.loads(place.read_bytes())
    for crafted in ({"options": {"\x1b[2J": "x"}}, {"store": "\x1b[2J"}):
        place.write_text(json.dumps(state | crafted))
        ended = run("import", str(file), "--resume")
        assert ended.code == 2
        assert "\x1b" not in ended.err
        assert "[2J" in ended.err


def test_input_that_cannot_be_read_again_has_no_place(url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    holder = os.open(pipe, os.O_RDWR)  # so that a read need not wait for a writer
    try:
        for file in ("-", str(pipe)):
            ended = run("import", file, "--resume", stdin=b"k\tv\n")
            assert ended.code == 2
            assert "--resume needs a file that can be read again" in ended.err
    finally:
        os.close(holder)
    assert stored(url) == {}
