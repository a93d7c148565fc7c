"""The replicated state machine: commands, their effects on the store, and their answers.

Pure and deterministic: nothing here knows a clock, a socket, a file or an event loop, and nothing is random. A log of
commands is its only input, so that a replay and a replica come to the same state (ARCHITECTURE.md).
"""

from __future__ import annotations

from haptera.state.commands import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Forget,
    Get,
    GetMany,
    Increment,
    Logged,
    MalformedCommands,
    Operation,
    Read,
    Rename,
    Scan,
    Set,
    SetMany,
    UnknownPart,
    Write,
    decode_commands,
    encode_commands,
    size_bound,
)
from haptera.state.machine import StateMachine
from haptera.state.results import Entry, Replayed, Result, Row
from haptera.state.scan import Page, ScanCursor
from haptera.state.validation import validate

__all__ = [
    "Clear",
    "Count",
    "Delete",
    "DeleteMany",
    "Entry",
    "Exists",
    "Forget",
    "Get",
    "GetMany",
    "Increment",
    "Logged",
    "MalformedCommands",
    "Operation",
    "Page",
    "Read",
    "Rename",
    "Replayed",
    "Result",
    "Row",
    "Scan",
    "ScanCursor",
    "Set",
    "SetMany",
    "StateMachine",
    "UnknownPart",
    "Write",
    "decode_commands",
    "encode_commands",
    "size_bound",
    "validate",
]
