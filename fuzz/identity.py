"""The fuzz targets of the exchanges that authenticate a user: SCRAM's messages, and PLAIN's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from haptera.access_rules import is_name
from haptera.security import (
    ExchangeFailed,
    PlainLogin,
    ScramAcceptor,
    ScramDialer,
    Verifier,
    derive_keys,
    hello_binding,
    read_plain,
    verifier_of,
    write_plain,
)
from haptera.security.scram_messages import MESSAGE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

USER: Final = "app"
PASSWORD: Final = "correct horse battery staple"
DIALER_NONCE: Final = "d" * 24
ACCEPTOR_NONCE: Final = "a" * 24
BINDING: Final = hello_binding(b"HELLO", b"WELCOME", None)
VERIFIER: Final[Verifier] = verifier_of(PASSWORD, bytes(range(16)), 4096)
KEYS: Final = derive_keys(PASSWORD, bytes(range(16)), 4096)

_EXTENSIONS: Final = r"(?P<extensions>(?:,[bdfghjkloqtuw-zA-Z]=[^,\0]+)*)"
_NONCE: Final = r"[\x21-\x2b\x2d-\x7e]{16,128}"
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?"
#: The grammar of RFC 5802, section 7, with the bounds of Haptera: written again from its text.
GRAMMAR: Final = (
    re.compile(rf"p=haptera-hello,,n=(?P<name>(?:[^,=\0]|=2C|=3D)+),r={_NONCE}{_EXTENSIONS}"),
    re.compile(rf"r={DIALER_NONCE}{_NONCE},s=(?P<binary>{_BASE64}),i=(?P<iterations>[1-9][0-9]{{3,6}}){_EXTENSIONS}"),
    re.compile(rf"c=[^,\0]+,r=[^,\0]+{_EXTENSIONS},p=(?P<binary>{_BASE64})"),
    re.compile(rf"v=(?P<binary>{_BASE64}){_EXTENSIONS}"),
)


def check_scram(data: bytes) -> None:
    """Any message is read if the grammar has it, and nothing that a stranger makes completes an exchange."""
    step, message = (data[0] if data else 0) % 4, data[1:]
    one, other = ScramDialer(USER, BINDING, DIALER_NONCE), ScramAcceptor(BINDING, ACCEPTOR_NONCE)
    first = one.first()
    receive: Callable[[bytes], object]
    match step:
        case 0:
            receive, honest = other.receive_first, first
        case 1:
            other.receive_first(first)
            receive, honest = one.challenge, other.challenge(VERIFIER, admitted=True)
        case 2:
            other.receive_first(first)
            one.challenge(other.challenge(VERIFIER, admitted=True))
            receive, honest = other.receive_final, one.prove(KEYS)
        case _:
            other.receive_first(first)
            one.challenge(other.challenge(VERIFIER, admitted=True))
            receive, honest = one.conclude, other.receive_final(one.prove(KEYS))
    try:
        receive(message)
    except ExchangeFailed as error:
        assert error.failure() == ExchangeFailed("").failure()
        assert step > 1 or not _in_grammar(step, message)
        assert message != honest
        return
    assert _in_grammar(step, message)
    if step == 3:  # extensions of the acceptor's last message are signed by nobody
        assert message.startswith(honest)
    elif step == 2:
        assert message == honest


def _in_grammar(step: int, message: bytes) -> bool:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return False
    found = GRAMMAR[step].fullmatch(text)
    if found is None or len(message) > MESSAGE_SIZE_MAX:
        return False
    letters = [each[0] for each in found["extensions"].split(",")[1:]]
    if len(set(letters)) < len(letters):
        return False
    if step == 0:
        return is_name(re.sub("=2C|=3D", lambda each: "," if each[0] == "=2C" else "=", found["name"]))
    if step == 1:
        return _is_base64(found["binary"], 16, 64) and 4096 <= int(found["iterations"]) <= 1_000_000
    return _is_base64(found["binary"], 32, 32)


def _is_base64(text: str, low: int, high: int) -> bool:
    """Whether a text of the alphabet is the only base64 of so many bytes: the bits behind its end are zeros."""
    bits = "".join(f"{_ALPHABET.index(sign):06b}" for sign in text.rstrip("="))
    size, rest = divmod(len(bits), 8)
    return low <= size <= high and rest < 6 and "1" not in bits[size * 8 :]


_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def check_plain(data: bytes) -> None:
    """Any bytes are a name and a password, which are written again as they were, or the one error."""
    try:
        login = read_plain(data)
    except ExchangeFailed as error:
        assert error.failure() == ExchangeFailed("").failure()
        return
    assert write_plain(login) == data
    assert repr(login) == repr(PlainLogin(login.name, "another"))
