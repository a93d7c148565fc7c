"""A state machine that is driven one command at a time, as the tests of the state want it."""

from __future__ import annotations

from typing import Any, cast

from haptera.errors import Failure
from haptera.state import Logged, Page, Read, Result, Row, ScanCursor, StateMachine, Write, validate
from haptera.state.operations import OpenScan
from haptera.state.sliced_work import finish


class Store(StateMachine):
    """Applies each command in an entry of its own, at the time ``now_ms``, and checks the invariants after it."""

    now_ms = 1_000_000

    def do(
        self,
        op: Write,
        user: str = "",
        request_id: bytes | None = None,
        digest: bytes | None = None,
        *,
        resent: bool = False,
    ) -> Result:
        refused = validate(op)
        assert refused is None, refused
        [result] = self.apply(self.index + 1, self.now_ms, [Logged(op, user, request_id, digest, resent)])
        self.check()
        return result

    def wait(self, milliseconds: int) -> None:
        """Let time pass as it does in a store that is used: with an entry every minute at least."""
        while milliseconds:
            step = min(milliseconds, 60_000)
            milliseconds -= step
            self.now_ms += step
            self.apply(self.index + 1, self.now_ms, [])

    def free(self) -> None:
        """Free what no reader needs any more, as a node does in its turns."""
        finish(self.sweep_steps())
        self.check()

    def ask(self, op: Read) -> Result:
        refused = validate(op)
        assert refused is None, refused
        return self.read(op)

    def value(self, key: str) -> bytes | None:
        entry = self.kv.entries.get(key)
        return None if entry is None else entry[0]

    def scan(self, op: OpenScan | None = None) -> list[Row]:
        return drain(self.cursor(op))

    def cursor(self, op: OpenScan | None = None) -> ScanCursor:
        op = op if op is not None else OpenScan()
        assert validate(op) is None
        cursor = self.open_scan(op)
        assert isinstance(cursor, ScanCursor)
        return cursor


def drain(cursor: ScanCursor, max_bytes: int = 65536, max_rows: int = 1000) -> list[Row]:
    """The rest of a scan."""
    rows: list[Row] = []
    done = False
    while not done:
        page = page_of(cursor, max_bytes, max_rows)
        rows += page.rows
        done = page.done
    return rows


def page_of(cursor: ScanCursor, max_bytes: int = 65536, max_rows: int = 1000) -> Page:
    page = cursor.page(max_bytes, max_rows)
    assert isinstance(page, Page)
    return page


def refused(result: object, code: int, **details: Any) -> bool:
    """Whether ``result`` is that failure, not applied, with these details."""
    failure = cast("Failure", result)
    assert isinstance(result, Failure)
    return (failure.code, failure.outcome, failure.details) == (code, "not_applied", details)
