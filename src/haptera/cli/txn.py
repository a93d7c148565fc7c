"""``haptera txn``"""

from __future__ import annotations

import base64
import codecs
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.import_file import open_input
from haptera.client import Entry, transact_form
from haptera.errors import ServerError

if TYPE_CHECKING:
    from haptera.client import Database, TransactResult

#: Bytes of a file: a message has 16 MiB, and a byte of a value takes six in JSON at most.
FILE_SIZE_MAX: Final = 96 * 1024 * 1024

PARTS: Final = ("compare", "then", "otherwise")


class Part(NamedTuple):
    """A compare, or an operation with its arguments, and the number of its line."""

    line: int
    plain: tuple[Any, ...]


@click.command()
@click.argument("file", metavar="FILE|-")
@fence_option
@client_options()
def command(file: str, fence: int | None, client: Client) -> int:
    """Make the operations of FILE as one change, if all its conditions hold. All of them are made, or none.

    Each line is a JSON object, with an array under one name:

    \b
      {"compare": ["stock", "version", "=", 7]}
      {"compare": ["offer", "exists", "=", true]}
      {"compare": ["state", "value", "!=", "closed"]}
      {"then": ["set", "order", "17", {"if": "absent"}]}
      {"then": ["increment", "stock", -1]}
      {"otherwise": ["get", "stock"]}

    If all compares hold, the operations under "then" are made in their order, else those under "otherwise". An
    operation is get, exists, ttl, set, delete, increment, rename, expire, get_and_expire or get_and_delete, its key,
    its other arguments, and an object of options: if_version, if, return_previous, ttl_ms, keep_ttl, initial,
    if_absent, persist. A compare is of version (0: no entry), value or exists. A value is text, or {"base64": "..."}
    for bytes. Empty lines and lines that begin with # are passed over.

    The first line of the result is "then" or "otherwise" and the new version, if there is one; then each operation has
    a line: its name, its key and its result. Exit code 1: a compare does not hold, or an operation failed, which the
    error names by its line.
    """  # noqa: D301  # the sign of click for lines that stay as they are
    try:
        raw = open_input(file)
    except OSError as error:
        name = "standard input" if file == "-" else file
        raise click.UsageError(f"cannot read {name}: {error.strerror or error}") from None
    with raw:
        parts = read_parts(raw)
    return client.run(lambda db: transact(db, parts, fence, client), change=True)


def read_parts(file: BinaryIO) -> dict[str, list[Part]]:
    """The compares and operations of a file. Raises `click.UsageError`, with the line, for anything else."""
    data = bytearray()
    while piece := file.read(1024 * 1024):
        data += piece
        if len(data) > FILE_SIZE_MAX:
            raise click.UsageError(f"the file is larger than {output.size(FILE_SIZE_MAX)}")
    parts: dict[str, list[Part]] = {name: [] for name in PARTS}
    for number, line in enumerate(bytes(data).removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            name, plain = _part(line)
        except (TypeError, ValueError, RecursionError) as error:
            raise click.UsageError(f"line {number}: {error}") from None
        parts[name].append(Part(number, plain))
    return parts


def _part(line: bytes) -> tuple[str, tuple[Any, ...]]:
    found = json.loads(line.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    if not isinstance(found, dict) or len(found) != 1 or not found.keys() <= set(PARTS):
        raise ValueError(f"an object has one member: {', '.join(PARTS)}")
    ((name, elements),) = found.items()
    if not isinstance(elements, list):
        raise ValueError(f"the member {name} is an array")
    values = [_value(each) for each in elements]
    if name != "compare":
        if len(values) < 2:
            raise ValueError("an operation is a name, a key, and the other arguments")
        return name, transact_form.operation(values[0], values[1:])
    if len(values) != 4:
        raise ValueError("a compare is a key, version, value or exists, an operator, and what is compared")
    return name, transact_form.compare(*values)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object. A name that is given twice is refused, because one of the two would be dropped."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has the same member twice")
    return members


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _value(element: Any) -> Any:
    """An element of a line; bytes of one that has base64."""
    if not isinstance(element, dict) or set(element) != {"base64"}:
        return element
    if not isinstance(element["base64"], str):
        raise ValueError("base64 is text")
    return base64.b64decode(element["base64"], validate=True)


async def transact(db: Database, parts: dict[str, list[Part]], fence: int | None, client: Client) -> int:
    """Make the operations of ``parts`` as one change, and write its results."""
    compare, then, otherwise = ([part.plain for part in parts[name]] for name in PARTS)
    try:
        result = await db.transact(compare=compare, then=then, otherwise=otherwise, fence=fence)
    except ServerError as error:
        _name_line(error, parts)
        raise
    branch = "then" if result.succeeded else "otherwise"
    if client.as_json:
        results = [output.entry_fields(each) if isinstance(each, Entry) else each for each in result.results]
        output.json_line({"succeeded": result.succeeded, "version": result.version, "results": results})
    else:
        _show(branch, result, parts[branch])
    return DONE if result.succeeded else NO


def _name_line(error: ServerError, parts: dict[str, list[Part]]) -> None:
    """Have the error of a part say which line it is."""
    branch, place = error.details.get("branch", "compare"), error.details.get("operation", error.details.get("compare"))
    if branch in parts and isinstance(place, int) and place < len(parts[branch]):
        error.details["line"] = parts[branch][place].line


def _show(branch: str, result: TransactResult, parts: list[Part]) -> None:
    output.line(branch if result.version is None else f"{branch}\t{result.version}")
    for part, each in zip(parts, result.results, strict=True):
        name, (key, *_) = part.plain
        columns = [name, output.shown(key)]
        match each:
            case Entry():
                columns.append(output.shown(each.value))
            case bool():
                columns.append("true" if each else "false")
            case int() | float():
                columns.append(str(each))
            case _:
                pass  # a key without an entry
        output.line("\t".join(columns))
