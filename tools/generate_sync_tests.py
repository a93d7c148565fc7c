"""Makes tests of `haptera.sync` of the tests of the asynchronous client.

usage: python -m tools.generate_sync_tests            writes the files
       python -m tools.generate_sync_tests --check    writes nothing; ends with 1 if one is not current

A test is translated as a whole, because its statements are those of a program: `await` goes, `async with` is `with`,
and a coroutine that a helper awaits is a function that it calls. A test that is about tasks, virtual time or doubles of
the loop's parts stays where it is. The rest of a file comes along as far as the translated tests use it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tools.generate_sync import formatted, write_or_check

ROOT: Final = Path(__file__).resolve().parent.parent
TESTS: Final = ROOT / "tests"
TARGET: Final = TESTS / "sync"

#: The files of tests that are translated, under tests/.
SOURCES: Final = (
    "integration/test_authentication.py",
    "integration/test_client.py",
    "integration/test_reads_of_the_past.py",
    "integration/test_watch.py",
    "unit/client/calls/test_administration.py",
    "unit/client/calls/test_pipelines.py",
    "unit/client/calls/test_transactions.py",
    "unit/client/recipes/test_barrier.py",
    "unit/client/recipes/test_counter.py",
    "unit/client/recipes/test_locks.py",
    "unit/client/recipes/test_queue.py",
    "unit/client/recipes/test_rate_limit.py",
)

#: A test that uses one of these names is about the loop, or about parts that threads do not see.
OF_THE_LOOP: Final = frozenset(
    {"asyncio", "virtual_clock", "gc", "run", "subprocess", "proxy", "channel", "claimant", "Dialler", "FakePeer"}
    | {
        "haptera_db",
        "haptera_url",
        "monkeypatch",
        "restored",
        "clear_doubt",
        "Holder",
        "queue_in",
        "sleep",
        ".server",
        ".node",
    }
)
#: Tests whose subject is different for threads, each with the reason.
LEFT_OUT: Final = frozenset(
    {
        "test_a_key_that_was_read_or_written_is_not_asked_for_again",  # makes a transaction of parts of its own
    }
)

#: The classes of recipes whose calls are translated.
RECIPES: Final = ("Barrier", "Counter", "Election", "Holding", "Job", "Lease", "Lock", "Queue", "Semaphore", "Worker")
#: Names of the asynchronous world, and theirs for threads: (module, name).
NAMES: Final = {
    "AsyncIterator": ("collections.abc", "Iterator"),
    "AsyncGenerator": ("collections.abc", "Iterator"),
    "asynccontextmanager": ("contextlib", "contextmanager"),
    "aclosing": ("contextlib", "closing"),
    "anext": ("", "next"),
    "aiter": ("", "iter"),
    "connect": ("haptera.sync", "connect"),
    "dial": ("haptera.sync", "dial"),
    "listen": ("haptera.sync", "listen"),
    "open_embedded": ("haptera.sync", "open"),
    "node": ("haptera.testing", "node_in_thread"),
    "opened": ("tests.support.stores", "opened_in_thread"),
    "Database": ("haptera.sync", "Database"),
    "Transaction": ("haptera.sync", "Transaction"),
    "Watch": ("haptera.sync", "Watch"),
}
NAMES.update({name: ("haptera.sync", name) for name in RECIPES})
#: Special methods, and theirs for threads.
SPECIAL: Final = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__anext__": "__next__"}
#: Attributes of the module `haptera` that `haptera.sync` has for threads.
OF_SYNC: Final = frozenset({"connect", "open", "dial", "listen", "Database", "Transaction", "Watch", "Scan"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Translation(ast.NodeTransformer):
    """Translates a syntax tree; ``awaiting`` names the helpers that await a parameter, with its place."""

    def __init__(self, awaiting: dict[str, int]) -> None:
        self.awaiting = awaiting
        self.parameters: list[set[str]] = []

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """`async def`."""
        self.parameters.append({each.arg for each in node.args.args})
        self.generic_visit(node)
        self.parameters.pop()
        values = {name: getattr(node, name) for name in node._fields}
        return ast.copy_location(ast.FunctionDef(**values), node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        """`await`: a parameter that is awaited is called."""
        value = node.value
        if isinstance(value, ast.Attribute) and value.attr == "lost":
            return ast.Call(ast.Attribute(self.visit(value), "wait", ast.Load()), [], [])
        if isinstance(value, ast.Name) and any(value.id in names for names in self.parameters):
            return ast.Call(value, [], [])
        found: ast.AST = self.visit(value)
        return found

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        """`async with`."""
        self.generic_visit(node)
        return ast.copy_location(ast.With(items=node.items, body=node.body), node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        """`async for`."""
        self.generic_visit(node)
        return ast.copy_location(ast.For(target=node.target, iter=node.iter, body=node.body, orelse=node.orelse), node)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """Translate `async for` in a comprehension."""
        self.generic_visit(node)
        node.is_async = 0
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Translate a call of a helper that awaits: it is given a function."""
        self.generic_visit(node)
        place = self.awaiting.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if place is not None and place < len(node.args):
            nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
            node.args[place] = ast.Lambda(nothing, node.args[place])
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Translate a name of the asynchronous world."""
        node.id = NAMES.get(node.id, ("", node.id))[1]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Translate the text that an object shows of itself."""
        if isinstance(node.value, str):
            node.value = re.sub(r"<haptera\.(recipes\.)?(?=[A-Z])", "<haptera.sync.", node.value)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Translate an attribute of the module `haptera`."""
        self.generic_visit(node)
        node.attr = SPECIAL.get(node.attr, node.attr)
        if isinstance(node.value, ast.Name) and node.value.id == "haptera" and node.attr in OF_SYNC:
            node.value = ast.Attribute(node.value, "sync", ast.Load())
        return node


class Definition(NamedTuple):
    """A statement of a file, the names that it defines, and those that it uses."""

    node: ast.stmt
    defines: set[str]
    uses: set[str]


def definition(node: ast.stmt) -> Definition:
    """Return a statement as a definition."""
    if isinstance(node, Function | ast.ClassDef):
        defines = {node.name}
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        defines = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    else:
        defines = set()
    return Definition(node, defines, names_in(node))


def names_in(node: ast.AST) -> set[str]:
    """Return the names that code uses: parameters too, because fixtures are named so, and attributes with a dot."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    found |= {f".{each.attr}" for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return found | {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}


def is_test(node: ast.stmt) -> bool:
    """Whether a statement is a test with a coroutine."""
    return isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_")


def wanted(definitions: list[Definition]) -> list[ast.stmt]:
    """Return the tests that are translated and all that they use, in the order of the file."""
    homes = {name: each for each in definitions for name in each.defines}

    def reach(each: Definition, seen: set[str]) -> set[str]:
        for name in each.uses - seen:
            seen.add(name)
            if name in homes:
                reach(homes[name], seen)
        return seen

    kept: set[str] = set()
    for each in definitions:
        if is_test(each.node):
            used = reach(each, set())
            if not (used & OF_THE_LOOP or each.defines & LEFT_OUT or awaits_a_variable(each.node)):
                kept |= each.defines | used
    return [each.node for each in definitions if each.defines & kept]


def awaits_a_variable(node: ast.stmt) -> bool:
    """Whether a test keeps coroutines in a variable: the calls of a thread cannot wait there."""
    parameters = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    awaits = [each.value for each in ast.walk(node) if isinstance(each, ast.Await)]
    return any(isinstance(each, ast.Name) and each.id not in parameters for each in awaits)


def awaiting_of(statements: list[ast.stmt]) -> dict[str, int]:
    """Return the helpers that await a parameter, each with its place."""
    found = {}
    for node in statements:
        if isinstance(node, ast.AsyncFunctionDef):
            places = {each.arg: place for place, each in enumerate(node.args.args)}
            for each in ast.walk(node):
                if isinstance(each, ast.Await) and isinstance(each.value, ast.Name) and each.value.id in places:
                    found[node.name] = places[each.value.id]
    return found


def imports_of(tree: ast.Module, used: set[str]) -> list[str]:
    """Return the imports that the translated statements need."""
    lines = []
    for module, name in NAMES.values():
        if module and name in used:
            lines.append(f"from {module} import {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            lines += [ast.unparse(ast.Import([each])) for each in node.names if (each.asname or each.name) in used]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = [each for each in node.names if (each.asname or each.name) in used and each.name not in NAMES]
            lines += [ast.unparse(ast.ImportFrom(node.module, [each], 0)) for each in names]
    if "haptera" in used:
        lines.append("import haptera.sync")
    return sorted(set(lines))


def translated(path: str) -> str:
    """Return the translation of one file."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    statements = wanted([definition(node) for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)])
    translation = Translation(awaiting_of(statements))
    body = [ast.fix_missing_locations(translation.visit(node)) for node in statements]
    text = "\n\n\n".join(ast.unparse(node) for node in body)
    imports = "\n".join(imports_of(tree, names_in(ast.Module(body, []))))
    purpose = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    return (
        f"# Generated from tests/{path} by\n# tools/generate_sync_tests.py (make generate). Do not edit.\n"
        f'"""{purpose}"""\n\n'
        f"from __future__ import annotations\n\n{imports}\n\n\n{text}\n"
    )


def main() -> int:
    """Write the files, or with ``--check`` say which are not current. Return the exit status."""
    made = ((TARGET / Path(path).name, formatted(translated(path))) for path in SOURCES)
    return write_or_check(made, "makes tests of haptera.sync of those of the asynchronous client")


if __name__ == "__main__":
    sys.exit(main())
