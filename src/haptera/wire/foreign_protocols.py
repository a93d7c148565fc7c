"""Other protocols, told by the first bytes of their clients and servers (spec/protocol.md, section 2).

A client at the wrong port is common, and the two bytes that are no magic mean nothing to a person.
"""

from __future__ import annotations

from typing import Final

from haptera.errors import Code, RemoteProtocolError

_HTTP_ADVICE: Final = b"This address speaks Haptera, not HTTP.\n"
_HTTP_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(_HTTP_ADVICE), _HTTP_ADVICE)
)
_RESP_ANSWER: Final = b"-ERR this address speaks Haptera, not RESP; a listener of resp:// speaks RESP\r\n"
_SSH_ANSWER: Final = b"This address speaks Haptera, not SSH.\r\n"

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI")

#: For each protocol the bytes that a side of it begins with: its requests, and answers to bytes that it does not know.
_BEGINNINGS: Final[dict[str, tuple[bytes, ...]]] = {
    "TLS": (b"\x16\x03", b"\x15\x03"),
    "HTTP": (b"HTTP/", *(f"{method} ".encode() for method in _METHODS), b"<!DOCTYPE", b"<html"),
    "RESP": (
        *(b"*%d" % digit for digit in range(1, 10)),
        *(b"-ERR ", b"-NOAUTH ", b"-DENIED ", b"+OK\r", b"+PONG"),
        *(b"PING\r", b"PING\n", b"AUTH ", b"INFO\r", b"ping\r", b"ping\n"),
    ),
    "SSH": (b"SSH-",),
    "CAFE": (b"\xca\xfe",),
}
#: The answer to a dialer of each protocol that its users can read. A dialer of TLS reads ERROR.
_ANSWERS: Final = {"HTTP": _HTTP_ANSWER, "RESP": _RESP_ANSWER, "SSH": _SSH_ANSWER}


class ForeignBytes(RemoteProtocolError):
    """The other side speaks ``protocol``. ``answer`` tells a dialer so in that protocol; empty where ERROR does."""

    def __init__(self, protocol: str) -> None:
        super().__init__(
            Code.MALFORMED_FRAME, f"the bytes are {protocol}, and this side of the connection does not speak it"
        )
        self.protocol = protocol
        self.answer: bytes = _ANSWERS.get(protocol, b"")


def foreign_protocol(first: bytes) -> str | None:
    """Return the protocol whose sides begin like this; None where that is not known."""
    return next((name for name, known in _BEGINNINGS.items() if first.startswith(known)), None)
