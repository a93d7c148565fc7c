"""Forked children of a test: what they do, and that none of them outlives it."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def in_child(work: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """Run ``work`` in a forked child. Gives its result as text, or its error as ``Class: message``."""
    reader, writer = os.pipe()
    child = _forked(fork)
    if child == 0:
        try:
            try:
                said = str(work())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


@contextmanager
def living_child(fork: Callable[[], int] = os.fork) -> Iterator[int]:
    """A forked child that lives to the end of the block, and does nothing. It is there, with its copy given up, when
    the block begins.
    """
    reader, writer = os.pipe()
    child = _forked(fork)
    if child == 0:
        os.write(writer, b"x")
        while True:
            signal.pause()
    try:
        os.read(reader, 1)
        yield child
    finally:
        os.close(reader)
        os.close(writer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _forked(fork: Callable[[], int]) -> int:
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside other threads. It is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        return fork()
