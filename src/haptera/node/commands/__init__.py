"""The command interface of a node, with the commands that it takes: all that a dialect sees of the database."""

from __future__ import annotations

from haptera.node.batch import DROPPED, Submission
from haptera.node.commands.interface import ANONYMOUS, Commands, Envelope, Submitter
from haptera.state import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Replayed,
    Result,
    Set,
    SetMany,
)

__all__ = [
    "ANONYMOUS",
    "DROPPED",
    "Clear",
    "Commands",
    "Count",
    "Delete",
    "DeleteMany",
    "Envelope",
    "Exists",
    "Get",
    "GetMany",
    "Increment",
    "OpenScan",
    "Rename",
    "Replayed",
    "Result",
    "Set",
    "SetMany",
    "Submission",
    "Submitter",
]
