"""Lines from a pipe or a file: each is carried out in its turn, without a prompt."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from haptera.cli import output
from haptera.cli.endings import ended
from haptera.cli.exit_codes import CANNOT_CONNECT, DONE, INTERRUPTED
from haptera.cli.shell.line_words import parted
from haptera.key_rules import KEY_SIZE_MAX, VALUE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.cli.shell.shell_session import ShellSession

#: Bytes of one command: the largest value, each byte of it written as \xNN, with a key and options.
COMMAND_SIZE_MAX: Final = 4 * (VALUE_SIZE_MAX + KEY_SIZE_MAX) + 64 * 1024


def run_script(session: ShellSession) -> int:
    """Carry out the lines of standard input, and return the exit code of the first one that failed."""
    first = DONE
    with _input() as stream:
        for number, words in _commands(stream):
            code = _refused(session, words) if isinstance(words, click.UsageError) else session.run(words)
            if code != DONE and session.form != "json":
                output.to_standard_error(f"haptera: line {number}: exit code {code}")
            first = first or code
            if session.left or code in {CANNOT_CONNECT, INTERRUPTED}:
                break
        else:
            if session.transaction is not None:
                code = _refused(session, click.UsageError("the transaction has no exec, and was not sent"))
                first = first or code
    return first


def _refused(session: ShellSession, error: click.UsageError) -> int:
    def fail() -> None:
        raise error

    with output.errors_as_json(session.form == "json"):
        return ended(fail, [])


def _commands(stream: BinaryIO) -> Iterator[tuple[int, list[str] | click.UsageError]]:
    """Each command with the number of the line that it begins on; an error in the place of one that cannot be read."""
    text, begins, number, awaited = "", 1, 0, ""
    while line := stream.readline(COMMAND_SIZE_MAX + 1):
        number += 1
        begins = begins if text else number
        text += os.fsdecode(line)
        if len(text) > COMMAND_SIZE_MAX:
            yield begins, click.UsageError(f"a command has {COMMAND_SIZE_MAX} bytes at most; the rest is not read")
            return
        if awaited in {"'", '"'} and awaited not in os.fsdecode(line):
            continue  # a long value in quotes is parted once, and not with each of its lines
        try:
            found = parted(text)
        except click.UsageError as error:
            yield begins, error
            text = awaited = ""
            continue
        awaited = found.open
        if not awaited:
            text = ""
            for words in filter(None, found.commands):
                yield begins, words
    if text:
        yield begins, click.UsageError("the last line has a quote without an end, or ends with a backslash")


@contextmanager
def _input() -> Iterator[BinaryIO]:
    """Standard input for the lines alone. A command that would read it finds it closed, because it would take the rest
    of the lines for a value.
    """
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):  # a stream in memory
        yield sys.stdin.buffer
        return
    kept = os.dup(number)
    closed = os.open(os.devnull, os.O_WRONLY)  # as `standard_streams.secure` opens one that is closed
    os.dup2(closed, number)
    os.close(closed)
    try:
        with os.fdopen(kept, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(kept, number)
        os.close(kept)
