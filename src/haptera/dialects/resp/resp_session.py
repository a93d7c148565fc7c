"""One connection that speaks RESP: its commands are done in their order, and their replies leave in it.

A command sees the ones before it on its connection. Consecutive writes are submitted together, and further ones while
those are with the disk; a read waits until the writes before it are applied, because the store answers reads from its
applied state. Consecutive reads are asked together, and answered at once. A `Slow` command runs alone.

No command is done whose reply there may be no room for: while as much waits to be written as may, the rest of a
pipeline stays in the bytes that have been read, and then in the sockets.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp.bounds import (
    COMMANDS_IN_FLIGHT_MAX,
    COMMANDS_PER_TURN_MAX,
    IN_FLIGHT_SIZE_MAX,
    READS_TOGETHER_MAX,
)
from haptera.dialects.resp.command_table import COMMANDS, RUNS, WRITE_RUNS
from haptera.dialects.resp.command_work import HELD as _HELD
from haptera.dialects.resp.command_work import CommandWork
from haptera.dialects.resp.error_words import CommandFault, protocol_error, words_of
from haptera.dialects.resp.held_bytes import HeldBytes
from haptera.dialects.resp.judged_changes import decide
from haptera.dialects.resp.reply_encoding import error
from haptera.dialects.resp.reply_group import ReplyGroup
from haptera.dialects.resp.request_parser import ProtocolFault, RequestParser
from haptera.dialects.resp.resp_state import PLAIN_LISTENER
from haptera.dialects.resp.steps import Judged, Many, ReadRun, Slow
from haptera.node.commands import Envelope, operations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from haptera.dialects.resp.resp_state import RespListener, RespState
    from haptera.dialects.resp.steps import Step, WriteRun
    from haptera.errors import Failure
    from haptera.node.frontend import FrontendConnection

_logger = logging.getLogger(__name__)

_FAILED: Final = error("ERR the command has failed within the server")
_NO_ROOM: Final = error("OOM too many unfinished requests are held")


class RespSession(CommandWork):
    """The session of one connection (`haptera.node.frontend.DialectSession`).

    ``protocol`` is the version that its replies have, and ``null`` and ``null_array`` are those of that version.
    ``state`` is shared by the connections of the node.
    """

    def __init__(
        self, connection: FrontendConnection, state: RespState, listener: RespListener = PLAIN_LISTENER
    ) -> None:
        super().__init__(connection)
        self.listener = listener
        self.state = state
        state.sessions[self.caller.number] = self
        self._parser = RequestParser()
        self._held = HeldBytes(connection, self._parser)
        #: The commands that are taken together next.
        self._open: ReplyGroup | None = None
        #: The groups whose replies are not all written, in their order; bounded by COMMANDS_IN_FLIGHT_MAX.
        self._groups: deque[ReplyGroup] = deque()
        self._in_flight = 0
        self._writes = 0  # groups of writes that are not applied
        self._received = 0  # bytes since nothing was in flight: no command in flight is larger
        #: The work that a handler has given and that waits for the commands before it.
        self._waiting_step: Step | None = None
        self._slow: asyncio.Task[None] | None = None
        self._at_rest = False  # whether a command that comes now may be done without a look at any other
        self._submitted = True  # whether it is to be asked if enough is in flight
        self._advancing = False
        self._scheduled = False
        self._parsed = False
        connection.call_soon(self._look_at_login)
        self.caller.on_close(self._leave_user)

    # -- for the commands -------------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Say how many bytes of its reply a `Slow` command holds; False where that is more than there may be."""
        return self._held.hold_reply(size)

    def keep(self, change: int) -> None:
        """Say that a part of the dialect keeps so many bytes more for the connection, or less."""
        self._held.kept += change

    def forget_login(self) -> None:
        """Ask for a proof of identity before the next command, where the node asks for one."""
        self._come_in = False

    def close_when_answered(self) -> None:
        """Take no command any more, and close the connection behind the last reply."""
        self._stopping = True

    # -- called by the connection -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes, and do the commands in them."""
        if self._stopping:
            return
        self._received += len(data)
        if not self._at_rest or self.connection.full:
            self._parser.feed(data)
        elif (arguments := self._parser.feed_or_take(data)) is not None:
            self._take_lone(arguments)
            return
        self._advance()

    def resume(self) -> None:
        """There is room for replies."""
        self._deliver()
        self.tell_room()
        self._advance()

    def refusal(self, reason: Failure) -> bytes:
        """The last words of the connection."""
        return words_of(reason)

    def stop(self) -> None:
        """Take no command any more; the ones that are in flight are answered."""
        self._stopping = True
        self._advance()

    def lost(self) -> None:
        """The connection is gone: take back its writes that are not with the disk."""
        self._stopping = True
        self.state.sessions.pop(self.caller.number, None)
        if self._slow is not None:
            self._slow.cancel()
        for group in self._groups:
            group.take_back(self.caller.commands)
        self._groups.clear()
        self.leave()

    # -- the commands, one after the other --------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do commands as far as they have come, and there is room for them."""
        if self._advancing:
            return
        self._advancing = self._submitted = True
        try:
            blocked = self._run()
            self._flush()
        finally:
            self._advancing = False
        if self._stopping:
            if not self._groups and self._slow is None:
                self.connection.close()
        elif self._held.is_told or self.connection.full or not self._parser.idle:
            parsed, self._parsed = self._parsed, False
            if not self._held.tell(self._groups, blocked=blocked, parsed=parsed) and not self._groups:
                self._stopping = True
                self.connection.write(_NO_ROOM)
                self.connection.close()
        self._at_rest = not self._groups and self._is_quiet

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing waits but for the results of what is in flight."""
        return (
            self._come_in
            and self._parser.idle
            and not self._held.is_told
            and (self._slow or self._waiting or self._waiting_step) is None
            and not self._stopping
        )

    def _take_lone(self, arguments: list[bytes]) -> None:
        """Do a command that came by itself while nothing was in flight, the usual case without a pipeline."""
        step = self._work_of(arguments)
        if type(step) is tuple and isinstance(step[0], operations.Read):
            op, shape = step
            self._received = 0
            self.connection.write(shape(self.caller.read_one(op), self))
            if not self._held.is_told:  # else a part of the dialect has kept something
                return
        elif step is not None and step is not _HELD:
            is_operation = type(step) is tuple
            self._take(step)
            if is_operation:  # a change, and nothing else is to be done for it now
                self._flush()
                self._at_rest = not self._groups
                return
        self._advance()

    def _run(self) -> bool:
        """Do commands until no whole one is there; True where one has to wait."""
        self._left = COMMANDS_PER_TURN_MAX
        while not self._stopping:
            if self._submitted:  # else nothing has come to those that are in flight
                self._submitted = False
                if self._has_enough():
                    self._submitted = True
                    return True
            step: Step | None
            if self._waiting_step is not None:
                step, self._waiting_step = self._waiting_step, None
            elif self._waiting is not None:
                self._flush()
                if self._groups:
                    return True
                command_with_arguments, self._waiting = self._waiting, None
                step = self._step(*command_with_arguments)
                if self.silence is not None:
                    step = self.silence.taken(self, step, is_message=command_with_arguments[0].group == "pubsub")
            elif self._left > 0:
                if self._may_run and self._take_run():
                    continue
                self._left -= 1
                step = self._next()
                if step is None:
                    return False
                if step is _HELD:
                    continue
            else:
                self._continue_later()
                return True
            if not self._take(step):
                return True
        return False

    def _has_enough(self) -> bool:
        """Whether as much is in flight, or waits to be written, as may."""
        return (
            self.connection.full
            or self._slow is not None
            or self._in_flight >= COMMANDS_IN_FLIGHT_MAX
            or (self._received > IN_FLIGHT_SIZE_MAX and bool(self._groups))
        )

    def _next(self) -> Step | None:
        """The work of the next command, or the error in its place; None where no whole one is there."""
        if not self._come_in:
            self._parser.limited = self.caller.needs_login
        try:
            arguments = self._parser.next()
        except ProtocolFault as fault:
            self._add(protocol_error(str(fault)))
            self._stopping = True
            return None
        self._parsed = self._parsed or arguments is not None
        if not arguments:  # an empty line is passed over
            return None if arguments is None else _HELD
        return self._work_of(arguments)

    def _take(self, step: Step) -> bool:
        """Go on with what a handler has given; False where it has to wait for the commands before."""
        kind = type(step)
        if kind is tuple:
            op: operations.Operation
            op, part = step  # type: ignore[misc, assignment]
            writes = isinstance(op, operations.Write)
            group = self._open
            if group is None or group.writes is not writes or not group.envelopes:
                return self._begin((op,), (part,), writes, step)
            group.envelopes.append(Envelope(op))
            group.parts.append(part)
            if not writes and len(group.parts) >= READS_TOGETHER_MAX:
                self._flush()
            return True
        if kind is bytes:
            self._add(step)  # type: ignore[arg-type]
            return True
        if kind is Many:
            ops = step.operations  # type: ignore[union-attr]
            return self._begin(ops, ((len(ops), step.shape),), isinstance(ops[0], operations.Write), step)  # type: ignore[union-attr]
        if kind is Judged:
            step = Slow(partial(decide, self, step))  # type: ignore[arg-type]
        self._flush()
        if self._groups:
            self._waiting_step = step
            return False
        self._slow = self.connection.loop.create_task(self._run_slow(step))  # type: ignore[arg-type]
        return False

    @property
    def _may_run(self) -> bool:
        """Whether no part of the dialect has to see each command by itself."""
        return self._come_in and not (self.gates or self.wraps) and self.silence is None

    def _take_run(self) -> bool:
        """Do the next commands at once, if they are of one kind; False where they are to be done one by one."""
        parser, group = self._parser, self._open
        after_writes = self._groups or (group is not None and group.writes)
        columns = parser.run(WRITE_RUNS if after_writes else RUNS, min(self._left, READS_TOGETHER_MAX))
        if columns is None:
            return False
        make = COMMANDS[columns[0][0]].run
        assert make is not None
        try:
            run = make(columns)
        except UnicodeDecodeError:  # of one key
            parser.refuse_run()
            return False
        if isinstance(run, ReadRun):
            if group is not None:
                self._flush()
                if self._groups:  # the connection is full
                    return True
            self._read_run(run)
        else:
            self._begin(run.operations, (run.shape,) * len(run.operations), True, run)
        parser.pass_run()
        self._left -= len(columns[0])
        self._parsed = True
        return True

    def _read_run(self, run: ReadRun) -> None:
        """Answer reads, behind which nothing is in flight."""
        results = self.caller.get_each(run.keys)
        self._submitted = True
        self._received = 0
        replies = run.joined(results)
        if replies is not None:
            self.connection.write(replies)
            return
        group = ReplyGroup(self)
        group.parts = [run.shape] * len(results)
        group.results = results
        self._groups.append(group)
        self._in_flight += len(results)
        self._deliver()

    def _begin(
        self, ops: Sequence[operations.Operation], parts: tuple[Any, ...], writes: bool, step: Step | WriteRun
    ) -> bool:
        """Put operations into the open group if it is of their kind, or begin one with them."""
        group = self._open
        if group is not None and group.writes is not writes and group.envelopes:
            self._flush()
            group = None
        if self._writes and not writes:
            self._waiting_step = step  # type: ignore[assignment]  # a run writes
            return False
        if group is None:
            group = self._open = ReplyGroup(self)
        group.writes = writes
        group.envelopes += map(Envelope, ops)
        group.parts += parts
        if not writes and len(group.parts) >= READS_TOGETHER_MAX:
            self._flush()
        return True

    def _add(self, reply: bytes) -> None:
        """Put a reply behind those of the commands before."""
        group = self._open
        if group is None:
            group = self._open = ReplyGroup(self)
        group.parts.append(reply)
        if len(group.parts) >= READS_TOGETHER_MAX:
            self._flush()

    def _flush(self) -> None:
        """Submit the commands that were taken together."""
        group = self._open
        if group is None:
            return
        self._open = None
        self._groups.append(group)
        self._in_flight += len(group.parts)
        self._submitted = True
        if not group.envelopes:
            self.answered(group, [])
            return
        if group.writes:
            self._writes += 1
        group.submission = self.caller.submit(group.envelopes, group.done)

    def answered(self, group: ReplyGroup, results: list[Any]) -> None:
        """All operations of a group have their results."""
        group.results = results
        if group.writes and group.envelopes:
            self._writes -= 1
            if self.on_change:
                self.note_changes([envelope.op for envelope in group.envelopes], results)
        self._deliver()
        if self._advancing:
            return
        if self._is_quiet:
            self._at_rest = not self._groups
        else:
            self._advance()

    def _deliver(self) -> None:
        """Write the replies that are there, in their order, as far as there is room."""
        groups, connection = self._groups, self.connection
        while groups and not connection.full:
            group = groups[0]
            if group.results is None:
                return
            if group.write(self):
                groups.popleft()
                self._in_flight -= len(group.parts)
        if not groups:
            self._received = 0

    async def _run_slow(self, step: Slow) -> None:
        try:
            reply = await step.run()
        except CommandFault as fault:
            reply = fault.reply
        except Exception:  # its defect is the command's: the connection goes on
            _logger.exception("command_failed")
            reply = _FAILED
        self.connection.guarded(self._end_slow, reply)

    def _end_slow(self, reply: bytes) -> None:
        self._slow = None
        self._held.hold_reply(0)
        self.connection.write(reply)
        self._advance()

    def _continue_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.connection.call_soon(self._continue)

    def _continue(self) -> None:
        self._scheduled = False
        self._advance()
