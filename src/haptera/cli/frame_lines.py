"""A frame of a recording as a line for people and as fields for programs, for `haptera decode`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.cli import output
from haptera.errors import RemoteProtocolError
from haptera.wire import (
    COMPRESSED,
    CONTINUED,
    FIRST_IGNORABLE_TYPE,
    MORE,
    SIGNED,
    STREAMING,
    Codec,
    FrameType,
    Tag,
    available,
    decode_entries,
    decode_failure,
    decode_open_map,
    decode_route,
    route_length,
)

if TYPE_CHECKING:
    from haptera.wire import Frame, RecordedFrame, Signer

#: Characters of a payload that `--payload short` shows.
SHORT_LENGTH: Final = 100
#: The largest payload that is unpacked: what a compressed one may claim is no reason to fill the memory.
UNPACKED_SIZE_MAX: Final = 64 * 1024 * 1024

#: Proofs of identity that may be unfinished at once. Beyond them no further piece of a request is shown.
PROOFS_MAX: Final = 1024

#: In the place of a proof of identity, which may be a password.
NOT_SHOWN: Final = "(a proof of identity is not shown)"
#: In the place of a request whose service cannot be believed.
UNBELIEVED: Final = "(not shown: the request is damaged, and may be a proof of identity)"

_FLAGS: Final = {
    MORE: "more",
    COMPRESSED: "compressed",
    SIGNED: "signed",
    STREAMING: "streaming",
    CONTINUED: "continued",
}
_TYPES: Final = {int(each): each.name for each in FrameType}
_OF_THE_CONNECTION: Final = frozenset({FrameType.HELLO, FrameType.WELCOME, FrameType.GOAWAY})
_NUMBERS: Final = frozenset(
    {Tag.TIMEOUT_MS, Tag.SERVER_TIME_US, Tag.QUEUE_TIME_US, Tag.ANSWERED_BELOW, Tag.REVISION, Tag.RAW_LENGTH}
)
_TEXTS: Final = frozenset({Tag.TRACESTATE, Tag.CONTENT_TYPE})


class FrameLines:
    """Describes the frames of one direction. ``signer`` verifies the signed ones, where the key is known."""

    def __init__(self, payload: str, signer: Signer | None = None) -> None:
        self._payload = payload
        self._signer = signer
        self._codec = Codec() if available() else None
        #: The streams of requests that are, or may be, unfinished proofs of an identity, and the words in their place.
        self._proofs: dict[int, str] = {}
        self._too_many = False

    def fields(self, recorded: RecordedFrame) -> dict[str, Any]:
        """The frame as JSON has it. ``faults`` are those of the frame, each a sentence."""
        frame, faults = recorded.frame, []
        fields: dict[str, Any] = {
            "offset": recorded.offset,
            "size": recorded.size,
            "type": _type_name(frame.type),
            "stream": frame.stream,
            "version": recorded.version,
            "flags": [name for flag, name in _FLAGS.items() if frame.flags & flag],
        }
        unknown = frame.flags & ~sum(_FLAGS)
        if unknown:
            fields["unknown_flags"] = f"{unknown:#06x}"
        if not recorded.signed and frame.damaged:
            faults.append(
                f"the CRC-32C of the body is {frame.body_crc:08x}, and that of its bytes {frame.actual_crc:08x}"
            )
        if recorded.signed and self._signer is not None:
            fields["signature"] = self._signer.verify(recorded.head, frame.payload, recorded.tag)
            if not fields["signature"]:
                faults.append("the signature is wrong")
        try:
            fields |= _metadata(frame)
        except RemoteProtocolError as error:
            faults.append(error.message)
        hidden = self._hidden(frame, fields, damaged=bool(faults))
        fields["payload_size"] = len(frame.payload)
        payload = self._unpacked(frame, fields, faults)
        if payload is not None:
            told = self._told_payload(frame, payload) if hidden is None else hidden
            if told is not None:
                fields["payload"] = told
        if faults:
            fields["faults"] = faults
        return fields

    def _hidden(self, frame: Frame, fields: dict[str, Any], *, damaged: bool) -> str | None:
        """The words in the place of a payload that is, or may be, a proof of identity."""
        if frame.type != FrameType.REQUEST:
            return None
        words = self._proofs.pop(frame.stream, None)
        if fields.get("service") == "session" and fields.get("method") == "authenticate":
            words = NOT_SHOWN
        elif words is None and (damaged or (frame.flags & CONTINUED and self._too_many)):
            words = UNBELIEVED
        if words is not None and frame.flags & MORE:
            self._too_many = self._too_many or len(self._proofs) >= PROOFS_MAX
            if not self._too_many:
                self._proofs[frame.stream] = words
        return words

    def _unpacked(self, frame: Frame, fields: dict[str, Any], faults: list[str]) -> bytes | None:
        if not frame.flags & COMPRESSED:
            return frame.payload
        size = fields.get("metadata", {}).get("raw_length")
        if self._codec is None or size is None:
            return None
        if size > UNPACKED_SIZE_MAX:
            faults.append(f"the payload claims to be one of {size} bytes")
            return None
        try:
            return self._codec.decompress(frame.payload, size)
        except RemoteProtocolError as error:
            faults.append(error.message)
            return None

    def _told_payload(self, frame: Frame, payload: bytes) -> Any:
        if frame.type in _OF_THE_CONNECTION or frame.type == FrameType.ERROR:
            try:
                if frame.type == FrameType.ERROR and not frame.flags & (MORE | CONTINUED):
                    return msgspec.structs.asdict(decode_failure(payload))
                return _shown(decode_open_map(payload))
            except RemoteProtocolError:
                pass
        if self._payload == "none" or not payload:
            return None
        if frame.type == FrameType.CREDIT and len(payload) == 4:
            return int.from_bytes(payload, "big")
        value = _value(frame, payload)
        if self._payload == "full":
            return value
        text = value if isinstance(value, str) else output.json_text(value)
        return value if len(text) <= SHORT_LENGTH else f"{text[:SHORT_LENGTH]}…"


def line_of(fields: dict[str, Any]) -> str:
    """The line for people of the fields of a frame."""
    words = [f"{fields['offset']:>10}  {fields['type']:<9}", f"stream {fields['stream']}" if fields["stream"] else ""]
    if "service" in fields:
        words.append(f"{fields['service']}.{fields['method']}")
    told = [*fields["flags"]] if fields["version"] == 1 else [f"version {fields['version']}", *fields["flags"]]
    if "unknown_flags" in fields:
        told.append(f"unknown flags {fields['unknown_flags']}")
    told += [_told(name, value) for name, value in fields.get("metadata", {}).items()]
    if "signature" in fields:
        told.append(f"signature {'right' if fields['signature'] else 'WRONG'}")
    words.append(f"({', '.join(told)})" if told else "")
    words.append(output.counted(fields["payload_size"], "byte"))
    line = output.shown("  ".join(word for word in words if word))
    payload = fields.get("payload")
    if payload is not None:
        line += f"  {output.shown(payload) if isinstance(payload, str) else output.json_text(payload)}"
    return "\n".join([line, *(f"{'':>10}  FAULT: {output.shown(each)}" for each in fields.get("faults", ()))])


def _type_name(type_: int) -> str:
    name = _TYPES.get(type_)
    if name is not None:
        return name
    return f"{type_:#04x} ({'skipped' if type_ >= FIRST_IGNORABLE_TYPE else 'unknown'})"


def _metadata(frame: Frame) -> dict[str, Any]:
    """The service and the method of a REQUEST, and the entries. Raises 1002 and 1007."""
    fields: dict[str, Any] = {}
    start = 0
    if frame.type == FrameType.REQUEST and not frame.flags & CONTINUED:
        start = route_length(frame.metadata)
        fields["service"], fields["method"] = decode_route(frame.metadata[:start])
    entries = decode_entries(frame.metadata, start)
    if entries:
        fields["metadata"] = {Tag(tag).name.lower(): _entry(tag, value) for tag, value in entries.items()}
    return fields


def _entry(tag: int, value: bytes) -> Any:
    if tag in _NUMBERS:
        return int.from_bytes(value, "big")
    if tag in _TEXTS:
        return value.decode()
    if tag == Tag.TRACEPARENT:
        return f"{value[:1].hex()}-{value[1:17].hex()}-{value[17:25].hex()}-{value[25:].hex()}"
    return value.hex() if value else True


def _told(name: str, value: Any) -> str:
    if name == "timeout_ms":
        return f"timeout {value} ms"
    if name.endswith("_us"):
        return f"{name.removesuffix('_us').replace('_', ' ')} {value} us"
    name = name.replace("_", " ")
    return name if value is True else f"{name} {value}"


def _value(frame: Frame, payload: bytes) -> Any:
    """A payload as it can be shown: the value of its MessagePack, its text, or an object with base64."""
    if not frame.flags & (MORE | CONTINUED) and frame.type not in {FrameType.PING, FrameType.PONG}:
        try:
            return _shown(msgspec.msgpack.decode(payload))
        except (ValueError, RecursionError, TypeError):
            pass
    return _shown(payload)


def _shown(value: Any) -> Any:
    """A value of MessagePack as JSON has it: text where bytes are text, else an object with base64."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode()}
        case list() | tuple():
            return [_shown(each) for each in value]
        case dict():
            return {str(_shown(name)): _shown(each) for name, each in value.items()}
        case msgspec.msgpack.Ext():
            return {"ext": value.code, "base64": base64.b64encode(bytes(value.data)).decode()}
        case _:
            return value
