"""The imports of a generated module: the names that its text uses, each from the face that has it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import Final

#: The faces, with the names that the generated sources use of them.
FACES: Final = {
    "collections.abc": ("Callable", "Iterable", "Iterator", "Mapping", "Sequence"),
    "typing": ("Any", "Generic", "Literal", "Self", "TypeVar", "Unpack", "overload"),
    "types": ("TracebackType",),
    "haptera.client": (
        "Amounts",
        "Callback",
        "Compare",
        "Entry",
        "Event",
        "LeaseInfo",
        "LeaseLike",
        "Maintenance",
        "NewToken",
        "Operation",
        "open_embedded",
        "Pending",
        "RoleGrants",
        "RoleInfo",
        "Token",
        "TransactResult",
        "TypedEntry",
        "TypedEvent",
        "User",
        "UserQuota",
        "Value",
        "Whoami",
    ),
    "haptera.errors": ("ConnectionLost", "LeaseLost", "LockLost", "ProtocolError"),
    "haptera.connection": ("Budget",),
    "haptera.peer": (
        "DEFAULT",
        "Answer",
        "Authenticator",
        "ConnectionOptions",
        "Credentials",
        "Identity",
        "Timeout",
        "Trace",
    ),
    "haptera.value_codecs": ("CodecName",),
    "haptera.sync.desk": ("Desk",),
    "haptera.sync.facade": (
        "Arriving",
        "Connected",
        "End",
        "Facade",
        "Items",
        "Lasting",
        "Listening",
        "Store",
        "nothing",
    ),
    "haptera.sync.loop_thread": ("LoopThread", "shared"),
    "haptera.sync.services": ("HandlerThreads", "Service"),
}

#: Where names of the client are from the inside: its own modules do not import its face.
INSIDE: Final = {
    "Compare": "haptera.client.calls.transact",
    "Entry": "haptera.client.calls.entry",
    "LeaseLike": "haptera.client.calls.argument_checks",
    "Operation": "haptera.client.calls.transact",
    "Pending": "haptera.client.calls.pending_calls",
    "PendingCalls": "haptera.client.calls.pending_calls",
    "TransactResult": "haptera.client.calls.transact",
    "Value": "haptera.client.calls.argument_checks",
}

#: Names for annotations alone: to import them would load modules that few programs need.
LATER: Final = frozenset({"TracebackType", "Database", "LeaseLost", "LockLost"})
#: The asynchronous functions that open something, under names that leave theirs to the functions for threads.
OPENED: Final = {"async_connect": "haptera.client", "async_dial": "haptera.peer", "async_listen": "haptera.peer"}
_OF_PEERS: Final = frozenset(
    {"CallStream", "TypedCallStream", "LastingPeer", "LastingStream", "Peer", "Request", "Server"}
)


def imports_of(body: str, defined: set[str], homes: dict[str, str], inside: str = "") -> str:
    """Return the imports of a module that defines some names; ``homes`` are the modules of generated classes."""
    used = names_in(body)
    now: dict[str, set[str]] = defaultdict(set)
    later: dict[str, set[str]] = defaultdict(set)
    for face, names in FACES.items():
        for name in sorted(used.intersection(names) - defined):
            module = INSIDE.get(name, face) if inside else face
            is_later = name in LATER and name not in homes
            (later if is_later else now)[module].add(name)
    if "os" in used:
        now["os"].add("")
    if inside:
        now["haptera.client.calls.pending_calls"].add("PendingCalls")
        later["haptera.client.database"].add("Database")
    for name in used.intersection(homes) - defined:
        now[homes[name]].add(name)
    for name in sorted(used):
        if name.startswith("Async") and name.removeprefix("Async") in homes:
            plain = name.removeprefix("Async")
            face = "haptera.peer" if plain in _OF_PEERS else "haptera.client"
            later[face].add(f"{plain} as {name}")
    for name in used.intersection(OPENED):
        now[OPENED[name]].add(f"{name.removeprefix('async_')} as {name}")
    typing = now["typing"]
    if later:
        typing.add("TYPE_CHECKING")
    lines = ["from __future__ import annotations", ""]
    lines += ["import os"] if now.pop("os", None) else []
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(now.items()) if names]
    if later:
        lines += ["", "if TYPE_CHECKING:"]
        lines += [f"    from {module} import {', '.join(sorted(names))}" for module, names in sorted(later.items())]
    return "\n".join(lines) + "\n\n"


def names_in(body: str) -> set[str]:
    """Return the names that code uses, those in the texts of annotations too."""
    found = set()
    for node in ast.walk(ast.parse(body)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (named := re.fullmatch(r"(Async\w+)(\[T\])?", node.value))
        ):
            found.add(named[1])
    return found
