"""OBJECT and MEMORY: how a key is kept, as far as a node has that in common with a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp import result_shapes
from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.reply_encoding import ONE, error, integer, text, verbatim
from haptera.errors import Code, Failure
from haptera.key_rules import number_of
from haptera.node.commands import entry_size, operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Outcome, Shape, Step

#: Bytes of the longest string that Redis keeps beside its head. Programs read `embstr` and `raw` as short and long.
EMBEDDED_SIZE_MAX: Final = 44

_NO_FREQUENCY: Final = error(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
    "between policies at runtime LRU and LFU data will take some time to adjust."
)
_NO_IDLE_TIME: Final = error("ERR idle time not tracked: a read changes nothing that is kept of a key")
_NO_PROBLEMS: Final = "A node that has too little memory says so itself: see INFO memory, and `haptera doctor`."


def _of_entry(reply: Callable[[bytes, int | None], bytes]) -> Shape:
    """The shape of a get whose reply is made of the value and its end; a missing key is null."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        if isinstance(result, Failure):
            return session.null if result.code == Code.KEY_NOT_FOUND else result_shapes.failed(result)
        value, _, expires_at_ms = result
        return reply(value, expires_at_ms)

    return shape


def encoding_of(value: bytes) -> str:
    """Return the name of the form in which Redis would keep a value that was just set."""
    if number_of(value) is not None:
        return "int"
    return "embstr" if len(value) <= EMBEDDED_SIZE_MAX else "raw"


def _encoding(session: RespSession, arguments: list[bytes]) -> Step:
    return operations.Get(arguments[2].decode()), _of_entry(lambda value, _: text(encoding_of(value)))


def _refcount(session: RespSession, arguments: list[bytes]) -> Step:
    return operations.Get(arguments[2].decode()), _of_entry(lambda value, _: ONE)


def _frequency(session: RespSession, arguments: list[bytes]) -> Step:
    return operations.Get(arguments[2].decode()), _of_entry(lambda value, _: _NO_FREQUENCY)


def _idle_time(session: RespSession, arguments: list[bytes]) -> Step:
    return operations.Get(arguments[2].decode()), _of_entry(lambda value, _: _NO_IDLE_TIME)


def _usage(session: RespSession, arguments: list[bytes]) -> Step:
    options = arguments[3:]
    while options:
        if options[0].upper() != b"SAMPLES" or len(options) < 2:
            return SYNTAX
        samples = number_of(options[1])
        if samples is None:
            return NOT_AN_INTEGER
        if samples < 0:
            return SYNTAX
        options = options[2:]
    key = arguments[2].decode()
    return operations.Get(key), _of_entry(lambda value, ends: integer(entry_size(key, value, ends)))


def _doctor(session: RespSession, arguments: list[bytes]) -> Step:
    return verbatim(_NO_PROBLEMS, session.protocol)


ROWS: Final = (
    command_of_parts(
        "memory",
        -2,
        "4.0.0",
        "Tell the memory that a key takes.",
        [
            part("memory|doctor", 2, "", "4.0.0", "Say where the state of the memory is told.", _doctor),
            part("memory|usage", -3, "readonly", "4.0.0", "Tell the bytes of a key and its value.", _usage, key=2),
        ],
    ),
    command_of_parts(
        "object",
        -2,
        "2.2.3",
        "Tell how a key is kept.",
        [
            part(
                "object|encoding",
                3,
                "readonly",
                "2.2.3",
                "Name the form of a value: int, embstr, raw.",
                _encoding,
                key=2,
            ),
            part(
                "object|freq",
                3,
                "readonly",
                "4.0.0",
                "Refused: how often a key is read is not kept.",
                _frequency,
                key=2,
            ),
            part(
                "object|idletime",
                3,
                "readonly",
                "2.2.3",
                "Refused: when a key was read is not kept.",
                _idle_time,
                key=2,
            ),
            part("object|refcount", 3, "readonly", "2.2.3", "1 for a key that is there.", _refcount, key=2),
        ],
    ),
)
