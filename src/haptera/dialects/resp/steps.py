"""The parts of a command's work: a handler says by its result how the session is to go on.

A handler takes the session and the arguments of the command, its name among them. Its result is one of

- bytes: the reply;
- ``(operation, shape)``: an operation of the store, and a function that makes the reply of its result. Most commands
  are this. In a transaction they are the operations of one transact;
- `Many`: several operations that are submitted together, and one reply for all their results;
- `Judged`: a change that is decided by the entry of its key;
- `Slow`: a coroutine that makes the reply. It begins when all commands before it are answered, and the commands
  behind it wait for it: a scan, or a change that is judged by what is read before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haptera.errors import Failure

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.node.commands import operations

#: The result of one operation, as handlers see it: none is a replay, because no request of RESP has an id.
Outcome = tuple[Any, ...] | Failure
#: From the result of an operation to the reply.
Shape = Callable[[Outcome, "RespSession"], bytes]


@dataclass(slots=True)
class Many:
    """Operations that are submitted together, reads or writes, and the reply of their results."""

    operations: Sequence[operations.Operation]
    shape: Callable[[Sequence[Outcome], RespSession], bytes]


@dataclass(slots=True)
class Judged:
    """A change of one key that is judged by its present entry (value, version, the time at which it expires), or None.

    ``judge`` gives the reply of a command that changes nothing, or the change with its reply. It may be asked more than
    once.
    """

    key: str
    judge: Callable[[tuple[Any, ...] | None], bytes | tuple[operations.Write, bytes]]


@dataclass(slots=True)
class Slow:
    """The reply is made by a coroutine, which may wait."""

    run: Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class ReadRun:
    """Reads of one key each, by commands of one kind in a row.

    ``shape`` makes the reply of one result. ``joined`` makes the replies of all of them at once, or returns None where
    they are to be made one after the other, because one is large or an error.
    """

    keys: list[str]
    shape: Shape
    joined: Callable[[list[Outcome]], bytes | None]


@dataclass(slots=True)
class WriteRun:
    """Changes by commands of one kind in a row. ``shape`` makes the reply of one result."""

    operations: list[operations.Operation]
    shape: Shape


#: Makes the run of commands of one kind and of equally many arguments: of the columns of these, the names first.
RunHandler = Callable[[list[list[bytes]]], ReadRun | WriteRun]
Step = bytes | tuple["operations.Operation", Shape] | Many | Judged | Slow
Handler = Callable[["RespSession", list[bytes]], Step]
#: Asked before each command with its row and its arguments: a reply in its place, or None to go on.
Gate = Callable[["Command", list[bytes]], "bytes | None"]
#: Given what the handler of a command has given, with its row and its arguments: the step that is taken in its place.
Wrap = Callable[["Command", list[bytes], Step], Step]


@dataclass(slots=True, frozen=True, kw_only=True)
class Command:
    """A command: one row of the table, from which all else about it follows.

    ``arity`` is the number of its arguments, its name among them; negative where there may be more. ``flags`` are
    those of Redis: ``write``, ``readonly``, ``fast``, ``denyoom``, ``admin``, ``no_auth`` and so on. ``first_key``,
    ``last_key`` (negative: from the end) and ``key_step`` say which arguments are keys; 0 for none. ``since`` is the
    version of Redis that has it first. A command of several parts has a table of them in ``subcommands``, by their
    names in lower case, and their own names are such as ``client|id``. One that is ``alone`` is handled when all
    commands before it are answered, because it changes what they would see: the version of replies, the user, the end.
    One with a ``run`` is done together with the same ones behind it, where each has as few arguments as it may.
    """

    name: str
    arity: int
    flags: frozenset[str]
    group: str
    since: str
    summary: str
    handler: Handler
    first_key: int = 0
    last_key: int = 0
    key_step: int = 0
    alone: bool = False
    subcommands: dict[str, Command] | None = None
    run: RunHandler | None = None

    def takes(self, count: int) -> bool:
        """Whether it takes so many arguments, its name among them."""
        return count == self.arity if self.arity > 0 else count >= -self.arity

    def keys(self, arguments: list[bytes]) -> list[bytes]:
        """The arguments that are keys."""
        if not self.first_key:
            return []
        last = self.last_key if self.last_key >= 0 else len(arguments) + self.last_key
        return arguments[self.first_key : last + 1 : self.key_step]


def flags(text: str) -> frozenset[str]:
    """Flags from a text of words."""
    return frozenset(text.split())


def command_row(
    name: str,
    arity: int,
    its_flags: str,
    since: str,
    summary: str,
    handler: Handler,
    group: str,
    keys: tuple[int, int, int] = (1, 1, 1),
    run: RunHandler | None = None,
) -> Command:
    """A row of the table; ``keys`` are the first key, the last one and the step between two."""
    first_key, last_key, key_step = keys
    return Command(
        name=name,
        arity=arity,
        flags=flags(its_flags),
        group=group,
        since=since,
        summary=summary,
        handler=handler,
        first_key=first_key,
        last_key=last_key,
        key_step=key_step,
        run=run,
    )
