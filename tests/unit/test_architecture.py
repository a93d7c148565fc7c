"""The import rules of ARCHITECTURE.md: which layer may know which, which may touch the world, and no circles."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.support.sources import TREES
from tools.shape import DIALECT_FACES

# What every layer may import: modules at the root of the package, which themselves import nothing above them.
LEAVES = frozenset(
    {"access_rules", "boot_clock", "defaults", "errors", "forks", "key_rules", "kv_groups", "lazy", "opening"}
    | {"secret_forms", "span_names", "timeouts", "value_codecs", "version"}
)

# layer: the layers under it that it may import. A folder that is not there yet is no violation; one that is not
# named here is.
BELOW: dict[str, frozenset[str]] = {
    "wire": frozenset(),
    "connection": frozenset({"wire"}),
    "transport": frozenset(),
    "peer": frozenset({"transport", "connection", "wire", "security"}),
    "state": frozenset(),
    "storage": frozenset(),
    "replication": frozenset({"storage"}),
    "security": frozenset(),
    "node": frozenset({"peer", "transport", "connection", "wire", "state", "storage", "replication", "security"}),
    "dialects": frozenset({"node", "transport", "wire"}),
    "client": frozenset({"peer", "transport", "security"}),
}
BELOW["sync"] = frozenset({"client"}) | BELOW["client"] | BELOW["peer"]
BELOW["testing"] = frozenset({"client", "node", "dialects"}) | BELOW["node"]
BELOW["cli"] = frozenset({"testing"}) | BELOW["testing"]

# The file of the client that opens a node in the process, and what it may import beyond the other files of its layer.
EMBEDDED = "haptera.client.channels.embedded_channel"
EMBEDDED_BELOW = frozenset({"node", "state"})

# Of the native protocol's bytes it shares the rules that are the same in each protocol: zstd frames within bounds, and
# keys that follow from others.
DIALECTS_SHARE = frozenset({"COMPRESSED_SIZE_MIN", "Codec", "available", "hkdf_sha256"})

# The folders that others import, each through the names that its `__init__` lists.
WITH_FACES = frozenset(BELOW) - {"cli", "testing"} | {"errors"}

# The layers that are pure: bytes and values in, bytes and values out, time passed in.
PURE = frozenset({"wire", "connection", "state", "security"})
IMPURE_MODULES = frozenset(
    {"asyncio", "datetime", "io", "os", "pathlib", "random", "secrets", "select", "selectors", "signal", "socket"}
    | {"ssl", "subprocess", "tempfile", "threading", "time", "uuid"}
)
USES_ASYNCIO = frozenset({"transport", "peer", "replication", "node", "client", "dialects", "sync", "testing", "cli"})


def module_name(path: str) -> str:
    return f"haptera.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


#: The tree of each module, by its name.
MODULES = {module_name(path): tree for path, tree in TREES.items()}


def imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """The imports among some nodes: (line, what is imported)."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def layer_of(module: str) -> str:
    """The folder under haptera, or the name of a module at its root; "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def violations(module: str, tree: ast.Module) -> list[str]:
    """What a module's imports break, a line each."""
    found = []
    layer = layer_of(module)
    for line, imported in imports(ast.walk(tree)):
        broken = _broken_by(module, layer, imported)
        if broken:
            found.append(f"{module}:{line} imports {imported}: {broken}")
    return found


def _broken_by(module: str, layer: str, imported: str) -> str | None:
    top = imported.partition(".")[0]
    if top != "haptera":
        if layer in PURE and top in IMPURE_MODULES:
            return f"{layer} is pure"
        if layer in BELOW and layer not in USES_ASYNCIO and top == "asyncio":
            return f"{layer} does not know asyncio"
        return None
    target = layer_of(imported)
    if layer in LEAVES:
        return None if target in LEAVES else f"{layer} is under every layer"
    if target != layer and target in WITH_FACES and not is_in_a_face(layer, target, imported):
        return f"{imported} is not in the face of {target}"
    if layer in {
        "",
        "__main__",
        "authentication",
        "cafe",
        "notebook",
        "recipes",
        "typed",
    }:  # they re-export names, and nothing inside depends on them
        return None
    if layer not in BELOW:
        return f"{layer} is not a layer of ARCHITECTURE.md"
    if target == layer or target in LEAVES or target in BELOW[layer]:
        if layer == "dialects" and target == "node" and not imported.startswith(DIALECT_FACES):
            return f"a dialect uses {' and '.join(DIALECT_FACES)} alone"
        if layer == "dialects" and target == "wire" and imported.rpartition(".")[2] not in DIALECTS_SHARE:
            return f"a dialect shares {', '.join(sorted(DIALECTS_SHARE))} alone"
        return None
    if module == EMBEDDED and target in EMBEDDED_BELOW:
        return None
    return f"{target or 'the package'} is not under {layer}"


def is_in_a_face(layer: str, target: str, imported: str) -> bool:
    """Whether a layer is imported itself, or a name that its face lists; a dialect has faces of its own in `node`."""
    faces = DIALECT_FACES if (layer, target) == ("dialects", "node") else (f"haptera.{target}",)
    package, _, name = imported.rpartition(".")
    return imported in faces or (package in faces and (name in face_of(package) or is_code_class(package, name)))


@cache
def face_of(package: str) -> frozenset[str]:
    """The names that the `__init__` of a package lists."""
    for node in MODULES[package].body if package in MODULES else ():
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def is_code_class(face: str, name: str) -> bool:
    """Whether it is the class of an error code, which the face of the errors has beside those that it lists."""
    return face == "haptera.errors" and name in face_of("haptera.errors.codes")


def test_a_module_imports_only_what_is_under_its_layer() -> None:
    assert [broken for module, tree in MODULES.items() for broken in violations(module, tree)] == []


def test_the_layers_have_no_circle() -> None:
    seen: set[str] = set()

    def visit(layer: str, path: tuple[str, ...]) -> None:
        assert layer not in path, f"a circle of layers: {(*path, layer)}"
        if layer not in seen:
            for below in BELOW[layer]:
                visit(below, (*path, layer))
            seen.add(layer)

    for layer in BELOW:
        visit(layer, ())


# The recipes are made with the public calls of a `Database`, and with modules that talk to no store.
RECIPES = "haptera.client.recipes"
RECIPES_MAY_IMPORT = frozenset(
    {
        "backoff",
        "calls.argument_checks",
        "calls.entry",
        "calls.scan",
        "calls.transact",
        "database",
        "leases.lease",
        "once",
        "recipes",
        "trouble",
        "watches.event",
        "watches.watch",
    }
)


def reaches_of_a_recipe(tree: ast.Module) -> list[str]:
    """The lines on which a recipe imports more of the client than it may, or reaches into another object."""
    found = [
        f"{line}: {imported}"
        for line, imported in imports(ast.walk(tree))
        if layer_of(imported) == "client"
        and not any(imported.startswith(f"haptera.client.{allowed}.") for allowed in RECIPES_MAY_IMPORT)
    ]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return found + [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in attributes
        if re.match("_[^_]", node.attr) and ast.unparse(node.value) != "self"
    ]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(f"{RECIPES}.")])
def test_a_recipe_is_made_with_public_calls_alone(module: str) -> None:
    """So that it works on every store, and shows how a program makes one of its own."""
    assert reaches_of_a_recipe(MODULES[module]) == []


def test_the_reaches_of_a_recipe_are_found() -> None:
    channel = "haptera.client.channels.channel"
    assert reaches_of_a_recipe(ast.parse(f"from {channel} import Channel")) == [f"1: {channel}.Channel"]
    assert reaches_of_a_recipe(ast.parse("self._db._call(x)")) == ["1: self._db._call"]
    assert reaches_of_a_recipe(ast.parse("self._db.get(x)\nfrom haptera.errors import Code")) == []


def run_time_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            left += node.orelse
        else:
            left += ast.iter_child_nodes(node)


def known(module: str, tree: ast.Module) -> set[str]:
    """The modules of the package that a module's imports name when it runs."""
    found = set()
    for _, imported in imports(run_time_nodes(tree)):
        # `from haptera.peer import limits` names a module, `from haptera.peer import Peer` one's content.
        target = imported if imported in MODULES else imported.rpartition(".")[0]
        if target in MODULES and target != module:
            found.add(target)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The modules that know each other, directly or not: the strongly connected parts of more than one (Tarjan)."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            at = path.index(module)
            if len(path) - at > 1:
                found.append(sorted(path[at:]))
            del path[at:]

    for module in graph:
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_each_other() -> None:
    """Not even inside functions: what two modules both need when they run stands under them. Annotations may."""
    graph = {module: known(module, tree) for module, tree in MODULES.items()}
    assert circles(graph) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d", "f"}, "f": set(), "g": {"a", "f"}}
    assert sorted(circles(graph)) == [["a", "b", "c"], ["d", "e"]]


def test_imports_inside_functions_count_and_those_for_annotations_do_not() -> None:
    source = """
from typing import TYPE_CHECKING
from haptera.peer import Peer, limits
if TYPE_CHECKING:
    from haptera.wire.frame import Frame
    if True:
        from haptera.wire.metadata import Tag
else:
    from haptera.peer.trace import Trace
def f():
    import haptera.errors
"""
    assert known("haptera.node.node", ast.parse(source)) == {
        "haptera.peer",
        "haptera.peer.limits",
        "haptera.peer.trace",
        "haptera.errors",
    }


def test_layers_hold_for_annotations_too() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from haptera.node.node import Node"
    assert len(violations("haptera.peer.peer", ast.parse(source))) == 1


def test_every_folder_and_root_module_has_its_place() -> None:
    places = {layer_of(module) for module in MODULES}
    assert places <= BELOW.keys() | LEAVES | {"", "__main__", "authentication", "cafe", "notebook", "recipes", "typed"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("haptera.wire.frame", "import asyncio"),
        ("haptera.wire.frame", "from haptera.connection import stream_law"),
        ("haptera.connection.stream_halves", "def f():\n    import time"),
        ("haptera.connection.stream_halves", "from os import urandom"),
        ("haptera.state.kv", "import random"),
        ("haptera.state.kv", "from haptera.storage.log import Log"),
        ("haptera.state.kv", "from haptera import __main__"),
        ("haptera.cli.get", "from haptera import connect"),
        ("haptera.storage.log", "import asyncio"),
        ("haptera.replication.cluster", "from haptera.state import StateMachine"),
        ("haptera.storage.log", "from haptera.replication import ClusterOfOne"),
        (
            "haptera.storage.log",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from haptera.state import kv",
        ),
        ("haptera.peer.peer", "import haptera.node.commands"),
        ("haptera.peer.peer", "from haptera import node"),
        ("haptera.transport.connection_pool", "from haptera.wire.frame import Frame"),
        ("haptera.transport.connection_pool", "from haptera.peer import Peer"),
        ("haptera.client.database", "from haptera.node.commands import Commands"),
        ("haptera.client.channels.embedded_channel", "from haptera.storage import Log"),
        ("haptera.dialects.resp", "from haptera.node.commit import CommitPipeline"),
        ("haptera.errors", "from haptera.wire import frame"),
        ("haptera.node.node", "from haptera.state.kv import Kv"),
        ("haptera.node.node", "from haptera.state import kv"),
        ("haptera.peer.peer", "def f():\n    from haptera.wire import frame"),
        ("haptera.dialects.resp", "from haptera.node import Node"),
        ("haptera.dialects.resp", "from haptera.node.commands.interface import Commands"),
        ("haptera.dialects.cafe.bodies", "from haptera.wire import encode_frame"),
        ("haptera.dialects.cafe.bodies", "from haptera.connection import Connection"),
        ("haptera.utils.strings", "from haptera.wire import frame"),
    ],
)
def test_the_rules_see_what_breaks_them(module: str, source: str) -> None:
    assert len(violations(module, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("haptera.wire.frame", "import struct\nfrom haptera.errors import failure"),
        ("haptera.client.channels.embedded_channel", "from haptera.node import Node"),
        ("haptera.node.node", "from haptera.errors import KeyNotFound"),
        ("haptera.peer.peer", "import haptera.wire"),
        ("haptera.dialects.resp", "from haptera.node.commands import Commands"),
        ("haptera.dialects.cafe.bodies", "from haptera.wire import Codec"),
        (
            "haptera.cli.get",
            "import asyncio\nfrom haptera.version import __version__\nfrom haptera.client import connect",
        ),
    ],
)
def test_the_rules_allow_what_keeps_them(module: str, source: str) -> None:
    assert violations(module, ast.parse(source)) == []


def test_the_impure_modules_are_modules() -> None:
    """So that a misspelt name in the list above does not leave a gap."""
    assert sys.stdlib_module_names >= IMPURE_MODULES
