"""Runs the command line in this process, with its standard streams in memory."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

from haptera.cli.main import main
from tests.support.leaks import leaks


@dataclass
class Ended:
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def run(*args: str, stdin: bytes = b"", terminal: bool = False) -> Ended:
    """Runs ``haptera`` with ``args``; with ``terminal`` its streams are one's."""
    out, err = io.BytesIO(), io.BytesIO()
    kind: Any = Terminal if terminal else io.TextIOWrapper
    streams = {
        "stdin": kind(io.BytesIO(stdin), encoding="utf-8"),
        "stdout": kind(out, encoding="utf-8", write_through=True),
        "stderr": kind(err, encoding="utf-8", write_through=True),
    }
    with mock.patch.multiple(sys, **streams):
        try:
            main(args)
        except SystemExit as ended:
            code = ended.code
        for stream in streams.values():
            stream.flush()
        leaks.see("stdout", out.getvalue(), values=False)
        leaks.see("stderr", err.getvalue())
        return Ended(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue().decode())
