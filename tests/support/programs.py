"""Programs of examples/ that go on until they are ended: started, read, and ended as their operators do it."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.processes import end_group, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
#: Seconds for anything that a program is waited for.
WAIT_S: Final = 60


class Running:
    """A program of Python that runs, and what it has printed on either stream so far."""

    def __init__(self, arguments: Sequence[str], directory: Path, environ: dict[str, str]) -> None:
        self._process = start(
            [sys.executable, "-W", "always::ResourceWarning", *arguments],
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
        )
        self.pid = self._process.pid
        self._output = ""
        self._more = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,))
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        """All that it has printed."""
        with self._more:
            return self._output

    def printed(self, pattern: str) -> re.Match[str]:
        """Wait for a line that it prints."""
        with self._more:
            self._more.wait_for(lambda: re.search(pattern, self._output), WAIT_S)
            found = re.search(pattern, self._output)
            assert found, self._output
            return found

    def end(self) -> int:
        """End it by SIGTERM, and return its status, with all of its output read."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        return status

    def kill(self) -> None:
        """Kill it, and all processes that it has started."""
        if self._process.poll() is None:
            end_group(self._process.pid)
            self._process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            with self._more:
                self._output += line
                self._more.notify_all()


@contextmanager
def running(arguments: Sequence[str], directory: Path, **environ: str) -> Iterator[Running]:
    """A program of Python that runs in a directory for as long as the block."""
    program = Running(arguments, directory, environ)
    try:
        yield program
    except BaseException as error:
        error.add_note(f"the program has printed:\n{program.output}")
        raise
    finally:
        program.kill()
