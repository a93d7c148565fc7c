"""The results of commands and reads."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from haptera.errors import Failure

#: A stored value: its bytes, the version that wrote it, and the time at which it expires, in Unix milliseconds of entry
#: time, or None. A tuple of atoms: it is encoded as it stands, and the garbage collector soon stops following it.
StoredEntry = tuple[bytes, int, int | None]

#: Bytes of an entry in an answer beside its value, at most: headers, version, expiry.
ENTRY_OVERHEAD: Final = 32

#: Bytes of an answer beside its entries: more than any has.
ANSWER_OVERHEAD: Final = 1024

#: One row of a scan: key, value (None with ``keys_only``), version, and the time it expires at.
Row = tuple[str, bytes | None, int, int | None]


def values_size(fields: tuple[Any, ...]) -> int:
    """Bytes of the values in a result: its own, and those of the entries and the results in it."""
    size = 0
    for field in fields:
        if type(field) is bytes:
            size += len(field)
        elif type(field) is tuple:
            size += values_size(field)
    return size


class Replayed(Struct, frozen=True):
    """The remembered result of an earlier command with the same request id (section 7.1). Nothing was applied now."""

    result: tuple[Any, ...] | Failure


#: A tuple is a method's result array, field by field (section 7). A `Failure` changed nothing.
Result = tuple[Any, ...] | Failure | Replayed
