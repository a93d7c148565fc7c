"""Section 7.3 of the protocol is the `admin` service of a node: its methods, their arguments, their results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from haptera.node.services.admin_methods import ADMIN_METHODS
from haptera.peer import dial
from haptera.state import OPERATIONS, Write, method_of
from haptera.testing import node
from tests.unit.node.test_admin import CHANGES, READS

ROOT: Final = Path(__file__).parents[2]
SECTION: Final = (ROOT / "spec/protocol.md").read_text(encoding="utf-8").partition("### 7.3 The `admin` service")[2]
ROWS: Final = re.findall(r"^\| (\w+) \| \[(.*)\] \| \[(.+)\] \|$", SECTION.partition("\n## ")[0], re.MULTILINE)
COMMANDS: Final = {
    method_of(op)[1]: op
    for op in OPERATIONS
    if method_of(op)[0] == "access" and not (issubclass(op, Write) and op.of_node)
}


def parts(listed: str) -> list[str]:
    """The parts of a list, in which lists and maps may stand."""
    found, depth = [""], 0
    for char in listed:
        depth += (char in "[{") - (char in "]}")
        if char == "," and not depth:
            found.append("")
        else:
            found[-1] += char
    return [part.strip() for part in found]


def test_the_methods_are_those_of_the_table() -> None:
    assert sorted(name for name, _, _ in ROWS) == sorted(COMMANDS) == sorted(ADMIN_METHODS)


@pytest.mark.parametrize(("name", "argument", "result"), ROWS)
def test_a_method_has_the_argument_and_the_result_of_the_table(name: str, argument: str, result: str) -> None:
    op = COMMANDS[name]
    fields = msgspec.structs.fields(op)
    given = re.search(r"\{(.*)\}", argument)
    options = [] if given is None else given[1].split(", ")
    assert [field.encode_name for field in fields if field.default is not msgspec.NODEFAULT] == options
    assert len(parts(argument)) - bool(options) == len(fields) - len(options)
    assert (result == "changed") is issubclass(op, Write)


async def test_a_node_answers_with_results_of_these_forms() -> None:
    made = ("add_role", "add_user", "add_grant", "add_token", "users", "user", "quota", "roles", "role", "tokens")
    arguments: dict[str, list[Any]] = {**CHANGES, **READS, "role": ["app"]}
    forms = {name: result for name, _, result in ROWS}
    async with node(storage="memory") as url, dial(url) as peer:
        for name in made:
            answer = await peer.call("admin", name, msgspec.msgpack.encode(arguments[name]))
            result = msgspec.msgpack.decode(answer)
            assert len(result) == len(parts(forms[name])), name
            if name.endswith("s"):
                row = forms[name].removeprefix("[[").removesuffix("], …], more")
                assert len(result[0][0]) == len(parts(row)), name
