"""``haptera audit head``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli import output
from haptera.cli.audit.audit_options import OF_AUDIT, audit_options, run
from haptera.cli.exit_codes import DAMAGED, DONE, listed

_HELP: Final = f"""Write the head of an audit log: SEQUENCE:HASH, its last line.

The head stands for every line up to it. Kept at a place that the machine of the node cannot change, it finds out a log
that was written again: `haptera audit verify --head SEQUENCE:HASH`.

{listed(dict(sorted((OF_AUDIT | {DONE: "the head is written", DAMAGED: "the log was changed, and has none"}).items())))}
"""


@click.command(help=_HELP)
@audit_options
def command(data_dir: str, as_json: bool) -> int:
    """Check the log, and write its head."""
    from haptera.node import verify_audit
    from haptera.storage import OsFileSystem

    def work() -> int:
        found = verify_audit(OsFileSystem(), data_dir)
        if not found.sound or found.head is None:
            message = "the log was changed: see `haptera audit verify`" if found.faults else "the log has no whole line"
            output.error(message, {"message": message}, DAMAGED)
            return DAMAGED
        if as_json:
            output.json_line(
                {"head": str(found.head), "sequence": found.head.sequence, "hash": found.head.digest.hex()}
            )
        else:
            output.line(str(found.head))
        return DONE

    return run(work)
