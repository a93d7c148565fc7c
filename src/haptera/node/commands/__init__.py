"""The command interface of a node, with the commands that it takes: all that a dialect sees of the database."""

from __future__ import annotations

from haptera.node.batch import DROPPED, Submission
from haptera.node.commands.interface import ANONYMOUS, Command, Commands, Session
from haptera.state import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    Increment,
    Rename,
    Replayed,
    Result,
    Scan,
    Set,
    SetMany,
)

__all__ = [
    "ANONYMOUS",
    "DROPPED",
    "Clear",
    "Command",
    "Commands",
    "Count",
    "Delete",
    "DeleteMany",
    "Exists",
    "Get",
    "GetMany",
    "Increment",
    "Rename",
    "Replayed",
    "Result",
    "Scan",
    "Session",
    "Set",
    "SetMany",
    "Submission",
]
