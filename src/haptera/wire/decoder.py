"""Bytes to frames, incrementally (spec/protocol.md, section 2)."""

from __future__ import annotations

from typing import Final

from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

from haptera.errors import Code, RemoteProtocolError
from haptera.wire.foreign_protocols import ForeignBytes, foreign_protocol
from haptera.wire.frame import (
    CHECKED_SIZE,
    HANDSHAKE_FRAME_SIZE_MAX,
    HEADER,
    HEADER_SIZE,
    MAGIC,
    MAGIC_BYTES,
    METADATA_SIZE_MAX,
    SIGNED,
    VERSION,
    Frame,
    FrameType,
)
from haptera.wire.signature import TAG_SIZE, Signer

#: After so many frames the rest waits until it is asked for: to decode what one peer sends, and to act on it, stops
#: everything else for a few milliseconds at most. Many bytes in few frames cost little.
FRAMES_MAX: Final = 512
#: Pieces smaller than this are put together as they come: kept singly, each would cost more than its bytes.
_PIECE_SIZE_MIN: Final = 4096
#: A body with a payload of less is copied for its checksum, because that takes less time than a second call.
_COPIED_SIZE_MAX: Final = 1024

#: The fields of a header, in their order, and the place of one of them.
_Fields = tuple[int, int, int, int, int, int, int, int, int]
_METADATA_LENGTH: Final = 4


class _Begun:
    """A frame that has not come whole, behind a header that is sound."""

    __slots__ = ("fields", "header", "held", "metadata", "pieces", "wanted")

    def __init__(self, fields: _Fields, data: bytes, start: int, wanted: int) -> None:
        body = start + HEADER_SIZE
        middle = body + fields[_METADATA_LENGTH]
        self.fields = fields
        self.header = data[start:body]
        self.held = len(data) - start
        self.wanted = wanted
        # Metadata that is there is set aside, so that the payload alone has to be joined.
        self.metadata = data[body:middle] if middle <= len(data) else None
        rest = data[body if self.metadata is None else middle :]
        self.pieces: list[bytes | bytearray] = [rest] if rest else []

    def add(self, data: bytes) -> None:
        """Take bytes that do not reach the frame's end."""
        self.held += len(data)
        if len(data) >= _PIECE_SIZE_MIN:
            self.pieces.append(data)
        elif self.pieces and isinstance(last := self.pieces[-1], bytearray) and len(last) < _PIECE_SIZE_MIN:
            last += data
        else:
            self.pieces.append(bytearray(data))

    def finish(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the last bytes and return the metadata, and all behind it."""
        self.pieces.append(data)
        body = b"".join(self.pieces)
        if self.metadata is not None:
            return self.metadata, body
        middle = self.fields[_METADATA_LENGTH]
        return body[:middle], body[middle:]


class FrameDecoder:
    """Takes bytes in any pieces, gives whole frames.

    A length is believed only after the header's checksum was right and is within the limit, and memory grows only as
    bytes arrive. Each payload byte is copied once; twice if its frame came in pieces, once more if the pieces were
    tiny.

    The first frame of a connection is handed over alone, even if others came with it: its content decides how the
    rest is read. ``receive(b"")`` goes on behind it, and while ``more`` is true: small frames come some hundreds at
    once.

    The first fault in a header, or a wrong tag, ends the decoding for good, since nothing behind it can be trusted:
    ``error`` then says why, and further bytes are ignored. Damage to a body is not an error here but a
    property of its frame.
    """

    def __init__(self, max_frame: int, version: int = VERSION) -> None:
        """``max_frame`` is the largest payload, in bytes, that the receiver announced."""
        self.max_frame: int = max_frame
        self.version = version
        self.error: RemoteProtocolError | None = None
        #: Whether more frames may be whole already.
        self.more: bool = False
        self._first = True
        # The first frame of a connection has a limit of its own, the same in all versions (section 4).
        self._size_max = min(HANDSHAKE_FRAME_SIZE_MAX, max_frame)
        self._verifier: Signer | None = None
        self._tag_size = 0
        self._takes_error = False  # whether an ERROR may come unsigned, as the last frame
        self._last = False  # whether that has come, or begun
        # Either a frame that has begun is kept, or bytes that have not been looked at, or less than a header.
        self._begun: _Begun | None = None
        self._rest = b""

    @property
    def held(self) -> int:
        """Bytes of an unfinished frame that are kept."""
        return len(self._rest) if self._begun is None else self._begun.held

    @property
    def wanted(self) -> int:
        """Size of the unfinished frame, as far as it is known: its header's until that has arrived."""
        return HEADER_SIZE if self._begun is None else self._begun.wanted

    def verify(self, signer: Signer, *, takes_error: bool = False) -> None:
        """Give only frames that carry the next tag of ``signer`` from now on; any other is 1011.

        With ``takes_error`` an ERROR may come in the place of the first of them, unsigned; nothing behind it is given.
        """
        self._verifier = signer
        self._tag_size = TAG_SIZE
        self._takes_error = takes_error

    def limit(self, size: int) -> None:
        """Take no frame behind the first whose payload has more than so many bytes."""
        self.max_frame = self._size_max = size

    def receive(self, data: bytes, frames_max: int = FRAMES_MAX) -> list[Frame]:
        """Take the bytes that arrived and return the frames that are whole now, in order, ``frames_max`` at most."""
        frames: list[Frame] = []
        if self.error is not None or (self._last and self._begun is None):
            return frames
        start = 0
        begun = self._begun
        if begun is not None:
            start = begun.wanted - begun.held
            if len(data) < start:
                begun.add(data)
                return frames
            self._begun = None
            frame = self._frame_of(begun, data[:start])
            if frame is None:
                self.error = RemoteProtocolError(Code.SIGNATURE_MISMATCH)
                return frames
            frames.append(frame)
            if self._last:
                return frames
        elif self._rest:
            data = self._rest + data
        self._decode(data, start, frames, frames_max)
        return frames

    def _frame_of(self, begun: _Begun, data: bytes) -> Frame | None:
        """Return the frame that ``data`` makes whole; None if its tag is wrong."""
        metadata, payload = begun.finish(data)
        _, _, type_, flags, _, stream, payload_length, body_crc, _ = begun.fields
        if self._verifier is None:
            return Frame(type_, flags, stream, metadata, payload, body_crc, crc32c_extend(crc32c(metadata), payload))
        payload, tag = payload[:payload_length], payload[payload_length:]
        if not self._verifier.verify(begun.header + metadata, payload, tag):
            return None
        return Frame(type_, flags, stream, metadata, payload, 0, 0)

    def _decode(self, data: bytes, start: int, frames: list[Frame], frames_max: int) -> None:
        """Append the frames of ``data`` from ``start`` on, and keep the rest."""
        append = frames.append
        verifier = self._verifier
        tag_size = self._tag_size
        unpack_from = HEADER.unpack_from
        end = len(data)
        if self._first:
            frames_max = 1
        while end - start >= HEADER_SIZE and len(frames) < frames_max:
            fields: _Fields = unpack_from(data, start)
            magic, version, type_, flags, metadata_length, stream, payload_length, body_crc, header_crc = fields
            body = start + HEADER_SIZE
            if (
                magic != MAGIC
                or crc32c(data[start : start + CHECKED_SIZE]) != header_crc
                or version != self.version
                or metadata_length > METADATA_SIZE_MAX
                or payload_length > self._size_max
            ):
                self.error = self._fault(data[start:body])
                break
            middle = body + metadata_length
            stop = middle + payload_length
            if verifier is not None and not flags & SIGNED:
                if not self._takes_error or type_ != FrameType.ERROR:
                    # Before anything but the header is looked at (section 2, "Order of checks").
                    self.error = RemoteProtocolError(Code.SIGNATURE_MISMATCH, "a frame is not signed")
                    break
                self._last = True
                self._verifier, self._tag_size = verifier, tag_size = None, 0
                end = min(end, stop)
            if stop + tag_size > end:
                self._begun = _Begun(fields, data, start, stop + tag_size - start)
                start = end
                break
            payload = data[middle:stop]
            if verifier is not None:
                metadata = data[body:middle]
                if not verifier.verify(data[start:middle], payload, data[stop : stop + tag_size]):
                    self.error = RemoteProtocolError(Code.SIGNATURE_MISMATCH)
                    break
                append(Frame(type_, flags, stream, metadata, payload, 0, 0))
                start = stop + tag_size
                self._takes_error = False
                continue
            if not metadata_length:
                metadata = b""
                actual_crc = crc32c(payload)
            elif payload_length < _COPIED_SIZE_MAX:
                metadata = data[body:middle]
                actual_crc = crc32c(data[body:stop])
            else:
                metadata = data[body:middle]
                actual_crc = crc32c_extend(crc32c(metadata), payload)
            append(Frame(type_, flags, stream, metadata, payload, body_crc, actual_crc))
            start = stop
        if start == len(data) and len(frames) < frames_max and not self._first:
            self.more, self._rest = False, b""
        else:
            self._keep(data, start, paused=len(frames) >= frames_max)

    def _keep(self, data: bytes, start: int, *, paused: bool) -> None:
        """Keep what was not decoded; ``paused`` says that this is not for want of bytes."""
        rest = b"" if self._last else data[start:]
        if paused and self._first:
            self._first = False
            self._size_max = self.max_frame
            self.more = bool(rest)
        else:
            self.more = paused and self.error is None
            # A foreign protocol is told apart by its first two bytes, however few follow.
            if not paused and self.error is None and len(rest) >= len(MAGIC_BYTES) and rest[:2] != MAGIC_BYTES:
                self.error = self._fault(rest)
        self._rest = b"" if self.error is not None else rest

    def _fault(self, header: bytes) -> RemoteProtocolError:
        """Name the fault of a header, in the order of checks of section 2."""
        if header[:2] != MAGIC_BYTES:
            found = header[:2].hex()
            protocol = foreign_protocol(header) if self._first else None
            if protocol is not None:
                return ForeignBytes(protocol)
            return RemoteProtocolError(
                Code.MALFORMED_FRAME, f"the bytes are not a frame: they begin with {found}, not fa57"
            )
        _, version, _, _, metadata_length, _, payload_length, _, header_crc = HEADER.unpack(header)
        actual = crc32c(header[:CHECKED_SIZE])
        if actual != header_crc:
            return RemoteProtocolError(
                Code.CHECKSUM_MISMATCH,
                "the checksum of a frame's header is wrong",
                {"expected": header_crc, "actual": actual},
            )
        if version != self.version:
            return RemoteProtocolError(
                Code.MALFORMED_FRAME, "a frame has the wrong version", {"expected": self.version, "actual": version}
            )
        if metadata_length > METADATA_SIZE_MAX:
            return RemoteProtocolError(
                Code.FRAME_TOO_LARGE,
                "a frame's metadata is too long",
                {"length": metadata_length, "limit": METADATA_SIZE_MAX},
            )
        return RemoteProtocolError(
            Code.FRAME_TOO_LARGE, "a frame's payload is too long", {"length": payload_length, "limit": self._size_max}
        )
