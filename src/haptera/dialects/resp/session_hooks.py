"""All that parts of the dialect know of a session: its connection, the form of its replies, and the places where they
take part in its work: transactions, subscriptions, tracking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haptera.dialects.resp.reply_encoding import NULL, NULL_ARRAY, push
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haptera.dialects.resp.held_bytes import HeldBytes
    from haptera.dialects.resp.reply_encoding import Version
    from haptera.dialects.resp.silenced_replies import LeftOutReplies
    from haptera.dialects.resp.steps import Command, Gate, Step, Wrap
    from haptera.node.commands import Result
    from haptera.node.frontend import FrontendConnection


class SessionHooks:
    """The callbacks that parts of the dialect have put into one session.

    ``gates`` are asked before each command, and ``wraps`` may change what its handler gives. ``on_fault`` is called
    for a command that is unknown or has too few or too many arguments, ``on_change`` with the version of each
    change that the connection makes, ``at_room`` when there is room for replies again, ``on_other_user`` right
    before it has another user. ``at_end`` is called when the connection is gone, and when it is reset.
    ``attributes`` are for the parts themselves.
    """

    _held: HeldBytes

    def __init__(self, connection: FrontendConnection) -> None:
        self.connection = connection
        self.set_protocol(2)
        #: The replies that are left out, where the client does not want them.
        self.silence: LeftOutReplies | None = None
        self.gates: tuple[Gate, ...] = ()
        self.wraps: tuple[Wrap, ...] = ()
        self.on_fault: tuple[Callable[[], None], ...] = ()
        self.on_change: tuple[Callable[[int], None], ...] = ()
        self.on_other_user: tuple[Callable[[], None], ...] = ()
        self.at_room: list[Callable[[], None]] = []
        self.at_end: list[Callable[[], None]] = []
        self.attributes: dict[str, Any] = {}
        #: Whether EXEC asks for the steps of its commands.
        self.in_transaction = False
        self._left = 0  # commands that this turn may still do

    def spend(self, commands: int) -> None:
        """Count a command as so many more ones of its turn, because it takes as long as they do."""
        self._left -= commands

    def has_room(self, size: int) -> bool:
        """Whether the process may hold so many bytes more for a reply that is made at once."""
        found = self._held.hold_reply(size)
        self._held.hold_reply(0)
        return found

    def set_protocol(self, version: Version) -> None:
        """Have replies in a version of the protocol, from the next on."""
        self.protocol: Version = version
        self.null: bytes = NULL[version]
        self.null_array: bytes = NULL_ARRAY[version]

    @property
    def caller(self) -> Any:
        """The other side (`haptera.node.frontend.DialectCaller`)."""
        return self.connection.caller

    def now_ms(self) -> int:
        """The time by which keys expire, in Unix milliseconds."""
        return int(self.caller.facts.read_time_ms())

    def push(self, items: Sequence[bytes]) -> None:
        """Send a message that answers no command, between two replies."""
        self.connection.write(push(items, self.protocol))

    def reply_of_gates(self, command: Command, arguments: list[bytes]) -> bytes | None:
        """The reply in the place of a command that is not run now; None to go on."""
        for gate in self.gates:
            reply = gate(command, arguments)
            if reply is not None:
                return reply
        return None

    def wrapped(self, command: Command, arguments: list[bytes], step: Step) -> Step:
        """The step that is taken in the place of what a handler has given."""
        for wrap in self.wraps:
            step = wrap(command, arguments, step)
        return step

    def tell_fault(self) -> None:
        """Tell the parts that a command could not be found."""
        for tell in self.on_fault:
            tell()

    def tell_room(self) -> None:
        """Tell the parts that there is room for replies again."""
        for call in tuple(self.at_room):
            call()

    def tell_other_user(self) -> None:
        """Tell the parts that the user of the connection is another one from now on."""
        for call in self.on_other_user:
            call()

    def note_changes(self, ops: Iterable[operations.Operation], results: Iterable[Result]) -> None:
        """Tell ``on_change`` the versions that changes have made."""
        for op, result in zip(ops, results, strict=True):
            at = op.version_at if isinstance(op, operations.Write) else None
            version = result[at] if at is not None and isinstance(result, tuple) else None
            if version is not None:
                for note in self.on_change:
                    note(version)

    def leave(self) -> None:
        """Have all parts forget what they keep for the connection: it is gone, or reset."""
        callbacks, self.at_end = self.at_end, []
        for callback in callbacks:
            callback()
