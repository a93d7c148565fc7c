"""Forked children of a test: what they do, and that none of them outlives it."""

from __future__ import annotations

import ctypes
import os
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds after which a child ends by itself: a test that was killed leaves none that holds its runner's pipes.
LIVES_S = 60

_STACK_SIZE = 64 * 1024


def in_child(work: Callable[[], object]) -> str:
    """Run ``work`` in a forked child. Gives its result as text, or its error as ``Class: message``."""
    reader, writer = os.pipe()
    child = _forked()
    if child == 0:
        signal.alarm(LIVES_S)
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
def living_child() -> Iterator[int]:
    """A forked child that lives to the end of the block, and does nothing. It is there, with its copy given up, when
    the block begins.
    """
    reader, writer = os.pipe()
    child = _forked()
    if child == 0:
        signal.alarm(LIVES_S)
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


@contextmanager
def child_of_a_library() -> Iterator[int]:
    """A child that a C library forked, to the end of the block: Python was not asked, and runs nothing in it.

    It is in ``sleep`` from its first instruction on. Python itself could not run there: another thread may have held
    its lock, and is not in the child.
    """
    library = ctypes.CDLL(None)
    stack = ctypes.create_string_buffer(_STACK_SIZE)
    top = ctypes.c_void_p((ctypes.addressof(stack) + _STACK_SIZE) & ~15)  # it grows downwards
    child: int = library.clone(ctypes.cast(library.sleep, ctypes.c_void_p), top, int(signal.SIGCHLD), LIVES_S)
    assert child > 0
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _forked() -> int:
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside other threads. It is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
