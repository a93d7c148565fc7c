"""A dialer and an acceptor that authenticate over no wire: what the tests of both roles share."""

from __future__ import annotations

from base64 import b64decode, b64encode

from haptera.security import (
    Binding,
    ScramAcceptor,
    ScramDialer,
    Verifier,
    derive_keys,
    hello_binding,
    verifier_of,
)

NAME, PASSWORD, SALT = "app", "correct horse battery", bytes(range(16))
#: As few as are allowed, because each exchange of a test derives the keys again.
ITERATIONS = 4096
BINDING = hello_binding(b"the HELLO frame", b"the WELCOME frame", None)
DIALER_NONCE, ACCEPTOR_NONCE = "d" * 24, "a" * 24
VERIFIER = verifier_of(PASSWORD, SALT, ITERATIONS)


def dialer(name: str = NAME, binding: Binding = BINDING, nonce: str = DIALER_NONCE) -> ScramDialer:
    return ScramDialer(name, binding, nonce)


def acceptor(binding: Binding = BINDING, nonce: str = ACCEPTOR_NONCE) -> ScramAcceptor:
    return ScramAcceptor(binding, nonce)


def client_final(
    one: ScramDialer,
    other: ScramAcceptor,
    *,
    password: str = PASSWORD,
    verifier: Verifier = VERIFIER,
    admitted: bool = True,
) -> bytes:
    """Take an exchange up to the dialer's last message."""
    other.receive_first(one.first())
    salt, iterations = one.challenge(other.challenge(verifier, admitted=admitted))
    return one.prove(derive_keys(password, salt, iterations))


def with_flipped_bit(message: bytes, attribute: bytes, bit: int) -> bytes:
    """Flip a bit in the value, in base64, of the last attribute of a message."""
    head, mark, value = message.rpartition(attribute + b"=")
    changed = bytearray(b64decode(value))
    changed[bit // 8] ^= 1 << bit % 8
    return head + mark + b64encode(changed)
