"""The replicated state machine: commands, their effects on the store, and their answers.

Pure and deterministic: nothing here knows a clock, a socket, a file or an event loop, and nothing is random. A log of
commands is its only input, so that a replay and a replica come to the same state (ARCHITECTURE.md).
"""

from __future__ import annotations

from haptera.state import access_operations, limits, node_operations, operations
from haptera.state.access import Access
from haptera.state.appearances import Appearances
from haptera.state.command_encoding import (
    Logged,
    MalformedCommands,
    UnknownPart,
    decode_commands,
    encode_commands,
    encode_steps,
    size_bound,
)
from haptera.state.conditions import UNMET
from haptera.state.entry_sizes import entry_size
from haptera.state.event_cursor import EventCursor
from haptera.state.event_history import PRESENT, SNAPSHOT_BOUNDS, Event, EventBounds, EventHistory
from haptera.state.expiry import NEVER
from haptera.state.field_kinds import SERVER_ID_SIZE, list_field
from haptera.state.glob import SHORT_GLOB_MAX, Glob, compile_glob
from haptera.state.invariants import require
from haptera.state.lease_commands import ListLeasesOf
from haptera.state.limits import COMMAND_SIZE_MAX, CURSORS_MAX, SLICE_WORK_MAX
from haptera.state.machine import StateMachine
from haptera.state.msgpack_arrays import array_header, read_array_header
from haptera.state.node_record import MaintenancePeriod
from haptera.state.operation_sets import OPERATIONS, frees, method_of
from haptera.state.operations import Operation, Read, Write
from haptera.state.permits import Permits, Sieve
from haptera.state.piece_decoding import MalformedPieces
from haptera.state.refusals import REFUSALS, denied, refusal, refusal_steps, shown_with
from haptera.state.results import (
    ANSWER_OVERHEAD,
    ENTRY_OVERHEAD,
    Replayed,
    Result,
    Row,
    StoredEntry,
    values_size,
)
from haptera.state.scan_cursor import Page, ScanCursor
from haptera.state.sliced_work import ResultT, Steps, finish, free_steps
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from haptera.state.validation import (
    SIZES_IF_ACCEPTED,
    accepted_size,
    glob_steps,
    too_many_parts,
    validate,
    validate_steps,
)

__all__ = [
    "ANSWER_OVERHEAD",
    "COMMAND_SIZE_MAX",
    "CURSORS_MAX",
    "ENTRY_OVERHEAD",
    "NEVER",
    "OPERATIONS",
    "PRESENT",
    "REFUSALS",
    "SERVER_ID_SIZE",
    "SHORT_GLOB_MAX",
    "SIZES_IF_ACCEPTED",
    "SLICE_WORK_MAX",
    "SNAPSHOT_BOUNDS",
    "UNMET",
    "Access",
    "Appearances",
    "Event",
    "EventBounds",
    "EventCursor",
    "EventHistory",
    "Glob",
    "ListLeasesOf",
    "Logged",
    "MaintenancePeriod",
    "MalformedCommands",
    "MalformedPieces",
    "Operation",
    "Page",
    "Permits",
    "Read",
    "Replayed",
    "Result",
    "ResultT",
    "Row",
    "ScanCursor",
    "Sieve",
    "StateMachine",
    "Steps",
    "StoredEntry",
    "UnknownPart",
    "Write",
    "accepted_size",
    "access_operations",
    "array_header",
    "compile_glob",
    "decode_commands",
    "denied",
    "dump_pieces",
    "encode_commands",
    "encode_steps",
    "entry_size",
    "finish",
    "free_steps",
    "frees",
    "glob_steps",
    "limits",
    "list_field",
    "load_pieces",
    "method_of",
    "node_operations",
    "operations",
    "read_array_header",
    "refusal",
    "refusal_steps",
    "require",
    "shown_with",
    "size_bound",
    "too_many_parts",
    "validate",
    "validate_steps",
    "values_size",
]
