"""A call that met trouble: its attempts, and whether and where it may be sent again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.errors import Code, ConnectionLost, Failure, Outcome

if TYPE_CHECKING:
    from haptera.client.calls.methods import Method
    from haptera.peer import Answer, Call, Peer

#: A change is not sent again later than this: half of the time for which a server remembers ids by default. It counts
#: the time that this machine sleeps, because the server goes on meanwhile.
RESEND_SECONDS_MAX = 300.0


class StoreCall:
    """A call that left the straight way: all that it takes to send it again, and the result of its attempts so far.

    ``started`` is the time of the loop at which it was first sent, ``timeout`` seconds or None. Of a change,
    ``begun_ns`` is the same moment by `haptera.boot_clock`. ``only_server`` is the one that may be sent it, if not all.
    """

    __slots__ = (
        "_held",
        "_resent",
        "_sent_on",
        "attempt",
        "begun_ns",
        "deadline",
        "method",
        "only_server",
        "payload",
        "refused",
        "request_id",
        "server_id",
        "started",
        "unknown",
    )

    def __init__(
        self,
        method: Method[Any],
        payload: bytes,
        request_id: bytes | None,
        started: float,
        timeout: float | None,
        begun_ns: int = 0,
        only_server: bytes | None = None,
    ) -> None:
        self.method: Method[Any] = method
        self.payload: bytes = payload
        self.request_id: bytes | None = request_id
        self.deadline: float = math.inf if timeout is None else started + timeout
        self.started: float = started
        self.begun_ns: int = begun_ns
        self.only_server: bytes | None = only_server
        self.attempt: int = 0
        self.unknown: bool = False  # a change that was sent, and may have been applied
        self.server_id: bytes | None = None  # the server that may have applied it, if it remembers ids
        self.refused: Failure | None = None  # why the last attempt that was answered was not taken
        self._held: list[Call] = []  # sent within `RESEND_SECONDS_MAX`, and answered with damage
        self._sent_on: Peer | None = None  # where it may have been applied
        self._resent = False  # whether it may have been sent on several connections

    @property
    def by(self) -> float | None:
        """The deadline as asyncio takes it."""
        return None if self.deadline == math.inf else self.deadline

    def resent_on(self, peer: Peer) -> bool:
        """Whether the server is to be told that the attempt on ``peer`` may not be the only one.

        Late bytes of another connection could apply the change once more if it were forgotten.
        """
        if self.unknown and peer is not self._sent_on:
            self._resent = True
        return self._resent

    def end(self) -> None:
        """The call has its answer, or is given up: it is not sent again.

        A change that was sent on several connections stays held: only time has the server forget its answer.
        """
        if not self._resent:
            for sent in self._held:
                sent.release()

    def unanswered(self, peer: Peer, outcome: Outcome, sent: Call | None = None) -> None:
        """Note that an attempt on a connection ended without an answer, with its loss for instance.

        If the answer to ``sent`` was damaged, the server remembers it until the call ends.
        """
        if not self.method.write or outcome == "not_applied":
            return
        if sent is not None and self._resent:
            sent.release()  # time alone has it forgotten, whichever answers are read on its connection
        elif sent is not None:
            self._held.append(sent)
        remembers = peer.server_id if "idempotency" in peer.capabilities else None
        self.server_id = remembers if not self.unknown or remembers == self.server_id else None
        if not self.unknown:
            self._sent_on = peer
        self.unknown = True

    def may_repeat(self, now: float, boot_ns: int) -> bool:
        """Whether there is time, and sending it again cannot apply it twice (spec/protocol.md, section 7.1).

        ``now`` is the time of the loop, which may stand still while the machine sleeps, ``boot_ns`` that of
        `haptera.boot_clock`.
        """
        if now >= self.deadline:
            return False
        return not self.unknown or (self.server_id is not None and self.remembered_for(now, boot_ns) > 0)

    def remembered_for(self, now: float, boot_ns: int) -> float:
        """The seconds for which a server that may have applied the change certainly remembers it."""
        return RESEND_SECONDS_MAX - max(now - self.started, (boot_ns - self.begun_ns) / 1e9)

    def remembered_by(self, peer: Peer) -> bool:
        return "idempotency" in peer.capabilities and peer.server_id == self.server_id

    def loss(self, lost: ConnectionLost) -> ConnectionLost:
        """The loss as the caller gets it: with the outcome of all attempts, not of the last one alone."""
        outcome = lost.outcome if self.method.write else "not_applied"
        if self.unknown:
            outcome = "unknown"
        if outcome == lost.outcome:
            return lost
        told = ConnectionLost(str(lost), outcome=outcome, failure=lost.failure)
        told.__cause__ = lost.__cause__
        return told

    @property
    def refusal(self) -> Exception | None:
        """The refusal of the attempt before, as the cause of an error that does not say so."""
        return None if self.refused is None else self.refused.exception()

    def answer(self, answer: Answer) -> Answer:
        """The answer as the caller gets it: a refusal of this attempt says nothing about an earlier one."""
        refusal = answer.failure
        if refusal is not None and refusal.code == Code.DEADLINE_EXCEEDED and refusal.outcome == "not_applied":
            refusal = self.refused or refusal  # the time was over because the attempts before were refused
            answer = msgspec.structs.replace(answer, failure=refusal)
        if self.unknown and refusal is not None and refusal.outcome == "not_applied" and not _judged(refusal.code):
            refusal = msgspec.structs.replace(refusal, outcome="unknown")
            return msgspec.structs.replace(answer, failure=refusal)
        return answer


def _judged(code: int) -> bool:
    """Whether a refusal holds for each attempt: the argument's, or one given in log order behind the remembered ids."""
    return 4000 <= code < 5000 or code == Code.INVALID_ARGUMENT
