"""The shell on a terminal: typed lines, completion, watches beside the prompt, and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from haptera.cli.client_command import Client
from haptera.cli.open_store import OpenStore
from haptera.cli.shell import watches
from haptera.cli.shell.completer import LineCompleter
from haptera.cli.shell.prompting import interact, prompt_text, short_node
from haptera.cli.shell.shell_session import ShellSession
from haptera.testing import node_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


@contextmanager
def session_at(url: str, form: str | None = None) -> Iterator[ShellSession]:
    with OpenStore(Client(url, 5.0, as_json=False)) as store:
        yield ShellSession(store, form)


@pytest.fixture
def session(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShellSession]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with session_at(node) as session:
        session.store.run(session.store.database.clear(prefix=""))
        yield session


def typed(session: ShellSession, text: str) -> int:
    with create_pipe_input() as keys:
        keys.send_text(text)
        return interact(session, typed=keys, screen=DummyOutput())


def test_lines_are_carried_out_until_ctrl_d(session: ShellSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(session, "set a 'one two'\rget a\rget nope\r\x04") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1] == "one two"
    assert "KEY_NOT_FOUND" in shown.err


def test_an_open_quote_goes_on_behind_enter(session: ShellSession, capsys: pytest.CaptureFixture[str]) -> None:
    typed(session, "set a 'one\rtwo'\rget a\rexit\r")
    assert capsys.readouterr().out.splitlines()[1:] == ["one", "two"]


def test_ctrl_c_at_the_prompt_drops_the_line(session: ShellSession, capsys: pytest.CaptureFixture[str]) -> None:
    typed(session, "set a 1\x03set b 2\r\x04")
    assert capsys.readouterr().out.count("\n") == 1


def test_a_mistake_in_a_line_ends_nothing(session: ShellSession, capsys: pytest.CaptureFixture[str]) -> None:
    typed(session, "get $'\\q'\rfrob\rset a 1\r\x04")
    shown = capsys.readouterr()
    assert shown.err.count("haptera: ") == 2
    assert shown.out == f"{session.store.database.revision}\n"


def test_several_pasted_lines_are_carried_out_in_turn(
    session: ShellSession, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "\x1b[200~set a 1\nset b 2\nscan --keys-only\x1b[201~\r\x04")
    assert capsys.readouterr().out.splitlines()[2:] == ["a", "b"]


def test_a_watch_goes_on_beside_the_prompt_until_unwatch(
    session: ShellSession, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "watch --prefix w --initial\rset w/1 x\rset v y\rget w/1\runwatch 1\rset w/2 z\rget w/2\r\x04")
    shown = capsys.readouterr()
    assert "[1] watch --prefix w --initial: goes on beside the prompt, unwatch 1 ends it" in shown.err
    told = [line for line in shown.out.splitlines() if line.startswith("[1]")]
    assert [line.split("\t")[1:] for line in told] == [["synced", "", ""], ["put", "w/1", "x"], []]
    assert told[-1] == "[1] ended"


def test_a_watch_of_a_shell_with_json_has_bare_documents(
    session: ShellSession, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "output json\rwatch --initial --count 1\rget a\r\x04")
    assert '{"kind":"synced"' in [line[:16] for line in capsys.readouterr().out.splitlines()]


def test_watches_have_a_bound_and_a_number_that_is_none_is_refused(
    session: ShellSession, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "unwatch 1\r" + "watch\r" * (watches.WATCHES_MAX + 1) + "\x04")
    told = capsys.readouterr().err
    assert "there is no watch 1" in told
    assert f"{watches.WATCHES_MAX} watches go on at once" in told


@pytest.mark.parametrize(("columns", "shown"), [(200, "ada@host:7457:12> "), (40, "12> "), (1, "12> ")])
def test_the_prompt_is_short_on_a_narrow_terminal(
    columns: int, shown: str, session: ShellSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answered:
        reached = "haptera://host:7457"
        revision = 12

    session.user = "ada"
    with monkeypatch.context() as patched:
        patched.setattr(session.store, "database", Answered())
        assert prompt_text(session, columns) == shown


@pytest.mark.parametrize(
    ("url", "short"),
    [
        ("haptera://10.0.0.7:7457", "10.0.0.7:7457"),
        ("haptera+unix:///srv/app/haptera-data/haptera.sock", "haptera-data/haptera.sock"),
        ("", ""),
    ],
)
def test_a_node_is_named_as_one_knows_it(url: str, short: str) -> None:
    assert short_node(url) == short


# -- completion


def completions(session: ShellSession, text: str, *, asked: bool = False) -> list[str]:
    async def collect() -> list[str]:
        event = CompleteEvent(text_inserted=not asked, completion_requested=asked)
        document = Document(text, len(text))
        found = LineCompleter(session).get_completions_async(document, event)
        return [text[: len(text) + each.start_position] + each.text async for each in found]

    return session.store.run(collect())


def fill(session: ShellSession, *keys: str) -> None:
    session.store.run(session.store.database.set_many(dict.fromkeys(keys, "v")))


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("cou", ["count"]),
        ("lease gr", ["lease grant"]),
        ("set k v --if-a", ["set k v --if-absent"]),
        ("output ta", ["output table"]),
        ("timing ", ["timing on", "timing off"]),
        ("set k v --time", []),
        ("frobnicate ", []),
        ("get $'\\q", []),
    ],
)
def test_commands_options_and_choices_are_completed(text: str, offered: list[str], session: ShellSession) -> None:
    assert completions(session, text) == offered


def test_keys_are_completed_as_they_are_typed(session: ShellSession) -> None:
    fill(session, "user/1", "user/2 b", "user/it's", "user/\x1b", "-user", "other")
    assert completions(session, "get us") == [
        "get $'user/\\x1b'",
        "get user/1",
        "get 'user/2 b'",
        'get "user/it\'s"',
    ]
    assert completions(session, "get 'user/2") == ["get 'user/2 b'"]
    assert completions(session, "scan --prefix ot") == ["scan --prefix other"]
    assert completions(session, "rename user/1 ot") == ["rename user/1 other"]


def test_all_keys_are_offered_only_when_they_are_asked_for(session: ShellSession) -> None:
    fill(session, *(f"key{number:03}" for number in range(100)))
    assert completions(session, "get ") == []
    assert completions(session, "get ", asked=True) == [f"get key{number:03}" for number in range(50)]


def test_a_node_that_does_not_answer_holds_typing_up_for_no_longer_than_the_timeout() -> None:
    with session_at("haptera://127.0.0.1:1") as session:
        assert completions(session, "get a") == []


# -- Ctrl-C


def test_ctrl_c_cancels_the_call_and_not_the_shell(
    session: ShellSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(session, *(f"key{number:03}" for number in range(100)))
    shown: list[bytes] = []

    def interrupted(data: bytes) -> None:
        shown.append(data)
        if len(shown) == 10:
            signal_to_this_process()

    monkeypatch.setattr("haptera.cli.output.write", interrupted)
    assert session.run(["scan", "--keys-only"]) == 130
    monkeypatch.undo()
    assert "cancelled" in capsys.readouterr().err
    assert session.run(["count"]) == 0
    assert capsys.readouterr().out == "100\n"


def signal_to_this_process() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_change_that_ctrl_c_cancels_tells_its_outcome(
    session: ShellSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def set_forever(*_: Any, **__: Any) -> int:
        signal_to_this_process()
        await asyncio.sleep(3600)
        return 0

    session.store.run(session.store.database.whoami())
    monkeypatch.setattr(session.store.database, "set", set_forever)
    assert session.run(["set", "a", "1"]) == 130
    assert "the change may have been applied" in capsys.readouterr().err


def test_lines_from_a_pipe_need_no_prompt_toolkit(node: str) -> None:
    program = (
        "import sys; from haptera.cli.main import main\n"
        "try: main()\nfinally: print(sorted(m for m in sys.modules if m == 'prompt_toolkit'))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "shell", node], input="count\n", capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
