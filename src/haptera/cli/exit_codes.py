"""The exit codes of the command line (docs/command-line.md)."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
#: The store answered, and the answer is no: a missing key, a condition that failed.
NO: Final = 1
USAGE: Final = 2
#: There is no server, and nothing was changed.
CANNOT_CONNECT: Final = 3
REFUSED: Final = 4
FAILED: Final = 5
#: The change may have been applied, or not.
UNKNOWN: Final = 6
#: Of `lock`: others held the lock for as long as it was waited for, and the command was not run.
HELD_BY_OTHERS: Final = 7
#: Of `lock`: the lock was lost while the command ran.
LOST: Final = 8

IN_USE: Final = 10
DAMAGED: Final = 11
WRONG_KEY: Final = 12
NEWER_FORMAT: Final = 13
#: Of `serve`: the data directory cannot be written. Of a command without a node: it cannot be read or written, either.
#: Of a client's command: standard output does not take the result.
CANNOT_WRITE: Final = 14
CONFIGURATION: Final = 15
CANNOT_APPLY: Final = 16
OUTDATED: Final = 17

#: Of `lock`, as of a shell: the command cannot be run, or there is none; a signal, whose number is added, has ended it.
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128

INTERRUPTED: Final = 130

#: The exit codes of a client's command, as its help has them.
OF_CLIENTS: Final = {
    DONE: "done",
    NO: "the answer is no (missing key, failed condition)",
    USAGE: "usage",
    CANNOT_CONNECT: "cannot connect and nothing was changed",
    REFUSED: "refused",
    FAILED: "the server failed, or takes no changes now",
    UNKNOWN: "the change may have been applied",
    CANNOT_WRITE: "the result cannot be written",
}

#: The exit codes of `haptera lock` beside those of a client's command and its COMMAND's own.
OF_LOCK: Final = {
    HELD_BY_OTHERS: "others held the lock for all of --within, and COMMAND was not run",
    LOST: "the lock was lost while COMMAND ran",
    NOT_EXECUTABLE: "COMMAND cannot be run",
    NOT_FOUND: "there is no COMMAND",
    SIGNALLED: "with the number of a signal added: the signal has ended COMMAND",
}

#: The exit codes of `haptera serve`, as its help has them.
OF_SERVE: Final = {
    DONE: "stopped by a signal",
    USAGE: "usage",
    IN_USE: "the data directory is in use",
    DAMAGED: "it is damaged",
    WRONG_KEY: "the key is wrong or missing",
    NEWER_FORMAT: "it has a newer format",
    CANNOT_WRITE: "it cannot be written",
    CONFIGURATION: "the configuration is wrong",
    CANNOT_APPLY: "a stored change cannot be applied",
    OUTDATED: "its log is an older copy",
}


#: The exit codes that every command without a node has beside those of its own, as its help has them.
OF_OFFLINE: Final = {
    USAGE: "usage, or there is nothing to work on",
    DAMAGED: "it is damaged",
    WRONG_KEY: "the master key is wrong or missing",
    NEWER_FORMAT: "it has a newer format",
    CANNOT_WRITE: "a file, or standard output, cannot be read or written",
    CONFIGURATION: "the master key cannot be read",
    CANNOT_APPLY: "a stored change cannot be applied",
    INTERRUPTED: "interrupted",
}


def listed_offline(own: dict[int, str]) -> str:
    """The exit codes of a command without a node; ``own`` has those that are its own, or mean something else there."""
    return listed(dict(sorted((OF_OFFLINE | own).items())))


def listed(meanings: dict[int, str]) -> str:
    """The exit codes as a sentence of a command's help."""
    return f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in meanings.items())}."
