"""A peer put together of its parts: link, caller, dispatcher, and the router between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from haptera.peer.dispatcher import Dispatcher
from haptera.peer.event_log import EventLog
from haptera.peer.event_router import EventRouter
from haptera.peer.limits import CALL_TIMEOUT_S, WRITE_TIMEOUT_S
from haptera.peer.link import Link
from haptera.peer.outgoing_calls import Caller
from haptera.peer.peer import Peer

if TYPE_CHECKING:
    import asyncio

    from haptera.connection import Connection
    from haptera.peer.authentication import Authenticator
    from haptera.peer.own_credential import OwnCredential
    from haptera.peer.server import Server
    from haptera.peer.service import Service
    from haptera.transport import Place

#: The log of the beginning and the end of connections that this side has dialled.
_LOG: Final = EventLog()


def assemble(
    connection: Connection,
    services: Sequence[Service],
    loop: asyncio.AbstractEventLoop,
    *,
    owner: Server | None = None,
    dialled: Place | None = None,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    call_timeout_s: float | None = CALL_TIMEOUT_S,
    idle_timeout_s: float | None = None,
    authenticator: Authenticator | None = None,
    login: OwnCredential | None = None,
) -> Peer:
    """Return the peer of a connection that has no transport yet; its link is the protocol of one.

    ``owner`` is the server that accepts it, ``dialled`` the place where this side connects to. An ``authenticator`` has
    the other side prove its identity; with a ``login`` this side proves its own.
    """
    log = None if owner is None else owner.log
    link = Link(connection, loop, log or _LOG, write_timeout_s=write_timeout_s)
    dispatcher = Dispatcher(link, {service.name: service for service in services}, log)
    if dispatcher.telemetry is not None:
        dispatcher.telemetry.dialled(dialled)
    caller = Caller(link, dispatcher.telemetry)
    router = EventRouter(link, caller, dispatcher, owner, idle_timeout_s)
    peer = Peer(link, caller, dispatcher, router, dialled=dialled, call_timeout_s=call_timeout_s)
    if authenticator is not None:
        peer.identity = None
        router.ask_proof(authenticator, log or _LOG)
    if login is not None:
        router.give_proof(login)
    return peer
