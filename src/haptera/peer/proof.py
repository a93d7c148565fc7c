"""The exchange by which the dialling side of a connection proves who its user is (spec/protocol.md, section 5.1).

Until it has ended well the other side may be anyone: this one serves nothing, and hands no answer to its program.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.connection import CallFailed, Closed, ErrorReceived, Event, ResponseReceived, beginning_of, guard_of
from haptera.errors import Code, Failure, LocalProtocolError, failure
from haptera.peer.authentication import PLAIN, SCRAM
from haptera.peer.password_work import OWN_WORK, SALTED_PASSWORDS
from haptera.security import (
    UNBOUND,
    ExchangeFailed,
    PlainLogin,
    ScramDialer,
    link_binding,
    new_nonce,
    write_plain,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.peer.link import Link
    from haptera.peer.own_credential import OwnCredential
    from haptera.peer.request import Request
    from haptera.security import ClientKeys

_encode: Final = msgspec.msgpack.Encoder().encode
_answer: Final = msgspec.msgpack.Decoder(tuple[bool, bytes])
_ROOT: Final = 0


class Proof:
    """Leads the exchange of one dialled connection; ``accepted`` is called once when it has ended well."""

    def __init__(self, link: Link, login: OwnCredential, accepted: Callable[[], None]) -> None:
        #: Answers of the other side that wait for the end of the exchange: refusals of requests of the first flight.
        self.held: list[Event] = []
        self._link = link
        self._connection = link.connection
        self._login = login
        self._accepted = accepted
        self._streams: set[int] = set()
        self._scram: ScramDialer | None = None
        self._proved = False  # whether the last message is sent

    def sort(self, arrived: list[Request]) -> None:
        """Keep the other side's requests: none is served yet."""

    def begin(self) -> None:
        """The transport is open: send the first message in one write with HELLO, where nothing speaks against it.

        A password as it is, and a certificate that may not be asked for, wait for the other side's word.
        """
        login = self._login
        if self._connection.can_request(0) and not (login.optional or login.mechanism == PLAIN):
            self._send_first()  # the calls that are about to be made leave in the same write

    def proves(self, mechanisms: Sequence[str]) -> bool:
        """Whether there is a proof to give, as the other side lists the ways in which it may be given."""
        return not self._login.optional or self._login.mechanism in mechanisms

    def welcomed(self, mechanisms: Sequence[str]) -> None:
        """The handshake is done: send the first message, if it has not left, or end where it would not be taken."""
        login = self._login
        if login.mechanism not in mechanisms:
            text = f"the other side offers {', '.join(mechanisms)}, and this one has a credential for {login.mechanism}"
            if not mechanisms:
                text = "the other side asks this one for no login here, and so takes no user and no password"
            self._end(failure(Code.UNSUPPORTED_MECHANISM, {"mechanisms": list(mechanisms)}, message=text))
        elif login.mechanism == PLAIN and not self._is_private():
            text = "a password is not sent as it is over a link that others may read or answer"
            self._end(failure(Code.UNSUPPORTED_MECHANISM, {"mechanisms": list(mechanisms)}, message=text))
        elif not self._streams:
            self._send_first()
            self._link.schedule_flush()

    def _is_private(self) -> bool:
        """Whether the other side is verified by TLS, or is a process of this user or of root by the kernel's word."""
        credentials = self._link.credentials
        return self._link.tls is not None or (credentials is not None and credentials.uid in {os.geteuid(), _ROOT})

    # -- the steps --------------------------------------------------------------------------------------------------

    def _send_first(self) -> None:
        login = self._login
        message = b""
        if login.mechanism == SCRAM:
            self._scram = ScramDialer(login.user, UNBOUND, new_nonce(self._connection.config.entropy))
            message = self._scram.first()
        else:
            self._proved = True
            if login.mechanism == PLAIN:
                message = write_plain(PlainLogin(login.user, login.password))
        self._send(message)

    def _send(self, message: bytes) -> None:
        try:
            self._streams.add(self._connection.authenticate(_encode((self._login.mechanism, message))))
        except LocalProtocolError as error:  # the other side goes away
            self._end(failure(Code.GOING_AWAY, message=error.message))

    def takes(self, event: Event) -> bool:
        """Whether an event is the exchange's, or has to wait for its end."""
        return isinstance(event, ResponseReceived | ErrorReceived | CallFailed)

    def take(self, event: Event) -> None:
        """Take an answer: to a message of the exchange, or to another request."""
        assert isinstance(event, ResponseReceived | ErrorReceived | CallFailed)
        if event.stream not in self._streams:
            self.held.append(event)  # as few as the requests of a first flight
        elif isinstance(event, ErrorReceived):
            self._link.end(Closed(None, event.failure), "it was not let in")
        elif isinstance(event, CallFailed):
            self._end(event.failure)
        else:
            self._take_answer(event.payload)

    def _take_answer(self, payload: bytes) -> None:
        try:
            done, message = _answer.decode(payload)
            if done is not self._proved:
                raise ExchangeFailed("the acceptor ends the exchange too early, or not at all")
            if not done:
                self._take_challenge(message)
                return
            if self._scram is not None:
                self._scram.conclude(message)
            elif message:
                raise ExchangeFailed("the acceptor answers with a message that the mechanism does not have")
        except (ExchangeFailed, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._distrust(error.reason if isinstance(error, ExchangeFailed) else "its answer is malformed")
            return
        self._accepted()

    def _take_challenge(self, message: bytes) -> None:
        scram = self._scram
        assert scram is not None
        hello, welcome = guard_of(self._connection).transcript
        scram.bind(link_binding(hello, welcome, self._link.binding))
        salt, iterations = scram.challenge(message)
        password = self._login.password
        known = SALTED_PASSWORDS.known(password, salt, iterations)
        if known is not None:
            self._prove(known)
            return
        deriving = OWN_WORK.run(self._link.loop, "", lambda: SALTED_PASSWORDS.derive(password, salt, iterations))
        if deriving is None:
            self._end(failure(Code.TOO_MANY_REQUESTS, {"reason": "too many passwords are worked on"}))
        else:
            deriving.add_done_callback(self._derived)

    def _derived(self, deriving: asyncio.Future[ClientKeys]) -> None:
        if self._link.ending is None and not deriving.cancelled():
            self._prove(deriving.result())

    def _prove(self, keys: ClientKeys) -> None:
        assert self._scram is not None
        self._proved = True
        self._send(self._scram.prove(keys))
        if self._connection.config.signs_by_exchange and self._link.ending is None:
            secret = self._scram.signing_secret()
            beginning_of(self._connection).sign_behind(secret.ikm, secret.salt)
        self._link.schedule_flush()

    # -- the end ----------------------------------------------------------------------------------------------------

    def _distrust(self, reason: str) -> None:
        text = f"the other side has not proved its identity: {reason}"
        self._end(failure(Code.AUTHENTICATION_FAILED, message=text))

    def _end(self, refusal: Failure) -> None:
        """End the connection for a reason of this side's own."""
        self._link.end(Closed(None), refusal.message, refusal=refusal)
