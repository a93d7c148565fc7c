"""The work of a command: how it is found, judged by the login of its side, and made by its handler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.command_table import COMMANDS, HTTP_WORDS, find
from haptera.dialects.resp.error_words import INVALID_KEY, NO_LOGIN, CommandFault
from haptera.dialects.resp.session_hooks import SessionHooks
from haptera.node.commands import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.dialects.resp.steps import Command, Outcome, Step
    from haptera.node.commands import Result, operations
    from haptera.node.frontend import FrontendConnection

#: In place of the work of a command that waits for the ones before it.
HELD: Final = b""


class CommandWork(SessionHooks):
    """The part of a session that has the work of its commands made, and asks the store for those that wait."""

    def __init__(self, connection: FrontendConnection) -> None:
        super().__init__(connection)
        self._come_in = False
        self._stopping = False
        #: A command that waits for the ones before it.
        self._waiting: tuple[Command, list[bytes]] | None = None

    async def ask(self, *ops: operations.Operation) -> list[Outcome]:
        """The results of operations, submitted together, for a `Slow` command."""
        return await self.submitted([Envelope(op) for op in ops])

    async def submitted(self, commands: Sequence[Envelope]) -> list[Outcome]:
        """The results of commands, submitted together, for a `Slow` command."""
        waiter = self.connection.loop.create_future()

        def done(results: list[Result]) -> None:
            if self.on_change:
                self.note_changes([command.op for command in commands], results)
            if not waiter.done():
                waiter.set_result(results)

        submission = self.caller.submit(commands, done)
        try:
            return await waiter  # type: ignore[no-any-return]
        except asyncio.CancelledError:  # no one waits for them any more
            for position in range(len(commands)):
                self.caller.commands.drop(submission, position)
            raise

    def _work_of(self, arguments: list[bytes]) -> Step | None:
        """The work of a command; None where the connection is to end instead."""
        step = self._found_work(arguments)
        if self.silence is not None and step is not None and step is not HELD:
            return self.silence.taken(self, step, is_message=False)  # type: ignore[arg-type]  # it is one
        return step

    def _found_work(self, arguments: list[bytes]) -> Step | None:
        command = COMMANDS.get(arguments[0])
        if (
            command is None
            or (command.arity != len(arguments) and (command.arity > 0 or len(arguments) < -command.arity))
            or command.subcommands is not None
        ):
            found = find(arguments)
            if isinstance(found, bytes):
                if arguments[0].lower() in HTTP_WORDS:
                    self._stopping = True
                    return None
                self.tell_fault()
                return found
            command = found
        if not self._come_in and (refused := self._refused(command)) is not None:
            return refused
        if command.alone:
            self._waiting = (command, arguments)
            return HELD
        return self._step(command, arguments)

    def _look_at_login(self) -> None:
        """A side that needs no login is established before it says anything: Redis has no greeting."""
        if not self._stopping and not self.caller.needs_login:
            self._come_in = True
            self.connection.established()

    def _leave_user(self) -> None:
        if not self._stopping:
            self.caller.on_close(self._leave_user)
            self.tell_other_user()

    def _refused(self, command: Command) -> bytes | None:
        """The reply to a command of a side that has to log in before; None once it need not."""
        if self.caller.needs_login:
            return None if "no_auth" in command.flags else NO_LOGIN
        self._come_in = True
        self.connection.established()
        return None

    def _step(self, command: Command, arguments: list[bytes]) -> Step:
        reply = self.reply_of_gates(command, arguments) if self.gates else None
        return self.step_of(command, arguments) if reply is None else reply

    def step_of(self, command: Command, arguments: list[bytes]) -> Step:
        """The result of the handler of a command, or the error for its arguments."""
        try:
            step = command.handler(self, arguments)  # type: ignore[arg-type]  # it is one
            return self.wrapped(command, arguments, step) if self.wraps else step
        except CommandFault as fault:
            return fault.reply
        except UnicodeDecodeError:
            return INVALID_KEY
