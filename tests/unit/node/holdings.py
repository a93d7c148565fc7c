"""The objects that a node holds: counted in its own tables, because the bytes of a process are too noisy to compare."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import Counter, deque
from collections.abc import Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Objects that lead out of the product: to the interpreter, to the test, to another part of the process.
_BORDERS: Final = (ModuleType, type, CodeType, FrameType, logging.Logger, logging.Handler)
_ATOMS: Final = (int, float, complex, bool, type(None), BuiltinFunctionType)
_TEXTS: Final = (bytes, bytearray, str)
_CONTAINERS: Final = (Mapping, list, tuple, set, frozenset, deque)


def holdings(*roots: object) -> Counter[str]:
    """Count all that can be reached from ``roots``, from the modules of the product and from the running loop.

    The keys say whose they are: objects of a class of the product by its name, elements of containers and bytes by the
    object that holds them. What a collection would free is freed first, and timers that were cancelled do not count.
    """
    gc.collect()
    loop: Any = asyncio.get_running_loop()
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    counts: Counter[str] = Counter({"timers": len(timers), "tasks": len(asyncio.all_tasks())})
    seen = {id(each) for each in (counts, timers, loop, loop._scheduled)}
    waiting: deque[tuple[str, object]] = deque(("roots", root) for root in (*roots, *timers))
    waiting.extend(_globals())
    kept: list[object] = [timers]  # so that no id is used twice meanwhile
    while waiting:
        owner, each = waiting.pop()
        if isinstance(each, _ATOMS + _BORDERS) or id(each) in seen:
            continue
        if type(each).__module__.startswith("haptera.testing"):
            continue  # it stands for a disk or a network
        seen.add(id(each))
        kept.append(each)
        if isinstance(each, _TEXTS):
            counts[f"bytes of {owner}"] += len(each)
            continue
        if isinstance(each, _CONTAINERS):
            # A gap in a list is none: blocks of ranks (haptera.state.ranked_blocks) keep theirs until they are full.
            counts[f"elements of {owner}"] += sum(element is not None for element in each)
        elif type(each).__module__.startswith(("haptera", "asyncio")):
            owner = type(each).__qualname__
            counts[owner] += 1
        waiting.extend((owner, referent) for referent in _referents(each))
    return counts


def _globals() -> Iterator[tuple[str, object]]:
    """The values of the product's modules and classes that may grow, each with its module's name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "haptera":
            continue
        for variable, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == name:
                yield from ((name, each) for each in vars(value).values() if isinstance(each, _CONTAINERS))
            elif not variable.startswith("__"):
                yield name, value


def _referents(each: object) -> Iterable[object]:
    match each:
        case msgspec.Struct():  # one with gc=False has no referents for the collector
            return [getattr(each, name) for name in each.__struct_fields__]
        case FunctionType():
            cells = each.__closure__ or ()
            return [*(cell.cell_contents for cell in cells), *(each.__defaults__ or ())]
        case MethodType():
            return [each.__self__]
        case CoroutineType():
            frame = each.cr_frame
            return [] if frame is None else [*frame.f_locals.values(), each.cr_await]
        case Mapping():
            return [*each.keys(), *each.values()]
        case _:
            return gc.get_referents(each)
