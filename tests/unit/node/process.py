"""`haptera serve` as a process of its own, driven by its signals and read by its logs."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.leaks import leaks
from tests.support.processes import end_group, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ANY_PORT = "haptera://127.0.0.1:0"


class Serving:
    """A node in another process. `url` is its first address, once `ready` has returned; `files` is its `ulimit -n`.

    It asks for proofs of identity with `auth` alone.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        environ: Mapping[str, str] | None = None,
        files: int | None = None,
        auth: bool = False,
    ) -> None:
        self.url = ""
        self.events: list[dict[str, Any]] = []
        base = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
        defaults = ["--listen", ANY_PORT, "--log-format", "json", "--segment-size", "1048576"]
        if not auth:
            defaults.append("--no-auth")
        limited = [] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
        self.process = start(
            [*limited, sys.executable, "-m", "haptera", "serve", "--data-dir", str(data_dir), *defaults, *options],
            env={**base, **(environ or {})},
            cwd=data_dir.parent,
        )

    def read_event(self) -> dict[str, Any] | None:
        """The next event of its log; None at the end."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if not line:
            return None
        leaks.see("the log of a node", line)
        event: dict[str, Any] = json.loads(line)
        self.events.append(event)
        return event

    def ready(self) -> Serving:
        """Wait until it listens."""
        while (event := self.read_event()) is not None:
            if event["event"] == "listening":
                self.url = event["url"]
                return self
        raise AssertionError(f"it ended with {self.process.wait()}: {self.events}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Read what is left of its log, and give the exit code."""
        while self.read_event() is not None:
            pass
        return self.process.wait()

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


@contextmanager
def serving(
    data_dir: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    files: int | None = None,
    auth: bool = False,
) -> Iterator[Serving]:
    """A process that is gone when the block is left."""
    process = Serving(data_dir, *options, environ=environ, files=files, auth=auth)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            end_group(process.process.pid)
        process.process.communicate()
