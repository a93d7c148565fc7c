"""The configuration of one side of a connection, and the bounds of its memory."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

import msgspec

from haptera.wire import HANDSHAKE_FRAME_SIZE_MAX, LIMITS, SERVER_ID_SIZE, Codec, Limits, check_secret

#: The capability whose frames are signed, and the mechanism that names its pre-shared key (sections 4.1 and 5.1).
SIGNING: Final = "hmac_sha256"
PRESHARED_KEY: Final = "PSK"
#: The mechanism of an exchange whose keys sign the frames behind it, and the method of the exchange (section 5.1).
SIGNING_EXCHANGE: Final = "SCRAM-SHA-256"
AUTHENTICATE: Final = "authenticate"
#: The capability of compressed payloads, and the service whose frames never are (section 4.1).
COMPRESSION: Final = "zstd"
SESSION_SERVICE: Final = "session"

#: HELLO or WELCOME must have come by then (spec/protocol.md, sections 4 and 8).
HANDSHAKE_TIMEOUT_S: Final = 5.0
#: A proof of identity must have been accepted by then, counted from WELCOME (section 8).
AUTHENTICATION_TIMEOUT_S: Final = 10.0
#: A started frame must be whole within this and its length divided by the slowest rate (section 8).
FRAME_TIMEOUT_S: Final = 10.0
#: A started message must be whole within this and its length divided by the slowest rate (section 2).
MESSAGE_TIMEOUT_S: Final = 60.0
RATE_MIN_BYTES_PER_S: Final = 64 * 1024

#: A side that has been silent for so long is asked for a sign of life; as much again without one is its end.
PING_INTERVAL_MS: Final = 30_000
#: In doubt, when a call was not answered, it is asked at once if it was silent for the first, and has the second. The
#: first keeps it to a PING a second, the second is longer than a round trip, and than a loop is held up.
PROBE_SILENCE_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 2.0

#: The first flight behind HELLO (section 4): the most that a dialer may send before it knows the acceptor's limits.
FIRST_FLIGHT_REQUESTS_MAX: Final = 64
FIRST_FLIGHT_SIZE_MAX: Final = 16 * 1024

#: Before the proof of an identity: the bytes of one frame and of the kept requests (section 5.1), and the bytes of all
#: frames. The second is enough for a first flight and three exchanges of the longest messages.
EARLY_SIZE_MAX: Final = 16 * 1024
EARLY_RECEIVED_MAX: Final = 64 * 1024

#: How many bytes of one stream leave before the others have their turn: large enough that a header costs nothing,
#: small enough that a small message waits for microseconds.
TURN_SIZE: Final = 64 * 1024
#: Messages of several frames, besides ITEMs, that one side has under way at once (section 3).
LARGE_MESSAGES_MAX: Final = 3
#: Bytes that a stream may have queued beyond its credit before its producer should wait. One turn's worth keeps the
#: wire busy.
STREAM_QUEUE_SIZE: Final = TURN_SIZE
#: Bytes with credit that the streams of a connection may have queued together before each has one turn's worth at most:
#: as many as one write to a socket takes. Alone, a stream makes several items each time that its producer goes on, and
#: beside others what one turn takes.
QUEUED_FREELY_MAX: Final = 4 * TURN_SIZE

#: Bytes of a connection that may wait for its socket before no more ITEMs are produced: as many as of answers
#: (section 3).
PRODUCED_MAX: Final = 1024 * 1024
#: Bytes of the ready queue beyond which ITEMs have turns. Answers wait for those in the queue: no longer than for one
#: write to a socket.
READY_ITEMS_MAX: Final = 256 * 1024
#: How many producers go on at once when there is room again. Each asks again, since one may fill it.
WOKEN_MAX: Final = 16

#: Bytes that one connection may hold for its application: unfinished messages, unread items, requests without an
#: answer.
CONNECTION_BUDGET: Final = 64 * 1024 * 1024
#: The same for all connections of a process.
PROCESS_BUDGET: Final = 1024 * 1024 * 1024

#: Bytes that a connection may hold though the process's budget is used up: enough for any small request, so that the
#: connections that fill the budget keep no other from being served.
HELD_MIN: Final = 64 * 1024

#: Frames that the peer causes and does not read: PONGs, credit, refusals. More than this is a peer that does not read
#: at all, since not even all streams refused at once (65,535 times about 250 bytes) come to it.
CONTROL_SIZE_MAX: Final = 16 * 1024 * 1024

#: Frames without work: how many may come at once, and how many more each second (section 8).
IDLE_FRAMES_BURST: Final = 1000
IDLE_FRAMES_PER_S: Final = 100
#: CREDIT of less than a quarter of its window is one of them, and leaves at most this often: half of what is allowed.
SMALL_CREDITS_PER_S: Final = IDLE_FRAMES_PER_S // 2

#: No message may fill more of the budget than this part of it, so that a message that has begun can finish (section 3).
MESSAGE_SHARE_MAX: Final = 4

#: Bytes that the texts of HELLO and WELCOME may take of their 16 KiB; the rest is for their fixed fields. The
#: hosted services are a hint, so that names that do not fit are left out.
HANDSHAKE_NAMES_SIZE_MAX: Final = HANDSHAKE_FRAME_SIZE_MAX // 4
HANDSHAKE_SERVICES_SIZE_MAX: Final = HANDSHAKE_FRAME_SIZE_MAX // 2

#: Decoded things that each connection remembers: routes (service and method names), and whole metadata in each
#: direction. A program calls few methods with few timeouts, and a peer that invents names gains nothing. The memories
#: are few and short because every connection keeps its own, outside its buffer budget: a text of 60 bytes may take
#: 300 in memory, and a dictionary of six entries 400, so the worst peer makes a connection keep some 40 KiB.
ROUTES_MAX: Final = 32
METADATA_KNOWN_MAX: Final = 32
METADATA_KNOWN_SIZE_MAX: Final = 64
#: Forms of the entries of answers, by their lengths, of which a peer has two or three. One takes a KiB at most.
LAYOUTS_MAX: Final = 8

# The longest header that MessagePack puts before such a name.
_NAME_OVERHEAD: Final = 3


class Role(IntEnum):
    """Which side of the connection this is; its value is the parity of the streams that it opens."""

    ACCEPTOR = 0
    DIALER = 1


class Budget:
    """Bytes that may be held, shared by all connections of a process."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = PROCESS_BUDGET) -> None:
        self.limit: int = limit
        self.used: int = 0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How one side of a connection behaves.

    ``limits`` are for the frames of the other side, ``capabilities`` the ones that it asks for (dialer) or accepts
    (acceptor), ``groups`` the ones beside them that belong to a service, ``entropy`` a source of that many random bytes
    (``os.urandom``): the machine itself draws nothing. ``signing_key`` is a pre-shared secret of at least 32 bytes:
    with it every frame behind the handshake is signed, and a peer that would not is refused. ``compression`` compresses
    payloads, where both sides can; the connections of one thread may share one. With ``signs_by_exchange`` every frame
    behind an exchange of SCRAM is signed, and no other mechanism is used. ``flies`` says whether requests of a dialer
    may leave behind HELLO, before it knows how to authenticate. ``ping_interval_ms`` is how long the other side may be
    silent: an acceptor announces it (30 s unless it is given) for both, and a dialer that has one keeps its own.

    Raises ``ValueError`` for values that no handshake can carry.
    """

    entropy: Callable[[int], bytes]
    agent: str = "haptera"
    limits: Limits = Limits()
    versions: tuple[int, ...] = (1,)
    capabilities: tuple[str, ...] = (
        "pipelining",
        "idempotency",
        "request_deadline",
        "server_metrics",
        "trace_context",
    )
    groups: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ()
    server_id: bytes = bytes(16)
    ping_interval_ms: int | None = None
    idempotency_ms: int = 600_000
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    authentication_timeout_s: float = AUTHENTICATION_TIMEOUT_S
    frame_timeout_s: float = FRAME_TIMEOUT_S
    message_timeout_s: float = MESSAGE_TIMEOUT_S
    budget: int = CONNECTION_BUDGET
    idle_frames_burst: int = IDLE_FRAMES_BURST
    idle_frames_per_s: float = IDLE_FRAMES_PER_S
    grease: bool = True
    signing_key: bytes | None = None
    signs_by_exchange: bool = False
    flies: bool = True
    compression: Codec | None = None

    def __post_init__(self) -> None:
        if len(self.server_id) != SERVER_ID_SIZE:
            raise ValueError(f"a server id has {SERVER_ID_SIZE} bytes, not {len(self.server_id)}")
        if self.budget < MESSAGE_SHARE_MAX * LIMITS["max_message"].minimum:
            raise ValueError("the budget is too small for the smallest max_message")
        if SIGNING in self.capabilities or PRESHARED_KEY in self.mechanisms:
            raise ValueError("signed frames are configured by their key alone")
        if COMPRESSION in self.capabilities:
            raise ValueError("compression is configured by its codec alone")
        if self.signing_key is not None:
            check_secret(self.signing_key)
            if self.mechanisms or self.signs_by_exchange:
                raise ValueError("a connection with a pre-shared key has no other mechanism")
        names = (self.agent, *self.offered_capabilities(), *self.offered_mechanisms())
        if sum(len(name.encode()) + _NAME_OVERHEAD for name in names) > HANDSHAKE_NAMES_SIZE_MAX:
            raise ValueError("the agent, capabilities and mechanisms do not fit into a handshake")

    def __repr__(self) -> str:
        """Leave out the key: it shall not get into a log by way of its owner."""
        return f"Config(agent={self.agent!r}, capabilities={self.capabilities!r}, limits={self.limits!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does: the method that this replaces shows every field."""
        return [("agent", self.agent), ("capabilities", self.capabilities), ("limits", self.limits)]

    @property
    def signs(self) -> bool:
        """Whether this side signs its frames, and refuses a peer that would not."""
        return self.signing_key is not None or self.signs_by_exchange

    def offered_capabilities(self) -> list[str]:
        """Return the capabilities that this side asks for or accepts."""
        offered = [*self.capabilities, *self.groups]
        if self.compression is not None:
            offered.append(COMPRESSION)
        if self.signs:
            offered.append(SIGNING)
        return offered

    def offered_mechanisms(self) -> list[str]:
        """Return the ways in which an acceptor lets a dialer in, as far as they are the same for each."""
        if self.signs_by_exchange:
            return [SIGNING_EXCHANGE]
        return [PRESHARED_KEY] if self.signing_key is not None else list(self.mechanisms)

    def bounded(self) -> Config:
        """Return the same with limits that hold: inside their bounds, and no larger than the budget carries.

        The peer reads a limit outside its bounds as the bound, so nothing else may be enforced.
        """
        limits = self.limits.clamped()
        message_max = min(limits.max_message, self.budget // MESSAGE_SHARE_MAX)
        return msgspec.structs.replace(self, limits=msgspec.structs.replace(limits, max_message=message_max))

    def announced_services(self) -> list[str]:
        """Return the hosted services, or as many of the first as a handshake has room for."""
        announced: list[str] = []
        size = 0
        for name in self.services:
            size += len(name.encode()) + _NAME_OVERHEAD
            if size > HANDSHAKE_SERVICES_SIZE_MAX:
                break
            announced.append(name)
        return announced
