"""The second process, from the node's side: it is started, told what to do, watched, and ended.

All of it blocks and belongs to a thread of its own, except `stop`. Any end of the process but a snapshot is an error
here, a `SnapshotNotMade`, and no more than that: the node goes on.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from haptera import forks
from haptera.node.snapshots.errors import SnapshotNotMade
from haptera.node.snapshots.messages import (
    LINE_SIZE_MAX,
    Failed,
    FurtherOn,
    Made,
    Order,
    decode_message,
    encode,
)

if TYPE_CHECKING:
    from haptera.storage import Keyring, LogPoint

#: The module that the process runs.
PROGRAM: Final = "haptera.node.snapshots.process"

#: Seconds without a sign of progress after which the process counts as hung. Its longest silence is the sync of a large
#: file, at the lowest priority for the disk.
SILENCE_MAX_S: Final = 600.0

#: Seconds that a process has to be gone, once it has closed its pipes or was killed. It is not gone where it waits in
#: the kernel for a disk that hangs.
END_WAIT_S: Final = 10.0

#: Bytes of standard error that are kept, the last ones: a traceback.
STDERR_SIZE_MAX: Final = 8192

_READ_SIZE: Final = 65536


class SnapshotProcess:
    """One run of the second process, for the data directory ``path``.

    ``command`` stands in the process's place in a test, and ``silence_s`` is its patience.
    """

    def __init__(
        self,
        path: str,
        *,
        command: Sequence[str] | None = None,
        silence_s: float = SILENCE_MAX_S,
    ) -> None:
        #: The text that the process wrote to standard error.
        self.said: str = ""
        self._path = os.path.abspath(path)
        self._command = command
        self._silence_s = silence_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        forks.watch(self)

    @property
    def pid(self) -> int | None:
        """The id of the process while it runs."""
        process = self._process
        return None if process is None else process.pid

    def make(self, point: LogPoint, keyring: Keyring, events_size: int) -> Made:
        """Have a snapshot made of the log up to ``point``, and return when it is the current one, or never will be.
        Its events take at most ``events_size`` bytes.

        Raises SnapshotNotMade.
        """
        keys = [key.secret.hex() for key in keyring.keys]
        order = Order(parent=os.getpid(), keys=keys, point=point, events_size=events_size)
        process = self._process = self._start()
        try:
            if self._stopped:
                raise SnapshotNotMade("the node stops")
            message = self._converse(process, encode(order) + b"\n")
            _wait(process)
        except OSError as error:
            raise SnapshotNotMade(f"the process cannot be spoken to: {error.strerror or error}") from error
        finally:
            self._process = None
            _end(process)
        return self._result(process, message)

    def stop(self) -> None:
        """End the process, from any thread; `make` then raises. Does not wait."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def disown(self, owner: int) -> None:
        """Close the pipes of a forked child, so that the end of the process ``owner`` ends the second one."""
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not a child of this process: never to be waited for
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._command or [*_interpreter(), "-P", "-m", PROGRAM, self._path]
        try:
            # In a session of its own: Ctrl-C at a terminal is the node's to answer, and ends this process through it.
            return subprocess.Popen(  # noqa: S603  # this interpreter, with a module of ours
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment_of_child(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise SnapshotNotMade(f"the process cannot be started: {command[0]}: {error.strerror or error}") from error

    def _converse(self, process: subprocess.Popen[bytes], order: bytes) -> Made | Failed | None:
        """Give the order, and read until the process has closed its ends. Gives its last word, if it had one."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(order)
        except BrokenPipeError:
            pass  # it has ended; its exit code and standard error say more
        said = _Lines()
        with selectors.DefaultSelector() as readable:
            readable.register(process.stdout, selectors.EVENT_READ)
            readable.register(process.stderr, selectors.EVENT_READ)
            heard = time.monotonic()
            while readable.get_map():
                wait = heard + self._silence_s - time.monotonic()
                if wait <= 0:
                    raise SnapshotNotMade(f"the process has made no progress for {self._silence_s:g} seconds")
                for key, _ in readable.select(wait):
                    data = os.read(key.fd, _READ_SIZE)
                    if not data:
                        readable.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self.said = (self.said + data.decode(errors="replace"))[-STDERR_SIZE_MAX:]
                    elif said.take(data):
                        heard = time.monotonic()
        return said.last

    def _result(self, process: subprocess.Popen[bytes], message: Made | Failed | None) -> Made:
        if isinstance(message, Made):
            return message
        if isinstance(message, Failed):
            raise SnapshotNotMade(message.message, message)
        if self._stopped:
            raise SnapshotNotMade("the node stops")
        code = process.returncode
        end = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise SnapshotNotMade(f"the process {end}")


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Give a process that has closed its pipes the time to end by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_WAIT_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the process is gone. Raises SnapshotNotMade."""
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(END_WAIT_S)
    except subprocess.TimeoutExpired:
        raise SnapshotNotMade(f"the process {process.pid} cannot be ended: it waits for the disk") from None


class _Lines:
    """The messages of a process: its bytes cut into lines."""

    def __init__(self) -> None:
        self.last: Made | Failed | None = None
        self._rest = b""

    def take(self, data: bytes) -> bool:
        """Read some bytes. Returns whether a message is whole. Raises SnapshotNotMade for anything but messages."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_SIZE_MAX:
            raise SnapshotNotMade(f"the process writes lines of more than {LINE_SIZE_MAX} bytes")
        for line in lines:
            try:
                message = decode_message(line)
            except (ValueError, RecursionError):  # text that is not UTF-8 is no MsgspecError
                raise SnapshotNotMade(f"the process is another program: it wrote {line[:100]!r}") from None
            if not isinstance(message, FurtherOn):
                self.last = message
        return bool(lines)


def environment_of_child(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: no variable of Haptera, the master key above all, and this one's modules."""
    kept = {name: value for name, value in environ.items() if not name.startswith("HAPTERA_")}
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return kept


def _interpreter() -> list[str]:
    """Python. Raises SnapshotNotMade in a program that has none beside it."""
    if getattr(sys, "frozen", False) or not sys.executable:
        raise SnapshotNotMade("this program has no Python interpreter to run a second process with")
    return [sys.executable]
