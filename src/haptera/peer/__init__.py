"""The messaging library: connections under asyncio, services and calls.

``listen`` and ``dial`` make ``Peer`` objects; either side hosts ``Service`` objects and calls the other's.
"""

from haptera.peer.calls import Answer, Call, CallStream
from haptera.peer.endpoint import Server, dial, listen
from haptera.peer.peer import Peer
from haptera.peer.protocol import Credentials
from haptera.peer.service import Request, Service, method
from haptera.peer.session import SessionService

__all__ = [
    "Answer",
    "Call",
    "CallStream",
    "Credentials",
    "Peer",
    "Request",
    "Server",
    "Service",
    "SessionService",
    "dial",
    "listen",
    "method",
]
