"""The errors of spec/errors.toml as a call meets them, and a channel whose calls and watches meet them when told to."""

from __future__ import annotations

import asyncio
import tomllib
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from haptera.errors import ConnectionLost, HapteraError, failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from haptera import Database
    from haptera.client.channels.channel import Channel
    from haptera.client.watches.watched import Happened, WatchPosition

    Meet = Callable[[], HapteraError]

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_ROWS: Final = tomllib.loads((_ROOT / "spec" / "errors.toml").read_text(encoding="utf-8"))["error"]


def _meets(row: dict[str, Any]) -> dict[str, Meet]:
    """The ways in which a call meets an error: as its answer, and as the reason of a connection that has ended."""
    code, name, scope = row["code"], row["name"], row["scope"]
    answer: dict[str, Meet] = {name: lambda: failure(code).exception()}
    loss: dict[str, Meet] = {f"lost by {name}": lambda: ConnectionLost("lost", failure=failure(code))}
    return {**(answer if scope != "connection" else {}), **(loss if scope != "stream" else {})}


#: The errors after which the specification has a client try again, and all ends of connections but those of a user
#: that is not let in any more.
PASSING: Final[dict[str, Meet]] = {
    "lost": lambda: ConnectionLost("lost"),
    "not connected": lambda: ConnectionLost("no connection", outcome="not_applied"),
    **{
        name: meet
        for row in _ROWS
        for name, meet in _meets(row).items()
        if row["retry"] != "no" or (name.startswith("lost") and row["code"] // 1000 != 2)
    },
}

#: The errors that the same request meets again, but for those that say something about what was asked for.
LASTING: Final[dict[str, Meet]] = {
    row["name"]: cast("Meet", lambda code=row["code"]: failure(code).exception())
    for row in _ROWS
    if row["retry"] == "no" and row["scope"] != "connection" and row["code"] not in {4009, 4010, 4011}
}


class Refusals:
    """A channel in front of another, whose next calls of a method fail as told. ``tried`` are the methods of all."""

    def __init__(self, channel: Channel) -> None:
        self.tried: list[str] = []
        self._channel = channel
        self._calls: dict[str, list[tuple[Exception, bool]]] = {}
        self._watches: list[tuple[Exception, bool]] = []
        self._cut: asyncio.Future[Exception] | None = None

    @classmethod
    def of(cls, db: Database) -> Self:
        """Stand in front of the channel of a database."""
        refusals = cls(db._channel)
        db._channel = cast("Channel", refusals)
        return refusals

    def refuse(self, method: str, *errors: Exception, made: bool = False) -> None:
        """Have the next calls fail; ``made``: behind their work, with an outcome that is unknown."""
        self._calls.setdefault(method, []).extend((error, made) for error in errors)

    def refuse_watches(self, *errors: Exception, begun: bool) -> None:
        """Have the next watches fail: before they have begun, or behind their first events."""
        self._watches.extend((error, begun) for error in errors)

    def cut_watches(self, error: Exception) -> None:
        """Have the watches that stand fail."""
        if self._cut is not None:
            self._cut.set_result(error)
            self._cut = None

    def forget(self) -> None:
        """Let all calls and watches succeed from now on."""
        self._calls.clear()
        self._watches.clear()

    @property
    def used(self) -> bool:
        """Whether each error that was to be met was."""
        return not self._watches and not any(self._calls.values())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def call(self, method: Any, argument: Any, timeout: float | None, server_id: bytes | None = None) -> Any:
        name = method.name
        self.tried.append(name)
        pending = self._calls.get(name)
        if not pending:
            return await self._channel.call(method, argument, timeout, server_id)
        error, made = pending.pop(0)
        if made:
            assert isinstance(error, HapteraError)
            error.outcome = "unknown"
            await self._channel.call(method, argument, timeout, server_id)
        raise error

    async def scan(self, *arguments: Any) -> AsyncGenerator[Any, None]:
        self.tried.append("scan")
        pending = self._calls.get("scan")
        if pending:
            raise pending.pop(0)[0]
        async with aclosing(self._channel.scan(*arguments)) as pages:
            async for page in pages:
                yield page

    async def watch(self, position: WatchPosition, timeout: float | None) -> AsyncGenerator[list[Happened], None]:
        self.tried.append("watch")
        error, begun = self._watches.pop(0) if self._watches else (None, False)
        if error is not None and not begun:
            raise error
        if self._cut is None:
            self._cut = asyncio.get_running_loop().create_future()
        cut = self._cut
        async with aclosing(self._channel.watch(position, timeout)) as items:
            while True:
                item = asyncio.ensure_future(anext(items))
                first: list[asyncio.Future[Any]] = [item, cut]
                try:
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                    if cut.done():
                        raise cut.result()
                    yield item.result()
                finally:
                    item.cancel()
                    await asyncio.wait([item])
                if error is not None:
                    raise error
