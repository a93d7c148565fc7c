"""The commands of the part ``node``: maintenance, and the head of the audit log (`haptera.state.node_commands`).

A node logs them like any change, so that they are there after a crash, in a snapshot and in a backup. They are no
methods of the kv service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from haptera.access_rules import NAME_SIZE_MAX, is_name
from haptera.key_rules import VERSION_MAX, invalid
from haptera.state.field_kinds import FieldKind, NumberKind, TextKind
from haptera.state.operations import Write

if TYPE_CHECKING:
    from haptera.errors import Failure

#: Bytes of the digest of a line of the audit log: a SHA-256.
AUDIT_DIGEST_SIZE: Final = 32


class _DigestKind(FieldKind):
    """The digest of a line of the audit log."""

    accepts = f"len({{0}}) == {AUDIT_DIGEST_SIZE}"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if len(getattr(op, name)) == AUDIT_DIGEST_SIZE else invalid(name, f"not {AUDIT_DIGEST_SIZE} bytes")


class _ReasonKind(TextKind):
    """The reason for maintenance that is turned on; none where it is turned off. It stands in answers and in logs, so
    it has no more bytes than a name, and no control character either.
    """

    accepts = "(is_name({0}) if op.on else not {0})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if op.on:
            whole = is_name(getattr(op, name))
            return None if whole else invalid(name, f"not 1 to {NAME_SIZE_MAX} bytes without a control character")
        return invalid(name, "given where maintenance ends") if getattr(op, name) else None


Reason = Annotated[str, _ReasonKind()]
LineNumber = Annotated[int, NumberKind(1, VERSION_MAX)]
LineDigest = Annotated[bytes, _DigestKind()]


class NodeChange(Write, frozen=True):
    """The base of the commands of this part. Each answers whether it has changed something."""

    of_node = True
    goes_on = True


class SetMaintenance(NodeChange, tag="node.set_maintenance", frozen=True):
    """Refuse the changes of callers from here on, or take them again. A ``reason`` is given with ``on`` alone.

    It takes room from the reserve of a full disk: the deletes that make room may be waiting for the end of maintenance.
    """

    frees = True

    on: bool
    reason: Reason = ""


class NoteAuditHead(NodeChange, tag="node.note_audit_head", frozen=True):
    """Keep the number and the digest of the newest line of the audit log, so that a log that is written again is found
    out. The highest number stays.
    """

    sequence: LineNumber
    digest: LineDigest
