"""Lines of the shell from a pipe: the commands, transactions, forms of results, and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from haptera.cli.shell.examples import EXAMPLES, example_of
from haptera.cli.shell.line_words import parted
from haptera.cli.shell.words import SHARED, group
from haptera.testing import node_in_thread
from tests.integration.commands import Ended, run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


@pytest.fixture
def url(node: str) -> str:
    run("clear", "--all", "--yes", "--url", node)
    return node


def shell(url: str, *lines: str, options: tuple[str, ...] = ()) -> Ended:
    return run("shell", url, *options, stdin="\n".join(lines).encode(errors="surrogateescape"))


def test_lines_are_the_commands_of_haptera_over_one_connection(url: str) -> None:
    before = json.loads(run("status", "--json", "--url", url).out)["connections"]
    ended = shell(url, "set greeting 'hello there'", "", "# set greeting x", "get greeting", "status --json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.text.splitlines()[1] == "hello there"
    assert json.loads(ended.text.splitlines()[2])["connections"] == before


def test_the_exit_code_is_that_of_the_first_line_that_failed_and_all_are_run(url: str) -> None:
    ended = shell(url, "get missing", "frobnicate", "set a 1", "get a")
    assert ended.code == 1
    assert ended.text.splitlines()[-1] == "1"
    assert "line 1: exit code 1" in ended.err
    assert "line 2: exit code 2" in ended.err


def test_an_unknown_command_is_told_with_one_that_is_like_it(url: str) -> None:
    assert "there is no command scna; scan is one; help lists the commands" in shell(url, "scna").err
    assert "serve is run outside of a shell, as `haptera serve`" in shell(url, "serve").err


def test_a_wrong_url_is_told_before_a_line_is_run() -> None:
    ended = shell("haptera://127.0.0.1:1", "set a 1")
    assert ended.code == 3
    assert "cannot connect to 127.0.0.1:1" in ended.err


def test_a_url_is_given_once(url: str) -> None:
    ended = shell(url, options=("--url", url))
    assert (ended.code, "a URL is given twice" in ended.err) == (2, True)


def test_a_password_in_the_argument_is_refused() -> None:
    ended = shell("haptera://ada:secret@127.0.0.1:1")
    assert (ended.code, "secret" in ended.err) == (2, False)


@pytest.mark.parametrize("option", ["--url x", "--user ada", "--password-file f", "--timeout 3", "--wait"])
def test_a_line_names_no_other_store(option: str, url: str) -> None:
    ended = shell(url, f"count {option}")
    assert ended.code == 2
    assert f"{option.split(maxsplit=1)[0]} goes with `haptera shell`" in ended.err
    assert option.split(maxsplit=1)[0] in SHARED


def test_a_quote_without_an_end_is_told_with_its_line(url: str) -> None:
    ended = shell(url, "set a 'one", "two'", "get a", "get 'open")
    assert ended.code == 2
    assert ended.text.splitlines()[1:] == ["one", "two"]
    assert "line 4: exit code 2" in ended.err


def test_exit_leaves_the_other_lines(url: str) -> None:
    ended = shell(url, "exit", "set a 1")
    assert (ended.code, ended.out) == (0, b"")
    assert run("exists", "a", "--url", url).text == "false\n"


def test_binary_values_are_written_as_scan_writes_them_and_can_be_typed_again(url: str) -> None:
    ended = shell(url, r"set bin $'\x00\xff\x1b[31m'", "scan")
    assert ended.text.splitlines()[1] == r"bin" + "\t" + r"$'\x00\xff\x1b[31m'"
    assert run("get", "bin", "--raw", "--url", url).out == b"\x00\xff\x1b[31m"


def test_a_table_shows_no_control_character_and_the_beginning_of_a_long_value(url: str) -> None:
    ended = shell(url, "output table", r"set bin $'\x1b[31m'", f"set long {'v' * 5000}", "scan")
    assert "\x1b" not in ended.text
    assert r"\x1b[31m" in ended.text
    assert ended.text.replace("\n", "").count("v") < 1100
    assert "(5,000" in ended.text


def test_a_value_of_10_mb_is_refused_with_the_limit(url: str) -> None:
    ended = shell(url, f"set big {'v' * 10_000_000}", "set small 1")
    assert ended.code == 2
    assert "VALUE_TOO_LARGE" in ended.err
    assert "limit 8388608" in ended.err
    assert len(ended.err) < 1000
    assert run("exists", "small", "--url", url).text == "true\n"


def test_a_value_of_8_mib_passes_in_lines_and_in_escapes(url: str) -> None:
    size = 8 * 1024 * 1024
    value = ("\\xff" * (size // 2)) + "\n" * (size // 2)
    ended = shell(url, f"set big $'{value}'", "get big --raw")
    assert ended.code == 0
    assert ended.out.endswith(b"\xff" * (size // 2) + b"\n" * (size // 2))


@pytest.mark.parametrize("way", ["option", "word", "line"])
def test_results_and_errors_as_json(way: str, url: str) -> None:
    lines = ["set a 1", "get nope"]
    if way == "option":
        ended = shell(url, *lines, options=("--output", "json"))
    elif way == "word":
        ended = shell(url, "output json", *lines)
    else:
        ended = shell(url, *(f"{line} --json" for line in lines))
    assert json.loads(ended.text)["key"] == "a"
    assert json.loads(ended.err.splitlines()[0])["error"]["name"] == "KEY_NOT_FOUND"


def test_the_form_is_shown_and_can_be_left_to_the_terminal_again(url: str) -> None:
    ended = shell(url, "output", "output table", "output", "output auto", "output")
    assert ended.text.split() == ["auto", "table", "auto"]


def test_timing_is_told_on_request(url: str) -> None:
    ended = shell(url, "count", "timing on", "count", "timing off", "count")
    assert [line.endswith(" ms") for line in ended.err.splitlines()] == [True, True]


# -- transactions


def test_a_transaction_is_made_as_one_change(url: str) -> None:
    ended = shell(
        url,
        "set stock 5",
        "multi",
        "compare stock value = 5",
        "compare stock value != -5",
        "incr stock -1",
        "set order/1 'two words' --if-absent --ttl 60",
        "get stock",
        "del gone gone/2",
        "exec",
    )
    assert ended.code == 0, ended.err
    version = int(ended.text.split()[0]) + 1
    assert ended.text.splitlines()[5:] == [
        f"then\t{version}",
        "increment\tstock\t4",
        f"set\torder/1\t{version}",
        "get\tstock\t4",
        "delete\tgone\tfalse",
        "delete\tgone/2\tfalse",
    ]
    assert run("get", "stock", "--url", url).text == "4\n"


def test_nothing_is_sent_before_exec(url: str) -> None:
    ended = shell(url, "multi", "set a 1", "discard", "exists a", "multi", "set a 1")
    assert "false" in ended.text
    assert "the transaction has no exec, and was not sent" in ended.err
    assert run("exists", "a", "--url", url).text == "false\n"


def test_a_condition_that_does_not_hold_makes_nothing(url: str) -> None:
    ended = shell(url, "multi", "compare a exists = true", "set b 1", "exec", "exists b")
    assert ended.code == 1
    assert ended.text.splitlines()[-2:] == ["otherwise", "false"]


def test_an_operation_that_fails_is_named_by_its_line(url: str) -> None:
    ended = shell(url, "set a x", "multi", "set b 1", "incr a", "exec", "exists b")
    assert "NOT_AN_INTEGER" in ended.err
    assert "line 2" in ended.err
    assert ended.text.splitlines()[-1] == "false"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("scan", "scan is no command of a transaction"),
        ("metrics", "metrics is no command of a transaction"),
        ("frobnicate", "frobnicate is no command of a transaction"),
        ("set a", "Missing argument 'VALUE'"),
        ("set a 1 --fence 7", "--fence is for the whole transaction"),
        ("get a --at-revision 1", "a transaction reads the present alone"),
        ("multi", "a transaction is open"),
        ("compare a exists = maybe", "true or false"),
        ("compare a version = x", "x is no whole number"),
        ("compare a version = -1", "a version"),
    ],
)
def test_a_line_that_is_no_part_of_a_transaction_is_refused(line: str, reason: str, url: str) -> None:
    ended = shell(url, "multi", line, "discard")
    assert ended.code == 2
    assert reason in ended.err


@pytest.mark.parametrize("line", ["set b", "compare a exists = perhaps", "scan"])
def test_a_transaction_with_a_refused_line_is_not_sent(line: str, url: str) -> None:
    ended = shell(url, "multi", "set a 1", line, "exec", "discard", "exists a")
    assert "line 2 of the transaction was not taken" in ended.err
    assert ended.text.splitlines()[-1] == "false"


def test_a_transaction_has_a_bound(url: str) -> None:
    ended = shell(url, "multi", *(f"set k{number} 1" for number in range(129)))
    assert "a transaction has 128 operations at most" in ended.err


def test_operations_behind_otherwise_are_made_where_a_condition_does_not_hold(url: str) -> None:
    lines = ("multi", "compare a exists = true", "set b then", "otherwise", "set c else", "get b", "exec", "get c")
    ended = shell(url, *lines)
    assert ended.code == 1
    told = ended.text.splitlines()
    assert told[:3] == ["queued, 1 operation", "queued otherwise, 1 operation", "queued otherwise, 2 operations"]
    assert told[3].startswith("otherwise\t")
    assert told[4].startswith("set\tc")
    assert told[5] == "get\tb"
    assert told[-1] == "else"
    ended = shell(url, "set a 1", *lines)
    assert ended.text.splitlines()[4].startswith("then\t")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("otherwise",), "there is no transaction; multi begins one"),
        (("multi", "set a 1", "otherwise"), "otherwise needs a condition before it"),
        (("multi", "compare a exists = true", "otherwise", "otherwise"), "otherwise stands once in a transaction"),
        (
            ("multi", "compare a exists = true", "otherwise", "compare a version = 1"),
            "conditions stand before otherwise",
        ),
    ],
)
def test_otherwise_stands_once_behind_conditions(lines: tuple[str, ...], reason: str, url: str) -> None:
    ended = shell(url, *lines, "exec", "discard")
    assert ended.code == 2
    assert reason in ended.err
    assert run("count", "--url", url).text == "0\n"


def test_otherwise_has_128_operations_at_most(url: str) -> None:
    lines = (f"set k{number} 1" for number in range(129))
    ended = shell(url, "multi", "compare a exists = true", "otherwise", *lines)
    assert "a transaction has 128 operations at most" in ended.err


@pytest.mark.parametrize("word", ["exec", "discard", "compare a exists = true"])
def test_a_transaction_begins_with_multi(word: str, url: str) -> None:
    ended = shell(url, word)
    assert (ended.code, "multi begins one" in ended.err) == (2, True)


# -- help


def test_help_lists_the_commands_and_shows_one_with_an_example(url: str) -> None:
    ended = shell(url, "help", "help set", "help lease grant")
    assert ended.code == 0
    for name in ("scan", "multi", "unwatch"):
        assert f"\n  {name} " in ended.text
    assert "\n  serve " not in ended.text
    assert f"Example:\n  {example_of(['set'])}" in ended.text
    assert "--if-absent" in ended.text
    assert not any(option in ended.text for option in SHARED)
    assert "Usage: lease grant" in ended.text


def test_each_command_has_an_example_and_each_example_is_one_of_the_commands() -> None:
    names = group.list_commands(click.Context(group))
    assert [name for name in names if example_of([name]) is None] == []
    for line in EXAMPLES:
        (words,) = parted(line).commands
        context = click.Context(group)
        found: click.Command | None = group
        while isinstance(found, click.Group):
            found = found.get_command(context, words.pop(0))
        assert found is not None, line
        found.make_context("", words)


def test_a_command_that_is_none_has_no_help(url: str) -> None:
    assert "there is no command lease frob" in shell(url, "help lease frob").err


def test_watches_end_only_beside_a_prompt(url: str) -> None:
    assert "beside a prompt alone" in shell(url, "unwatch").err
    assert shell(url, "set a 1", "watch --initial --count 1").text.endswith("present\ta\t1\n")


def test_a_command_of_a_script_does_not_take_the_other_lines_for_its_value(url: str) -> None:
    command = [sys.executable, "-m", "haptera", "shell", url]
    ended = subprocess.run(command, input="set a -\nset b 2\nget b\n", capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "cannot read standard input" in ended.stderr
    assert ended.stdout.splitlines()[-1] == "2"
