"""CLIENT REPLY: commands whose replies a client does not want. They are done, and their replies are left out.

Messages that answer no command, and those of SUBSCRIBE and its kin, leave all the same, as with Redis.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp.error_words import SYNTAX
from haptera.dialects.resp.help_lines import part
from haptera.dialects.resp.judged_changes import decide
from haptera.dialects.resp.reply_encoding import OK
from haptera.dialects.resp.steps import Judged, Many, Slow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Step

_NONE: Final = b""


class LeftOutReplies:
    """Which replies of a connection are left out: ``all``, or that of the ``next`` command."""

    __slots__ = ("_this", "all", "next")

    def __init__(self) -> None:
        self.all: bool = False
        self.next: bool = False
        self._this = False

    def taken(self, session: RespSession, step: Step, *, is_message: bool) -> Step:
        """Return the step of a command in the place of what its handler has given."""
        silenced = self.all or self._this
        self._this, self.next = self.next, False
        if not (silenced or self._this):
            session.silence = None
        return _without_reply(session, step) if silenced and not is_message else step


def _without_reply(session: RespSession, step: Step) -> Step:
    if isinstance(step, bytes):
        return _NONE
    if isinstance(step, Many):
        return Many(step.operations, partial(_made_and_dropped, step.shape))
    if isinstance(step, Judged):
        return Slow(partial(_run_silently, partial(decide, session, step)))
    if isinstance(step, Slow):
        return Slow(partial(_run_silently, step.run))
    return step[0], partial(_made_and_dropped, step[1])


def _made_and_dropped(shape: Callable[[Any, RespSession], bytes], outcome: Any, session: RespSession) -> bytes:
    """Make a reply, by whose making the parts of the dialect know that the command is done, and leave it out."""
    shape(outcome, session)
    return _NONE


async def _run_silently(run: Callable[[], Awaitable[bytes]]) -> bytes:
    await run()
    return _NONE


def _reply(session: RespSession, arguments: list[bytes]) -> Step:
    """CLIENT REPLY ON|OFF|SKIP"""
    answer = arguments[2].upper()
    if answer == b"ON":
        session.silence = None
        return OK
    if answer not in {b"OFF", b"SKIP"}:
        return SYNTAX
    silence = session.silence = session.silence or LeftOutReplies()
    if answer == b"OFF":
        silence.all = True
    else:
        silence.next = not silence.all
    return _NONE


#: It is handled when all commands before it are answered: their replies are wanted.
PART: Final[Command] = replace(
    part("client|reply", 3, "noscript loading stale", "3.2.0", "Leave replies out: of all, or of one.", _reply),
    alone=True,
)
