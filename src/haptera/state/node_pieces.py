"""The section of the part ``node`` in a snapshot: its head alone, ``[reason, since_ms, sequence, digest]``.

The first two are of the maintenance and nil without one, the others of the newest known line of the audit log and nil
where there is none. A state without either has no such section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.state.node_record import AuditHead, MaintenancePeriod
from haptera.state.piece_decoding import MalformedPieces, PieceDecoder, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.node_record import NodeRecord

#: The name of the section.
NODE_SECTION: Final = "node"

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    reason: str | None
    since_ms: int | None
    sequence: int | None
    digest: bytes | None


_head: Final = PieceDecoder(NODE_SECTION, _Head)


def node_pieces(record: NodeRecord) -> Iterator[bytes]:
    """Give the section in pieces; none for an empty record."""
    if not record.empty:
        yield _encoder.encode(record.fields())


class NodeLoader:
    """Fills the part with its section. ``time_ms`` is that of the state."""

    def __init__(self, record: NodeRecord, time_ms: int) -> None:
        self._record = record
        self._time_ms = time_ms

    def head(self, piece: bytes) -> None:
        """Read the section."""
        head = _head.decode(piece)
        if head.reason is not None and head.since_ms is not None:
            self._record.maintenance = MaintenancePeriod(head.reason, head.since_ms)
        if head.sequence is not None and head.digest is not None:
            self._record.audit_head = AuditHead(head.sequence, head.digest)
        whole = self._record.fields() == (head.reason, head.since_ms, head.sequence, head.digest)
        require(whole and not self._record.empty, "the record of the node is not whole")

    def rows(self, piece: bytes) -> None:
        """Refuse any."""
        raise MalformedPieces(f"the section {NODE_SECTION!r} has rows")

    def finish(self) -> None:
        """Judge the section as a whole."""
        try:
            self._record.check(self._time_ms)
        except AssertionError as error:
            raise MalformedPieces(str(error)) from error
