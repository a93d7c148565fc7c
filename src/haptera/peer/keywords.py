"""The keywords of ``haptera.listen`` and ``haptera.dial`` that configure each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.peer.service import Service
    from haptera.wire import Limits


class ConnectionOptions(TypedDict, total=False):
    """How one side of each connection behaves. None, or nothing, stands for the default.

    Keys:
        agent: Name and version of this program, as the other side sees them.
        limits: The frames, messages, streams and windows that this side takes.
        ping_interval_ms: Milliseconds of silence before a PING; as much again without a sign of life ends the
            connection. 0 is never. A listener announces it for both sides (30,000 by default); a dialer that has one
            keeps its own.
        handshake_timeout_s: Seconds until HELLO or WELCOME must have come.
        authentication_timeout_s: Seconds from WELCOME until a proof of identity that is asked for must be accepted.
        frame_timeout_s: Seconds until a frame that has begun must be whole, beside the time that its length takes.
        message_timeout_s: The same for a message of several frames.
        budget: Bytes that a connection may hold for its application.
        idle_frames_burst: Frames without work that may come at once.
        idle_frames_per_s: How many more of them may come each second.
        idempotency_ms: Milliseconds for which a listener says that its services remember answers.
        capabilities: The capabilities of the protocol that this side asks for, or accepts.
        groups: The capabilities beside them that belong to services: groups of their methods.
        versions: The versions of the protocol that this side speaks.
        grease: Whether to send harmless unknown extensions, so that the other side keeps ignoring them.
    """

    agent: str | None
    limits: Limits | None
    ping_interval_ms: int | None
    handshake_timeout_s: float | None
    authentication_timeout_s: float | None
    frame_timeout_s: float | None
    message_timeout_s: float | None
    budget: int | None
    idle_frames_burst: int | None
    idle_frames_per_s: float | None
    idempotency_ms: int | None
    capabilities: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    versions: tuple[int, ...] | None
    grease: bool | None


class DialOptions(ConnectionOptions, total=False):
    """The keywords of ``haptera.dial``, which lists them, beside those of each connection."""

    services: Sequence[Service]
    timeout: float | None
    user: str | None
    password: str | None
    signing_key: bytes | None
    compression: bool | None
    write_timeout_s: float
    idle_timeout_s: float | None
