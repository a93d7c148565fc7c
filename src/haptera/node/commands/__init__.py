"""The command interface of a node, with the commands that it takes: all that a dialect sees of the database."""

from __future__ import annotations

from haptera.node.commands.interface import Commands, Envelope
from haptera.node.commands.submitter import ANONYMOUS, STRANGER, Submitter
from haptera.node.write_batch import DROPPED, Submission
from haptera.state import (
    Replayed,
    Result,
    entry_size,
    limits,
    operations,
)

__all__ = [
    "ANONYMOUS",
    "DROPPED",
    "STRANGER",
    "Commands",
    "Envelope",
    "Replayed",
    "Result",
    "Submission",
    "Submitter",
    "entry_size",
    "limits",
    "operations",
]
