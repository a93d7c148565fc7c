"""The entrance of one accepted connection: nothing but the proof of an identity is served before it is given
(spec/protocol.md, section 5.1).

Every failure looks the same to the other side. The steps of an exchange are the same for a user that there is and for
one that there is not, and so is the work of each.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.connection import AUTHENTICATE, SESSION_SERVICE, Closed, beginning_of, guard_of
from haptera.errors import Code, Failure, RemoteProtocolError, failure
from haptera.peer.authentication import EXTERNAL, PLAIN, SCRAM
from haptera.peer.event_log import guard, shortened
from haptera.peer.identity import Identity
from haptera.peer.password_work import WORK
from haptera.peer.remote_address import place_of
from haptera.security import ExchangeFailed, ScramAcceptor, link_binding, new_nonce, read_plain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.peer.authentication import Authenticator
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.event_log import EventLog
    from haptera.peer.link import Link
    from haptera.peer.peer import Peer
    from haptera.peer.request import Request
    from haptera.security import SigningSecret, Verifier

_logger = logging.getLogger("haptera.peer")

#: Failed attempts that end a connection with the last of them (section 5.1).
FAILURES_MAX: Final = 3
#: The methods that are served before the proof.
_METHODS: Final = [AUTHENTICATE, "describe"]
_TOO_MUCH_WORK: Final = "too many passwords are worked on"

_encode: Final = msgspec.msgpack.Encoder().encode
_argument: Final = msgspec.msgpack.Decoder(tuple[str, bytes])


class Entrance:
    """Leads the attempts of one connection; ``admitted`` is called once when one has succeeded."""

    def __init__(
        self,
        link: Link,
        dispatcher: Dispatcher,
        authenticator: Authenticator,
        log: EventLog,
        admitted: Callable[[], None],
    ) -> None:
        self._link = link
        self._connection = link.connection
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._log = log
        self._admitted = admitted
        self._offered: tuple[str, ...] = ()
        self._failures = 0
        # The attempt that is under way: its mechanism, and its user as soon as one is named.
        self._mechanism = ""
        self._name = ""
        self._begun = False  # the authenticator has let it begin, so it is told of the end
        self._scram: ScramAcceptor | None = None
        # The user's verifier, and whether the user may come in, by which the attempt is judged.
        self._judged_by: tuple[Verifier, bool] | None = None
        self._checking: asyncio.Future[bool] | None = None

    @property
    def _peer(self) -> Peer:
        return self._dispatcher.peer

    @property
    def _busy(self) -> bool:
        return bool(self._mechanism)

    @property
    def _expects(self) -> bool:
        """Whether an exchange is about to begin: the other side learns from WELCOME alone that its certificate, or its
        process, is asked for, and may have sent requests before.
        """
        return not self._failures and EXTERNAL in self._offered

    def offer(self) -> tuple[str, ...]:
        """Return the mechanisms of WELCOME. HELLO has come, so TLS is done, where there is any.

        Mechanisms that cannot succeed here are left out, unless none would be left: that would say that none is needed.
        """
        try:
            asked = tuple(self._authenticator.mechanisms(self._peer))
            self._offered = tuple(name for name in asked if self._is_possible(name)) or asked
        except Exception as error:
            _logger.error("authenticator_failed", exc_info=error)
            self._offered = (SCRAM,)  # no one comes in without a proof
        return self._offered

    def _is_possible(self, mechanism: str) -> bool:
        if mechanism == EXTERNAL:
            return self._authenticator.external(self._peer) is not None
        return mechanism != PLAIN or self._is_private()

    def _is_private(self) -> bool:
        """Whether a password may travel as it is."""
        return self._link.tls is not None or self._link.remote == "unix"

    def imply(self) -> None:
        """The handshake is done, and no exchange is asked for. A fault of the authenticator ends the connection."""
        try:
            self._peer.identity = self._authenticator.implied(self._peer)
        except Exception as error:
            _logger.error("authenticator_failed", exc_info=error)
            self._link.end(Closed(None), "its identity cannot be told")

    # -- requests before the proof ----------------------------------------------------------------------------------

    def sort(self, arrived: list[Request]) -> None:
        """Take the requests of the session service, keep those that wait for the attempt under way, refuse others."""
        place = 0
        while self._link.ending is None and self._connection.guarded and place < len(arrived):
            request = arrived[place]
            if request.service == SESSION_SERVICE and request.method in _METHODS:
                del arrived[place]
                if request.method == AUTHENTICATE:
                    self._authenticate(request)
                    place = 0  # where it has failed, the ones that waited for it are refused
                else:
                    request.respond(_encode([[SESSION_SERVICE, _METHODS]]))
            elif self._busy or self._expects:
                place += 1
            else:
                del arrived[place]
                request.fail(failure(Code.AUTHENTICATION_REQUIRED))

    def _authenticate(self, request: Request) -> None:
        if self._busy and self._scram is None:
            self._violated("an exchange begins while another is under way")
            return
        try:
            mechanism, message = _argument.decode(request.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._fail(request, "the argument is malformed")
            return
        try:
            if self._scram is not None:
                self._finish_scram(request, self._scram, mechanism, message)
            elif mechanism not in self._offered_now():
                self._refuse(request, failure(Code.UNSUPPORTED_MECHANISM, {"mechanisms": list(self._offered_now())}))
            else:
                self._mechanism = mechanism
                self._begin(request, message)
        except ExchangeFailed as failed:
            self._fail(request, failed.reason)
        except Exception as error:
            _logger.error("authenticator_failed", exc_info=error)
            self._fail(request, "the authenticator has failed")

    def _offered_now(self) -> tuple[str, ...]:
        agreement = self._connection.agreement
        return () if agreement is None else agreement.mechanisms

    def _begin(self, request: Request, message: bytes) -> None:
        if self._mechanism == SCRAM:
            self._begin_scram(request, message)
        elif self._mechanism == EXTERNAL:
            self._begin_external(request, message)
        elif self._mechanism == PLAIN:
            self._begin_plain(request, message)
        else:
            raise ExchangeFailed("the mechanism has no exchange here")

    def _is_refused(self, request: Request) -> bool:
        """Whether the authenticator refuses the attempt before it is judged; if so, it is answered."""
        try:
            refusal = self._authenticator.refuses(self._peer, self._name)
        except Exception as error:
            _logger.error("authenticator_failed", exc_info=error)
            refusal = failure(Code.AUTHENTICATION_FAILED)
        self._begun = refusal is None
        if refusal is not None:
            self._refuse(request, refusal)
        return refusal is not None

    # -- SCRAM ------------------------------------------------------------------------------------------------------

    def _begin_scram(self, request: Request, message: bytes) -> None:
        hello, welcome = guard_of(self._connection).transcript
        binding = link_binding(hello, welcome, self._link.binding)
        scram = ScramAcceptor(binding, new_nonce(self._connection.config.entropy))
        self._name = scram.receive_first(message)
        if self._is_refused(request):
            return
        verifier, admitted = self._judged_by = self._authenticator.login(self._name)
        challenge = scram.challenge(verifier, admitted=admitted)
        self._scram = scram
        request.respond(_encode((False, challenge)))

    def _finish_scram(self, request: Request, scram: ScramAcceptor, mechanism: str, message: bytes) -> None:
        self._scram = None
        if mechanism != SCRAM:
            raise ExchangeFailed("the exchange goes on by another mechanism")
        answer = scram.receive_final(message)
        self._see_unchanged()
        secret = scram.signing_secret() if self._connection.config.signs_by_exchange else None
        self._accept(request, answer, secret)

    # -- EXTERNAL and PLAIN -----------------------------------------------------------------------------------------

    def _begin_external(self, request: Request, message: bytes) -> None:
        name = self._authenticator.external(self._peer)
        self._name = name or ""
        if message or name is None:
            raise ExchangeFailed("the certificate, or the process, stands for no user")
        if not self._is_refused(request):
            self._accept(request, b"")

    def _begin_plain(self, request: Request, message: bytes) -> None:
        login = read_plain(message)
        self._name = login.name
        if not self._is_private():
            raise ExchangeFailed("a password came over a link that others may read")
        place = place_of(self._link.remote, self._link.credentials)
        if not WORK.has_room(place):  # before the attempt begins: a flood is not counted as the failures of others
            self._refuse(request, failure(Code.TOO_MANY_REQUESTS, {"reason": _TOO_MUCH_WORK}))
            return
        if self._is_refused(request):
            return
        verifier, admitted = self._judged_by = self._authenticator.login(login.name)
        checking = WORK.run(self._link.loop, place, lambda: verifier.accepts(login.password))
        if checking is None:  # another loop of this process was faster
            raise ExchangeFailed(_TOO_MUCH_WORK)
        self._checking = checking
        checking.add_done_callback(lambda done: self._checked(request, done, admitted=admitted))

    def _checked(self, request: Request, checking: asyncio.Future[bool], *, admitted: bool) -> None:
        if self._link.ending is not None or checking.cancelled():
            return
        try:
            if checking.exception() is not None or not checking.result() or not admitted:
                raise ExchangeFailed("the password is wrong, or the user is unknown or may not come in")
            self._see_unchanged()
            self._accept(request, b"")
        except ExchangeFailed as failed:
            self._fail(request, failed.reason)
        except Exception as error:
            _logger.error("authenticator_failed", exc_info=error)
            self._fail(request, "the authenticator has failed")
        self._dispatcher.start()
        self._link.schedule_flush()

    def _see_unchanged(self) -> None:
        """A proof of the right password counts where it is still the password of a user that may come in: it may have
        taken as long as an exchange may.
        """
        if self._authenticator.login(self._name) != self._judged_by:
            raise ExchangeFailed("the user was changed in the middle of the exchange")

    # -- the end of an attempt --------------------------------------------------------------------------------------

    def _accept(self, request: Request, answer: bytes, secret: SigningSecret | None = None) -> None:
        name, mechanism = self._forget()
        self._peer.identity = Identity(name, mechanism)
        beginning_of(self._connection).admit(None if secret is None else (secret.ikm, secret.salt))
        request.respond(_encode((True, answer)))
        guard(lambda: self._authenticator.ended(self._peer, name, mechanism, None))
        self._log.write(logging.DEBUG, "authenticated", lambda: self._link.log_fields(mechanism=mechanism))
        if self._link.ending is None:  # else the authenticator has ended it
            self._admitted()

    def _fail(self, request: Request, reason: str) -> None:
        """An attempt has failed: the other side is not told why. One that is malformed begins here, to end at once."""
        if not self._begun and self._is_refused(request):
            return
        self._tell_end(reason)
        self._refuse(request, failure(Code.AUTHENTICATION_FAILED))

    def _tell_end(self, reason: str) -> None:
        name, mechanism = self._forget()
        guard(lambda: self._authenticator.ended(self._peer, name, mechanism, reason))
        fields = {"user": shortened(name) or None, "mechanism": mechanism, "reason": reason}
        self._log.write(logging.WARNING, "authentication_failed", lambda: self._link.log_fields(**fields))

    def _refuse(self, request: Request, refusal: Failure) -> None:
        self._forget()
        request.fail(refusal)
        self._failures += 1
        if self._failures >= FAILURES_MAX or self._connection.config.signs_by_exchange:
            for waiting in list(self._dispatcher.arrived):
                waiting.fail(failure(Code.AUTHENTICATION_REQUIRED))
            self._link.end(Closed(None), "it has not authenticated", half=True)

    def _forget(self) -> tuple[str, str]:
        attempt = self._name, self._mechanism
        self._name = self._mechanism = ""
        self._begun = False
        self._scram = self._judged_by = self._checking = None
        return attempt

    def _violated(self, message: str) -> None:
        self._link.above.take(self._connection.fail_connection(RemoteProtocolError(Code.PROTOCOL_VIOLATION, message)))

    def close(self) -> None:
        """The connection is over, perhaps in the middle of an attempt: its password is not worked on any more."""
        if self._checking is not None:
            self._checking.cancel()
        if self._busy:
            self._tell_end("the connection ended in the middle of the exchange")
