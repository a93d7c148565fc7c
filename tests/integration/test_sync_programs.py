"""Programs that use `haptera.sync` as programs do: Ctrl-C, forked workers, an end without a close, many threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import haptera
import haptera.sync
from haptera.errors import LockLost, WrongLoop
from haptera.testing import node_in_thread
from tests.support.forked import in_child
from tests.support.stores import opened_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 30
CALLERS = 16


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(storage="memory", listen="tcp") as served:
        yield served


def program(code: str, url: str) -> subprocess.Popen[str]:
    """A program that begins with a database ``db`` at ``url``."""
    head = f"import haptera.sync, sys, threading, time\ndb = haptera.sync.connect({url!r})\n"
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", head + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = started.communicate(timeout=WAIT_S)
    return started.returncode, output, errors


def interrupted(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The end of a program that was sent Ctrl-C behind its first line."""
    assert started.stdout is not None
    assert started.stdout.readline() == "waiting\n"
    time.sleep(0.3)  # it says so right before it waits
    started.send_signal(signal.SIGINT)
    return ended(started)


def test_ctrl_c_in_a_wait_is_raised_at_once_and_the_database_goes_on(url: str) -> None:
    code = """
db.set("k", "v")
with db.watch(prefix="never/") as events:
    try:
        print("waiting", flush=True)
        next(events)
    except KeyboardInterrupt:
        print("interrupted")
    print(db.get("k").text)
db.aclose()
print([thread.name for thread in threading.enumerate()])
"""
    assert interrupted(program(code, url)) == (0, "interrupted\nv\n['MainThread', 'haptera-sync']\n", "")


def test_a_claim_that_ctrl_c_interrupts_leaves_the_line(url: str) -> None:
    code = """
try:
    print("waiting", flush=True)
    with db.lock("jobs"):
        print("held")
except KeyboardInterrupt:
    print("interrupted")
deadline = time.monotonic() + 10
while db.count(prefix="jobs/") > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(db.count(prefix="jobs/"))
db.aclose()
"""
    with haptera.sync.connect(url) as db, db.lock("jobs"):
        assert interrupted(program(code, url)) == (0, "interrupted\n1\n", "")


def test_an_exception_of_another_signal_handler_ends_the_wait_and_harms_nothing(url: str) -> None:
    """Trap: the time limits of task queues raise in a signal handler; in a turn of the loop it would be swallowed."""
    code = """
import signal
class TooLong(Exception): pass
def stop(*_): raise TooLong
signal.signal(signal.SIGALRM, stop)
for turn in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + turn % 10 * 0.0001)
        while True:
            db.increment("n")
    except TooLong:
        pass
print(int(db.get("n").text) > 0, db.increment("m"))
db.aclose()
"""
    assert ended(program(code, url)) == (0, "True 1\n", "")


def test_a_program_that_ends_with_an_open_database_ends_at_once_and_is_told(url: str) -> None:
    code = """
db.get("k")
held = db.lock("jobs").__enter__()
watching = threading.Thread(target=lambda: list(db.watch()), daemon=True)
watching.start()
time.sleep(0.1)
"""
    begun = time.monotonic()
    status, output, errors = ended(program(code, url))
    assert (status, output) == (0, "")
    assert errors.count(f"ResourceWarning: unclosed haptera.sync.Database {url}: use it with 'with'") == 1
    assert "Exception" not in errors
    assert "never awaited" not in errors
    assert time.monotonic() - begun < 20


def test_a_daemon_that_waits_when_the_program_ends_is_not_told(url: str) -> None:
    """Its error would be printed, and says nothing: the program has ended."""
    code = """
from haptera.sync.loop_thread import shared
from haptera.sync.open_objects import OpenObject
import asyncio
def wait():
    waiting.set()
    try:
        list(db.watch())
    finally:
        print("told", flush=True)
waiting = threading.Event()
threading.Thread(target=wait, daemon=True).start()
waiting.wait()
db.get("k")
slow = shared.open.add(OpenObject(lambda: "slow", lambda: True, lambda: asyncio.sleep(0.5)))
"""
    status, output, errors = ended(program(code, url))
    assert (status, output) == (0, "")
    assert "Traceback" not in errors


def test_a_database_that_is_dropped_open_is_named_and_closed(url: str) -> None:
    db = haptera.sync.connect(url)
    db.get("k")
    with pytest.warns(ResourceWarning, match=r"unclosed haptera\.sync\.Database haptera://.*'with'"):
        del db
    lost = haptera.sync.connect(url)  # which has opened nothing
    del lost


def test_a_lock_keeps_the_database_that_it_is_of(url: str) -> None:
    lock = haptera.sync.connect(url).lock("jobs")
    with lock as held:
        assert held.held
    with pytest.warns(ResourceWarning, match="unclosed"):
        del lock, held


def test_contextlib_knows_how_to_close_it(url: str) -> None:
    with closing(haptera.sync.connect(url)) as db:
        db.set("k", "v")
    assert db.closed
    with pytest.raises(haptera.ConnectionLost):
        db.get("k")


def test_threads_share_one_connection_and_see_their_own_revisions(url: str) -> None:
    with haptera.sync.connect(url) as db, ThreadPoolExecutor(CALLERS) as threads:
        together = threading.Barrier(CALLERS)

        def work(number: int) -> bool:
            together.wait()
            return all(db.set(f"{number}/{turn}", "x") == db.revision for turn in range(50))

        assert all(threads.map(work, range(CALLERS)))
        assert db.count() == CALLERS * 50
        assert db.status()["connections"] == 1


def test_a_database_from_before_a_fork_works_in_the_child_and_in_the_parent(url: str) -> None:
    with haptera.sync.connect(url) as db:
        db.set("k", "parent")

        def work() -> str:
            db.set("k", "child")
            entry = db.get("k")
            assert entry is not None
            return f"{entry.text} {db.status()['connections']}"

        assert in_child(work) == "child 2"
        assert (entry := db.get("k")) is not None
        assert entry.text == "child"
        assert db.increment("n") == 1


def test_trap_a_copy_from_before_a_fork_stays_as_it_is_in_the_child(url: str) -> None:
    """Nothing keeps it there: a worker would read the flags of its start for ever."""
    with haptera.sync.connect(url) as db, db.cached(prefix="a/") as cache:
        db.set("a/1", "x")
        refused = f"WrongLoop: this copy belongs to process {os.getpid()}"
        assert in_child(lambda: cache.get("a/1")).startswith(refused)
        assert in_child(lambda: "a/1" in cache).startswith(refused)
        assert in_child(lambda: list(cache)).startswith(refused)
        assert in_child(lambda: len(cache)).startswith(refused)
        assert in_child(lambda: f"{cache.ended} {cache}") == "True <haptera.sync.Cache 0 keys, ended>"
        with cache.changes() as changes:
            db.set("a/1", "y")
            assert next(changes).text == "y"
        assert not cache.ended


def test_a_child_that_was_forked_without_pythons_knowledge_has_a_connection_of_its_own(url: str) -> None:
    """As uWSGI forks its workers. The loop's thread sleeps meanwhile, so it holds nothing that the child needs."""
    program = f"""
import ctypes, os, signal, time
import haptera.sync

db = haptera.sync.connect({url!r})
db.set("forked", "before")
time.sleep(0.2)
child = ctypes.PyDLL(None).fork()
if child == 0:
    signal.alarm(20)
    print(db.get("forked").text, db.set("forked", "child") > 0, flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), db.get("forked").text, flush=True)
db.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["before", "True", "0", "child"], "")


def test_a_worker_that_is_forked_ends_in_the_usual_way_without_a_word(url: str) -> None:
    code = """
import os
db.get("k")
child = os.fork()
if child == 0:
    print(db.increment("n"), flush=True)
    db.aclose()
    sys.exit()
os.waitpid(child, 0)
print(db.increment("n"))
db.aclose()
"""
    status, output, errors = ended(program(code, url))
    assert (status, output) == (0, "1\n2\n")
    assert [line for line in errors.splitlines() if "DeprecationWarning" not in line and "fork()" not in line] == []


@pytest.mark.parametrize("closing_hook", ["import atexit; atexit.register(db.close)", "pass"])
def test_a_worker_that_uses_the_database_of_its_parent_ends_without_a_word(closing_hook: str, url: str) -> None:
    """As those of a server that loads the program first and forks then; with and without a hook that closes it."""
    code = f"""
import os
{closing_hook}
child = os.fork()
if child == 0:
    print(db.increment("n"), flush=True)
    sys.exit()
os.waitpid(child, 0)
print("parent")
"""
    assert ended(program(code, url)) == (0, "1\nparent\n", "")
    with haptera.sync.connect(url) as db:
        assert db.status()["connections"] == 1


def test_a_worker_that_drops_the_database_of_its_parent_closes_it_without_a_word(url: str) -> None:
    code = """
import os
child = os.fork()
if child == 0:
    print(db.increment("n"), flush=True)
    del db
    print("dropped", flush=True)
    sys.exit()
os.waitpid(child, 0)
"""
    assert ended(program(code, url)) == (0, "1\ndropped\n", "")


def test_a_call_from_the_thread_of_the_loop_is_an_error_and_no_deadlock(tmp_path: Path) -> None:
    raised: list[BaseException] = []
    with opened_in_thread("embedded", tmp_path) as db, db.cached(prefix="") as cache:
        told = threading.Event()

        def changed(_: haptera.Event) -> None:
            try:
                db.get("k")
            except WrongLoop as error:
                raised.append(error)
            told.set()

        cache.on_change(changed)
        db.set("k", "v")
        assert told.wait(WAIT_S)
    assert len(raised) == 1


def test_the_changes_of_a_copy_are_iterated_over(tmp_path: Path) -> None:
    with opened_in_thread("embedded", tmp_path) as db, db.cached(prefix="a/") as cache:
        with cache.changes() as changes:
            db.set("a/1", "x")
            assert next(changes).key == "a/1"
        assert list(cache) == ["a/1"]
        assert "a/1" in cache
        assert len(cache) == 1


def test_a_lock_that_is_lost_shows_and_the_block_raises_at_its_end(url: str) -> None:
    with haptera.sync.connect(url) as db:
        with pytest.raises(LockLost), db.lock("jobs") as lock:  # noqa: PT012 - the end of the block raises
            [place] = db.scan(prefix="jobs/")
            db.delete(place.key)
            assert isinstance(lock.lost.wait(WAIT_S), LockLost)
            assert not lock.held
            with pytest.raises(haptera.errors.Fenced):
                db.set("report", "late", fence=lock.token)
        with db.lock("jobs", wait=5.0) as again:
            assert again.token > lock.token


def test_a_watch_that_another_thread_closes_ends_its_loop(url: str) -> None:
    with haptera.sync.connect(url) as db, ThreadPoolExecutor(1) as threads:
        with db.watch(prefix="a/") as events:
            db.set("a/1", "x")
            keys: list[str] = []
            first = threading.Event()

            def read() -> None:
                for event in events:
                    keys.append(event.key)
                    first.set()

            reading = threads.submit(read)
            assert first.wait(WAIT_S)
            events.close()
            reading.result(WAIT_S)
        assert keys == ["a/1"]


def test_a_wait_for_the_end_of_a_lease_has_a_time(url: str) -> None:
    with haptera.sync.connect(url) as db, db.lease(5.0) as lease:
        with pytest.raises(TimeoutError):
            lease.lost.wait(0.01)
        lease.close()
        assert lease.lost.wait() is None


def test_a_transaction_runs_its_function_in_the_calling_thread_until_it_commits(url: str) -> None:
    with haptera.sync.connect(url) as db, ThreadPoolExecutor(4) as threads:
        db.set("n", "0")

        def work(_: int) -> None:
            own = threading.get_ident()

            def add(tx: haptera.sync.Transaction) -> None:
                assert threading.get_ident() == own
                entry = tx.get("n")
                assert entry is not None
                tx.set("n", str(int(entry.text) + 1))

            for _turn in range(10):
                db.run(add)

        list(threads.map(work, range(4)))
        assert (entry := db.get("n")) is not None
        assert entry.text == "40"

        def fail(tx: haptera.sync.Transaction) -> None:
            tx.set("n", "lost")
            raise LookupError

        with pytest.raises(LookupError):
            db.run(fail)
        assert (entry := db.get("n")) is not None
        assert entry.text == "40"


def test_a_process_that_only_waits_does_not_wake_up(url: str) -> None:
    code = """
import resource
db.get("k")
time.sleep(0.5)
before = resource.getrusage(resource.RUSAGE_SELF)
time.sleep(2)
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_nvcsw - before.ru_nvcsw)
db.aclose()
"""
    status, output, errors = ended(program(code, url))
    assert (status, errors) == (0, "")
    assert int(output) < 8  # the main thread's own waits among them
