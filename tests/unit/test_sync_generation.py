"""The tools that make `haptera.sync` and its tests: the rules of the translation, and the errors of its gaps."""

from __future__ import annotations

import ast

import pytest

from tools.generate_sync import Maker, for_threads, literal, wrapped
from tools.generate_sync_tests import Translation, awaiting_of, awaits_a_variable
from tools.sync_classes import BODIES, DIRECT, LEFT_OUT, MODULES
from tools.sync_docstrings import DOCSTRINGS, quoted, translated


def made_of(source: str) -> str:
    statements = ast.parse(source).body
    translation = Translation(awaiting_of(statements))
    return "\n".join(ast.unparse(ast.fix_missing_locations(translation.visit(node))) for node in statements)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("AsyncGenerator[Event, None]", "Items[Event]"),
        ("AsyncIterator[bytes]", "Items[bytes]"),
        ("AsyncIterable[bytes] | None", "Iterable[bytes] | None"),
        ("Awaitable[LeaseLost | None]", "End[LeaseLost | None]"),
        ("Callable[[Transaction], Awaitable[T]]", "Callable[[Transaction], T]"),
        ("list[Entry | None]", "list[Entry | None]"),
    ],
)
def test_types_are_those_of_threads(annotation: str, expected: str) -> None:
    assert for_threads(annotation) == expected


def test_a_result_is_given_as_an_object_for_threads_where_there_is_one() -> None:
    assert wrapped("None", "x") == "x"
    assert wrapped("int", "x") == "return x"
    assert wrapped("Lease", "x") == "return Lease(x, self)"
    assert wrapped("Job | None", "x") == "found = x\nreturn None if found is None else Job(found, self)"
    assert wrapped("AsyncGenerator[Event, None]", "x") == "return Items(x, self)"


def test_a_docstring_that_speaks_of_tasks_is_an_error() -> None:
    assert translated("a", "``async with db.lock(...)``, or ``await db.get(key)``") == (
        "``with db.lock(...)``, or ``db.get(key)``"
    )
    for text in ("Cancel the task.", "On the event loop.", "A coroutine.", "async def"):
        with pytest.raises(ValueError, match="give it another"):
            translated("a", text)


def test_an_example_is_left_out_because_it_awaits() -> None:
    text = "Do it.\n\n    >>> await db.do()\n    1\n\nArgs:\n    a: One."
    assert translated("a", text) == "Do it.\n\nArgs:\n    a: One."


def test_a_docstring_is_broken_again_and_keeps_its_sections() -> None:
    text = "Do it.\n\nArgs:\n    a: " + "word " * 30 + "\n    b: Other.\n\nReturns:\n    The result."
    lines = quoted(text).splitlines()
    assert max(map(len, lines)) <= 112
    assert [line for line in lines if line.startswith("    ") and not line.startswith("        ")] == [
        lines[3],
        "    b: Other.",
        "    The result.",
    ]


def test_a_default_that_is_a_constant_of_the_source_is_written_as_its_value() -> None:
    name = ast.parse("CLOSE_S", mode="eval").body
    assert ast.unparse(literal(name, "client/leases/lease.py")) == "5.0"
    default = ast.parse("DEFAULT", mode="eval").body
    assert ast.unparse(literal(default, "client/leases/lease.py")) == "DEFAULT"


def test_the_table_names_nothing_that_is_not_there() -> None:
    makers = {made.name: Maker(made) for _, classes in MODULES.values() for made in classes}
    for place in [*BODIES, *DIRECT, *LEFT_OUT, *(each for each in DOCSTRINGS if "." in each)]:
        name, _, member = place.partition(".")
        of_a_struct = {"on_cancel", "attributes"}  # fields, which no function defines
        assert member in makers[name].functions or member in of_a_struct, place


def test_statements_of_tests_are_translated() -> None:
    assert made_of("async def f():\n    async with a as b:\n        return [x async for x in await b.c()]") == (
        "def f():\n    with a as b:\n        return [x for x in b.c()]"
    )
    assert made_of("haptera.connect(await anext(events), haptera.Entry)") == (
        "haptera.sync.connect(next(events), haptera.Entry)"
    )
    assert made_of("await lock.lost") == "lock.lost.wait()"


def test_a_helper_that_awaits_its_argument_is_given_a_function() -> None:
    source = "async def refused(call):\n    await call\nasync def test():\n    await refused(db.set('k'))"
    assert made_of(source) == "def refused(call):\n    call()\ndef test():\n    refused(lambda: db.set('k'))"


def test_a_test_that_keeps_coroutines_is_left_out() -> None:
    kept, left = ast.parse("async def a(call):\n    await call\nasync def b():\n    c = d()\n    await c").body
    assert not awaits_a_variable(kept)
    assert awaits_a_variable(left)
