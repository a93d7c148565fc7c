"""A program that runs while a lock is held: in a process group of its own, so that it can be ended whole.

Under a terminal its group is made the foreground one, as a shell makes that of a job: it reads the terminal, and Ctrl-C
and Ctrl-Z are its own. When Ctrl-Z stops it, this process stops too, and goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class HeldProcess:
    """A running program. ``held`` says whether it may run on: it is asked when the program was stopped and goes on."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], held: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = held
        self._own_group = os.getpgrp()
        self._terminal = _terminal_of(self._own_group)
        self._process = subprocess.Popen(command, env=environment, process_group=0)  # noqa: S603 - it is to be run
        #: Its exit code as `subprocess` has it: below 0 is a signal.
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._give_terminal_to(self._process.pid)
        threading.Thread(target=self._wait, name="haptera-lock", daemon=True).start()

    def send(self, number: int) -> None:
        """Send a signal to its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def terminate(self, grace: float) -> None:
        """End its group: with SIGTERM, and after ``grace`` seconds with SIGKILL."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        await asyncio.wait([self.ended], timeout=grace)
        self.send(signal.SIGKILL)
        await self.ended

    def _wait(self) -> None:
        """Wait for its end and its stops, in a thread of its own."""
        while True:
            _, status = os.waitpid(self._process.pid, os.WUNTRACED)
            with suppress(RuntimeError):  # the loop is closed
                if os.WIFSTOPPED(status):
                    self._loop.call_soon_threadsafe(self._stop, os.WSTOPSIG(status))
                    continue
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._loop.call_soon_threadsafe(self._end, self._process.returncode)
            return

    def _end(self, code: int) -> None:
        self._give_terminal_to(self._own_group)
        if not self.ended.done():
            self.ended.set_result(code)

    def _stop(self, number: int) -> None:
        """Stop with the program, and go on with it."""
        if self._terminal is None or self.ended.done():
            return
        if number in {signal.SIGTTIN, signal.SIGTTOU} and os.tcgetpgrp(self._terminal) == self._process.pid:
            self.send(signal.SIGCONT)  # it wanted the terminal before it had it
            return
        self._give_terminal_to(self._own_group)
        os.killpg(self._own_group, signal.SIGTSTP)
        if os.tcgetpgrp(self._terminal) == self._own_group:
            self._give_terminal_to(self._process.pid)
        if self._held():
            self.send(signal.SIGCONT)

    def _give_terminal_to(self, group: int) -> None:
        if self._terminal is not None:
            with _undisturbed(), suppress(OSError):  # the group has ended, or the terminal is gone
                os.tcsetpgrp(self._terminal, group)


def _terminal_of(group: int) -> int | None:
    """The descriptor of the terminal of standard input, if ``group`` is in its foreground."""
    try:
        descriptor = sys.stdin.fileno()
        return descriptor if os.tcgetpgrp(descriptor) == group else None
    except (OSError, ValueError):
        return None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Within the block the terminal takes settings from a group in the background."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
