"""The section of the gaps in a snapshot.

Its head is ``[server id, gaps]``, and each row the revision before a gap and the one behind it, oldest first. A store
without gaps has no such section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.state import limits
from haptera.state.field_kinds import SERVER_ID_SIZE
from haptera.state.piece_decoding import PieceDecoder, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.kv import Kv

#: The name of the section.
GAPS_SECTION: Final = "gaps"

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    server_id: bytes
    gaps: int


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    before: int
    behind: int


_head: Final = PieceDecoder(GAPS_SECTION, _Head)
_rows: Final = PieceDecoder(GAPS_SECTION, list[_Row])


def gap_pieces(kv: Kv) -> Iterator[bytes]:
    """Give the section in pieces; none for a store without gaps."""
    gaps = kv.gaps
    if gaps.found:
        yield _encoder.encode((gaps.server_id, len(gaps.found)))
        yield _encoder.encode(gaps.found)


class GapsLoader:
    """Fills the gaps of a store, whose revision is known already, with their section."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv
        self._expected = 0

    def head(self, piece: bytes) -> None:
        """Read the head."""
        head = _head.decode(piece)
        require(0 < head.gaps <= limits.GAPS_MAX, "there are too many gaps, or none")
        require(len(head.server_id) == SERVER_ID_SIZE, "no server has this id")
        self._kv.gaps.server_id, self._expected = head.server_id, head.gaps

    def rows(self, piece: bytes) -> None:
        """Read some rows."""
        found = self._kv.gaps.found
        for row in _rows.decode(piece):
            last = found[-1][1] if found else 0
            require(last <= row.before < row.behind <= self._kv.revision, "the gaps are not in their order")
            found.append((row.before, row.behind))

    def finish(self) -> None:
        """Judge the section as a whole."""
        count = len(self._kv.gaps.found)
        require(count == self._expected, f"there are {count} gaps and not {self._expected}")
