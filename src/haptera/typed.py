"""Values with a type: the classes that `Database.typed` makes, and `method`, for services that take and give Structs.

configs = db.typed(Config)                  TypedDatabase[Config]: get, set, scan, watch, cached, within
class Printer(haptera.Service, codec="json")    its methods are marked with `haptera.typed.method`
peer.call(..., codec="json", returning=Paper)   the caller's side
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.client import (
        TypedCache,
        TypedChanges,
        TypedDatabase,
        TypedEntry,
        TypedEvent,
        TypedScan,
        TypedTransaction,
        TypedWatch,
    )
    from haptera.peer import TypedCallStream
    from haptera.peer import typed_method as method
    from haptera.value_codecs import CodecName

__all__ = [
    "CodecName",
    "TypedCache",
    "TypedCallStream",
    "TypedChanges",
    "TypedDatabase",
    "TypedEntry",
    "TypedEvent",
    "TypedScan",
    "TypedTransaction",
    "TypedWatch",
    "method",
]

# name: its module. Names that are not listed here belong to the client.
_MODULES: Final = {
    **dict.fromkeys(__all__, "haptera.client"),
    "CodecName": "haptera.value_codecs",
    "TypedCallStream": "haptera.peer",
    "method": "haptera.peer",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _MODULES, {"method": "typed_method"})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
