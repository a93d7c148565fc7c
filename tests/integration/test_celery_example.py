"""The Celery task of examples/: one worker at a time, the next goes on where a killed one stopped, one end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("celery", reason="the development environment is not complete")

import haptera
from haptera.testing import node, proxy
from tests.support.processes import children_of
from tests.support.programs import EXAMPLES, WAIT_S, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PROJECT = EXAMPLES / "celery_reports"
MONTH = "2026-11"
#: Visits of each day.
VISITS = 3
CELERY = ["-m", "celery", "--workdir", str(PROJECT), "-A", "tasks"]


def send(environ: dict[str, str]) -> None:
    """Send a task as an operator does."""
    command = [sys.executable, *CELERY, "call", "tasks.report", "--args", f'["{MONTH}"]']
    subprocess.run(command, env=os.environ | environ, check=True, capture_output=True, timeout=WAIT_S)


async def eventually(find: Callable[[], Awaitable[Any]]) -> Any:
    """The first thing that a function finds."""
    async with asyncio.timeout(WAIT_S):
        while not (found := await find()):
            await asyncio.sleep(0.02)
        return found


async def test_a_report_goes_on_where_a_killed_worker_stopped_and_is_published_once(tmp_path: Path) -> None:
    async with (
        node(storage="memory", listen="tcp") as url,
        proxy(url) as link,
        haptera.connect(url) as db,
    ):
        await db.set_many({f"visits/{MONTH}-{day:02}": str(VISITS) for day in range(1, 29)})
        environ = {"HAPTERA_URL": link.url, "SPOOL_DIR": str(tmp_path), "LOST_AFTER_S": "2"}
        link.delay(0.05, "to_dialer")  # so that a report takes some seconds
        worker = [*CELERY, "worker", "--concurrency", "2", "--loglevel", "INFO"]
        with running(worker, tmp_path, **environ) as program:
            await asyncio.to_thread(program.printed, "ready")
            await asyncio.gather(*(asyncio.to_thread(send, environ) for _ in range(2)))
            await eventually(lambda: db.get(f"reports/{MONTH}/progress"))
            [place] = [entry async for entry in db.scan(prefix=f"reports/{MONTH}/lock/")]
            holder = int(re.findall(r"\d+", place.text)[-1])  # its value names the host and the process
            assert holder in children_of(program.pid)
            os.kill(holder, signal.SIGKILL)
            entry = await eventually(lambda: db.get(f"reports/{MONTH}"))
            assert entry.text == f"{MONTH}: {28 * VISITS} visits in 28 days"
            changes = [event.text async for event in db.history(f"reports/{MONTH}/progress") if event.kind == "put"]
            assert [json.loads(text)["days_done"] for text in changes] == list(range(1, 29))  # none was counted twice
            assert [event.kind async for event in db.history(f"reports/{MONTH}")] == ["put"]
            link.delay(0.0, "to_dialer")
            await asyncio.to_thread(program.printed, "succeeded")
            await asyncio.to_thread(program.end)
        assert "WorkerLostError" in program.output
        for sign in ("unclosed", "never awaited"):
            assert sign not in program.output
