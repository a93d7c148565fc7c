"""Commands about the node: INFO, CONFIG, what is durable, the size of a key, and what there is none of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.client_commands import user_of
from haptera.dialects.resp.config_parameters import holds, parameters
from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX, words_of, wrong_arity
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.info_sections import info_text, last_save_s
from haptera.dialects.resp.redis_glob import PATTERN_COST_SHIFT, redis_glob
from haptera.dialects.resp.reply_encoding import EMPTY_ARRAY, OK, ZERO, array, error, integer, map_of, text, verbatim
from haptera.dialects.resp.steps import Slow, command_row
from haptera.key_rules import number_of

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Handler, Step

_NO_DEBUG: Final = error(
    "ERR DEBUG command not allowed. It is for tests: a listener that takes it has debug=yes in its URL."
)
_NO_LOCAL_WAIT: Final = error("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
_NEGATIVE_TIMEOUT: Final = error("ERR timeout is negative")
_NO_REPLICAS: Final = error("ERR WAIT cannot be used with replica instances.")
_NO_TIMEOUT: Final = error("ERR timeout is not an integer or out of range")
_FLUSH_MODE: Final = error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")

#: Bytes of the arguments of one CONFIG GET, whose patterns are compared with all parameters: a few milliseconds.
CONFIG_PATTERNS_SIZE_MAX: Final = 4096
_PATTERNS_TOO_LONG: Final = error(f"ERR the patterns are too long together: {CONFIG_PATTERNS_SIZE_MAX} bytes at most")
#: Seconds of one DEBUG SLEEP: longer than any test waits.
DEBUG_SLEEP_S_MAX: Final = 3600.0


def is_measured(session: RespSession) -> bool:
    """Whether the caller may see the counts of the data and the connections of all users."""
    return session.caller.submitter.lacks("metrics") is None


def _info(session: RespSession, arguments: list[bytes]) -> Step:
    names = [name.decode(errors="replace") for name in arguments[1:]]
    told = info_text(names, session.caller.facts, measured=is_measured(session), port=session.listener.port)
    return verbatim(told, session.protocol)


def _config_get(session: RespSession, arguments: list[bytes]) -> Step:
    size = sum(map(len, arguments))
    if size > CONFIG_PATTERNS_SIZE_MAX:
        return _PATTERNS_TOO_LONG
    session.spend(size >> PATTERN_COST_SHIFT)
    globs = [redis_glob(pattern.lower()) for pattern in arguments[2:]]
    found = {
        name: value
        for name, value in parameters(session.caller.facts, measured=is_measured(session)).items()
        if any(glob.matches(name.encode()) for glob in globs)
    }
    return map_of([(text(name), text(value)) for name, value in found.items()], session.protocol)


def _config_set(session: RespSession, arguments: list[bytes]) -> Step:
    pairs = arguments[2:]
    if len(pairs) % 2:
        return SYNTAX
    refused = session.caller.submitter.lacks("admin")
    if refused is not None:
        return words_of(refused)
    known = parameters(session.caller.facts, measured=True)
    for name_bytes, asked in zip(pairs[::2], pairs[1::2], strict=True):
        name = name_bytes.decode(errors="surrogateescape").lower()
        if name not in known:
            return error(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        if not holds(name, asked.decode(errors="surrogateescape"), known[name]):
            return error(
                f"ERR CONFIG SET failed (possibly related to argument '{name}') - can't set it in a node that runs"
            )
    return OK


def _last_save(session: RespSession, arguments: list[bytes]) -> Step:
    facts = session.caller.facts
    return integer(last_save_s(facts, facts.metrics()))


def _count(argument: bytes) -> int | None:
    number = number_of(argument)
    return number if number is not None and number >= 0 else None


def _timeout_refusal(argument: bytes) -> bytes | None:
    number = number_of(argument)
    if number is None:
        return _NO_TIMEOUT
    return _NEGATIVE_TIMEOUT if number < 0 else None


def _wait(session: RespSession, arguments: list[bytes]) -> Step:
    """There are no replicas, so that a wait for some would last for ever: it is told at once that there are none."""
    if number_of(arguments[1]) is None:
        return NOT_AN_INTEGER
    return _timeout_refusal(arguments[2]) or ZERO


def _wait_for_log(session: RespSession, arguments: list[bytes]) -> Step:
    """Each change is in the log, and synced where the node does that, before its own reply."""
    local = _count(arguments[1])
    if local is None or local > 1 or _count(arguments[2]) is None:
        return error("ERR value is out of range, value must between 0 and 1") if local != 0 else NOT_AN_INTEGER
    refused = _timeout_refusal(arguments[3])
    if refused is not None:
        return refused
    synced = session.caller.facts.config.durability == "sync"
    if local and not synced:
        return _NO_LOCAL_WAIT
    return array([integer(1 if synced else 0), ZERO])


def _debug(session: RespSession, arguments: list[bytes]) -> Step:
    if not session.listener.debug:
        return _NO_DEBUG
    refused = session.caller.submitter.lacks("admin")
    if refused is not None:
        return words_of(refused)
    if len(arguments) != 3 or arguments[1].upper() != b"SLEEP":
        shown = arguments[1].decode(errors="surrogateescape")
        return error(f"ERR unknown subcommand or wrong number of arguments for '{shown}'. Try DEBUG SLEEP <seconds>.")
    try:
        seconds = float(arguments[2])
    except ValueError:
        seconds = 0.0  # as in Redis, which reads as much of the number as is one
    if not 0 <= seconds <= DEBUG_SLEEP_S_MAX:
        return error("ERR value is out of range")

    async def sleep() -> bytes:
        """Keep this connection waiting. A node has other ones, which go on."""
        await asyncio.sleep(seconds)
        return OK

    return Slow(sleep)


def _whoami(session: RespSession, arguments: list[bytes]) -> Step:
    return text(user_of(session.caller))


def _function_flush(session: RespSession, arguments: list[bytes]) -> Step:
    if len(arguments) > 3:
        return wrong_arity("function|flush")
    if len(arguments) == 3 and arguments[2].upper() not in {b"SYNC", b"ASYNC"}:
        return _FLUSH_MODE
    return OK  # there are none, and none can be made


def _none(session: RespSession, arguments: list[bytes]) -> Step:
    return EMPTY_ARRAY


def _row(name: str, arity: int, its_flags: str, since: str, summary: str, handler: Handler) -> Command:
    group = "generic" if name.startswith("wait") else "server"
    return command_row(name, arity, its_flags, since, summary, handler, group, (0, 0, 0))


_CONFIG = "admin noscript loading stale"

ROWS: Final = (
    command_of_parts(
        "acl",
        -2,
        "6.0.0",
        "Say who one is. Users and their grants are administered by Haptera's own means.",
        [part("acl|whoami", 2, "noscript loading stale", "6.0.0", "Show the user of this connection.", _whoami)],
    ),
    command_of_parts(
        "config",
        -2,
        "2.0.0",
        "Show parameters.",
        [
            part("config|get", -3, _CONFIG, "2.0.0", "Show the parameters whose names match patterns.", _config_get),
            part("config|set", -4, _CONFIG, "2.0.0", "Take a value that holds already; refuse others.", _config_set),
        ],
    ),
    _row("debug", -2, "admin noscript loading stale", "1.0.0", "Let this connection wait: SLEEP, for tests.", _debug),
    command_of_parts(
        "function",
        -2,
        "7.0.0",
        "There are no functions.",
        [
            part(
                "function|flush",
                -2,
                "noscript write",
                "7.0.0",
                "Remove all functions, of which there are none.",
                _function_flush,
            ),
            part("function|list", -2, "noscript", "7.0.0", "List the functions, of which there are none.", _none),
        ],
    ),
    _row("info", -1, "loading stale", "1.0.0", "Tell about the node, in sections.", _info),
    _row("lastsave", 1, "loading stale fast", "1.0.0", "Tell the time of the newest snapshot.", _last_save),
    command_of_parts(
        "module",
        -2,
        "4.0.0",
        "There are no modules.",
        [part("module|list", 2, "admin noscript", "4.0.0", "List the modules, of which there are none.", _none)],
    ),
    _row("wait", 3, "noscript", "3.0.0", "Tell how many replicas have the changes: none are there.", _wait),
    _row(
        "waitaof", 4, "noscript", "7.2.0", "Tell whether the changes are synced, here and on replicas.", _wait_for_log
    ),
)
