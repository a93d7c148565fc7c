"""The messaging library: connections under asyncio, services and calls.

``listen`` and ``dial`` make ``Peer`` objects; either side hosts ``Service`` objects and calls the other's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily
from haptera.peer.assembly import assemble
from haptera.peer.authentication import EXTERNAL, PLAIN, SCRAM, Authenticator
from haptera.peer.backoff import Backoff, Pauses
from haptera.peer.call import Answer, Call, CallStream
from haptera.peer.connector import Connector, Dial, Flight
from haptera.peer.event_log import EventLog
from haptera.peer.foreign_bytes import is_frame, judge_dialler, refusal_of_frame
from haptera.peer.identity import ANYONE, Identity
from haptera.peer.keywords import ConnectionOptions
from haptera.peer.listen_and_dial import dial, dial_address, listen
from haptera.peer.own_credential import login_of
from haptera.peer.peer import Peer, link_of, send_away, share_budget
from haptera.peer.remote_address import (
    Credentials,
    address_of,
    describe_remote,
    host_of,
    place_of,
    unix_credentials,
)
from haptera.peer.request import Request, respond_all
from haptera.peer.secret_files import check_key_file, read_key_file, read_password_file
from haptera.peer.server import Server, tls_of
from haptera.peer.service import Service, method, typed_method
from haptera.peer.session import SessionService, has_no_argument
from haptera.peer.trace import Trace
from haptera.peer.typed_answers import TypedCallStream
from haptera.peer.typed_methods import TypedMethod
from haptera.peer.url_options import read_listening_options, read_options
from haptera.timeouts import DEFAULT, Timeout, check_timeout

if TYPE_CHECKING:
    from haptera.peer.lasting_peer import LastingPeer
    from haptera.peer.lasting_stream import LastingStream
    from haptera.peer.password_users import PasswordUsers, verifier_for
    from haptera.peer.password_work import WORK
    from haptera.security import Verifier, decoy

# A library prints nothing by itself: without this, Python would print its warnings where no logging is set up. Every
# part that logs loads this one.
logging.getLogger("haptera").addHandler(logging.NullHandler())

__all__ = [
    "ANYONE",
    "DEFAULT",
    "EXTERNAL",
    "PLAIN",
    "SCRAM",
    "WORK",
    "Answer",
    "Authenticator",
    "Backoff",
    "Call",
    "CallStream",
    "ConnectionOptions",
    "Connector",
    "Credentials",
    "Dial",
    "EventLog",
    "Flight",
    "Identity",
    "LastingPeer",
    "LastingStream",
    "PasswordUsers",
    "Pauses",
    "Peer",
    "Request",
    "Server",
    "Service",
    "SessionService",
    "Timeout",
    "Trace",
    "TypedCallStream",
    "TypedMethod",
    "Verifier",
    "address_of",
    "assemble",
    "check_key_file",
    "check_timeout",
    "decoy",
    "describe_remote",
    "dial",
    "dial_address",
    "has_no_argument",
    "host_of",
    "is_frame",
    "judge_dialler",
    "link_of",
    "listen",
    "login_of",
    "method",
    "place_of",
    "read_key_file",
    "read_listening_options",
    "read_options",
    "read_password_file",
    "refusal_of_frame",
    "respond_all",
    "send_away",
    "share_budget",
    "tls_of",
    "typed_method",
    "unix_credentials",
    "verifier_for",
]

#: Names that stand for passwords, each with its module, which is imported when it is first used.
_LATER: Final = {
    "WORK": "haptera.peer.password_work",
    "LastingPeer": "haptera.peer.lasting_peer",
    "LastingStream": "haptera.peer.lasting_stream",
    "PasswordUsers": "haptera.peer.password_users",
    "Verifier": "haptera.security",
    "decoy": "haptera.security",
    "verifier_for": "haptera.peer.password_users",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _LATER)
