"""Feature flags over HTTP: typed values, conditional requests by ETag, and a stream of server-sent events.

Start a node with `haptera serve`, then run this in the same directory (or with HAPTERA_URL set):

    uvicorn --app-dir examples/fastapi_flags --timeout-graceful-shutdown 3 main:app
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, status
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

import haptera
import haptera.errors
import haptera.typed

PREFIX = "flags/"
logger = logging.getLogger("uvicorn.error")


class Flag(BaseModel):
    """A feature, and for what share of the users it is on."""

    enabled: bool
    rollout_percent: int = Field(100, ge=0, le=100)


class State(TypedDict):
    """The attributes of `request.state`, for each request."""

    flags: haptera.typed.TypedDatabase[Flag]
    streams: set[haptera.typed.TypedWatch[Flag]]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Keep one database for the whole process. Its requests share a connection."""
    loop = asyncio.get_running_loop()
    streams: set[haptera.typed.TypedWatch[Flag]] = set()

    async def end_streams() -> None:
        await asyncio.gather(*(watch.aclose() for watch in streams))

    when_told_to_stop(lambda: asyncio.run_coroutine_threadsafe(end_streams(), loop))
    async with haptera.connect() as db:
        yield {"flags": db.typed(Flag), "streams": streams}


def when_told_to_stop(function: Callable[[], object]) -> None:
    """Call a function at Ctrl-C and SIGTERM, before the server's own handler.

    A server waits for its open responses before it ends the lifespan, and an endless one has to be told to end.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # a test client runs the application in a thread, which gets no signals
    for number in (signal.SIGINT, signal.SIGTERM):
        servers_own = signal.getsignal(number)
        if callable(servers_own):

            def handler(number: int, frame: FrameType | None, then: Callable[..., object] = servers_own) -> None:
                function()
                then(number, frame)

            signal.signal(number, handler)


app = FastAPI(title="Feature flags", lifespan=lifespan)


def flags_of(request: Request) -> haptera.typed.TypedDatabase[Flag]:
    """Give the store of this process, a dependency that a test may override."""
    flags: haptera.typed.TypedDatabase[Flag] = request.state.flags
    return flags


Flags = Annotated[haptera.typed.TypedDatabase[Flag], Depends(flags_of)]
IfMatch = Annotated[str | None, Header()]
IfNoneMatch = Annotated[str | None, Header()]


@app.exception_handler(haptera.ConnectionLost)
@app.exception_handler(haptera.DeadlineExceeded)
async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Answer with 503 where the store has not answered in time. The outcome says whether a change was made."""
    assert isinstance(error, haptera.HapteraError)
    return JSONResponse(
        {"detail": "the store does not answer", "outcome": error.outcome},
        status_code=status.HTTP_503_SERVICE_UNAVAILABLE,
        headers={"Retry-After": "1"},
    )


@app.get("/flags")
async def list_flags(flags: Flags) -> dict[str, Flag]:
    """List all flags, as they were at one moment."""
    return {entry.key.removeprefix(PREFIX): entry.value async for entry in flags.scan(prefix=PREFIX)}


@app.get("/flags/{name}")
async def read_flag(name: str, flags: Flags, response: Response, if_none_match: IfNoneMatch = None) -> Flag:
    """Read one flag. Its ETag is the version of its entry."""
    entry = await flags.get(PREFIX + name)
    if entry is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "there is no such flag")
    if if_none_match == etag(entry.version):
        raise HTTPException(status.HTTP_304_NOT_MODIFIED, headers={"ETag": etag(entry.version)})
    response.headers["ETag"] = etag(entry.version)
    return entry.value


@app.put("/flags/{name}")
async def write_flag(
    name: str,
    flag: Flag,
    flags: Flags,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Flag:
    """Make a flag (`If-None-Match: *`), or change the version that the caller has read (`If-Match: ETAG`)."""
    try:
        if if_none_match == "*":
            version = await flags.set(PREFIX + name, flag, if_absent=True)
            response.status_code = status.HTTP_201_CREATED
        else:
            version = await flags.set(PREFIX + name, flag, if_version=version_of(if_match))
    except (haptera.KeyExists, haptera.VersionMismatch) as error:
        raise HTTPException(status.HTTP_412_PRECONDITION_FAILED, "the flag was changed meanwhile") from error
    response.headers["ETag"] = etag(version)
    return flag


@app.get("/events", response_class=EventSourceResponse)
async def events(
    request: Request, flags: Flags, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[ServerSentEvent]:
    """Stream all flags, then each change. A client that comes back goes on behind the last event that it has seen.

    The id of an event names the server and the revision, because a restored store counts from another revision on. Its
    change is told once more to a client that comes back: several flags may have changed at one revision.
    """
    server, _, revision = (last_event_id or "").partition(":")
    start = int(revision) if revision.isdecimal() else None
    while True:
        changes = flags.watch(prefix=PREFIX, start_revision=start, initial=start is None)
        request.state.streams.add(changes)
        try:
            async with changes:
                here = (changes.server_id or b"").hex()
                if start is not None and here != server:
                    start = None  # another store answers: its changes are not those that the client has not seen
                    continue
                server = here
                async for change in values_that_fit(changes):
                    start = change.version
                    yield ServerSentEvent(
                        event=change.kind,
                        data={"name": change.key.removeprefix(PREFIX), "flag": change.value},
                        # The first flags come in the order of their names. A client that has not seen all begins again.
                        id=None if change.kind == "present" else f"{server}:{change.version}",
                    )
            return  # the watch was closed, because this server stops
        except haptera.errors.RevisionCompacted:
            start = None  # the node no longer has the changes since then: tell what is there
        except haptera.ConnectionLost as error:
            logger.warning("a stream of events ends: %s", error)
            return  # an EventSource comes back by itself
        finally:
            request.state.streams.discard(changes)


async def values_that_fit(
    changes: haptera.typed.TypedWatch[Flag],
) -> AsyncIterator[haptera.typed.TypedEvent[Flag]]:
    """Leave out the values that are no flags, which another program has stored."""
    while True:
        try:
            async for change in changes:
                yield change
            return
        except haptera.errors.UnexpectedValue as error:
            logger.warning("the flag %s is left out: %s", error.key, error.reason)


def etag(version: int) -> str:
    """Return the ETag of a version."""
    return f'"{version}"'


def version_of(tag: str | None) -> int:
    """Return the version that an ETag names."""
    if tag is None:
        raise HTTPException(status.HTTP_428_PRECONDITION_REQUIRED, "send If-Match, or If-None-Match: * for a new flag")
    if not tag.strip('"').isdecimal():
        raise HTTPException(status.HTTP_412_PRECONDITION_FAILED, "the flag has another version")
    return int(tag.strip('"'))
