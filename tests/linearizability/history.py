"""The record of what the clients of a store asked and were told.

A history is checked by the program in `checker`, which reads it as JSON lines. `Operation` has the fields of its
``operation``. One that never returned may have taken effect at any time after its call, or never.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

import haptera
from haptera.errors import ConnectionLost, HapteraError, RemoteProtocolError, ServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from haptera import Entry
    from tests.linearizability.log import Log

READS: Final = frozenset({"get", "get_many", "exists", "count", "scan", "look_back"})
#: Reads whose place in the order is another than their time.
OF_THE_PAST: Final = frozenset({"look_back"})

#: Refusals that say something of the store's content. The others say of a change that it was not applied.
JUDGED: Final = frozenset({4001, 4002, 4003, 4004, 4005, 4010, 4011})

#: Characters of a value that tell it from all others: the workload writes no two that begin alike.
SHORT: Final = 32


class Told(msgspec.Struct, omit_defaults=True):
    """The answer as the caller knows it; see ``told`` in checker/main.go."""

    code: int = 0
    actual: int | None = None
    revision: int | None = None
    number: int | None = None
    rows: list[dict[str, Any]] | None = None
    keys_only: bool = False
    loose: bool = False


class Operation(msgspec.Struct):
    client: int
    method: str
    argument: dict[str, Any]
    call: int
    end: int | None = None
    outcome: str = "unknown"
    request: str = ""
    told: Told = msgspec.field(default_factory=Told)

    @property
    def counts(self) -> bool:
        """Whether it says anything of the store. A read without an answer does not, nor does a change that was refused
        for a reason outside the store.
        """
        if self.outcome == "unknown":
            return self.method not in READS
        return self.outcome != "not_applied"

    def line(self) -> bytes:
        row = {
            "client": self.client,
            "call": self.call,
            "return": self.end,
            "method": self.method,
            "id": self.request,
            "outcome": self.outcome,
            "told": self.told,
            **self.argument,
        }
        return msgspec.json.encode(row) + b"\n"


class History:
    """Records operations while they run.

    Its clock counts calls and returns. All run on one loop, so an operation that was called after another had returned
    has the higher number.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        #: The changes of the store as a watch has told them, if one was there.
        self.log: Log | None = None
        self._clock = 0

    async def record(
        self,
        client: int,
        method: str,
        argument: dict[str, Any],
        ask: Callable[[], Awaitable[Told]],
        *,
        request: str = "",
    ) -> Operation:
        """Run one operation and write down its outcome. A cancellation goes on to the caller."""
        operation = Operation(client, method, {key: _plain(value) for key, value in argument.items()}, self.tick())
        operation.request = request
        self.operations.append(operation)
        try:
            operation.told = await ask()
            operation.outcome = "ok"
        except asyncio.CancelledError:
            raise
        except HapteraError as error:
            operation.outcome, operation.told = _refused(error)
        if operation.outcome != "unknown":
            operation.end = self.tick()
        return operation

    def lines(self) -> bytes:
        """The operations as the checker reads them. Reads of the past are no part of that order."""
        ends = () if self.log is None else ends_of(self.log)
        present = (operation for operation in self.operations if operation.method not in OF_THE_PAST)
        return b"".join(operation.line() for operation in (*present, *ends) if operation.counts)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.lines())
        return path

    def tick(self) -> int:
        """The number of something that happens now."""
        self._clock += 1
        return self._clock


def ends_of(log: Log) -> Iterator[Operation]:
    """The ends of keys that a log has, and of each key with a time to live its death, whose place no one knows."""
    ended: dict[int, Operation] = {}
    for tick, event in log.events:
        if event.kind == "put" and event.expires_at is not None:
            yield Operation(0, "die", {"key": event.key, "version": event.version}, 0)
        if event.kind == "expire":
            end = ended.setdefault(event.version, Operation(0, "end", {"keys": []}, 0, tick, "ok"))
            end.argument["keys"].append(event.key)
            end.told = Told(revision=event.version)
    yield from ended.values()


def _refused(error: HapteraError) -> tuple[str, Told]:
    if isinstance(error, RemoteProtocolError):
        return "unknown", Told()
    assert isinstance(error, ServerError | ConnectionLost), error
    if isinstance(error, ServerError) and error.code in JUDGED:
        assert error.outcome == "not_applied", error
        return "ok", Told(code=int(error.code), actual=error.details.get("actual"))
    if error.outcome == "applied":
        assert isinstance(error, haptera.errors.AnswerNotKept), error
        return "applied", Told(revision=error.details["version"])
    return error.outcome, Told()


def row(key: str, entry: Entry | None) -> dict[str, Any]:
    """An entry as the checker reads it."""
    if entry is None:
        return {"key": key, "missing": True}
    return {"key": key, "value": shortened(entry.value), "version": entry.version}


def shortened(value: bytes) -> str:
    text = value.decode()
    return text if len(text) <= SHORT else f"{text[:SHORT]}...{len(text)}"


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return shortened(value)
        case dict():
            return [[key, _plain(item)] for key, item in value.items()]
        case _:
            return value
