"""The commands of the part ``node``, which begin and end maintenance and note the head of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.state.node_record import AuditHead, MaintenancePeriod

if TYPE_CHECKING:
    from haptera.state import node_operations as operations
    from haptera.state.entries import Entries
    from haptera.state.node_record import NodeRecord
    from haptera.state.results import Result


class NodeCommands:
    """A method for each command, named as in its tag. Its result is [whether it has changed something].

    ``rehearsed`` asks for the result of a command that changes nothing, and for None of one that does. The time of the
    entry is that of ``entries``.
    """

    __slots__ = ("_entries", "_record")

    def __init__(self, record: NodeRecord, entries: Entries) -> None:
        self._record = record
        self._entries = entries

    def set_maintenance(self, op: operations.SetMaintenance, *, rehearsed: bool = False) -> Result | None:
        """Begin or end maintenance. Another reason takes the place of the one before, and the beginning stays."""
        before = self._record.maintenance
        since_ms = self._entries.now_ms if before is None else before.since_ms
        after = MaintenancePeriod(op.reason, since_ms) if op.on else None
        if after == before:
            return (False,)
        if rehearsed:
            return None
        self._record.maintenance = after
        return (True,)

    def note_audit_head(self, op: operations.NoteAuditHead, *, rehearsed: bool = False) -> Result | None:
        """Note a line of the audit log, unless a later one or the same is known."""
        before = self._record.audit_head
        if before is not None and op.sequence <= before.sequence:
            return (False,)
        if rehearsed:
            return None
        self._record.audit_head = AuditHead(op.sequence, op.digest)
        return (True,)
