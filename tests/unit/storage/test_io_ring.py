"""The kernel's ring: what a write leaves in the file, and what an error leaves of the ring."""

from __future__ import annotations

import errno
import gc
import os
import select
import struct
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from haptera.storage import io_ring
from haptera.storage.io_ring import RING_WRITE_MAX, IoRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ring() -> Iterator[IoRing]:
    opened = IoRing.open()
    if opened is None:
        pytest.skip("this system has no io_uring, or forbids it")
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"." * 8192, 0)
    yield descriptor
    os.close(descriptor)


def readable(ring: IoRing, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.parametrize("synced", [True, False])
def test_a_write_stands_in_its_place(ring: IoRing, file: int, *, synced: bool) -> None:
    for number in range(50):  # more than the queues have places
        data = bytes([number]) * (number + 1)
        ring.start(file, data, 100 * number, synced=synced)
        ring.wait()
        assert ring.ended()
        assert os.pread(file, len(data) + 1, 100 * number) == data + b"."


@pytest.mark.parametrize(
    ("synced", "known", "how", "flag"), [(True, True, 16, 2), (True, False, 84, 0), (False, True, 16, 0)]
)
def test_the_kernel_is_asked_to_sync_and_never_to_wait_in_the_call(
    ring: IoRing, file: int, monkeypatch: pytest.MonkeyPatch, *, synced: bool, known: bool, how: int, flag: int
) -> None:
    monkeypatch.setattr(IoRing, "_syncs_writes", lambda *_: known)
    first = ring._number(ring._sq_tail)
    ring.start(file, b"data", 0, synced=synced)
    # The entries of the submission queue, as linux/io_uring.h has them: IORING_OP_WRITE with IOSQE_ASYNC and RWF_DSYNC;
    # or with IOSQE_IO_LINK and IOSQE_CQE_SKIP_SUCCESS, and behind it IORING_OP_FSYNC with IORING_FSYNC_DATASYNC.
    sqes = [ring._sqes[64 * place : 64 * place + 64] for place in (first & 1, first + 1 & 1)]
    assert (list(sqes[0][:2]), int.from_bytes(sqes[0][28:32], sys.byteorder)) == ([23, how], flag)
    linked = how != 16
    assert ring._number(ring._sq_tail) == first + 1 + linked
    if linked:
        assert (list(sqes[1][:2]), int.from_bytes(sqes[1][28:32], sys.byteorder)) == ([3, 16], 1)
    ring.wait()
    assert ring.ended()


def test_a_file_system_is_known_by_its_number(ring: IoRing, file: int) -> None:
    command = ["stat", "-f", "-c", "%t", f"/proc/self/fd/{file}"]
    said = subprocess.run(command, check=True, pass_fds=[file], capture_output=True).stdout
    assert ring._syncs_writes(file) == (int(said, 16) in io_ring._SYNCING)
    reading, writing = os.pipe()
    assert not ring._syncs_writes(writing)
    os.close(reading)
    os.close(writing)
    assert not ring._syncs_writes(writing)


def test_the_sync_is_asked_of_the_file_itself_and_its_error_is_told(ring: IoRing) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb", buffering=0):
        with pytest.raises(OSError, match="Invalid argument"):
            os.fdatasync(writing)
        ring.start(writing, b"data", 0, synced=True)
        ring.wait()
        with pytest.raises(OSError, match="Invalid argument"):
            ring.ended()
        assert os.read(reading, 5) == b"data"
        assert not readable(ring)


def test_the_descriptor_is_readable_from_the_end_of_a_write_until_it_was_told(ring: IoRing, file: int) -> None:
    assert not readable(ring)
    assert not ring.ended()
    ring.start(file, b"data", 0, synced=True)
    assert readable(ring, 60)
    assert ring.ended()
    assert not readable(ring)
    assert not ring.ended()


def test_the_callers_bytes_are_copied_before_the_call_returns(ring: IoRing, file: int) -> None:
    data = bytearray(b"a" * 100)
    ring.start(file, bytes(data), 0, synced=True)
    data[:] = b"b" * 100
    ring.wait()
    assert ring.ended()
    assert os.pread(file, 100, 0) == b"a" * 100


def test_the_largest_write_is_taken_and_one_byte_more_is_refused(ring: IoRing, file: int) -> None:
    largest = os.urandom(RING_WRITE_MAX)
    ring.start(file, largest, 7, synced=True)
    ring.wait()
    assert ring.ended()
    assert os.pread(file, RING_WRITE_MAX, 7) == largest
    with pytest.raises(OSError, match="too long") as refused:
        ring.start(file, largest + b"x", 0, synced=True)
    assert refused.value.errno == errno.EMSGSIZE
    assert not ring.busy


def test_a_write_that_fails_says_why_and_the_next_one_is_told_by_itself(ring: IoRing, file: int) -> None:
    reading = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    ring.start(reading, b"data", 0, synced=True)
    ring.wait()
    with pytest.raises(OSError, match="Bad file descriptor") as failed:
        ring.ended()
    assert failed.value.errno == errno.EBADF
    os.close(reading)
    ring.start(file, b"data", 0, synced=True)
    ring.wait()
    assert ring.ended()
    assert os.pread(file, 5, 0) == b"data."


@pytest.mark.parametrize("known", [True, False])
def test_the_rest_of_a_short_write_is_written_too(
    ring: IoRing, file: int, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    monkeypatch.setattr(IoRing, "_syncs_writes", lambda *_: known)
    place = ring._cqes + 16 * (ring._number(ring._cq_head) & ring._cq_mask)
    ring.start(file, b"0123456789", 10, synced=True)
    ring.wait()
    # As if the kernel had written four bytes only, and had not begun the sync.
    os.pwrite(file, b"......", 14)
    ring._queues[place : place + 12] = struct.pack("=Qi", ring._name << 1, 4)
    assert not ring.ended()
    assert ring.busy
    ring.wait()
    assert ring.ended()
    assert os.pread(file, 20, 5) == b"....." + b"0123456789" + b"....."


LIMITED = """
import os, resource, sys
from haptera.storage.io_ring import IoRing
ring = IoRing.open()
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
ring.start(file, b"x" * 1000, 0, synced=True)
told = []
try:
    while not told:
        ring.wait()
        told += [True] if ring.ended() else []
except OSError as error:
    print(error.errno, ring.busy, os.fstat(file).st_size)
"""


def test_a_write_that_fails_behind_its_first_part_is_an_error(ring: IoRing, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "limited")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"{errno.EFBIG} False 600\n"


def test_a_write_that_cannot_begin_is_not_begun_later(ring: IoRing, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = ring._number(ring._sq_tail)
    with monkeypatch.context() as patched:
        patched.setattr("haptera.storage.io_ring._call", lambda *_: 0)
        with pytest.raises(OSError, match="temporarily unavailable"):
            ring.start(file, b"never", 0, synced=True)
    assert not ring.busy
    assert ring._number(ring._sq_tail) == begun
    ring.start(file, b"data", 100, synced=True)
    ring.wait()
    assert ring.ended()
    assert not readable(ring)
    assert os.pread(file, 105, 0) == b"." * 100 + b"data."


def test_a_write_that_begins_without_its_sync_is_not_taken_for_a_durable_one(
    ring: IoRing, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = io_ring._call
    with monkeypatch.context() as patched:
        patched.setattr(IoRing, "_syncs_writes", lambda *_: False)
        patched.setattr(io_ring, "_call", lambda number, descriptor, _, *rest: call(number, descriptor, 1, *rest))
        with pytest.raises(OSError, match="temporarily unavailable"):
            ring.start(file, b"data", 0, synced=True)
    assert not ring.busy
    with pytest.raises(OSError, match="temporarily unavailable"):  # its buffer may still be read
        ring.start(file, b"more", 0, synced=True)
    assert not ring.ended()


def test_a_write_that_a_signal_keeps_from_being_noted_has_begun(
    ring: IoRing, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = io_ring._call

    def interrupted(*arguments: object) -> None:
        call(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(io_ring, "_call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ring.start(file, b"data", 0, synced=True)
    assert ring.busy
    ring.wait()
    assert ring.ended()
    assert os.pread(file, 5, 0) == b"data."


def test_the_kernel_keeps_the_buffer_of_a_ring_that_was_dropped_until_it_has_written(file: int) -> None:
    opened = IoRing.open()
    if opened is None:
        pytest.skip("this system has no io_uring, or forbids it")
    dropped = weakref.ref(opened)
    opened.start(file, b"data", 0, synced=True)
    del opened
    gc.collect()
    again = dropped()
    assert again is not None
    again.wait()
    assert again.ended()
    again.close()
    del again
    assert dropped() is None


def test_a_forked_child_closes_its_copy_and_leaves_the_write_alone(ring: IoRing, file: int) -> None:
    ring.start(file, b"data", 0, synced=True)
    child = os.fork()
    if child == 0:  # pragma: no cover
        rings = [name for name in os.listdir("/proc/self/fd") if _is_ring(name)]
        os._exit(len(rings) + ring.busy)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ring.wait()
    assert ring.ended()
    assert os.pread(file, 5, 0) == b"data."


def test_a_closed_ring_leaves_no_descriptor() -> None:
    before = sum(map(_is_ring, os.listdir("/proc/self/fd")))
    opened = IoRing.open()
    if opened is None:
        pytest.skip("this system has no io_uring, or forbids it")
    assert sum(map(_is_ring, os.listdir("/proc/self/fd"))) > before
    opened.close()
    opened.close()
    assert sum(map(_is_ring, os.listdir("/proc/self/fd"))) == before


def _is_ring(name: str) -> bool:
    try:
        return "io_uring" in os.readlink(f"/proc/self/fd/{name}")
    except OSError:  # the descriptor that listed the others
        return False


def test_a_system_that_has_no_ring_or_forbids_it_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.storage.io_ring._call", lambda *_: -1)
    assert IoRing.open() is None


def test_a_kernel_that_is_too_old_gives_none_and_keeps_no_descriptor(
    ring: IoRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sum(map(_is_ring, os.listdir("/proc/self/fd")))
    monkeypatch.setattr("haptera.storage.io_ring._FEATURES_NEEDED", 1 << 31)
    assert IoRing.open() is None
    assert sum(map(_is_ring, os.listdir("/proc/self/fd"))) == before


LIMITED_THREADS = """
import os, resource, threading
from haptera.storage.io_ring import IoRing
if os.getuid() == 0:  # no limit holds for it
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=str).start()
    print("not limited")
except RuntimeError:
    before = os.listdir("/proc/self/fd")
    print(IoRing.open(), len(os.listdir("/proc/self/fd")) - len(before))
"""


def test_a_process_that_can_have_no_thread_gets_no_ring() -> None:
    said = subprocess.run([sys.executable, "-c", LIMITED_THREADS], capture_output=True, text=True, check=True).stdout
    if said == "not limited\n":
        pytest.skip("this system does not limit the threads of a user")
    assert said == "None 0\n"
