"""The rules of keys, values, numbers and the bounds of ranges (spec/protocol.md, section 7).

A store judges by these rules, and so does a client that cannot even send an argument, because it is larger than any
message or no text. So a served and an embedded store refuse the same argument with the same error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import structs

from haptera.errors import Code, Failure, failure

#: Bytes of UTF-8 in a key. Long enough for any path, short enough that an index of keys stays in memory.
KEY_SIZE_MAX: Final = 4096
#: Bytes of a value: half of the default max_message, so that a value and its previous one fit an answer.
VALUE_SIZE_MAX: Final = 8 * 1024 * 1024
#: Bytes of prefix, start, end, after and glob: none of them can say more than a key can hold.
BOUND_SIZE_MAX: Final = KEY_SIZE_MAX
#: Keys of one get_many, set_many or delete_many. Later entries of the log wait until a change is applied whole: this
#: many keep that near half a second.
KEYS_PER_COMMAND_MAX: Final = 2**17
#: The largest version, and the largest limit of a scan. Such numbers stay exact in every language that keeps numbers as
#: IEEE doubles.
VERSION_MAX: Final = 2**53 - 1
#: Milliseconds that a key may live: 100 years.
TTL_MAX_MS: Final = 3_153_600_000_000
#: Milliseconds that a lease may go on without a renewal. Below a second a node that collects garbage or waits for its
#: disk would end the leases of healthy clients; a key that is to stay for more than a day needs no one who renews it.
LEASE_TTL_MIN_MS: Final = 1_000
LEASE_TTL_MAX_MS: Final = 86_400_000
#: Leases that one renew_lease renews, in 2 ms.
LEASES_RENEWED_MAX: Final = 10_000
#: The latest time at which a key expires, in Unix milliseconds: exact as an IEEE double too.
EXPIRY_MAX_MS: Final = 2**53 - 1
#: The numbers that a key can count with.
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

#: The one text that each integer has: no plus, no leading zero, no minus zero, nothing around it.
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def key_refusal(key: str) -> Failure | None:
    """Return why a text is no key (4006), or None. The details never repeat it: it may be of any size."""
    return None if is_key(key) else invalid_key(key)


def keys_refusal(keys: Iterable[str], first: int = 0) -> Failure | None:
    """Return why one of several texts is no key (4006, with its position), or None; ``first`` is the first's."""
    for position, key in enumerate(keys, first):
        if not is_key(key):
            return invalid_key(key, position)
    return None


def value_refusal(key: str, size: int) -> Failure | None:
    """Return why no value of ``size`` bytes is stored under ``key`` (4007), or None."""
    return None if size <= VALUE_SIZE_MAX else value_too_large(key, size)


def value_too_large(key: str, size: int) -> Failure:
    """Return 4007 for a value of ``size`` bytes."""
    return failure(Code.VALUE_TOO_LARGE, {"key": key, "length": size, "limit": VALUE_SIZE_MAX})


def count_refusal(field: str, count: int) -> Failure | None:
    """Return why no command has ``count`` of something (3003), or None."""
    return None if count <= KEYS_PER_COMMAND_MAX else invalid(field, f"more than {KEYS_PER_COMMAND_MAX}")


def bound_refusal(field: str, text: str | None) -> Failure | None:
    """Return why a text is no bound of a range (3003), or None.

    A bound need not be a key: it may be empty, and ``key + NUL`` is the first text behind a key.
    """
    if text is None or (len(text) <= BOUND_SIZE_MAX and (text.isascii() or _encodable(text))):
        return None
    return invalid(field, f"not UTF-8 of at most {BOUND_SIZE_MAX} bytes")


def size_refusal(limit: int) -> Failure:
    """Return why a command of more than ``limit`` bytes is not taken (3004)."""
    return failure(Code.MESSAGE_TOO_LARGE, {"limit": limit}, outcome="not_applied")


def invalid(field: str, reason: str) -> Failure:
    """Return 3003 for a field of an argument."""
    return failure(Code.INVALID_ARGUMENT, {"field": field, "reason": reason}, outcome="not_applied")


def placed(refused: Failure, **place: Any) -> Failure:
    """Return a refusal of a part of a request with the place of the part among its details."""
    return structs.replace(refused, details={**refused.details, **place})


def is_key(text: str) -> bool:
    """Whether a text can be a key."""
    return bool(text) and len(text) <= KEY_SIZE_MAX and "\0" not in text and (text.isascii() or _encodable(text))


def invalid_key(key: str, position: int | None = None) -> Failure:
    """Return 4006 for a text that is no key, with its ``position`` among several."""
    if not key:
        reason = "empty"
    elif "\0" in key:
        reason = "holds a NUL"
    elif len(key.encode("utf-8", "surrogatepass")) > KEY_SIZE_MAX:
        reason = f"longer than {KEY_SIZE_MAX} bytes"
    else:
        reason = "not UTF-8"
    if position is None:
        return failure(Code.INVALID_KEY, {"reason": reason})
    return failure(Code.INVALID_KEY, {"reason": reason, "position": position})


def number_of(value: bytes) -> int | None:
    """The number that a value is, as a key counts with it; None for a value that is none."""
    if _INTEGER.fullmatch(value) is None:
        return None
    number = int(value)
    return number if INT64_MIN <= number <= INT64_MAX else None


def _encodable(text: str) -> bool:
    """Whether the text is UTF-8 of the size of a key: Python's texts may hold lone surrogates, which have none."""
    try:
        return len(text.encode()) <= KEY_SIZE_MAX
    except UnicodeEncodeError:
        return False
