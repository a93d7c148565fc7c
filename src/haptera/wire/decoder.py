"""Bytes to frames, incrementally (spec/protocol.md, section 2)."""

from typing import Final

from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

from haptera.errors import RemoteProtocolError
from haptera.wire.frame import (
    CHECKED_SIZE,
    HANDSHAKE_FRAME_SIZE_MAX,
    HEADER,
    HEADER_SIZE,
    MAGIC,
    METADATA_SIZE_MAX,
    SIGNED,
    VERSION,
    Frame,
)
from haptera.wire.signature import TAG_SIZE, Signer

_MAGIC_BYTES: Final = MAGIC.to_bytes(2, "big")
#: After so many frames the rest waits until it is asked for: to decode what one peer sends, and to act on it, stops
#: everything else for a few milliseconds at most. Many bytes in few frames cost little.
FRAMES_MAX: Final = 512
#: Pieces smaller than this are put together as they come: kept singly, each would cost more than its bytes.
_PIECE_SIZE_MIN: Final = 4096


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
        self.max_frame = max_frame
        self.version = version
        self.error: RemoteProtocolError | None = None
        #: Whether more frames may be whole already.
        self.more = False
        self._first = True
        # The first frame of a connection has a limit of its own, the same in all versions (section 4).
        self._size_max = min(HANDSHAKE_FRAME_SIZE_MAX, max_frame)
        self._verifier: Signer | None = None
        self._pieces: list[bytes | bytearray] = []
        self._held = 0
        self._wanted = HEADER_SIZE

    @property
    def held(self) -> int:
        """Bytes of an unfinished frame that are kept."""
        return self._held

    @property
    def wanted(self) -> int:
        """Size of the unfinished frame, as far as it is known: its header's until that has arrived."""
        return self._wanted

    def verify(self, signer: Signer) -> None:
        """Give only frames that carry the next tag of ``signer`` from now on; any other is 1011."""
        self._verifier = signer

    def receive(self, data: bytes, frames_max: int = FRAMES_MAX) -> list[Frame]:
        """Take the bytes that arrived and return the frames that are whole now, in order, ``frames_max`` at most."""
        if self.error is not None:
            return []
        if self._held:
            self._add(data)
            # Beyond its header an unfinished frame only collects pieces; joining at each arrival would copy the
            # whole of a large frame once per read.
            if self._held < self._wanted and self._wanted > HEADER_SIZE:
                return []
            data = b"".join(self._pieces)
        return self._decode(data, frames_max)

    def _add(self, data: bytes) -> None:
        last = self._pieces[-1]
        if isinstance(last, bytearray) and len(last) < _PIECE_SIZE_MIN:
            last += data
        else:
            self._pieces.append(data if len(data) >= _PIECE_SIZE_MIN else bytearray(data))
        self._held += len(data)

    def _decode(self, data: bytes, frames_max: int) -> list[Frame]:
        frames: list[Frame] = []
        append = frames.append
        verifier = self._verifier
        first = self._first
        unpack_from = HEADER.unpack_from
        start = 0
        end = len(data)
        wanted = HEADER_SIZE
        self.more = False
        while end - start >= HEADER_SIZE:
            magic, version, type_, flags, metadata_length, stream, payload_length, body_crc, header_crc = unpack_from(
                data, start
            )
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
            stop = body + metadata_length + payload_length
            if verifier is not None:
                # Before anything but the header is looked at (section 2, "Order of checks").
                if not flags & SIGNED:
                    self.error = RemoteProtocolError(1011, "a frame is not signed")
                    break
                if stop + TAG_SIZE > end:
                    wanted = stop + TAG_SIZE - start
                    break
                if not verifier.verify(data[start:stop], data[stop : stop + TAG_SIZE]):
                    self.error = RemoteProtocolError(1011)
                    break
                middle = body + metadata_length
                append(Frame(type_, flags, stream, data[body:middle], data[middle:stop], 0, 0))
                start = stop + TAG_SIZE
                if len(frames) >= frames_max:
                    self.more = True
                    break
                continue
            if stop > end:
                wanted = stop - start
                break
            if metadata_length:
                middle = body + metadata_length
                metadata = data[body:middle]
                payload = data[middle:stop]
                actual_crc = crc32c_extend(crc32c(metadata), payload)
            else:
                metadata = b""
                payload = data[body:stop]
                actual_crc = crc32c(payload)
            append(Frame(type_, flags, stream, metadata, payload, body_crc, actual_crc))
            start = stop
            if first:
                self._first = False
                self._size_max = self.max_frame
                self.more = stop < end
                break
            if len(frames) >= frames_max:
                self.more = True
                break
        else:
            # A foreign protocol is told apart by its first two bytes, however few follow.
            if end - start >= len(_MAGIC_BYTES) and data[start : start + 2] != _MAGIC_BYTES:
                self.error = self._fault(data[start:])
        self._keep(b"" if self.error is not None else data[start:], wanted)
        return frames

    def _keep(self, rest: bytes, wanted: int) -> None:
        self._pieces = [rest] if rest else []
        self._held = len(rest)
        self._wanted = wanted

    def _fault(self, header: bytes) -> RemoteProtocolError:
        """Name the fault of a header, in the order of checks of section 2."""
        if header[:2] != _MAGIC_BYTES:
            found = header[:2].hex()
            return RemoteProtocolError(1002, f"the bytes are not a frame: they begin with {found}, not fa57")
        _, version, _, _, metadata_length, _, payload_length, _, header_crc = HEADER.unpack(header)
        actual = crc32c(header[:CHECKED_SIZE])
        if actual != header_crc:
            return RemoteProtocolError(
                1003, "the checksum of a frame's header is wrong", {"expected": header_crc, "actual": actual}
            )
        if version != self.version:
            return RemoteProtocolError(
                1002, "a frame has the wrong version", {"expected": self.version, "actual": version}
            )
        if metadata_length > METADATA_SIZE_MAX:
            return RemoteProtocolError(
                1004, "a frame's metadata is too long", {"length": metadata_length, "limit": METADATA_SIZE_MAX}
            )
        return RemoteProtocolError(
            1004, "a frame's payload is too long", {"length": payload_length, "limit": self._size_max}
        )
