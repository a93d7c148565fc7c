"""Checks of a caller's arguments: ``TypeError`` and ``ValueError`` for mistakes that are in the program itself.

The store judges an empty key or a value that is too large. An argument that cannot be sent, because it is larger than
any message or no text, never reaches it: `unsendable` gives the store's own answer, so that an embedded and a served
store refuse it with the same error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex

from haptera.errors import Code
from haptera.key_rules import (
    TTL_MAX_MS,
    VERSION_MAX,
    bound_refusal,
    count_refusal,
    key_refusal,
    keys_refusal,
    placed,
    value_refusal,
)
from haptera.peer import check_timeout

if TYPE_CHECKING:
    from haptera.errors import Failure

TIMEOUT_SECONDS_MAX = (2**32 - 1) / 1000

#: The types of values. Text is stored as UTF-8.
Value = str | bytes | bytearray | memoryview

#: A lease, by its id: the number, or an object that stands for the lease and has the number for its index.
LeaseLike = SupportsIndex


def plain_key(key: object) -> str:
    """A key as plain ``str``; called for any argument that is not one already."""
    if isinstance(key, str):
        return str.__str__(key)
    raise TypeError(f"a key is a str, not {type(key).__name__}")


def plain_value(value: object) -> bytes | bytearray | memoryview:
    """A value as bytes; called for any argument that is not ``bytes`` already."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, memoryview):
        return value if value.c_contiguous else value.tobytes()
    if type(value) is bytearray:
        return value
    if isinstance(value, bytes | bytearray):  # of a class of the program's own, which the encoder does not know
        return memoryview(value).tobytes()
    raise TypeError(f"a value is a str or bytes, not {type(value).__name__}")


def checked_timeout(timeout: float | None) -> float | None:
    """Seconds above 0, or None. A limit longer than the wire can carry (49 days) is no limit."""
    if timeout is None:
        return None
    check_timeout(timeout)
    return float(timeout) if timeout <= TIMEOUT_SECONDS_MAX else None


def checked_int(name: str, number: object, low: int, high: int) -> int:
    """``number`` as a plain int between ``low`` and ``high``, because only that is encoded."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} is an int, not {type(number).__name__}")
    if not low <= number <= high:
        raise ValueError(f"{name} is between {low} and {high}, not {number}")
    return int(number)


def ttl_ms_of(ttl: object, low_ms: int = 1, high_ms: int = TTL_MAX_MS) -> int:
    """A time to live, of a key or a lease, as whole milliseconds, of seconds."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl is a number of seconds, not {type(ttl).__name__}")
    if not low_ms / 1000 <= ttl <= high_ms / 1000:
        raise ValueError(f"ttl is between {low_ms / 1000:g} and {high_ms // 1000} seconds, not {ttl}")
    return round(ttl * 1000)


def lease_id(lease: LeaseLike) -> int:
    """The id of a lease."""
    if not isinstance(lease, int) and not hasattr(lease, "__index__"):
        raise TypeError(f"a lease is given by its id, not by {type(lease).__name__}")
    return checked_int("a lease", lease if isinstance(lease, bool) else index(lease), 1, VERSION_MAX)


def with_fence(options: dict[str, Any], fence: int | None) -> dict[str, Any]:
    """The options of a change, the token of its holder among them if there is one."""
    if fence is not None:
        options["fence"] = checked_int("fence", fence, 1, VERSION_MAX)
    return options


def change_options(fence: int | None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], ...]:
    """The options of a change as the end of its argument, if there are any."""
    given = with_fence({} if options is None else options, fence)
    return (given,) if given else ()


def set_options(
    if_version: int | None = None,
    if_absent: bool = False,
    if_present: bool = False,
    ttl: float | None = None,
    keep_ttl: bool = False,
    lease: LeaseLike | None = None,
    fence: int | None = None,
) -> dict[str, Any]:
    """The options of a set: its conditions, and what becomes of the time to live and of the lease."""
    options = condition(if_version, if_absent, if_present) if if_absent or if_present or if_version is not None else {}
    if lease is not None:
        if ttl is not None or keep_ttl:
            raise ValueError("lease excludes ttl and keep_ttl")
        options["lease"] = lease_id(lease)
    if fence is not None:
        with_fence(options, fence)
    if ttl is not None:
        if keep_ttl:
            raise ValueError("ttl and keep_ttl exclude each other")
        options["ttl_ms"] = ttl_ms_of(ttl)
    elif keep_ttl:
        options["keep_ttl"] = True
    return options


def text_option(name: str, text: object) -> str:
    """The bound of a range as plain ``str``. Raises ``InvalidArgument`` for text that cannot be a bound."""
    if not isinstance(text, str):
        raise TypeError(f"{name} is a str, not {type(text).__name__}")
    refused = bound_refusal(name, text)
    if refused is not None:
        raise refused.exception()
    return str.__str__(text)


def unsendable(argument: Sequence[Any], reason: Failure) -> Failure:
    """The store's own answer to an argument of kv that cannot be sent for a ``reason``: that reason, unless the store
    checks another part first.
    """
    first = argument[0] if argument else None
    if isinstance(first, tuple):
        return _unsendable_transact(argument, reason)
    if isinstance(first, list):
        pairs = bool(first) and isinstance(first[0], tuple)
        refused = count_refusal("items" if pairs else "keys", len(first))
        if refused is None and reason.code != Code.MESSAGE_TOO_LARGE:  # the size of many is looked at before the keys
            refused = keys_refusal((row[0] for row in first) if pairs else first)
        return refused or reason
    return _part_refusal(argument) or reason


def _unsendable_transact(argument: Sequence[Any], reason: Failure) -> Failure:
    if reason.code == Code.MESSAGE_TOO_LARGE:  # the size of the whole is looked at before its parts
        return reason
    for position, (key, *_) in enumerate(argument[0]):
        refused = key_refusal(key)
        if refused is not None:
            return placed(refused, compare=position)
    for branch, operations in zip(("then", "otherwise"), argument[1:3], strict=True):
        for position, (_, arguments) in enumerate(operations):
            refused = _part_refusal(arguments)
            if refused is not None:
                return placed(refused, branch=branch, operation=position)
    return reason


def _part_refusal(argument: Sequence[Any]) -> Failure | None:
    """Why an argument of one key is refused for a key or the value in it, or None."""
    for part in argument[:2]:
        refused = key_refusal(part) if isinstance(part, str) else None
        if isinstance(part, bytes | bytearray | memoryview):
            refused = value_refusal(argument[0], memoryview(part).nbytes)
        if refused is not None:
            return refused
    return None


def set_argument(key: str, value: Value, options: dict[str, Any]) -> tuple[Any, ...]:
    """The argument of a set, with its options if there are any."""
    if type(key) is not str:
        key = plain_key(key)
    plain = value if type(value) is bytes else plain_value(value)
    return (key, plain, options) if options else (key, plain)


def key_list(keys: Iterable[str]) -> list[str]:
    """A list of the caller's keys as they are. Raises TypeError for one key in its place."""
    if isinstance(keys, str | bytes):
        raise TypeError("keys is an iterable of keys, not one of them")
    return list(keys)


def plain_keys(keys: Iterable[str]) -> list[str]:
    """Keys as plain ``str``."""
    return [key if type(key) is str else plain_key(key) for key in keys]


def plain_items(items: Iterable[tuple[str, Value]]) -> list[tuple[str, bytes | bytearray | memoryview]]:
    """Keys as plain ``str``, each with its value as bytes."""
    return [
        (key if type(key) is str else plain_key(key), value if type(value) is bytes else plain_value(value))
        for key, value in items
    ]


def condition(if_version: int | None, if_absent: bool, if_present: bool) -> dict[str, Any]:
    """The condition of a change as options. Raises ValueError for conditions that exclude each other."""
    if if_absent and if_present:
        raise ValueError("if_absent and if_present exclude each other")
    options: dict[str, Any] = {}
    if if_version is not None:
        options["if_version"] = checked_int("if_version", if_version, 0, VERSION_MAX)
    if if_absent:
        options["if"] = "absent"
    elif if_present:
        options["if"] = "present"
    return options


def range_options(prefix: str | None, start: str | None, end: str | None, glob: str | None) -> dict[str, Any]:
    """The conditions of a range that are given."""
    given = {"prefix": prefix, "start": start, "end": end, "glob": glob}
    return {name: text_option(name, text) for name, text in given.items() if text is not None}


def past_options(at_revision: int | None, at_time: float | None) -> dict[str, Any]:
    """The moment of the past that a read is of, as options. Raises ValueError for both of them."""
    if at_time is None:
        return {} if at_revision is None else {"at_revision": checked_int("at_revision", at_revision, 0, VERSION_MAX)}
    if at_revision is not None:
        raise ValueError("at_revision and at_time exclude each other")
    if isinstance(at_time, bool) or not isinstance(at_time, int | float):
        raise TypeError(f"at_time is Unix time in seconds, not {type(at_time).__name__}")
    if not 0 <= at_time <= VERSION_MAX / 1000:
        raise ValueError(f"at_time is between 0 and {VERSION_MAX // 1000} seconds, not {at_time}")
    return {"at_time_ms": round(at_time * 1000)}


def watch_options(
    key: str | None,
    prefix: str | None,
    start_revision: int | None,
    initial: bool,
    previous: bool,
    progress_interval: float | None,
) -> dict[str, Any]:
    """The options of a watch that are given. Raises ValueError for some that exclude each other."""
    if key is not None and prefix is not None:
        raise ValueError("key and prefix exclude each other")
    if initial and start_revision is not None:
        raise ValueError("initial and start_revision exclude each other")
    options: dict[str, Any] = {}
    if key is not None:
        options["key"] = plain_key(key)
    if prefix is not None:
        options["prefix"] = text_option("prefix", prefix)
    if start_revision is not None:
        options["start_revision"] = checked_int("start_revision", start_revision, 1, VERSION_MAX)
    if initial:
        options["initial"] = True
    if previous:
        options["with_previous"] = True
    if progress_interval is not None:
        check_timeout(progress_interval)
        options["progress_ms"] = round(progress_interval * 1000)
    return options
