"""Every measurement of bench/README.md, one after the other, with the options that all of them have."""

from __future__ import annotations

import sys

from bench import (
    attacks,
    backup_restore,
    cafe,
    codec,
    copies,
    expiry,
    idle,
    leases,
    memory,
    memory_after,
    queues,
    redis_compare,
    replay,
    resp,
    scans,
    snapshots,
    startup,
    storage,
    sync_compare,
    tls,
    transactions,
    watches,
)
from bench.messaging import compare as messaging


def main(argv: list[str]) -> int:
    """Run them all; return the worst exit status."""
    measurements = (
        redis_compare.main,
        sync_compare.main,
        resp.main,
        storage.main,
        transactions.main,
        queues.main,
        codec.main,
        messaging.main,
        replay.main,
        backup_restore.main,
        snapshots.main,
        startup.main,
        idle.main,
        memory.main,
        memory_after.main,
        attacks.main,
        scans.main,
        expiry.main,
        leases.main,
        tls.main,
        watches.main,
        copies.main,
        cafe.main,
    )
    return max(measure(argv) for measure in measurements)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
