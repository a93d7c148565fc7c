"""Compressed payloads: one zstd frame each, within bounds (spec/protocol.md, section 4.1).

The ``zstandard`` package is an optional extra, imported when the first payload is compressed or decompressed.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, RemoteProtocolError

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

#: Smaller payloads are never compressed: it saves less than it costs.
COMPRESSED_SIZE_MIN: Final = 1024
#: The farthest that a frame may refer back, in bytes, and so the memory that decompressing it may take.
WINDOW_MAX: Final = 8 * 1024 * 1024

#: Blocks of a frame that does not declare its size: to count as many takes ten milliseconds. The largest payload has
#: 128 of them from an encoder that fills its blocks.
BLOCKS_MAX: Final = 2**16
_BLOCK_HEAD_SIZE: Final = 3
_CHECKSUM_SIZE: Final = 4
#: The type of a block that is one byte, many times.
_RUN: Final = 1

#: The largest payload that a codec keeps with its compressed form.
KEPT_SIZE_MAX: Final = 256 * 1024

_PACKAGE: Final = "zstandard"
#: The fastest that still halves text: the wire has to be slow for a higher one to pay.
_LEVEL: Final = 1
#: The first bytes of a zstd frame. Skippable frames begin otherwise.
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MALFORMED: Final = "a compressed payload is malformed"
_WRONG_LENGTH: Final = "a compressed payload is not as long as announced"


def available() -> bool:
    """Whether payloads can be compressed here: whether the ``zstandard`` package is installed."""
    return _installed(_PACKAGE)


@cache
def _installed(package: str) -> bool:
    """Whether there is a package. Each new connection asks, and the import system reads directories to find out."""
    from importlib.util import find_spec  # noqa: PLC0415  # programs that make no connection do without it

    return find_spec(package) is not None


class Codec:
    """Compresses and decompresses payloads, with contexts that are made once.

    It costs nothing before it is used. All connections of one thread may share one; two threads may not.
    """

    def __init__(self) -> None:
        self._zstandard: Any = None
        self._compressor: ZstdCompressor | None = None
        self._decompressor: ZstdDecompressor | None = None
        self._last: tuple[bytes, bytes] | None = None  # a payload, and what it was compressed to

    def _load(self) -> Any:
        if self._zstandard is None:
            self._zstandard = import_module(_PACKAGE)
        return self._zstandard

    def compress(self, payload: bytes) -> bytes:
        """Return ``payload`` as one zstd frame; it may be larger than the payload.

        The one object that is sent on many streams, one after the other, is compressed once.
        """
        last = self._last
        if last is not None and payload is last[0]:
            return last[1]
        compressor = self._compressor
        if compressor is None:
            zstandard = self._load()
            # The size is declared in each frame, so its window is never larger than the payload.
            compressor = self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        packed = compressor.compress(payload)
        if len(payload) <= KEPT_SIZE_MAX:
            self._last = (payload, packed)
        return packed

    def decompress(self, data: bytes, raw_length: int) -> bytes:
        """Return the payload of ``raw_length`` bytes that ``data`` holds.

        Raises 1010 for anything but one frame of just that length, with a checksum that is right, a window within
        ``WINDOW_MAX``, no dictionary and nothing behind it. No more than ``raw_length`` bytes are ever produced.
        """
        parameters = self._parameters(data)
        if not parameters.has_checksum:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload has no checksum")
        if parameters.content_size not in {raw_length, self._zstandard.CONTENTSIZE_UNKNOWN}:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, _WRONG_LENGTH)
        payload = self._decompressed(data, parameters, raw_length)
        if len(payload) != raw_length:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, _WRONG_LENGTH)
        return payload

    def decompress_within(self, data: bytes, size_max: int) -> bytes:
        """Return the payload that ``data`` holds, whose length no one has announced: ``size_max`` bytes at most.

        Raises 1010 as ``decompress`` does; a checksum may be missing. No more than ``size_max`` bytes are ever
        produced.
        """
        parameters = self._parameters(data)
        declared = parameters.content_size
        if declared != self._zstandard.CONTENTSIZE_UNKNOWN and declared > size_max:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload is too large")
        return self._decompressed(data, parameters, size_max)

    def _parameters(self, data: bytes) -> Any:
        """Return what a frame says about itself, which is within the bounds that every frame has to keep."""
        zstandard = self._load()
        if not data.startswith(_MAGIC):
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload is not a zstd frame")
        try:
            parameters = zstandard.get_frame_parameters(data)
        except zstandard.ZstdError as error:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, _MALFORMED) from error
        if parameters.dict_id:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload needs a dictionary")
        if parameters.window_size > WINDOW_MAX:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload's window is too large")
        return parameters

    def _decompressed(self, data: bytes, parameters: Any, size_max: int) -> bytes:
        zstandard = self._zstandard
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
        try:
            # A frame that declares its size is decompressed to that size, beyond any limit given here. The caller has
            # checked it; the limit is for frames that declare none.
            payload: bytes = decompressor.decompress(data, max_output_size=size_max, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, _MALFORMED) from error
        if not payload or parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN:
            # The package looks for bytes behind a frame only where the frame declares that it holds some.
            head_size = zstandard.frame_header_size(data)
            if _frame_size(data, head_size, has_checksum=parameters.has_checksum) != len(data):
                raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, _MALFORMED)
        return payload


def _frame_size(data: bytes, head_size: int, *, has_checksum: bool) -> int:
    """Return the bytes of a frame, which its blocks say (RFC 8878, section 3.1.1.2); 0 for too many blocks."""
    place = head_size
    for _ in range(BLOCKS_MAX):
        head = int.from_bytes(data[place : place + _BLOCK_HEAD_SIZE], "little")
        place += _BLOCK_HEAD_SIZE + (1 if head >> 1 & 3 == _RUN else head >> 3)
        if head & 1 or place >= len(data):
            return place + (_CHECKSUM_SIZE if has_checksum else 0)
    return 0
