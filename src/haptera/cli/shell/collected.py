"""The commands between `multi` and `exec`: each is run with a database that sends nothing and notes what it would."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import click

from haptera.cli import output
from haptera.cli.exit_codes import DONE
from haptera.cli.main import COMMANDS
from haptera.cli.txn import PARTS, Part
from haptera.client import Database, transact_form

if TYPE_CHECKING:
    from haptera.cli.open_store import OpenStore, Work

#: The commands that may be collected: those with the name of an operation, and those that are called otherwise.
COLLECTED: Final = transact_form.operations & frozenset(COMMANDS) | {"del", "incr", "persist"}
#: Operations, and compares, of one transaction, as the store takes them (spec/protocol.md, section 7).
PARTS_MAX: Final = 128

#: Calls about several keys, each with the operation that stands for one of them.
_OF_SEVERAL: Final = {"get_many": "get", "delete_many": "delete"}


class _Noted(Exception):  # it is no error
    """The call of a command was noted."""


class Collected:
    """A transaction that is being written down. ``failed`` is the number of its first line that could not be, and
    ``branch`` the part that operations go to.
    """

    def __init__(self) -> None:
        self.branch: str = "then"
        self.parts: dict[str, list[Part]] = {name: [] for name in PARTS}
        self.failed: int | None = None
        self.lines = 0

    def collect(self, store: OpenStore, work: Work) -> int:
        """Note the call that the work of a command makes, which sends nothing."""
        database = Database(cast("Any", _Channel(self)), "transaction", None)

        async def run() -> int:
            return await work(database)

        try:
            return store.run(run())
        except _Noted:
            where = "" if self.branch == "then" else f" {self.branch}"
            output.line(f"queued{where}, {output.counted(len(self.parts[self.branch]), 'operation')}")
            return DONE

    def compare(self, key: str, field: str, operator: str, operand: Any) -> None:
        """Note a condition. Raises ``UsageError``."""
        if self.branch != "then":
            raise click.UsageError("conditions stand before otherwise")
        self._check_room("compare")
        try:
            plain = transact_form.compare(key, field, operator, operand)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        self.parts["compare"].append(Part(self.lines, plain))

    def turn(self) -> None:
        """Note operations for where a condition does not hold, from here on. Raises ``UsageError``."""
        if not self.parts["compare"]:
            raise click.UsageError("otherwise needs a condition before it: compare adds one")
        if self.branch != "then":
            raise click.UsageError("otherwise stands once in a transaction")
        self.branch = "otherwise"

    def note(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Note an operation of one key. Raises ``UsageError``."""
        self._check_room(self.branch)
        options = arguments[-1] if isinstance(arguments[-1], dict) else {}
        if "fence" in options:
            raise click.UsageError("--fence is for the whole transaction: `exec --fence TOKEN`")
        if name == "get" and options:
            raise click.UsageError("a transaction reads the present alone")
        self.parts[self.branch].append(Part(self.lines, transact_form.operation(name, arguments)))

    def _check_room(self, part: str) -> None:
        if len(self.parts[part]) >= PARTS_MAX:
            noun = "compares" if part == "compare" else "operations"
            raise click.UsageError(f"a transaction has {PARTS_MAX} {noun} at most")


class _Channel:
    """The channel of a database whose calls are noted: no other of its members is reached by a collected command."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    async def call(self, method: Any, argument: tuple[Any, ...], *_: object) -> Any:
        one = _OF_SEVERAL.get(method.name)
        if one is not None:
            for key in argument[0]:
                self._collected.note(one, (key,))
        elif method.of_one_key:
            self._collected.note(method.name, argument)
        else:
            raise click.UsageError(f"{method.name} is no operation of a transaction")
        raise _Noted

    @property
    def converting(self) -> Any:
        """Nothing waits for calls that send nothing."""
        return nullcontext()

    @property
    def unclosed(self) -> bool:
        return False
