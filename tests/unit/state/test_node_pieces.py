"""The section of the part ``node`` in a snapshot: whole as it was, and refused where it cannot be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.state import Logged, UnknownPart, dump_pieces, load_pieces
from haptera.state.node_operations import NoteAuditHead, SetMaintenance
from haptera.state.operations import Set
from haptera.state.piece_decoding import MalformedPieces
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state.machine import StateMachine

encode = msgspec.msgpack.encode

KV: Final = [("kv", encode((0, 0, 0))), ("requests", encode((20, 0)))]


def loaded(*pieces: Any) -> StateMachine:
    """The state of a snapshot with these pieces of the section."""
    return load_pieces([*KV, *(("node", encode(piece)) for piece in pieces)], index=9, time_ms=20)


@pytest.mark.parametrize(
    "ops",
    [
        [SetMaintenance(True, "move")],
        [NoteAuditHead(7, bytes(range(32)))],
        [SetMaintenance(True, "move"), NoteAuditHead(7, bytes(range(32)))],
    ],
    ids=["maintenance", "audit", "both"],
)
def test_a_section_is_loaded_as_it_was_dumped(ops: list[Any]) -> None:
    store = Store()
    for op in ops:
        assert store.do(op) == (True,)
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()
    assert (again.node.maintenance, again.node.audit_head) == (store.node.maintenance, store.node.audit_head)


def test_a_state_that_was_loaded_refuses_changes() -> None:
    machine = loaded(("move", 20, None, None))
    [result] = machine.apply(10, 20, [Logged(Set("k", b""))])
    assert refused(result, 5004, reason="move")


def test_a_state_without_a_record_has_no_section() -> None:
    store = Store()
    assert store.do(SetMaintenance(True, "move")) == (True,)
    assert "node" in dict(dump_pieces(store))
    assert store.do(SetMaintenance(False)) == (True,)
    assert "node" not in dict(dump_pieces(store))
    assert store.digest() == load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms).digest()


@pytest.mark.parametrize(
    "head",
    [
        (None, None, None, None),
        ("move", None, None, None),
        (None, 20, None, None),
        (None, None, 1, None),
        (None, None, None, bytes(32)),
        ("", 20, None, None),
        ("a\nb", 20, None, None),
        ("move", -1, None, None),
        ("move", 21, None, None),
        (None, None, 0, bytes(32)),
        (None, None, 2**53, bytes(32)),
        (None, None, 1, bytes(31)),
        ("move", 20, None),
        (1, 20, None, None),
        "move",
    ],
)
def test_a_section_that_no_version_writes_is_refused(head: Any) -> None:
    with pytest.raises(MalformedPieces):
        loaded(head)


def test_a_section_with_rows_is_refused_and_one_of_a_newer_version_is_told() -> None:
    with pytest.raises(MalformedPieces, match="rows"):
        loaded(("move", 20, None, None), [])
    with pytest.raises(UnknownPart):
        loaded(("move", 20, None, None, 1))
