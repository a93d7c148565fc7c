"""The details of every error that is made are those of spec/errors.toml, the one place that says what they are."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from haptera.errors import Code
from tests.support.sources import TREES

ROOT = Path(__file__).parents[3]
ERRORS = tomllib.loads((ROOT / "spec/errors.toml").read_text())["error"]
LISTED: dict[int, set[str]] = {error["code"]: set(error["details"]) for error in ERRORS}
SCOPES: dict[int, str] = {error["code"]: error["scope"] for error in ERRORS}
RESERVED = {error["code"] for error in ERRORS if error.get("reserved")}
#: Codes that are named in one place and made into an error in another.
HANDED_ON = frozenset({Code.TOO_MANY_CONNECTIONS})
#: A transact adds the place of an operation to the details that this has by itself, whatever its code is.
PLACES = frozenset({"branch", "operation", "compare"})
MAKERS = frozenset({"failure", "RemoteProtocolError", "LocalProtocolError"})


class Module:
    """What one module's errors say: pairs of a code and the keys of its details."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._assigned: dict[str, list[ast.expr]] = defaultdict(list)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        self._assigned[target.id].append(node.value)

    def errors(self) -> Iterator[tuple[int, int, set[str], str]]:
        """The line, the code, the keys and the maker of each error whose code and details are written there."""
        for node in ast.walk(self._tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS):
                continue
            details = [each.value for each in node.keywords if each.arg == "details"]
            details += node.args[1:2] if node.func.id == "failure" else node.args[2:3]
            for code in self._codes(node.args[0]):
                yield node.lineno, code, set().union(*(self._keys(each) for each in details)), node.func.id

    def _codes(self, node: ast.expr) -> set[int]:
        match node:
            case ast.Constant(value=int(code)):
                return {code}
            case ast.Attribute(value=ast.Name(id="Code"), attr=name):
                return {Code[name].value}
            case ast.IfExp(body=body, orelse=orelse):
                return self._codes(body) | self._codes(orelse)
            case ast.Name(id=name):
                return set().union(*(self._codes(each) for each in self._assigned[name]))
            case ast.Call(args=[inner]):
                return self._codes(inner)
            case _:
                return set()

    def _keys(self, node: ast.expr) -> set[str]:
        match node:
            case ast.Dict(keys=keys):
                assert None not in keys, f"line {node.lineno}: the keys of details are written where the error is made"
                return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            case ast.Name(id=name):
                return set().union(*(self._keys(each) for each in self._assigned[name] if isinstance(each, ast.Dict)))
            case _:
                return set()


@cache
def made_errors() -> list[tuple[str, int, set[str], str]]:
    """The place, the code, the keys and the maker of each error in the sources."""
    return [
        (f"{name}:{line}", code, keys, maker)
        for name, tree in TREES.items()
        for line, code, keys, maker in Module(tree).errors()
    ]


def test_an_error_is_made_with_the_details_that_are_listed() -> None:
    """Trap: an error class outside the documented tree, and details that are written down otherwise than sent."""
    unlisted = [
        f"{place}: {code} with {sorted(keys - LISTED[code])}"
        for place, code, keys, _ in made_errors()
        if not keys <= LISTED[code]
    ]
    assert unlisted == []


def test_the_details_that_are_listed_are_made() -> None:
    """Of each code that this software makes; the others belong to parts that are still to come."""
    made: dict[int, set[str]] = defaultdict(set)
    for _, code, keys, _ in made_errors():
        made[code] |= keys
    assert len(made) > 30
    never = {code: sorted(LISTED[code] - keys - PLACES) for code, keys in made.items()}
    assert {code: keys for code, keys in never.items() if keys} == {}


def test_the_codes_that_are_reserved_are_those_that_nothing_answers_with() -> None:
    """So that a program knows which error classes it can meet."""
    made = {code for _, code, _, _ in made_errors()}
    assert set(LISTED) - made - HANDED_ON == RESERVED


#: A fault of one message's body ends that message's stream, though it is raised as the peer's
#: fault; and a call that the connection cannot take fails locally.
OF_A_BODY = frozenset({1010})


def _of_cafe(place: str) -> bool:
    """CAFE has no streams: spec/cafe.md says which of its errors end a connection."""
    return place.startswith("dialects/cafe/")


def test_an_error_is_made_where_its_scope_allows_it() -> None:
    """A `RemoteProtocolError` ends the connection, and a `failure` that is made of a code ends a stream."""
    wrong = [
        f"{place}: {maker} of {code}, whose scope is {SCOPES[code]}"
        for place, code, _, maker in made_errors()
        if not _of_cafe(place)
        and (
            (maker == "RemoteProtocolError" and SCOPES[code] == "stream" and code not in OF_A_BODY)
            or (maker == "failure" and SCOPES[code] == "connection")
        )
    ]
    assert wrong == []


def test_errors_are_found_wherever_they_are_made() -> None:
    source = """
_MISSING: Final = int(Code.KEY_NOT_FOUND)
failure(_MISSING, {"key": 1})
failure(3003 if late else Code.INVALID_KEY, details={"reason": 1})
def f():
    details = {"length": 1}
    raise RemoteProtocolError(1004, "too long", details)
"""
    found = [(code, keys) for _, code, keys, _ in Module(ast.parse(source)).errors()]
    assert sorted(found, key=lambda each: each[0]) == [
        (1004, {"length"}),
        (3003, {"reason"}),
        (4001, {"key"}),
        (4006, {"reason"}),
    ]
