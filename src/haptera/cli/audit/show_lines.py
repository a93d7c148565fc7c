"""``haptera audit show``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from haptera.cli import output
from haptera.cli.audit.audit_options import OF_AUDIT, audit_options, run
from haptera.cli.exit_codes import DAMAGED, DONE, listed
from haptera.cli.moments import Time
from haptera.cli.transfer import field_escapes

_CODES: Final = {DONE: "the lines are written", DAMAGED: "some lines of the log were changed"}
_HELP: Final = f"""Write the lines of an audit log, oldest first, or some of them: who did what, and when.

A line for each: time, tab, user, tab, address, tab, method, tab, the key or the target, tab, outcome, tab, code. The
user is empty for a caller without one. --json writes the lines as they stand in the log.

A line that was changed is passed over and counted. The chain is checked by `haptera audit verify` alone.

{listed(dict(sorted((OF_AUDIT | _CODES).items())))}
"""


@click.command(help=_HELP)
@click.option("--user", metavar="NAME", help="Lines of this user, and those about it.")
@click.option("--method", metavar="METHOD", help="Lines of this method, such as kv.set, or of a service, such as kv.")
@click.option("--since", type=Time(), metavar="T", help="Lines from T on: 2026-11-28T14:00:00Z, or Unix seconds.")
@audit_options
def command(data_dir: str, as_json: bool, user: str | None, method: str | None, since: int | None) -> int:
    """Read, choose and write."""
    from haptera.node import audit_lines
    from haptera.storage import OsFileSystem

    def wanted(fields: dict[str, Any]) -> bool:
        if user is not None and user not in (fields.get("user"), fields.get("target")):
            return False
        name = str(fields.get("method", ""))
        if method is not None and method not in (name, name.partition(".")[0]):
            return False
        return since is None or _is_since(fields.get("time"), since)

    def work() -> int:
        changed = 0
        for fields in audit_lines(OsFileSystem(), data_dir):
            if fields is None:
                changed += 1
            elif wanted(fields):
                if as_json:
                    output.json_line(fields)
                else:
                    output.line(_line(fields))
        output.flush()
        if changed:
            message = f"{output.counted(changed, 'line')} of the log were changed: see `haptera audit verify`"
            output.error(message, {"message": message}, DAMAGED)
        return DAMAGED if changed else DONE

    return run(work)


def _is_since(time_ms: Any, since: int) -> bool:
    return type(time_ms) is int and time_ms >= since


def _line(fields: dict[str, Any]) -> str:
    about = next((fields[name] for name in ("key", "key_hash", "target") if name in fields), "")
    ends = [fields.get(name, "") for name in ("outcome", "code")]
    columns = [*(fields.get(name, "") for name in ("user", "address", "method")), about, *ends]
    return "\t".join((_time(fields.get("time")), *(field_escapes.written(str(each)) for each in columns)))


def _time(time_ms: Any) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError, TypeError):  # anyone may have made a line with a check
        return field_escapes.written(str(time_ms))
