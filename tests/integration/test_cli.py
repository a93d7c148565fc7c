"""The command line against a served node: what it writes, and what it ends with."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera import Request, Service, listen, method
from haptera.cli import grant, lease, maintenance, role, token, user
from haptera.cli.client_command import Client
from haptera.cli.main import COMMANDS
from haptera.cli.transfer import store_rows
from haptera.peer import listen_and_dial
from haptera.testing import node_in_thread
from haptera.transport import connect_first
from tests.integration.commands import Ended, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HELLO, REQUEST = 0x01, 0x10


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


@pytest.fixture
def haptera(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HAPTERA_URL", url)
    return run


def ok(ended: Ended) -> str:
    assert (ended.code, ended.err) == (0, "")
    return ended.text


def test_set_get_del(haptera: Any) -> None:
    assert ok(haptera("set", "k", "grün")) == "1\n"
    assert ok(haptera("get", "k")) == "grün\n"
    assert ok(haptera("get", "k", "--raw")) == "grün"
    assert ok(haptera("del", "k")) == "1\n"
    missing = haptera("get", "k")
    assert (missing.code, missing.out) == (1, b"")
    assert missing.err == "haptera: KEY_NOT_FOUND (4001): the key does not exist: 'k'\n"
    assert haptera("del", "k").code == 1
    assert haptera("del", "k").out == b"0\n"


def test_keys_that_expire(haptera: Any) -> None:
    assert ok(haptera("set", "k", "v", "--ttl", "60")) == "1\n"
    assert 59 < float(ok(haptera("ttl", "k"))) <= 60
    assert json.loads(ok(haptera("get", "k", "--json")))["expires_at"] > 0
    assert ok(haptera("set", "k", "w", "--keep-ttl")) == "2\n"
    assert ok(haptera("persist", "k")) == "3\n"
    assert ok(haptera("ttl", "k")) == "none\n"
    assert json.loads(ok(haptera("ttl", "k", "--json"))) == {"key": "k", "ttl": None}
    assert json.loads(ok(haptera("expire", "k", "0.02", "--json"))) == {"key": "k", "version": 4}
    time.sleep(0.05)
    for command in (("ttl", "k"), ("persist", "k"), ("expire", "k", "5"), ("get", "k")):
        ended = haptera(*command)
        assert (ended.code, ended.out) == (1, b"")
        assert "KEY_NOT_FOUND" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ("set", "k", "v", "--ttl", "0"),
        ("set", "k", "v", "--ttl", "nan"),
        ("set", "k", "v", "--ttl", "1e10"),
        ("set", "k", "v", "--ttl", "5", "--keep-ttl"),
        ("expire", "k"),
        ("expire", "k", "-5"),
    ],
)
def test_a_time_that_no_key_may_have_is_a_mistake_of_usage(haptera: Any, command: tuple[str, ...]) -> None:
    assert haptera(*command).code == 2
    assert haptera("get", "k").code == 1


def test_metrics(haptera: Any) -> None:
    ok(haptera("set", "k", "v"))
    lines = dict(line.split("\t") for line in ok(haptera("metrics")).splitlines())
    assert (lines["keys"], lines["kv_writes_total"]) == ("1", "1")
    assert lines['requests_total{method="kv.set"}'] == "1"
    assert float(lines["wire_received_bytes_total"]) > 0
    chosen = json.loads(ok(haptera("metrics", "keys", "log_", "--json")))
    assert set(chosen) > {"keys", "log_entries_total"}
    assert all(name.startswith(("keys", "log_")) for name in chosen)
    assert "log_entries_total" in haptera("metrics", terminal=True).text


def test_metrics_of_a_name_that_is_not_there(haptera: Any) -> None:
    told = "haptera: no metric's name begins with 'nosuch'\n"
    assert haptera("metrics", "nosuch") == Ended(1, b"", told)
    assert haptera("metrics", "nosuch", "--watch", "1") == Ended(1, b"", told)
    document = json.loads(haptera("metrics", "nosuch", "--json").err)
    assert document == {"error": {"message": "no metric's name begins with 'nosuch'"}, "exit_code": 1}
    one = haptera("metrics", "nosuch", "revision")
    assert (one.code, one.text, one.err) == (1, "revision\t0\n", told)


def test_values_are_bytes_in_a_pipe_and_shown_safely_on_a_terminal(haptera: Any) -> None:
    value = b"line\n\x1b[31mred\xff\0"
    ok(haptera("set", "k", "-", stdin=value))
    assert haptera("get", "k").out == value + b"\n"
    assert haptera("get", "k", "--raw").out == value
    assert haptera("get", "k", "--raw", terminal=True).out == value
    assert haptera("get", "k", terminal=True).text == "line\n\\x1b[31mred\\xff\\x00\n"


@pytest.mark.parametrize("value", [b"\xff" * 8 * 1024 * 1024, "é".encode() * 10_000, b"x" + "é".encode() * 10_000])
def test_of_a_large_value_a_terminal_shows_the_beginning(haptera: Any, value: bytes) -> None:
    haptera("set", "large", "-", stdin=value)
    ended = haptera("get", "large", terminal=True)
    assert ended.code == 0
    assert len(ended.out) < 5 * 16 * 1024
    assert ended.text.endswith("é…\n" if value[-1:] != b"\xff" else "\\xff…\n")
    assert f"the first 16,384 of {len(value):,} bytes; --raw writes all" in ended.err
    assert haptera("get", "large", "--raw", terminal=True).out == value
    assert haptera("get", "large").out == value + b"\n"


def test_json(haptera: Any) -> None:
    assert json.loads(ok(haptera("set", "t", "text", "--json"))) == {"key": "t", "version": 1}
    ok(haptera("set", "b", "-", stdin=b"\xff"))
    assert json.loads(ok(haptera("get", "t", "--json"))) == {
        "key": "t",
        "value": "text",
        "version": 1,
        "expires_at": None,
    }
    assert json.loads(ok(haptera("get", "b", "--json")))["value_base64"] == "/w=="
    lines = [json.loads(line) for line in ok(haptera("scan", "--json", "--keys-only")).splitlines()]
    assert lines == [{"key": "b", "version": 2, "expires_at": None}, {"key": "t", "version": 1, "expires_at": None}]
    assert json.loads(ok(haptera("count", "--json"))) == {"count": 2}
    assert json.loads(ok(haptera("incr", "n", "--json"))) == {"key": "n", "value": 1}
    assert json.loads(ok(haptera("del", "t", "b", "x", "--json"))) == {"deleted": 2}
    status = json.loads(ok(haptera("status", "--json")))
    assert (status["keys"], status["durability"]) == (1, "sync")


def test_conditions_end_with_1(haptera: Any) -> None:
    ok(haptera("set", "k", "1", "--if-absent"))
    failed = haptera("set", "k", "2", "--if-version", "9")
    assert failed.code == 1
    assert failed.err.startswith("haptera: VERSION_MISMATCH (4002): ")
    assert failed.err.endswith(": 'k' (expected 9, actual 1)\n")
    assert haptera("set", "k", "2", "--if-absent").code == 1
    assert haptera("set", "x", "2", "--if-present").code == 1
    assert haptera("del", "k", "--if-version", "9").code == 1
    assert ok(haptera("set", "k", "2", "--if-version", "1")) == "2\n"
    assert haptera("set", "", "v").code == 2
    assert haptera("set", "k", "v", "--if-absent", "--if-present").code == 2
    assert haptera("del", "a", "b", "--if-version", "1").code == 2


def test_incr_takes_negative_numbers_with_and_without_dashes(haptera: Any) -> None:
    assert ok(haptera("incr", "n", "5")) == "5\n"
    assert ok(haptera("incr", "n", "-7")) == "-2\n"
    assert ok(haptera("incr", "n", "--", "-1")) == "-3\n"
    assert ok(haptera("incr", "m", "--initial", "-5", "-1", "--timeout", "9")) == "-6\n"
    assert haptera("incr", "n", "--json-typo").code == 2
    ok(haptera("set", "n", "no number"))
    assert haptera("incr", "n").code == 1


def test_scan_and_count(haptera: Any) -> None:
    for key, value in (("a/1", "x\ty"), ("a/2", "back\\slash\n"), ("b", "z")):
        ok(haptera("set", key, value))
    ok(haptera("set", "b/bin", "-", stdin=b"\xff"))
    assert ok(haptera("scan")) == "a/1\t$'x\\ty'\na/2\t$'back\\\\slash\\n'\nb\tz\nb/bin\t$'\\xff'\n"
    assert ok(haptera("scan", "--prefix", "a/", "--reverse", "--keys-only")) == "a/2\na/1\n"
    assert ok(haptera("scan", "--start", "a/2", "--end", "b/", "--limit", "1", "--keys-only")) == "a/2\n"
    assert ok(haptera("count", "--glob", "?/*")) == "3\n"
    assert ok(haptera("count", "--prefix", "none")) == "0\n"


def test_scans_go_on_behind_a_key(haptera: Any) -> None:
    for key in ("a", "a/b", "b", "c"):
        ok(haptera("set", key, ""))
    assert ok(haptera("scan", "--keys-only", "--after", "a", "--limit", "2")) == "a/b\nb\n"
    assert ok(haptera("scan", "--keys-only", "--after", "b", "--reverse")) == "a/b\na\n"
    assert ok(haptera("scan", "--keys-only", "--after", "a", "--end", "b")) == "a/b\n"
    assert haptera("scan", "--after", "a", "--start", "b").code == 2
    assert haptera("scan", "--after", "a", "--end", "b", "--reverse").code == 2


def test_several_keys(haptera: Any) -> None:
    ok(haptera("set", "a", "1"))
    ok(haptera("set", "b", "two\nlines"))
    assert ok(haptera("get", "b", "a")) == "b\t$'two\\nlines'\na\t1\n"
    some = haptera("get", "a", "x", "b", "y")
    assert (some.code, some.text) == (1, "a\t1\nb\t$'two\\nlines'\n")
    assert [line.endswith(f": '{key}'") for key, line in zip("xy", some.err.splitlines(), strict=True)] == [True, True]
    lines = [json.loads(line) for line in ok(haptera("get", "a", "b", "--json")).splitlines()]
    assert [(line["key"], line["value"]) for line in lines] == [("a", "1"), ("b", "two\nlines")]
    assert "two\\nlines" in haptera("get", "a", "b", terminal=True).text
    assert haptera("get", "a", "b", "--raw").code == 2


def test_exists_and_rename(haptera: Any) -> None:
    ok(haptera("set", "a", "1"))
    assert ok(haptera("exists", "a")) == "true\n"
    missing = haptera("exists", "x")
    assert (missing.code, missing.text, missing.err) == (1, "false\n", "")
    assert json.loads(ok(haptera("exists", "a", "--json"))) == {"key": "a", "exists": True}
    assert ok(haptera("rename", "a", "b")) == "2\n"
    assert haptera("rename", "a", "b").code == 1
    ok(haptera("set", "a", "2"))
    assert haptera("rename", "a", "b", "--if-absent").code == 1
    assert json.loads(ok(haptera("rename", "a", "b", "--json"))) == {"key": "b", "version": 4}
    assert ok(haptera("get", "b")) == "2\n"


def script(tmp_path: Path, *lines: str) -> str:
    """A file with these lines."""
    path = tmp_path / "lines.txn"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_txn_makes_all_changes_or_none(haptera: Any, tmp_path: Path) -> None:
    ok(haptera("set", "stock", "3"))
    file = script(
        tmp_path,
        "# a sale",
        '{"compare": ["stock", "version", "=", 1]}',
        '{"compare": ["order", "exists", "=", false]}',
        "",
        '{"then": ["increment", "stock", -1]}',
        '{"then": ["set", "order", {"base64": "AAH/"}, {"if": "absent"}]}',
        '{"then": ["get", "order"]}',
        '{"then": ["exists", "none"]}',
        '{"otherwise": ["get", "stock"]}',
        '{"otherwise": ["get", "none"]}',
    )
    made = "then\t2\nincrement\tstock\t2\nset\torder\t2\nget\torder\t\\x00\\x01\\xff\nexists\tnone\tfalse\n"
    assert ok(haptera("txn", file)) == made
    again = haptera("txn", file)
    assert (again.code, again.text, again.err) == (1, "otherwise\nget\tstock\t2\nget\tnone\n", "")
    as_json = haptera("txn", file, "--json")
    entry = {"key": "stock", "value": "2", "version": 2, "expires_at": None}
    assert as_json.code == 1
    assert json.loads(as_json.text) == {"succeeded": False, "version": None, "results": [entry, None]}


def test_txn_names_the_line_of_the_operation_that_failed(haptera: Any, tmp_path: Path) -> None:
    ok(haptera("set", "a", "text"))
    lines = ["# 1", '{"then": ["set", "b", "1"]}', '{"then": ["increment", "a", 1]}']
    failed = haptera("txn", script(tmp_path, *lines), "--json")
    error = json.loads(failed.err)
    assert (failed.code, error["error"]["name"], error["error"]["outcome"]) == (1, "NOT_AN_INTEGER", "not_applied")
    assert error["error"]["details"] == {"key": "a", "branch": "then", "operation": 1, "line": 3}
    assert haptera("get", "b").code == 1
    too_long = haptera(
        "txn", script(tmp_path, "{}".replace("{}", '{"compare": ["k", "version", "=", 0]}'), *lines[:2] * 130)
    )
    assert (too_long.code, "TRANSACTION_TOO_LARGE" in too_long.err) == (2, True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "object"),
        ('{"compare": ["a", "exists", "=", true], "compare": ["b", "exists", "=", true]}', "the same member twice"),
        ('{"then": ["set", "a", "", {"if_version": 9, "if_version": 0}]}', "the same member twice"),
        ('{"then": ["increment", "a", 99999999999999999999]}', "a number of increment is between"),
        ('{"then": ["increment", "a", NaN]}', "NaN is no number"),
        ('{"then": [["get"], "a"]}', "an operation of a transact is one of"),
        ('{"compare": ["a", "version", {}, 1]}', "a compare is by"),
        ('{"then": 5}', "array"),
        ('{"then": ["get", "a"], "otherwise": []}', "an object has one member"),
        ('{"if": ["get", "a"]}', "an object has one member"),
        ('{"then": ["get"]}', "an operation is a name, a key"),
        ('{"then": ["clear", "a"]}', "an operation of a transact is one of get, set, delete"),
        ('{"then": ["get", 5]}', "a key is a str"),
        ('{"then": ["set", "a", 5]}', "a value is a str or bytes"),
        ('{"then": ["set", "a", {"base64": "A"}]}', "base64"),
        ('{"then": ["set", "a", {"base64": 5}]}', "base64 is text"),
        ('{"compare": ["a", "version", "="]}', "a compare is a key"),
        ('{"compare": ["a", "version", "~", 1]}', "a compare is by"),
        ('{"compare": ["a", "age", "=", 1]}', "a compare is of version"),
        ('{"compare": ["a", "version", "=", "1"]}', "a version is an int"),
    ],
)
def test_txn_names_the_line_that_it_cannot_read_and_sends_nothing(line: str, reason: str, tmp_path: Path) -> None:
    ended = run("--url", "haptera://127.0.0.1:1", "txn", script(tmp_path, '{"then": ["get", "a"]}', line))
    assert ended.code == 2
    assert "line 2: " in ended.err
    assert reason in ended.err


def test_txn_without_a_file(haptera: Any, tmp_path: Path) -> None:
    missing = haptera("txn", str(tmp_path / "none"))
    assert (missing.code, "cannot read" in missing.err) == (2, True)
    assert ok(haptera("txn", script(tmp_path, "# nothing"))) == "then\n"


def test_clear_wants_to_be_told_what(haptera: Any) -> None:
    for key in ("a/1", "a/2", "b"):
        ok(haptera("set", key, ""))
    for args in ((), ("--prefix", ""), ("--prefix", "a/", "--all")):
        assert haptera("clear", *args).code == 2
    assert ok(haptera("clear", "--prefix", "a/")) == "2\n"
    assert json.loads(ok(haptera("clear", "--all", "--json"))) == {"deleted": 1}
    assert ok(haptera("clear", "--all")) == "0\n"


def test_clear_asks_on_a_terminal(haptera: Any) -> None:
    for answer, code, left in ((b"\n", 1, "2\n"), (b"n\n", 1, "2\n"), (b"", 130, "2\n"), (b"y\n", 0, "0\n")):
        ok(haptera("set", "a\x1b", ""))
        ok(haptera("set", "ab", ""))
        ended = haptera("clear", "--prefix", "a", terminal=True, stdin=answer)
        assert ended.err.startswith("Delete 2 keys that begin with 'a'? [y/N]: ")
        assert ended.code == code
        assert ok(haptera("count")) == left
    assert haptera("clear", "--all", "--yes", terminal=True).err == ""


def test_status_says_which_node_it_reached(haptera: Any, url: str) -> None:
    assert ok(haptera("status")).startswith(f"url: {url}\n")
    assert json.loads(ok(haptera("status", "--json", "--url", f"{url}?timeout=3")))["url"] == url
    nobody = "haptera://127.0.0.1:1"
    assert json.loads(ok(haptera("status", "--json", "--url", f"{nobody},{url[10:]}")))["url"] == url


def test_tables_on_a_terminal(haptera: Any) -> None:
    ok(haptera("set", "key", "[red]\x1b]0;title\x07"))
    shown = haptera("scan", terminal=True).text
    assert "key" in shown
    assert "[red]\\x1b]0;title\\x07" in shown
    assert "durability" in haptera("status", terminal=True).text
    assert "durability: sync\n" in ok(haptera("status"))


def test_nobody_there_is_exit_code_3() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"haptera://127.0.0.1:{free.getsockname()[1]}"
    ended = run("get", "k", "--url", url)
    assert ended.code == 3
    assert ended.err.count("\n") == 1
    assert "cannot connect" in ended.err


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (("set", "k", "v"), b"1\n"),
        (("metrics", "log_full"), b"log_full_total\t0\n"),
        (("bench", "read", "--keys", "1", "--count", "1", "--warmup", "0"), None),
    ],
    ids=["set", "metrics", "bench"],
)
def test_command_that_is_told_to_waits_for_its_server(
    command: tuple[str, ...], result: bytes | None, tmp_path: Path
) -> None:
    """Trap: the first connection is never waited for. Here the server starts when the command is under way."""
    url = f"haptera+unix://{tmp_path}/s"
    command = (sys.executable, "-m", "haptera", *command, "--url", url, "--wait", "--timeout", "30")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        impatient = run("get", "k", "--url", url)
        assert (impatient.code, impatient.out) == (3, b"")
        assert waiting.poll() is None
        with node_in_thread(listen=[url]):
            out, err = waiting.communicate()
    assert (waiting.returncode, err) == (0, b"")
    assert out == result or result is None


def accepting(*args: str, then: str) -> Ended:
    """Runs a command whose server takes its request, says nothing, and then is lost or goes on being silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if then == "silence":
                    finished.wait()

        finished = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return run(*args, "--url", f"haptera://127.0.0.1:{server.getsockname()[1]}")
        finally:
            finished.set()
            thread.join()


def test_a_change_that_was_lost_after_it_was_sent_is_exit_code_6() -> None:
    """Trap: an outcome that is not told."""
    ended = accepting("incr", "n", then="end")
    assert ended.code == 6
    assert ended.err.endswith("; the change may have been applied\n")
    assert accepting("get", "n", then="end").code == 3


def test_a_timeout_names_the_server_and_says_that_it_never_answered(tmp_path: Path) -> None:
    """Trap: an outcome that is not told."""
    rows = tmp_path / "rows.tsv"
    rows.write_bytes(b"a\tb\n")
    ended = accepting("incr", "n", "--timeout", "0.2", "--json", then="silence")
    told = json.loads(ended.err)
    assert ended.code == told["exit_code"] == 6
    assert told["error"]["outcome"] == "unknown"
    assert told["error"]["answered"] is False
    assert told["error"]["server"].startswith("haptera://127.0.0.1:")
    ended = accepting("import", str(rows), "--timeout", "0.2", then="silence")
    assert ended.code == 6
    assert (
        " took the connection and never answered; 0 rows are certainly stored, 1 may be; stopped at line 1\n"
        in ended.err
    )
    told = json.loads(accepting("import", str(rows), "--timeout", "0.2", "--json", then="silence").err)
    assert (told["error"]["code"], told["error"]["answered"], told["error"]["uncertain"]) == (3005, False, 1)
    export = ("export", str(tmp_path / "rows.jsonl"))
    for command in (("get", "n"), export, ("metrics",), ("metrics", "--watch", "1"), ("bench", "read")):
        ended = accepting(*command, "--timeout", "0.2", then="silence")
        assert ended.code == 3
        assert ended.err.startswith("haptera: ")
        assert re.search(r"haptera://127\.0\.0\.1:\d+", ended.err), ended.err


class Mute(Service):
    """A server whose first sample never comes."""

    name = "server"

    @method
    async def watch_metrics(self, request: Request) -> None:
        await asyncio.Event().wait()

    @method
    async def metrics(self, request: Request) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("watch", [(), ("--watch", "1")], ids=["once", "watch"])
async def test_metrics_have_one_timeout_for_connecting_and_the_first_sample(
    watch: tuple[str, ...], short_path: Path
) -> None:
    async with listen(f"haptera+unix://{short_path}/s", services=[Mute()]) as server:
        command = ("metrics", *watch, "--timeout", "0.2", "--url", server.url, "--json")
        ended = await asyncio.to_thread(run, *command)
        told = json.loads(ended.err)
        assert (ended.code, told["error"]["code"], told["error"]["answered"]) == (5, 3005, True)


def test_what_connecting_took_is_not_left_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    class Connected:
        async def call(self, *_: object, timeout: float) -> bytes:
            left.append(timeout)
            return msgspec.msgpack.encode({})

    @asynccontextmanager
    async def slowly(self: Client) -> AsyncIterator[Any]:
        await asyncio.sleep(0.05)
        yield Connected()

    monkeypatch.setattr(Client, "connect_peer", slowly)
    assert run("metrics", "--timeout", "5").code == 0
    assert left[0] <= 4.95


def test_errors_are_json_where_results_are(haptera: Any) -> None:
    missing = haptera("get", "k", "--json")
    assert (missing.code, missing.out) == (1, b"")
    assert json.loads(missing.err) == {
        "error": {"name": "KEY_NOT_FOUND", "code": 4001, "message": "the key does not exist", "details": {"key": "k"}},
        "exit_code": 1,
    }
    usage = json.loads(haptera("get", "--json").err)
    assert usage == {"error": {"message": "Missing argument 'KEY...'."}, "exit_code": 2}


def test_arguments_reach_no_terminal_as_they_came(haptera: Any) -> None:
    """Trap: an escape sequence in a file's name or an argument is echoed."""
    for args in (("import", "no\x1b[2Jfile"), ("bad\x9bcommand",), ("get", "k", "--timeout", "\x1b]0;x\x07")):
        ended = haptera(*args)
        assert ended.code == 2
        assert ended.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_is_none_is_a_usage_error(number: str) -> None:
    """Trap: NaN, which every comparison with a bound lets pass."""
    for args in (
        ("get", "k", "--timeout", number),
        ("metrics", "--watch", number),
        *(
            ("bench", "read", option, number)
            for option in ("--rate", "--duration", "--warmup", "--theta", "--read-ratio")
        ),
    ):
        ended = run(*args)
        assert (ended.code, ended.out) == (2, b""), ended.err


def test_a_number_beyond_its_range_is_a_usage_error() -> None:
    for args in (("scan", "--limit"), ("set", "k", "v", "--if-version"), ("incr", "k", "--initial")):
        for number in ("9" * 20, "-" + "9" * 20):
            ended = run(*args, number)
            assert (ended.code, ended.out) == (2, b""), ended.err


def test_options_of_the_client_may_stand_before_the_command(url: str) -> None:
    assert json.loads(ok(run("--url", url, "--json", "--timeout=3", "set", "k", "v"))) == {"key": "k", "version": 1}


def test_who_is_no_node_is_exit_code_3_or_5() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        ended = run("get", "k", "--url", f"haptera://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert ended.code in {3, 5}
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "credential", "code"),
    [
        ("option", "app:s3cret", 2),  # the command line is no place for it
        ("option", "app:s3c/r@et", 2),
        ("option", ":s3cret", 2),
        ("environment", "app:s3cret", 3),  # it is used, and no node answers
        ("environment", "app:s3c/r@et", 2),
        ("environment", ":s3cret", 2),
    ],
)
def test_a_password_in_a_url_is_never_shown(
    where: str, credential: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"haptera://{credential}@127.0.0.1:1"
    monkeypatch.setenv("HAPTERA_URL", url)
    ended = run("get", "k", *(["--url", url] if where == "option" else []))
    assert ended.code == code
    assert "s3c" not in ended.err
    assert "***" in ended.err or "password" in ended.err


def test_bad_urls_are_usage_errors() -> None:
    for url in (
        "redis://x",
        "haptera://app@h:1",
        "haptera://h:1?tls=yes",
        "haptera://h:99999",
        "haptera://h?timeout=-1",
    ):
        for command in (("get", "k"), ("metrics",), ("bench", "read"), ("bench", "echo")):
            ended = run(*command, "--url", url)
            assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err


def test_without_a_command_the_help_is_shown() -> None:
    ended = run()
    assert (ended.code, ended.out) == (2, b"")
    assert "\nCommands:\n" in ended.err
    ended = run("--json", "--url", "haptera://h")
    assert ended.code == 2
    assert json.loads(ended.err) == {"error": {"message": "Missing command."}, "exit_code": 2}


def test_usage_errors_and_help() -> None:
    assert run("no-such-command").code == 2
    assert run("get").code == 2
    assert run("get", "k", "--timeout", "0").code == 2
    assert run("--help").code == 0
    groups = {"lease": lease, "maintenance": maintenance, "user": user, "role": role, "grant": grant, "token": token}
    others = {"audit", "completion", "decode", "serve", "restore", "backup", "pitr", "storage", "dev-certs", *groups}
    clients = [[name] for name in COMMANDS if name not in others]
    grouped = [[group, name] for group, module in groups.items() for name in module.COMMANDS]
    for command in [*clients, ["backup", "create"], *grouped]:
        help_text = run(*command, "--help").text
        assert "--url" in help_text
        assert "--json" in help_text
    assert run("--version").text.startswith("haptera ")


def test_get_sends_hello_and_request_in_one_write_and_ends_after_one_round_trip(
    haptera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(haptera("set", "k", "v"))
    traffic: list[tuple[str, bytes]] = []
    client = threading.get_ident()
    protocol_of = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    write, read_ready = protocol_of.write, protocol_of._read_ready

    def counting_write(self: Any, data: bytes) -> None:
        if threading.get_ident() == client:
            traffic.append(("sent", bytes(data)))
        write(self, data)

    def counting_read(self: Any) -> None:
        if threading.get_ident() == client:
            traffic.append(("received", b""))
        read_ready(self)

    monkeypatch.setattr(protocol_of, "write", counting_write)
    monkeypatch.setattr(protocol_of, "_read_ready", counting_read)
    assert ok(haptera("get", "k")) == "v\n"
    assert traffic[0][0] == "sent"
    kinds = frame_types(traffic[0][1])
    assert [kind for kind in kinds if kind in {HELLO, REQUEST}] == [HELLO, REQUEST]
    # One write, then only reading until the answer: what is sent after it is the farewell.
    sent = [position for position, (way, _) in enumerate(traffic) if way == "sent"]
    received = [position for position, (way, _) in enumerate(traffic) if way == "received"]
    assert all(REQUEST not in frame_types(traffic[position][1]) for position in sent[1:])
    assert not any(received[0] < position < received[-1] for position in sent)


def frame_types(data: bytes) -> list[int]:
    kinds = []
    while data:
        kinds.append(data[3])
        data = data[28 + int.from_bytes(data[6:8], "big") + int.from_bytes(data[16:20], "big") :]
    return kinds


def process(url: str, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "haptera", *args],
        env=os.environ | {"HAPTERA_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_reader_that_has_gone_is_no_error(url: str) -> None:
    rows = "".join(f"k{n}\t{'v' * 100}\n" for n in range(5000))
    with process(url, "import", "-", stdin=subprocess.PIPE) as importing:
        importing.communicate(rows.encode())
    with process(url, "scan") as scanning:
        assert scanning.stdout is not None
        assert scanning.stderr is not None
        scanning.stdout.readline()
        scanning.stdout.close()
        assert scanning.stderr.read() == b""
        assert scanning.wait() == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [(("get", "k"), b""), (("incr", "k"), b"haptera: interrupted; the change may have been applied\n")],
)
def test_interrupted_command_ends_with_130(command: tuple[str, ...], said: bytes) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, process(f"haptera://127.0.0.1:{server.getsockname()[1]}", *command) as waiting:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)  # the request has been sent, and nobody will answer it
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait() == 130
        assert waiting.stderr is not None
        assert waiting.stderr.read() == said


def test_a_change_that_is_interrupted_before_it_was_sent_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: an outcome that is not told."""
    rows = tmp_path / "rows.tsv"
    rows.write_bytes(b"a\tb\n")
    monkeypatch.setattr(store_rows, "INTERRUPTED_SECONDS_MAX", 0.05)
    tried = connect_first

    async def interrupted(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(listen_and_dial, "connect_first", tried)
        signal.raise_signal(signal.SIGINT)
        return await tried(*args, **options)

    def ended(*command: str) -> Ended:
        monkeypatch.setattr(listen_and_dial, "connect_first", interrupted)
        return run(*command, "--url", "haptera://127.0.0.1:1", "--wait")

    assert ended("incr", "k") == Ended(130, b"", "haptera: interrupted; nothing was changed\n")
    told = json.loads(ended("incr", "k", "--json").err)
    assert told == {"error": {"message": "interrupted", "outcome": "not_applied"}, "exit_code": 130}
    told = ended("import", str(rows))
    assert (told.code, told.err) == (130, "haptera: interrupted; 0 rows are certainly stored; stopped at line 1\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which stands for a full disk")
@pytest.mark.parametrize("command", [("get", "k"), ("scan",), ("count",)])
def test_a_result_that_cannot_be_written_is_no_answer(command: tuple[str, ...], haptera: Any) -> None:
    """Neither 0 nor 1, which would say that there is no such key; and no traceback."""
    ok(haptera("set", "k", "-", stdin=bytes(100_000)))
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "haptera", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (14, "haptera: cannot write the result: No space left on device\n")


def test_a_warning_says_all_with_the_next_step_and_why_a_connection_ended_is_told_once(tmp_path: Path) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    other.write_bytes(b"o" * 32)
    other.chmod(0o644)
    with (
        node_in_thread(listen="tcp", signing_key_file=str(key)) as url,
        process(f"{url}?signed=psk&key_file={other}", "get", "k") as getting,
    ):
        _, err = getting.communicate()
    assert getting.returncode == 3
    warning, help_, reason = err.decode().splitlines()
    assert warning == f"haptera: warning: key_file_open_to_others: path {other}, mode 0o644"
    assert help_ == f"  chmod 600 {other}"
    assert reason.startswith("haptera: the ")
    assert "SIGNATURE_MISMATCH (1011)" in reason
