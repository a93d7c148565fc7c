"""SCRAM-SHA-256 (RFC 5802, RFC 7677) as two state machines over bytes, the dialer's and the acceptor's.

Each takes its steps in one order; the steps of the two alternate::

    dialer                                           acceptor
    first()      -- client-first --------------->    receive_first()
    challenge()  <-------------- server-first ---    challenge()
    prove()      -- client-final --------------->    receive_final()
    conclude()   <-------------- server-final ---

A step that is not the next one is a mistake of the program (``ValueError``). A message that does not convince ends the
exchange with `ExchangeFailed`, and no step comes after that. The dialer's keys are derived between `challenge` and
`prove` by its owner, because that takes long and may be done in another thread (`haptera.security.salted_passwords`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING

from haptera.access_rules import is_name
from haptera.security.errors import ExchangeFailed
from haptera.security.scram_messages import (
    read_client_final,
    read_client_first,
    read_server_final,
    read_server_first,
    write_client_final,
    write_client_final_bare,
    write_client_first,
    write_server_final,
    write_server_first,
)

if TYPE_CHECKING:
    from haptera.security.binding import Binding
    from haptera.security.scram_messages import ClientFirst, ServerFirst
    from haptera.security.verifiers import ClientKeys, Verifier


class _State(Enum):
    """How far an exchange has come: in either role a step leads from each of the first three to the one behind it."""

    NEW = "new"
    NAMED = "named"
    CHALLENGED = "challenged"
    PROVED = "proved"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The secret of an exchange from which the keys of signed frames are derived (spec/protocol.md, section 5.2)."""

    ikm: bytes = field(repr=False)
    salt: bytes = field(repr=False)


class _Exchange:
    """The place of an exchange in its course. A step has failed unless it says that it has succeeded."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _State.NEW

    def _begin(self, state: _State) -> None:
        if self._state is not state:
            raise ValueError(f"this is no step of an exchange that is {self._state.value}")
        self._state = _State.FAILED

    @property
    def done(self) -> bool:
        """Whether the peer has proved its identity."""
        return self._state is _State.DONE


class ScramDialer(_Exchange):
    """The side that knows the password of a user. ``nonce`` is a new one for each exchange.

    The first message may leave before the connection's handshake is done: ``binding`` is then `UNBOUND`, and `bind`
    gives the real one before the proof.
    """

    __slots__ = ("_auth_message", "_binding", "_first", "_keys", "_server_first")

    def __init__(self, name: str, binding: Binding, nonce: str) -> None:
        if not is_name(name):
            raise ValueError("no user has this name")
        super().__init__()
        self._binding = binding
        self._first: ClientFirst = write_client_first(name, nonce)
        self._server_first: ServerFirst | None = None
        self._keys: ClientKeys | None = None
        self._auth_message = b""

    def first(self) -> bytes:
        """Return client-first."""
        self._begin(_State.NEW)
        self._state = _State.NAMED
        return (self._binding.gs2_header + self._first.bare).encode()

    def bind(self, binding: Binding) -> None:
        """Bind the proof to the connection, whose handshake is done by now."""
        if self._state not in {_State.NEW, _State.NAMED}:
            raise ValueError(f"this is no step of an exchange that is {self._state.value}")
        self._binding = binding

    def challenge(self, message: bytes) -> tuple[bytes, int]:
        """Take server-first; return the salt and the iterations for the keys that `prove` needs."""
        self._begin(_State.NAMED)
        self._server_first = read_server_first(message, self._first.nonce)
        self._state = _State.CHALLENGED
        return self._server_first.salt, self._server_first.iterations

    def prove(self, keys: ClientKeys) -> bytes:
        """Return client-final."""
        self._begin(_State.CHALLENGED)
        assert self._server_first is not None
        bare = write_client_final_bare(self._binding, self._server_first.nonce)
        self._keys = keys
        self._auth_message = _auth_message(self._first, self._server_first, bare)
        stored_key = sha256(keys.client_key).digest()
        signature = hmac.digest(stored_key, self._auth_message, "sha256")
        self._state = _State.PROVED
        return write_client_final(bare, _exclusive_or(keys.client_key, signature))

    def signing_secret(self) -> SigningSecret:
        """The secret of the keys that sign each frame behind client-final, which this side has sent."""
        if self._keys is None:
            raise ValueError("no proof was given yet")
        return _signing_secret(self._keys.client_key, self._keys.server_key, self._auth_message)

    def conclude(self, message: bytes) -> None:
        """Take server-final, by which the acceptor proves that it knows the verifier. Else nothing of it is trusted."""
        self._begin(_State.PROVED)
        assert self._keys is not None
        expected = hmac.digest(self._keys.server_key, self._auth_message, "sha256")
        if not hmac.compare_digest(read_server_final(message), expected):
            raise ExchangeFailed("the acceptor does not know the verifier")
        self._state = _State.DONE


class ScramAcceptor(_Exchange):
    """The side that has the verifiers. ``nonce`` is a new one for each exchange."""

    __slots__ = (
        "_admitted",
        "_auth_message",
        "_binding",
        "_client_key",
        "_first",
        "_nonce",
        "_server_first",
        "_verifier",
    )

    def __init__(self, binding: Binding, nonce: str) -> None:
        super().__init__()
        self._binding = binding
        self._nonce = nonce
        self._first: ClientFirst | None = None
        self._server_first: ServerFirst | None = None
        self._verifier: Verifier | None = None
        self._admitted = False
        self._client_key = b""
        self._auth_message = b""

    def receive_first(self, message: bytes) -> str:
        """Take client-first; return the name of the user that the dialer says it is."""
        self._begin(_State.NEW)
        self._first = read_client_first(message, self._binding)
        self._state = _State.NAMED
        return self._first.name

    def challenge(self, verifier: Verifier, *, admitted: bool) -> bytes:
        """Return server-first.

        A user that is unknown, or may not come in, is not ``admitted``, and fails like one with a wrong password. An
        unknown one has a `decoy` for a verifier, and one that may not come in its own.
        """
        self._begin(_State.NAMED)
        assert self._first is not None
        self._verifier, self._admitted = verifier, admitted
        nonce = self._first.nonce + self._nonce
        self._server_first = write_server_first(nonce, verifier.salt, verifier.iterations)
        self._state = _State.CHALLENGED
        return self._server_first.text.encode()

    def receive_final(self, message: bytes) -> bytes:
        """Take client-final; return server-final: the dialer is the user that it has named."""
        self._begin(_State.CHALLENGED)
        first, server_first, verifier = self._first, self._server_first, self._verifier
        assert first is not None
        assert server_first is not None
        assert verifier is not None
        final = read_client_final(message)
        auth_message = _auth_message(first, server_first, final.bare)
        signature = hmac.digest(verifier.stored_key, auth_message, "sha256")
        client_key = _exclusive_or(final.proof, signature)
        # All of it is compared, also behind a failure: the time tells nothing.
        proved = hmac.compare_digest(sha256(client_key).digest(), verifier.stored_key)
        bound = hmac.compare_digest(final.binding.encode(), self._binding.attribute.encode())
        fresh = hmac.compare_digest(final.nonce.encode(), server_first.nonce.encode())
        if not proved & bound & fresh & self._admitted:
            raise ExchangeFailed(_reason(proved=proved, bound=bound, fresh=fresh))
        self._client_key, self._auth_message = client_key, auth_message
        self._state = _State.DONE
        return write_server_final(hmac.digest(verifier.server_key, auth_message, "sha256"))

    def signing_secret(self) -> SigningSecret:
        """The secret of the keys that sign all frames from here on."""
        if not self.done:
            raise ValueError("the dialer has not proved its identity")
        assert self._verifier is not None
        return _signing_secret(self._client_key, self._verifier.server_key, self._auth_message)


def _reason(*, proved: bool, bound: bool, fresh: bool) -> str:
    """Why client-final does not convince. Without the proof the two others may be anything."""
    if not proved:
        return "the proof is wrong: another password, another binding, or an unknown user"
    if not bound:
        return "the dialer has seen another handshake: somebody stands between"
    if not fresh:
        return "the proof is for another challenge"
    return "the user may not come in"


def _auth_message(first: ClientFirst, server_first: ServerFirst, final_bare: str) -> bytes:
    return f"{first.bare},{server_first.text},{final_bare}".encode()


def _signing_secret(client_key: bytes, server_key: bytes, auth_message: bytes) -> SigningSecret:
    return SigningSecret(client_key + server_key, sha256(auth_message).digest())


def _exclusive_or(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
