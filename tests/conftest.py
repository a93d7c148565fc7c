"""The things that every test can rely on: reproducible randomness, short paths for sockets, and ports of its own.

And how many workers run them, and who ends a test that hangs.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hypothesis
import pytest

from haptera import access_rules
from haptera.security import verifiers
from tests.support.leaks import leaks
from tests.support.processes import children, end_group
from tests.support.watchdog import Watchdog

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell has what it runs in the background ignore Ctrl-C, and nohup a hang-up: the processes that a test ends so would
# inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Look for planted secrets in all that each test leaves."""
    config.pluginmanager.register(leaks, "haptera_leaks")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `tests/interaction`."""
    parser.addoption(
        "--rewrite", action="store_true", help="write the transcripts of tests/interaction as they are now"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Have more workers than cores: of a worker's time a third is a wait for another process, a disk or a second."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + max(1, cores // 4)


_watchdog = Watchdog()


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Have the watchdog end a test that hangs; a test that asks for another method than a thread has that."""
    if settings.method != "thread":
        return None
    _watchdog.begin(item, settings)
    return True


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer() -> None:
    """Tell the watchdog that a test has ended."""
    _watchdog.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Says with each failure how to run it again with the same randomness."""
    report = yield
    if report.failed:
        # pytest-randomly seeds `random` with it before each test; without that plugin there is nothing to say.
        seed = getattr(item.config.option, "randomly_seed", None)
        if seed is not None:
            again = f"make test ARGS='-n0 --randomly-seed={seed} \"{item.nodeid}\"'"
            report.sections.append(("to run it again", again))
    return report


@pytest.fixture(autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Ends what a test has started and not ended, with all that belongs to it, and fails the test for it."""
    before = children()
    yield
    left = children() - before
    for process in left:
        end_group(process)
    assert not left, f"{len(left)} processes were left behind"


@pytest.fixture(autouse=True)
def the_handlers_of_signals_are_left_as_they_were() -> Iterator[None]:
    """Fails a test after which a signal goes somewhere else: a later one would wait for a Ctrl-C without end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert after == before, "signals have other handlers than before"


class _Freezes:
    """Knows whether objects are frozen: to count them takes a look at each, which is too long for each test."""

    def __init__(self) -> None:
        self._freeze, self._unfreeze = gc.freeze, gc.unfreeze
        self.asked: list[str] = []
        patch.object(gc, "freeze", self._noted_freeze).start()
        patch.object(gc, "unfreeze", self._noted_unfreeze).start()

    def _noted_freeze(self) -> None:
        self.asked.append("freeze")
        self._freeze()

    def _noted_unfreeze(self) -> None:
        self.asked.append("unfreeze")
        self._unfreeze()

    def begin(self) -> None:
        """Take all objects that there are out of the collector's sight."""
        gc.collect()
        self._freeze()

    def restore(self) -> None:
        """Have frozen what `begin` froze, and nothing that a test has frozen and left."""
        if self.asked:
            self._unfreeze()
            self.begin()
            self.asked.clear()


_freezes = _Freezes()


def pytest_collection_finish() -> None:
    """Take the 12,000 tests out of the collector's sight: a sixth of the suite's time went into looks at them."""
    _freezes.begin()


@pytest.fixture(autouse=True)
def the_garbage_collector_is_left_as_it_was() -> Iterator[None]:
    """Fails a test after which Python collects less garbage: a later one would take gigabytes."""
    before = gc.isenabled(), gc.get_threshold()
    yield
    after = gc.isenabled(), gc.get_threshold()
    frozen = _freezes.asked[-1:] == ["freeze"]
    gc.enable()
    gc.set_threshold(*before[1])
    _freezes.restore()
    assert after == before, "the garbage collector is not as it was"
    assert not frozen, "objects are frozen that were not before"


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have passwords of new users hashed with the fewest rounds that a verifier may have.

    For tests whose nodes run in this process, and whose subject is another one than the work of a password: a login
    costs a millisecond in place of 0.13 s.
    """
    monkeypatch.setattr(access_rules, "ITERATIONS", access_rules.ITERATIONS_MIN)
    monkeypatch.setattr(verifiers, "ITERATIONS", access_rules.ITERATIONS_MIN)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory whose path leaves room for the name of a Unix socket, of which a kernel takes 104 bytes."""
    path = Path(tempfile.mkdtemp(prefix="ht-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def unused_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens just now.

    For tests of what happens when nobody answers. A listener asks for port 0 and says which one it got.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
