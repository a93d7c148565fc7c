"""Metadata: where a REQUEST goes, and the entries that a frame carries (spec/protocol.md, section 2.3)."""

from __future__ import annotations

import struct
from collections.abc import Container
from enum import IntEnum
from typing import Final

import msgspec

from haptera.errors import Code, RemoteProtocolError


class Tag(IntEnum):
    """Metadata tags. One with its top bit set is critical: a side that does not know it must not ignore it."""

    REQUEST_ID = 0x01
    TIMEOUT_MS = 0x02
    TRACEPARENT = 0x03
    TRACESTATE = 0x04
    SERVER_TIME_US = 0x06
    QUEUE_TIME_US = 0x07
    CONTENT_TYPE = 0x08
    REPLAYED = 0x09
    ANSWERED_BELOW = 0x0A
    REVISION = 0x0B
    RESENT = 0x0C
    RAW_LENGTH = 0x85


CRITICAL_TAG: Final = 0x80
NAME_SIZE_MAX: Final = 255

#: The exact length of each tag's value in bytes; the tags that carry text are not here.
_LENGTHS: Final[dict[int, int]] = {
    int(tag): length
    for tag, length in {
        Tag.REQUEST_ID: 16,
        Tag.TIMEOUT_MS: 4,
        Tag.TRACEPARENT: 26,
        Tag.SERVER_TIME_US: 4,
        Tag.QUEUE_TIME_US: 4,
        Tag.REPLAYED: 0,
        Tag.ANSWERED_BELOW: 8,
        Tag.REVISION: 8,
        Tag.RESENT: 0,
        Tag.RAW_LENGTH: 4,
    }.items()
}
_TEXTS: Final = frozenset({int(Tag.TRACESTATE), int(Tag.CONTENT_TYPE)})

#: Bytes of a tag and a length.
_HEAD_SIZE: Final = 2
_ID_HEAD: Final = bytes((Tag.REQUEST_ID, _LENGTHS[Tag.REQUEST_ID]))
_ID_ENTRY_SIZE: Final = len(_ID_HEAD) + _LENGTHS[Tag.REQUEST_ID]

#: The tags that mean something only where a capability was accepted, and are ignored elsewhere (section 4.1).
CAPABILITY_TAGS: Final[dict[str, tuple[int, ...]]] = {
    "request_deadline": (Tag.TIMEOUT_MS,),
    "server_metrics": (Tag.SERVER_TIME_US, Tag.QUEUE_TIME_US),
    "trace_context": (Tag.TRACEPARENT, Tag.TRACESTATE),
}

#: Shared by all frames without entries; never changed.
NO_ENTRIES: Final[dict[int, bytes]] = {}


def encode_route(service: str, method: str) -> bytes:
    """Encode the names that begin a REQUEST's metadata.

    Raises ``ValueError`` if a name is empty or longer than 255 bytes.
    """
    parts = []
    for name in (service, method):
        encoded = name.encode()
        if not 0 < len(encoded) <= NAME_SIZE_MAX:
            raise ValueError(f"a service's or method's name has 1 to {NAME_SIZE_MAX} bytes, not {len(encoded)}")
        parts.append(len(encoded).to_bytes(1, "big") + encoded)
    return b"".join(parts)


def route_length(metadata: bytes) -> int:
    """Return how many bytes of a REQUEST's metadata its two names take. Raises 1002 if they are cut short."""
    size = len(metadata)
    if size:
        middle = 1 + metadata[0]
        if middle < size:
            stop = middle + 1 + metadata[middle]
            if stop <= size:
                return stop
    raise RemoteProtocolError(Code.MALFORMED_FRAME, "a request's metadata ends within its service's and method's names")


def split_request_id(metadata: bytes) -> tuple[bytes | None, bytes]:
    """Return the request id that stands first behind the names of a REQUEST's metadata, and the metadata without it.

    None, and the metadata as it is, where nothing or something else stands there. Nothing is checked.
    """
    try:
        start = 1 + metadata[0]
        start += 1 + metadata[start]
    except IndexError:  # the names are cut short
        return None, metadata
    stop = start + _ID_ENTRY_SIZE
    if metadata[start : start + 2] != _ID_HEAD or stop > len(metadata):
        return None, metadata
    return metadata[start + 2 : stop], metadata[:start] + metadata[stop:]


def decode_route(route: bytes) -> tuple[str, str]:
    """Decode the names of ``route``, as long as ``route_length`` says. Raises 1002 if they are not UTF-8 or empty."""
    middle = 1 + route[0]
    try:
        service, method = route[1:middle].decode(), route[middle + 1 :].decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a request's service or method is not UTF-8") from error
    if not service or not method:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a request's service or method is empty")
    return service, method


def encode_entry(tag: int, value: bytes) -> bytes:
    """Encode one entry. Raises ``ValueError`` if the value is longer than 255 bytes."""
    if len(value) > 255:
        raise ValueError("a metadata entry's value has at most 255 bytes")
    return bytes((tag, len(value))) + value


def decode_entries(metadata: bytes, start: int = 0) -> dict[int, bytes]:
    """Decode the entries of ``metadata`` from ``start`` on.

    Returns the known ones by tag; unknown ones that are not critical are left out. Raises 1002 for entries that are
    cut short, doubled or of a wrong length, and if there is nothing of that kind, 1007 for an unknown critical tag.
    """
    end = len(metadata)
    if start == end:
        return NO_ENTRIES
    entries: dict[int, bytes] = {}
    at = start
    try:
        # The usual entries have their known lengths: a look at one costs little, and they are in each answer.
        while at < end:
            tag = metadata[at]
            length = _LENGTHS[tag]
            if metadata[at + 1] != length or tag in entries:
                break
            at += 2
            entries[tag] = metadata[at : at + length]
            at += length
    except (KeyError, IndexError):
        pass
    return entries if at == end else _decode_unusual(metadata, start)


class LaidOut(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Entries whose places in the metadata are known, taken from there when one asks for them.

    It is used as the dict of the entries, and equals it.
    """

    metadata: bytes
    places: dict[int, slice]

    def get(self, tag: int) -> bytes | None:
        """Return the value of an entry, or None."""
        place = self.places.get(tag)
        return None if place is None else self.metadata[place]

    def items(self) -> list[tuple[int, bytes]]:
        """Return the entries."""
        return [(tag, self.metadata[place]) for tag, place in self.places.items()]

    def __contains__(self, tag: int) -> bool:
        return tag in self.places

    def __getitem__(self, tag: int) -> bytes:
        return self.metadata[self.places[tag]]

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == other

    def __hash__(self) -> int:
        raise TypeError("entries are no key")


#: The entries of a message by their tags.
Entries = dict[int, bytes] | LaidOut


class Layout:
    """The form of metadata that has entries alone, each of the one length that its tag has.

    The messages of a connection have the same entries again and again, with other values: to hold one against the form
    takes a sixth of the time that it takes to decode it.
    """

    __slots__ = ("_heads", "_places", "_unpack")

    def __init__(self, metadata: bytes) -> None:
        """``metadata`` is sound, and `has_layout`."""
        self._places: dict[int, slice] = {}
        form, at = [">"], 0
        while at < len(metadata):
            tag, length = metadata[at : at + _HEAD_SIZE]
            at += _HEAD_SIZE
            self._places[tag] = slice(at, at + length)
            at += length
            form.append(f"{_HEAD_SIZE}s{length}x")
        self._unpack = struct.Struct("".join(form)).unpack
        self._heads = self._unpack(metadata)

    def read(self, metadata: bytes) -> LaidOut | None:
        """Return the entries of metadata that is as long; None if it has not this form."""
        return LaidOut(metadata, self._places) if self._unpack(metadata) == self._heads else None


def has_layout(metadata: bytes, entries: dict[int, bytes]) -> bool:
    """Whether a `Layout` can tell all of the entries that were decoded from metadata.

    They are not, where one was left out, or one has no length of its own.
    """
    told = sum(_HEAD_SIZE + len(value) for value in entries.values())
    return told == len(metadata) and entries.keys() <= _LENGTHS.keys()


def _decode_unusual(metadata: bytes, start: int) -> dict[int, bytes]:
    """As ``decode_entries``, of entries among which is a text, one that is not known, or a fault."""
    end = len(metadata)
    entries: dict[int, bytes] = {}
    skipped: set[int] | None = None
    critical: int | None = None
    while start < end:
        tag = metadata[start]
        if start + 2 > end:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "a frame's metadata is cut short")
        value_start = start + 2
        start = value_start + metadata[start + 1]
        if start > end:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "a frame's metadata is cut short", {"tag": tag})
        if tag in entries or (skipped is not None and tag in skipped):
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "a metadata tag is given twice", {"tag": tag})
        length = _LENGTHS.get(tag)
        if length is None:
            if tag not in _TEXTS:
                if tag & CRITICAL_TAG and critical is None:
                    critical = tag
                skipped = skipped or set()
                skipped.add(tag)
                continue
            _check_text(tag, metadata[value_start:start])
        elif start - value_start != length:
            raise RemoteProtocolError(
                Code.MALFORMED_FRAME,
                "a metadata value has the wrong length",
                {"tag": tag, "expected": length, "actual": start - value_start},
            )
        entries[tag] = metadata[value_start:start]
    if critical is not None:
        raise RemoteProtocolError(
            Code.UNSUPPORTED_METADATA, "a metadata tag is critical and not known", {"tag": critical}
        )
    return entries


def ignored_tags(capabilities: Container[str]) -> tuple[int, ...]:
    """Return the tags that mean nothing where just these capabilities were accepted."""
    return tuple(tag for name, tags in CAPABILITY_TAGS.items() if name not in capabilities for tag in tags)


def _check_text(tag: int, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a metadata value is not UTF-8", {"tag": tag}) from error
