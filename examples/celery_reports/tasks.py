"""A Celery task that is done by one worker at a time, goes on where a lost worker stopped, and publishes its end once.

Start a node with `haptera serve`, then run this in the same directory (or with HAPTERA_URL set):

    celery --workdir examples/celery_reports -A tasks worker
    celery --workdir examples/celery_reports -A tasks call tasks.report --args '["2026-11"]'

The broker is a directory here, so that nothing else has to run; CELERY_BROKER_URL names another.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import worker_process_shutdown

import haptera.errors
import haptera.sync

SPOOL = Path(os.environ.get("SPOOL_DIR") or Path(tempfile.gettempdir()) / f"celery-reports-{os.getuid()}")
#: Seconds after which another worker may go on with the report of one that is gone.
LOST_AFTER_S = float(os.environ.get("LOST_AFTER_S", "10"))
DAYS = 28

for each in ("queue", "control", "results"):
    (SPOOL / each).mkdir(parents=True, exist_ok=True, mode=0o700)

app = Celery("tasks", broker=os.environ.get("CELERY_BROKER_URL", "filesystem://"), backend=f"file://{SPOOL}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": f"{SPOOL}/queue",
        "data_folder_out": f"{SPOOL}/queue",
        "control_folder": f"{SPOOL}/control",
    },
    task_acks_late=True,  # a task is done when it has ended, and not when it was taken
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)

# Made before the pool forks. The first call connects: so each child has a connection of its own.
db = haptera.sync.connect()


@dataclass
class Progress:
    """The count so far."""

    days_done: int = 0
    visits: int = 0


progress = db.typed(Progress)


@worker_process_shutdown.connect
def close(**_: Any) -> None:
    """Close the connection of a pool process that ends."""
    db.close()


@app.task(bind=True, max_retries=None)
def report(self: Task, month: str) -> str:
    """Count the visits of a month, day by day. Of two tasks for one month the second waits for the first."""
    try:
        with db.lock(f"reports/{month}/lock", ttl=LOST_AFTER_S, wait=0) as lock:
            return count_visits(month, lock.token)
    except haptera.errors.WaitTimeout:
        raise self.retry(countdown=LOST_AFTER_S / 4) from None  # another worker has it
    except (haptera.errors.LockLost, haptera.errors.Fenced, haptera.ConnectionLost) as error:
        raise self.retry(countdown=LOST_AFTER_S / 4, exc=error) from None


def count_visits(month: str, token: int) -> str:
    """Count from where the last worker stopped. The token refuses each change of a worker that has lost the lock."""
    if (published := db.get(f"reports/{month}")) is not None:
        return published.text
    key = f"reports/{month}/progress"
    entry = progress.get(key)
    done, version = (entry.value, entry.version) if entry else (Progress(), 0)
    while done.days_done < DAYS:
        visits = visits_of(month, done.days_done + 1)
        done = Progress(done.days_done + 1, done.visits + visits)
        version = progress.set(key, done, if_version=version, fence=token)
    text = f"{month}: {done.visits} visits in {done.days_done} days"
    db.transact(then=[("set", [f"reports/{month}", text]), ("delete", [key])], fence=token)
    return text


def visits_of(month: str, day: int) -> int:
    """Return the visits of one day, which the servers of the site count in the store."""
    entry = db.get(f"visits/{month}-{day:02}")
    return int(entry.text) if entry else 0
