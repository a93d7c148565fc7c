"""Changes that are judged by the present entry of their key, in a way that no condition of the store has.

The entry is read, the change is decided, and it is made if the key has still the version that was read: one entry of
the log, by which the decision is as if it had been made there. Where another change of the key has come between, it is
decided again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.error_words import words_of
from haptera.dialects.resp.reply_encoding import error
from haptera.errors import Code, Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Judged

#: Attempts at one change: each that fails is the success of another writer of the same key.
ATTEMPTS_MAX: Final = 64
_BUSY: Final = error("TRYAGAIN other clients keep changing the key")


async def decide(session: RespSession, step: Judged) -> bytes:
    """Make a change that is judged, and return its reply. Others of the same key wait until it is made."""
    async with session.state.lines.turn((step.key,)):
        for _ in range(ATTEMPTS_MAX):
            [found] = await session.ask(operations.Get(step.key))
            if isinstance(found, Failure) and found.code != Code.KEY_NOT_FOUND:
                return words_of(found)
            entry = None if isinstance(found, Failure) else found
            verdict = step.judge(entry)
            if isinstance(verdict, bytes):
                return verdict
            change, reply = verdict
            compare = operations.Compare(step.key, "version", "=", 0 if entry is None else entry[1])
            [made] = await session.ask(operations.Transact([compare], [change]))
            if isinstance(made, Failure):
                return words_of(made)
            if made[0]:
                return reply
    return _BUSY
