"""The pieces of a snapshot, decoded and checked, and the error of a piece that holds something else than it may."""

from __future__ import annotations

from typing import Final, Generic, TypeVar, get_args

import msgspec

from haptera.errors import HapteraError
from haptera.state.command_encoding import UnknownPart
from haptera.state.msgpack_arrays import read_array_header

#: Bytes of a piece, about: enough that a piece costs nothing by itself, and few enough that making one or loading one
#: takes a millisecond or two. A piece is larger where a single value is.
PIECE_SIZE: Final = 256 * 1024

DecodedT = TypeVar("DecodedT")

_outline: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


class MalformedPieces(HapteraError, ValueError):
    """The pieces are those of no state."""


class PieceDecoder(Generic[DecodedT]):
    """Decodes pieces of a section: a struct, or a list of structs."""

    def __init__(self, section: str, form: type[DecodedT]) -> None:
        self._section = section
        self._decoder = msgspec.msgpack.Decoder(form)
        row = next(iter(get_args(form)), None)
        self._is_list = row is not None
        self._fields = len(getattr(row or form, "__struct_fields__"))  # noqa: B009  # every form is one of structs

    def decode(self, piece: bytes) -> DecodedT:
        """The content of a piece. Raises `MalformedPieces`, and `UnknownPart` for a piece with further fields, which a
        newer version wrote.
        """
        try:
            return self._decoder.decode(piece)
        except (ValueError, RecursionError) as error:
            raise self._explanation(piece, error) from error

    def _explanation(self, piece: bytes, error: Exception) -> UnknownPart | MalformedPieces:
        try:
            elements = _outline.decode(piece)
            counts = map(_count, elements) if self._is_list else [len(elements)]
            if max(counts, default=0) > self._fields:
                return UnknownPart(self._section, "has more fields than are known", kind="part", source="snapshot")
        except (ValueError, RecursionError):
            pass  # not even an outline: the first error says it best
        return MalformedPieces(f"the section {self._section!r} holds something else than its rows: {error}")


def require(condition: bool, otherwise: str) -> None:
    """Raise `MalformedPieces` with the text ``otherwise`` unless the condition holds."""
    if not condition:
        raise MalformedPieces(otherwise)


def _count(row: msgspec.Raw) -> int:
    header = read_array_header(bytes(row), 0)
    return header[1] if header else 0
