"""The words of Redis for errors: those of its commands, and those for the failures of the store.

A failure has the kind (the first word) by which clients of Redis know what to do: to log in, to wait, to give up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.reply_encoding import error
from haptera.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.errors import Failure

SYNTAX: Final = error("ERR syntax error")
NOT_AN_INTEGER: Final = error("ERR value is not an integer or out of range")
OVERFLOW: Final = error("ERR increment or decrement would overflow")
DECREMENT_OVERFLOW: Final = error("ERR decrement would overflow")
NO_SUCH_KEY: Final = error("ERR no such key")
INVALID_KEY: Final = error("ERR invalid key")
NOT_IN_A_TRANSACTION: Final = error("ERR Command not allowed inside a transaction")
INVALID_CURSOR: Final = error("ERR invalid cursor")
NO_LOGIN: Final = error("NOAUTH Authentication required.")
WRONG_PASSWORD: Final = error("WRONGPASS invalid username-password pair or user is disabled.")
VALUE_TOO_LARGE: Final = error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
COMMAND_TOO_LARGE: Final = error("ERR the command, or its reply, is larger than this server takes")
ANSWER_TOO_LARGE: Final = error("ERR the reply would be larger than this server sends")

#: Characters of a command and of its arguments that the words about an unknown one repeat, as in Redis.
_SHOWN_MAX: Final = 128


class CommandFault(Exception):
    """The arguments of a command are wrong; ``reply`` is the error."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def unknown_command(arguments: list[bytes]) -> bytes:
    """The reply to a command that is not there."""
    shown = ""
    for each in arguments[1:]:
        if len(shown) >= _SHOWN_MAX:
            break
        shown += f"'{_text(each, _SHOWN_MAX - len(shown))}' "
    return error(f"ERR unknown command '{_text(arguments[0], _SHOWN_MAX)}', with args beginning with: {shown}")


def unknown_subcommand(command: str, subcommand: bytes) -> bytes:
    """The reply to a command of several parts whose part is not there."""
    return error(f"ERR unknown subcommand '{_text(subcommand, _SHOWN_MAX)}'. Try {command.upper()} HELP.")


def wrong_arity(command: str) -> bytes:
    """The reply to a command with too few or too many arguments."""
    return error(f"ERR wrong number of arguments for '{command}' command")


def invalid_expiry(command: str) -> bytes:
    """The reply to a time to live that no key can have."""
    return error(f"ERR invalid expire time in '{command}' command")


def error_of_many(command: str, limit: int) -> bytes:
    """The reply to a command that names more keys than are judged as one."""
    return error(f"ERR '{command}' takes at most {limit} keys here")


def protocol_error(words: str) -> bytes:
    """The last reply to bytes that are no request."""
    return error(f"ERR Protocol error: {words}")


def _text(argument: bytes, limit: int) -> str:
    return argument[:limit].partition(b"\0")[0].decode(errors="surrogateescape")


def _denied(failed: Failure) -> str:
    if "key" in failed.details:
        return "NOPERM No permissions to access a key"
    return (
        f"NOPERM this user has no permissions to run the command: {failed.details.get('permission', 'none')} is missing"
    )


def _later(failed: Failure) -> str:
    wait_ms = failed.details.get("retry_after_ms")
    return f"TRYAGAIN {failed.message}" + (f"; try again in {wait_ms} milliseconds" if wait_ms is not None else "")


def _storage(failed: Failure) -> str:
    fate = "" if failed.outcome == "not_applied" else "; the change may have been made"
    return f"MISCONF {failed.message}{fate}"


#: The words for the failures that clients of Redis know a kind for; each other one is ``ERR`` with its own message.
_WORDS: Final[dict[int, bytes | Callable[[Failure], str]]] = {
    Code.TOO_MANY_CONNECTIONS: error("ERR max number of clients reached"),
    Code.AUTHENTICATION_REQUIRED: NO_LOGIN,
    Code.AUTHENTICATION_FAILED: WRONG_PASSWORD,
    Code.AUTHENTICATION_LOCKED: _later,
    Code.PERMISSION_DENIED: _denied,
    Code.MESSAGE_TOO_LARGE: COMMAND_TOO_LARGE,
    Code.TOO_MANY_REQUESTS: _later,
    Code.RATE_LIMITED: _later,
    Code.KEY_NOT_FOUND: NO_SUCH_KEY,
    Code.NOT_AN_INTEGER: NOT_AN_INTEGER,
    Code.INTEGER_OVERFLOW: OVERFLOW,
    Code.INVALID_KEY: INVALID_KEY,
    Code.VALUE_TOO_LARGE: VALUE_TOO_LARGE,
    Code.STORAGE_FAILED: _storage,
    Code.STORAGE_FULL: _storage,
    Code.CORRUPTION_DETECTED: _storage,
    Code.MAINTENANCE_MODE: lambda failed: f"READONLY {failed.message}",
    Code.SHUTTING_DOWN: lambda failed: f"LOADING {failed.message}",
    Code.MEMORY_FULL: error("OOM command not allowed when used memory > 'maxmemory'."),
}


def words_of(failed: Failure) -> bytes:
    """Return the error for a failure of the store, or of the connection."""
    words = _WORDS.get(failed.code)
    if words is None:
        return error(f"ERR {failed.message}")
    return words if isinstance(words, bytes) else error(words(failed))
