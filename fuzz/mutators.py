"""Mutators that know what they mutate, so that most of what they make gets past the checksums.

A mutator is `(data, size_max, random, mutate_bytes) -> bytes`; `mutate_bytes(data, size_max)` mutates plain bytes, by
the fuzzer's own means where there is one. All else comes from `random`, so a seed repeats a mutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import google_crc32c
import msgspec
import zstandard

from fuzz import reference
from fuzz.reference import RawFrame

MutateBytes = Callable[[bytes, int], bytes]
Mutator = Callable[[bytes, int, Random, MutateBytes], bytes]

#: Bytes at the head of an input that choose how the rest is used.
OPTIONS_SIZE = 2

_SIZES = (0, 1, 4, 8, 16, 1023, 1024, 1025, 4096, 16_384, 20_000)
_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**64 - 1)
_TAGS = (0x01, 0x02, 0x03, 0x04, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x85, 0x7F, 0xFE)


def mutate_any(data: bytes, size_max: int, _: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate bytes of which nothing is known, by the fuzzer's own means."""
    return mutate_bytes(data, size_max)


def mutate_plain(data: bytes, size_max: int, random: Random) -> bytes:
    """Mutate bytes of which nothing is known, for want of a fuzzer."""
    changed = bytearray(data)
    for _ in range(1 + int(random.expovariate(1.0))):
        at = random.randrange(len(changed) + 1)
        match random.randrange(8):
            case 0:
                changed[at:at] = random.randbytes(1 + random.randrange(8))
            case 1:
                del changed[at : at + 1 + random.randrange(8)]
            case 2:
                changed[at:at] = changed[at : at + 1 + random.randrange(64)]
            case 3:
                place = random.randrange(len(changed) + 1)
                changed[place:place] = changed[at : at + 1 + random.randrange(64)]
            case 4:
                size = random.choice((1, 2, 4, 8))
                changed[at : at + size] = (random.choice(_NUMBERS) % 256**size).to_bytes(size, "big")
            case 5 if at < len(changed):
                changed[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC0, 0xC1, 0xD9, 0xDC, 0xDF))
            case _ if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case _:
                changed += random.randbytes(1)
    return bytes(changed[:size_max])


# -- frames ----------------------------------------------------------------------------------------------------------


def mutate_frames(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate options and then frames, most of which have the right checksums afterwards."""
    return _mutate_frames(data, size_max, random, mutate_bytes, signed=False)


def mutate_signed_frames(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate frames whose tags the mutator has no key for: what a man in the middle can do."""
    return _mutate_frames(data, size_max, random, mutate_bytes, signed=True)


def _mutate_frames(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes, *, signed: bool) -> bytes:
    options, body = bytearray(data[:OPTIONS_SIZE].ljust(OPTIONS_SIZE, b"\0")), data[OPTIONS_SIZE:]
    if random.random() < 0.05:
        return mutate_bytes(data, size_max)
    if random.random() < 0.05:
        options[random.randrange(OPTIONS_SIZE)] ^= 1 << random.randrange(8)
    frames, rest = reference.split(body, signed=signed)
    for _ in range(1 + int(random.expovariate(0.7))):
        _mutate_sequence(frames, random, mutate_bytes)
    if rest and random.random() < 0.5:
        rest = mutate_bytes(rest, len(rest) + 8)
    encoded = bytes(options) + b"".join(each.encode() for each in frames) + rest
    return encoded[:size_max]


def _mutate_sequence(frames: list[RawFrame], random: Random, mutate_bytes: MutateBytes) -> None:
    at = random.randrange(len(frames) + 1)
    if at == len(frames):
        frames.append(_new_frame(frames, random))
        return
    match random.randrange(14):
        case 0:
            del frames[at]
        case 1:
            frames.insert(at, frames[random.randrange(len(frames))])
        case 2:
            other = random.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        case 3 | 4:
            frames.insert(at, _new_frame(frames, random))
        case 5:
            frames[at : at + 1] = _fragments(frames[at], random)
        case _:
            frames[at] = _mutate_frame(frames[at], random, mutate_bytes)


def _mutate_frame(frame: RawFrame, random: Random, mutate_bytes: MutateBytes) -> RawFrame:
    match random.randrange(10):
        case 9:
            return _compress(frame, random)
        case 0:
            return replace(frame, type=random.choice(reference.TYPES))
        case 1:
            return replace(frame, flags=frame.flags ^ 1 << random.choice((0, 0, 1, 2, 3, 3, 4, 4, 5, 15)))
        case 2 | 3:
            return replace(frame, stream=_stream(frame.stream, random))
        case 4:
            size = random.choice(_SIZES)
            return replace(frame, payload=(frame.payload * (size // max(1, len(frame.payload)) + 1))[:size].ljust(size))
        case 5:
            return replace(frame, metadata=_mutate_metadata(frame, random, mutate_bytes))
        case 6 if random.random() < 0.3:
            return replace(frame, body_crc=random.getrandbits(32))
        case 7 if random.random() < 0.1:
            return replace(frame, version=random.choice((0, 2, 255)))
        case _ if len(frame.payload) in (4, 8):
            size = len(frame.payload)
            return replace(frame, payload=(random.choice(_NUMBERS) % 256**size).to_bytes(size, "big"))
        case _:
            return replace(frame, payload=mutate_payload(frame.payload, random, mutate_bytes))


def _compress(frame: RawFrame, random: Random) -> RawFrame:
    """The frame with its payload compressed, mostly well."""
    payload = frame.payload if len(frame.payload) >= 1024 else frame.payload.ljust(1024 + random.randrange(2000), b"z")
    raw_length = random.choice((len(payload),) * 4 + (0, len(payload) - 1, len(payload) + 1, 2**32 - 1))
    entry = b"\x85\x04" + raw_length.to_bytes(4, "big")
    payload = _zstd(payload, random)
    return replace(frame, flags=frame.flags | reference.COMPRESSED, metadata=frame.metadata + entry, payload=payload)


def _zstd(payload: bytes, random: Random) -> bytes:
    """A zstd frame, now and then of a kind that is refused."""
    declared, checked = random.random() < 0.8, random.random() < 0.9
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=declared, write_checksum=checked)
    return compressor.compress(payload) + (b"behind" if random.random() < 0.1 else b"")


def mutate_compressed(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate the length that is announced in three bytes, and the zstd frame behind them."""
    head, body = data[:3].ljust(3, b"\0"), data[3:]
    match random.randrange(4):
        case 0:
            size = random.choice((0, 1, 1024, 65_536, 2**24 - 1, int.from_bytes(head, "big") + 1 & 0xFFFFFF))
            return (size.to_bytes(3, "big") + body)[:size_max]
        case 1:
            payload = random.choice((bytes(70_000), b"abc" * 500, random.randbytes(1500)))
            return (len(payload).to_bytes(3, "big") + _zstd(payload, random))[:size_max]
        case _:
            return (head + mutate_bytes(body, size_max))[:size_max]


def _stream(stream: int, random: Random) -> int:
    return random.choice((0, 1, 2, 3, 4, stream + 2, stream - 2, stream + 1, 2**53 - 1, 2**53, 2**63)) % 2**64


def _mutate_metadata(frame: RawFrame, random: Random, mutate_bytes: MutateBytes) -> bytes:
    tag = random.choice(_TAGS)
    size = {0x01: 16, 0x02: 4, 0x03: 26, 0x06: 4, 0x07: 4, 0x0A: 8, 0x0B: 8, 0x85: 4}.get(tag, random.randrange(8))
    match random.randrange(4):
        case 0:
            return mutate_bytes(frame.metadata, len(frame.metadata) + 32)[: reference.METADATA_SIZE_MAX]
        case 1:
            return b""
        case 2:
            return b"\x01s\x01m"
        case _:
            entry = bytes((tag, size)) + (random.randbytes(size) if random.random() < 0.5 else bytes(size))
            return (frame.metadata + entry)[: reference.METADATA_SIZE_MAX]


def _new_frame(frames: list[RawFrame], random: Random) -> RawFrame:
    stream = random.choice(frames).stream if frames else random.randrange(4)
    highest = max((each.stream for each in frames if each.stream < 2**53), default=0)
    match random.randrange(9):
        case 0 | 1:
            flags = random.choice((0, 0, reference.STREAMING))
            payload = bytes(random.choice(_SIZES[:5]))
            return RawFrame(reference.REQUEST, flags, highest + 2, b"\x01s\x01m", payload)
        case 2:
            return RawFrame(reference.CANCEL, 0, stream)
        case 3:
            credit = random.choice((0, 1, 1000, 65_536, 2**31 - 1, 2**32 - 1))
            return RawFrame(reference.CREDIT, 0, random.choice((0, stream)), b"", credit.to_bytes(4, "big"))
        case 4:
            return RawFrame(reference.ITEM, 0, stream, b"", bytes(random.choice(_SIZES)))
        case 5:
            return RawFrame(reference.FINISH, 0, stream)
        case 6:
            return RawFrame(reference.RESPONSE, 0, stream, b"", bytes(random.choice(_SIZES)))
        case 7:
            return RawFrame(reference.ERROR, 0, stream, b"", _error_payload(random))
        case _:
            payload = _error_payload(random, last_stream=random.choice(_NUMBERS))
            return random.choice(
                (RawFrame(reference.PING, payload=bytes(8)), RawFrame(reference.GOAWAY, payload=payload))
            )


def _error_payload(random: Random, **extra: Any) -> bytes:
    fields = {"code": random.choice((1002, 1014, 3006, 4001, 10_001, 77)), "name": "N", "message": "m"}
    return msgspec.msgpack.encode(fields | {"outcome": "unknown", "details": {}} | extra)


def _fragments(frame: RawFrame, random: Random) -> list[RawFrame]:
    """The same message as two frames or three, of which the first are as large as they must be."""
    payload = frame.payload if len(frame.payload) > 1024 else frame.payload + bytes(1024 + random.randrange(3000))
    cut = 1024 + random.randrange(len(payload) - 1023)
    first = replace(frame, flags=frame.flags | reference.MORE, payload=payload[:cut])
    rest = replace(
        frame, flags=frame.flags & ~reference.STREAMING | reference.CONTINUED, metadata=b"", payload=payload[cut:]
    )
    middle = replace(rest, flags=rest.flags | reference.MORE, payload=bytes(1024))
    return [first, middle, rest] if random.random() < 0.3 else [first, rest]


# -- MessagePack -----------------------------------------------------------------------------------------------------


def mutate_messagepack(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate one byte that chooses, and the MessagePack value behind it."""
    head, body = data[:1] or b"\0", data[1:]
    if random.random() < 0.1:
        head = random.randbytes(1)
    return (head + mutate_payload(body, random, mutate_bytes))[:size_max]


def mutate_commands(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate one MessagePack value."""
    return mutate_payload(data, random, mutate_bytes)[:size_max]


def mutate_payload(data: bytes, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate bytes that may be a MessagePack value: half the time as the value."""
    if random.random() < 0.5:
        try:
            value = msgspec.msgpack.decode(data)
            return msgspec.msgpack.encode(_mutate_value(value, random, mutate_bytes))
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            pass  # it is none, or has become something that cannot be encoded
    return mutate_bytes(data, len(data) + 64)


def _mutate_value(value: Any, random: Random, mutate_bytes: MutateBytes) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        changed = dict(value)
        key = random.choice(list(changed))
        match random.randrange(5):
            case 0:
                del changed[key]
            case 1:
                changed[_mutate_value(key, random, mutate_bytes)] = changed.pop(key)
            case _:
                changed[key] = _mutate_value(changed[key], random, mutate_bytes)
        return changed
    if isinstance(value, list) and value and random.random() < 0.9:
        items = list(value)
        at = random.randrange(len(items))
        match random.randrange(6):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[random.randrange(len(items))])
            case 2:
                items.append(_new_value(random))
            case _:
                items[at] = _mutate_value(items[at], random, mutate_bytes)
        return items
    return _mutate_scalar(value, random, mutate_bytes)


def _mutate_scalar(value: Any, random: Random, mutate_bytes: MutateBytes) -> Any:
    if random.random() < 0.3:
        return _new_value(random)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((value + 1, value - 1, -value, random.choice(_NUMBERS), -(2**63)))
    if isinstance(value, bytes):
        return mutate_bytes(value, len(value) + 32)
    if isinstance(value, str):
        return mutate_bytes(value.encode(), len(value) + 32).decode("utf-8", "replace")
    return [value]


def _new_value(random: Random) -> Any:
    nested: Any = []
    for _ in range(random.randrange(40)):
        nested = [nested]
    texts = ("", "a", "if", "present", "absent", "if_version", "glob", "*", "[a-", "k" * 5000, "\0", "\U0010ffff")
    return random.choice(
        (
            None,
            True,
            0,
            random.choice(_NUMBERS),
            -1,
            1.0,
            1.5,
            b"",
            bytes(16),
            random.choice(texts),
            [],
            {},
            {"a": 1},
            nested,
        )
    )


# -- segments of the log ---------------------------------------------------------------------------------------------

_SEGMENT_HEADER_SIZE = 80
_RECORD_HEADER_SIZE = 32


def mutate_segment(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate one byte of options and a segment of the log, and mostly mend the checksums of its headers."""
    head, segment = data[:1] or b"\0", bytearray(data[1:])
    if random.random() < 0.1:
        head = random.randbytes(1)
    match random.randrange(5):
        case 0:
            segment = bytearray(mutate_bytes(bytes(segment), size_max))
        case 1:
            del segment[random.randrange(len(segment) + 1) :]
        case 2:
            segment += bytes(random.choice((1, 31, 32, 48, 400)))
        case 3:
            at, size = random.randrange(len(segment) + 1), random.randrange(200)
            segment[at : at + size] = bytes(size)
        case _:
            places = [0, *_records(segment)]
            place = random.choice(places)
            fields = range(8, 76) if place == 0 else range(place, place + 28)
            at = random.choice(fields)
            if at < len(segment):
                segment[at] = random.choice((0, 1, segment[at] + 1 & 0xFF, segment[at] ^ 0x80, 0xFF))
    if random.random() < 0.8:
        _mend(segment)
    return (head + bytes(segment))[:size_max]


def _records(segment: bytearray) -> list[int]:
    places = []
    at = _SEGMENT_HEADER_SIZE
    while at + _RECORD_HEADER_SIZE <= len(segment):
        length = int.from_bytes(segment[at : at + 4], "big")
        if not length:
            break
        places.append(at)
        at += _RECORD_HEADER_SIZE + length
    return places


def _mend(segment: bytearray) -> None:
    if len(segment) < _SEGMENT_HEADER_SIZE:
        return
    segment[76:80] = google_crc32c.value(bytes(segment[:76])).to_bytes(4, "big")
    seed = google_crc32c.value(bytes(segment[28:44]))
    for at in _records(segment):
        segment[at + 28 : at + 32] = google_crc32c.extend(seed, bytes(segment[at : at + 28])).to_bytes(4, "big")


_BACKUP_HEADER_SIZE = 52
_CHUNK_HEADER_SIZE = 16


def mutate_backup(data: bytes, size_max: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Mutate a backup, and mostly mend the checksums of its header and its chunks."""
    backup = bytearray(data)
    match random.randrange(4):
        case 0:
            backup = bytearray(mutate_bytes(data, size_max))
        case 1:
            del backup[random.randrange(len(backup) + 1) :]
        case 2:
            at = random.choice((8, 9, 36, 39, 44, 47))
            if at < len(backup):
                backup[at] = random.choice((0, 1, backup[at] + 1 & 0xFF, 0xFF))
        case _:
            at = random.randrange(len(backup) + 1)
            backup[at : at + 1] = random.randbytes(random.randrange(3))
    if len(backup) >= _BACKUP_HEADER_SIZE and random.random() < 0.8:
        backup[48:52] = google_crc32c.value(bytes(backup[:48])).to_bytes(4, "big")
        _mend_chunks(backup)
    return bytes(backup[:size_max])


def _mend_chunks(backup: bytearray) -> None:
    seed = google_crc32c.value(bytes(backup[20:36]))
    at = _BACKUP_HEADER_SIZE + int.from_bytes(backup[36:40], "big") + int.from_bytes(backup[44:48], "big")
    while at + _CHUNK_HEADER_SIZE <= len(backup):
        end = at + _CHUNK_HEADER_SIZE + int.from_bytes(backup[at : at + 4], "big")
        check = google_crc32c.extend(seed, bytes(backup[at : at + 12]))
        check = google_crc32c.extend(check, bytes(backup[at + _CHUNK_HEADER_SIZE : end]))
        backup[at + 12 : at + _CHUNK_HEADER_SIZE] = check.to_bytes(4, "big")
        at = end
