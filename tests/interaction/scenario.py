"""Scenarios of two connections as readable transcripts: a command, a line of dashes, and what follows from it.

A file has any number of blocks, with blank lines and comments (`#`) between them:

    dialer request kv get "config:env"
    ----
    stream 1

A command is one line:

    connect [dialer.NAME=VALUE …] [acceptor.NAME=VALUE …]   two new machines; names of `Config`, lists with commas
    open                             two new machines behind their handshake, which is not shown
    SIDE request SERVICE METHOD "TEXT" [streaming] [change]   opens a stream; a change has a request id
    SIDE item STREAM "TEXT", SIDE finish STREAM, SIDE cancel STREAM
    SIDE respond STREAM "TEXT", SIDE fail STREAM CODE
    SIDE ping, SIDE go-away CODE
    SIDE close                       ends the connection from that side: the other reads the end
    SIDE sends TYPE STREAM "TEXT"    a frame that no machine would send there, in the name of that side
    deliver [SIDE] [damage TYPE]     takes what SIDE has to send to the other, or what both have until they are quiet;
                                     `damage` flips a bit in the payload of the first frame of that type,
                                     `damage header-of TYPE` in its header
    advance SECONDS                  lets time pass on both sides
    status                           how both sides stand

`run` returns the transcript as it is, which a test compares with the file.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Failure, LocalProtocolError, failure
from haptera.wire.frame import Flag, FrameType
from tests.unit.connection.machines import GOAWAY, HELLO, WELCOME, Pair, Seen, drain, frame, parse, receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from haptera.connection import Connection
    from haptera.connection.events import Event

DASHES: Final = "----"
TYPES: Final = {int(each): each.name for each in FrameType}
NUMBERS: Final = {name: number for number, name in TYPES.items()}
FLAGS: Final = {int(each): str(each.name) for each in Flag}
TAGS: Final = {0x01: "request_id", 0x02: "timeout_ms", 0x0A: "answered_below", 0x0C: "resent"}
#: The fields of a handshake that a transcript shows: the others are the same in every scenario.
SHOWN: Final = ("version", "versions", "capabilities", "mechanisms", "services")
#: Details of an error that are numbers without a meaning for a reader.
_HIDDEN: Final = frozenset({"expected", "actual"})
#: The first byte of a payload that is a map.
_MAP: Final = b"\x80"


def run(text: str) -> str:
    """Return a transcript with the output that its commands have now."""
    scenario = Scenario()
    lines: list[str] = []
    rest = iter(text.splitlines())
    for line in rest:
        lines.append(line)
        if not line or line.startswith("#"):
            continue
        assert next(rest, None) == DASHES, f"{line!r} is a command, and no line of dashes follows"
        lines += [DASHES, *scenario.execute(line)]
        for output in rest:
            if not output:
                lines.append("")
                break
    return "\n".join(lines).rstrip("\n") + "\n"


class Scenario:
    """Two connections and the bytes between them."""

    def __init__(self) -> None:
        self._pair = Pair()
        self._injected: dict[str, bytes] = {"dialer": b"", "acceptor": b""}
        self._changes = 0

    def execute(self, line: str) -> list[str]:
        """Carry out a command and return its output, a line each."""
        name, *arguments = shlex.split(line)
        if name in {"dialer", "acceptor"}:
            try:
                return self._act(name, *arguments)
            except LocalProtocolError as error:
                return [f"refused here: {error}"]
        commands: dict[str, Callable[..., Iterable[str]]] = {
            "connect": self._connect,
            "open": self._open,
            "deliver": self._deliver,
            "advance": self._advance,
            "status": self._status,
        }
        return list(commands[name](*arguments))

    def _side(self, name: str) -> Connection:
        return self._pair.dialer if name == "dialer" else self._pair.acceptor

    def _connect(self, *settings: str) -> list[str]:
        capabilities = ("pipelining", "idempotency")
        config: dict[str, dict[str, Any]] = {
            "dialer": {"capabilities": capabilities},
            "acceptor": {"capabilities": capabilities},
        }
        for setting in settings:
            place, _, value = setting.partition("=")
            side, _, name = place.partition(".")
            parts = [int(part) if part.isdigit() else part for part in value.split(",") if part]
            config[side][name] = tuple(parts)
        self._pair = Pair(**config)
        self._injected = {"dialer": b"", "acceptor": b""}
        return []

    def _open(self) -> list[str]:
        self._connect()
        self._pair.run()
        return []

    def _act(self, name: str, action: str, *given: str) -> list[str]:
        side = self._side(name)
        match action, *given:
            case "request", service, method, text, *options:
                request_id = None
                if "change" in options:
                    self._changes += 1
                    request_id = self._changes.to_bytes(16, "big")
                streaming = "streaming" in options
                stream = side.request(service, method, text.encode(), request_id=request_id, streaming=streaming)
                return [f"stream {stream}"]
            case "item", stream, text:
                side.send_item(int(stream), text.encode())
            case "finish", stream:
                side.finish(int(stream))
            case "cancel", stream:
                side.cancel(int(stream))
            case "respond", stream, text:
                side.respond(int(stream), text.encode())
            case "fail", stream, code:
                side.fail(int(stream), failure(int(code)))
            case ("ping",):
                side.ping(bytes(8))
            case "go-away", code:
                side.go_away(int(code))
            case ("close",):
                side.close()
                other = "acceptor" if name == "dialer" else "dialer"
                return [f"  {other}: {_event(event)}" for event in self._side(other).receive_eof()]
            case "sends", type_, stream, text:
                self._injected[name] += frame(NUMBERS[type_], int(stream), text.encode())
            case _:
                raise ValueError(f"{action!r} is not what a side does")
        return []

    def _deliver(self, *options: str) -> Iterator[str]:
        options_left = list(options)
        sides = ["dialer", "acceptor"]
        if options_left and options_left[0] in sides:
            sides = [options_left.pop(0)]
        damage = options_left[1:] if options_left[:1] == ["damage"] else []
        moved = True
        while moved:
            moved = False
            for sender in sides:
                data = drain(self._side(sender)) + self._injected[sender]
                self._injected[sender] = b""
                if data:
                    moved = len(sides) > 1
                    yield from self._carry(sender, data, damage)

    def _carry(self, sender: str, data: bytes, damage: list[str]) -> Iterator[str]:
        receiver = "acceptor" if sender == "dialer" else "dialer"
        start = 0
        arriving = b""
        for seen in parse(data):
            stop = start + 28 + len(seen.metadata) + len(seen.payload)
            piece = data[start:stop]
            note = ""
            if damage and damage[-1] == TYPES.get(seen.type):
                at = 12 if damage[0] == "header-of" else 27 + len(seen.metadata) + len(seen.payload)
                piece = piece[:at] + bytes((piece[at] ^ 1,)) + piece[at + 1 :]
                note = "  (damaged)"
                damage.clear()
            yield f"{sender} -> {receiver}  {_frame(seen)}{note}"
            arriving += piece
            start = stop
        for event in receive(self._side(receiver), arriving, self._pair.now):
            yield f"  {receiver}: {_event(event)}"

    def _advance(self, seconds: str) -> Iterator[str]:
        self._pair.now += float(seconds)
        for name in ("dialer", "acceptor"):
            for event in self._side(name).tick(self._pair.now):
                yield f"  {name}: {_event(event)}"

    def _status(self) -> Iterator[str]:
        for name in ("dialer", "acceptor"):
            side = self._side(name)
            yield f"{name}: {side.state.name}, {side.open_streams} open"


def _frame(seen: Seen) -> str:
    """A frame on one line: type, stream, flags, metadata, payload."""
    words = [TYPES.get(seen.type, f"type {seen.type:#x}")]
    if seen.stream:
        words.append(str(seen.stream))
    words += [name for flag, name in FLAGS.items() if seen.flags & flag]
    entries = seen.metadata
    if words[0] == "REQUEST" and not seen.flags & 0x10:
        service_end = 1 + entries[0]
        stop = service_end + 1 + entries[service_end]
        words.append(f"{entries[1:service_end].decode()}.{entries[service_end + 1 : stop].decode()}")
        entries = entries[stop:]
    while entries:
        value = entries[2 : 2 + entries[1]]
        number = f"={int.from_bytes(value, 'big')}" if value else ""
        words.append(f"{TAGS.get(entries[0], f'tag {entries[0]:#x}')}{number}")
        entries = entries[2 + entries[1] :]
    words.append(_payload(seen))
    return " ".join(word for word in words if word)


def _payload(seen: Seen) -> str:
    if seen.payload[:1] < _MAP:
        return f'"{seen.payload.decode()}"' if seen.payload.strip(b"\0") else ""
    if seen.type in {HELLO, WELCOME}:
        return ", ".join(f"{name} {_list(seen.map[name])}" for name in SHOWN if name in seen.map)
    if seen.type == GOAWAY:
        return f"{seen.map['code']} {seen.map['name']}, last_stream {seen.map['last_stream']}"
    return _failure(msgspec.convert(seen.map, Failure))


def _list(value: Any) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _failure(said: Failure) -> str:
    details = "".join(f", {key} {_list(value)}" for key, value in said.details.items() if key not in _HIDDEN)
    return f"{said.code} {said.name}, {said.outcome}{details}"


def _event(event: Event) -> str:
    """An event on one line: its class, and what a reader of the transcript does not see in the frame before it."""
    words = [type(event).__name__]
    stream = getattr(event, "stream", None)
    if stream is not None:
        words.append(str(stream))
    said = getattr(event, "failure", None)
    error = getattr(event, "error", None)
    if said is not None:
        words.append(_failure(said))
    elif error is not None:
        words.append(f"{error.code} {error.name}: {error.message}")
    below = getattr(event, "answered_below", None)
    if below is not None:
        words.append(f"answered_below={below}")
    return " ".join(words)


def scenarios() -> list[Path]:
    """Return the transcripts."""
    return sorted(Path(__file__).parent.glob("*.txt"))
