"""CLIENT: the names that a client gives its connection, and the list of connections.

A user sees the connections of its own, and with the permission `admin` all of them. Another one looks like one that is
not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from haptera.dialects.resp.client_details import ClientDetails, details_of, is_client_name, known_details
from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.reply_encoding import OK, bulk, error, integer, verbatim
from haptera.key_rules import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Step
    from haptera.node.frontend import DialectCaller, FrontendConnection

INVALID_CLIENT_NAME: Final = error("ERR Client names cannot contain spaces, newlines or special characters.")
_NO_SUCH_CLIENT: Final = error("ERR No such client")
_NO_CLIENT_ID: Final = error("ERR client-id should be greater than 0")
_INVALID_CLIENT_ID: Final = error("ERR Invalid client ID")

#: The types that connections have in lists. None of ours replicates.
_TYPES: Final = frozenset({b"NORMAL", b"MASTER", b"REPLICA", b"SLAVE", b"PUBSUB"})

#: A connection of this protocol: the connection itself, and the details of its client.
Listed = tuple["FrontendConnection", ClientDetails]


def _id(session: RespSession, arguments: list[bytes]) -> Step:
    return integer(session.caller.number)


def _getname(session: RespSession, arguments: list[bytes]) -> Step:
    name = details_of(session.caller).name
    return bulk(name) if name else session.null


def _setname(session: RespSession, arguments: list[bytes]) -> Step:
    if not is_client_name(arguments[2]):
        return INVALID_CLIENT_NAME
    details_of(session.caller).name = arguments[2]
    return OK


def _setinfo(session: RespSession, arguments: list[bytes]) -> Step:
    name, value = arguments[2].upper(), arguments[3]
    if name not in {b"LIB-NAME", b"LIB-VER"}:
        return error(f"ERR Unrecognized option '{arguments[2].decode(errors='surrogateescape')}'")
    if not is_client_name(value):
        return error(f"ERR {name.decode().lower()} cannot contain spaces, newlines or special characters.")
    details = details_of(session.caller)
    if name == b"LIB-NAME":
        details.library = value
    else:
        details.library_version = value
    return OK


def _on_or_off(session: RespSession, arguments: list[bytes]) -> Step:
    """NO-EVICT and NO-TOUCH: no connection is ever evicted, and no read changes what is kept of a key."""
    return OK if arguments[2].upper() in {b"ON", b"OFF"} else SYNTAX


def _is_pubsub(connection: FrontendConnection) -> bool:
    return bool(connection.caller.attributes.get("resp_subscriptions"))


def _listed(session: RespSession) -> Iterator[Listed]:
    """The connections of this protocol that the caller may see, in the order of their numbers."""
    caller = session.caller
    sees_all = caller.submitter.lacks("admin") is None
    own = None if caller.identity is None else caller.identity.user
    for connection in sorted(caller.facts.connections(), key=lambda each: cast("int", each.caller.number)):
        other = connection.caller
        details = known_details(other)
        if details is None and other is caller:
            details = details_of(caller)
        if details is not None and (sees_all or (other.identity is not None and other.identity.user == own)):
            yield connection, details


def line_of(connection: FrontendConnection, details: ClientDetails) -> str:
    """Return the line of a connection, as CLIENT LIST shows it: the fields of Redis that a node knows."""
    caller = connection.caller
    fields: dict[str, object] = {
        "id": caller.number,
        "addr": caller.remote,
        "name": details.name.decode(),
        "age": max(0, caller.facts.clock_ms() - details.began_ms) // 1000,
        "flags": "P" if _is_pubsub(connection) else "N",
        "db": 0,
        "user": user_of(caller),
        "resp": details.version,
        "lib-name": details.library.decode(),
        "lib-ver": details.library_version.decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def user_of(caller: DialectCaller) -> str:
    """Return the name of a caller's user; `default`, as Redis has it, where there are no users."""
    return caller.identity.user if caller.identity is not None and caller.identity.user else "default"


def _info(session: RespSession, arguments: list[bytes]) -> Step:
    line = line_of(session.connection, details_of(session.caller))
    return verbatim(line + "\n", session.protocol)


def _list(session: RespSession, arguments: list[bytes]) -> Step:
    options = arguments[2:]
    numbers: set[int] | None = None
    kind = b""
    if options and options[0].upper() == b"TYPE" and len(options) == 2:
        kind = options[1].upper()
        if kind not in _TYPES:
            return error(f"ERR Unknown client type '{options[1].decode(errors='surrogateescape')}'")
    elif options and options[0].upper() == b"ID" and len(options) > 1:
        numbers = set()
        for each in options[1:]:
            number = number_of(each)
            if number is None or number < 1:
                return _INVALID_CLIENT_ID
            numbers.add(number)
    elif options:
        return SYNTAX
    lines = [
        line_of(connection, details) + "\n"
        for connection, details in _listed(session)
        if (numbers is None or connection.caller.number in numbers) and (not kind or _has_type(connection, kind))
    ]
    return verbatim("".join(lines), session.protocol)


def _has_type(connection: FrontendConnection, kind: bytes) -> bool:
    return kind == (b"PUBSUB" if _is_pubsub(connection) else b"NORMAL")


class _Filters:
    """The conditions of CLIENT KILL: a connection is closed that meets all of them."""

    def __init__(self) -> None:
        self.skips_own = True
        self.tests: list[Callable[[FrontendConnection], bool]] = []

    def add(self, option: bytes, value: bytes, now_ms: int) -> bytes | None:
        """Add one. Returns the error of one that is none."""
        text = value.decode(errors="surrogateescape")
        match option.upper():
            case b"ID" | b"MAXAGE":
                number = number_of(value)
                if number is None or number < 1:
                    return _NO_CLIENT_ID if option.upper() == b"ID" else NOT_AN_INTEGER
                if option.upper() == b"ID":
                    self.tests.append(lambda each: each.caller.number == number)
                else:
                    self.tests.append(lambda each: now_ms - details_of(each.caller).began_ms >= number * 1000)
            case b"ADDR":
                self.tests.append(lambda each: each.caller.remote == text)
            case b"USER":
                self.tests.append(lambda each: user_of(each.caller) == text)
            case b"TYPE":
                if value.upper() not in _TYPES:
                    return error(f"ERR Unknown client type '{text}'")
                self.tests.append(lambda each: _has_type(each, value.upper()))
            case b"SKIPME" if value.upper() in {b"YES", b"NO"}:
                self.skips_own = value.upper() == b"YES"
            case _:
                return SYNTAX
        return None


def _kill(session: RespSession, arguments: list[bytes]) -> Step:
    filters = _Filters()
    options = arguments[2:]
    if len(options) == 1:
        filters.skips_own = False
        filters.add(b"ADDR", options[0], 0)
    elif len(options) % 2:
        return SYNTAX
    else:
        now_ms = session.caller.facts.clock_ms()
        for option, value in zip(options[::2], options[1::2], strict=True):
            refused = filters.add(option, value, now_ms)
            if refused is not None:
                return refused
    closed = _close(session, filters, [connection for connection, _ in _listed(session)])
    if len(options) == 1:
        return OK if closed else _NO_SUCH_CLIENT
    return integer(closed)


def _close(session: RespSession, filters: _Filters, connections: Iterable[FrontendConnection]) -> int:
    closed = 0
    for connection in connections:
        own = connection is session.connection
        if (own and filters.skips_own) or not all(test(connection) for test in filters.tests):
            continue
        closed += 1
        if own:
            session.close_when_answered()
        else:
            connection.abort()
    return closed


_PLAIN: Final = "noscript loading stale"
_ADMIN: Final = "admin noscript loading stale"

#: The parts of CLIENT that are here; those of client-side caching come beside them.
PARTS: Final[tuple[Command, ...]] = (
    part("client|getname", 2, _PLAIN, "2.6.9", "Show the name of this connection.", _getname),
    part("client|id", 2, _PLAIN, "5.0.0", "Show the number of this connection.", _id),
    part("client|info", 2, _PLAIN, "6.2.0", "Show the line of this connection in the list.", _info),
    part("client|kill", -3, _ADMIN, "2.4.0", "Close connections: an address, or ID, ADDR, USER, TYPE, MAXAGE.", _kill),
    part("client|list", -2, _ADMIN, "2.4.0", "List the connections of this user, or all for an administrator.", _list),
    part("client|no-evict", 3, _ADMIN, "7.0.0", "Nothing is done: no connection is evicted.", _on_or_off),
    part("client|no-touch", 3, _PLAIN, "7.2.0", "Nothing is done: no read changes a key.", _on_or_off),
    part("client|setinfo", 4, _PLAIN, "7.2.0", "Tell the library of the client: LIB-NAME, LIB-VER.", _setinfo),
    part("client|setname", 3, _PLAIN, "2.6.9", "Name this connection.", _setname),
)


def client_command(more: Iterable[Command]) -> Command:
    """Return the row of CLIENT, with more parts beside those that are here."""
    return command_of_parts("client", -2, "2.4.0", "Name connections, and list them.", [*PARTS, *more])
