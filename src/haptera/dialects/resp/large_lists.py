"""Commands with many keys: a long list is checked, and read or changed, in slices, so that no one waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.dialects.resp.bounds import KEYS_AT_ONCE_MAX, REPLY_SIZE_MAX
from haptera.dialects.resp.error_words import words_of
from haptera.dialects.resp.steps import Slow
from haptera.errors import Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Shape, Step


def read(session: RespSession, keys: list[str], shape: Shape, limit: int = REPLY_SIZE_MAX) -> Step:
    """A read of the entries of some keys, whose values have ``limit`` bytes at most where they are many."""
    op = operations.GetMany(keys)
    if len(keys) <= KEYS_AT_ONCE_MAX or session.in_transaction:
        return op, shape

    async def run() -> bytes:
        return shape(await session.caller.read(op, limit), session)

    return Slow(run)


def change(session: RespSession, op: operations.SetMany | operations.DeleteMany, shape: Shape) -> Step:
    """A change of some keys."""
    count = len(op.items if isinstance(op, operations.SetMany) else op.keys)
    if count <= KEYS_AT_ONCE_MAX or session.in_transaction:
        return op, shape

    async def run() -> bytes:
        checked = await session.caller.check(op)
        if isinstance(checked, Failure):
            return words_of(checked)
        [result] = await session.submitted([checked])
        return shape(result, session)

    return Slow(run)
