"""An example of each command, as the help of the shell shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Lines, each an example of the command that it begins with.
EXAMPLES: Final = (
    "get user/1 user/2",
    "set user/1 'Ada Lovelace' --ttl 3600 --if-absent",
    "del user/1 user/2",
    "exists user/1",
    "rename user/1 user/7 --if-absent",
    "clear --prefix session/ --yes",
    "scan --prefix user/ --limit 20",
    "watch --prefix user/ --initial",
    "history user/1",
    "revert user/1 --to-version 17",
    "diff --from 100 --to 120 --prefix user/",
    "count --prefix user/",
    "txn changes.jsonl",
    "incr visits 5",
    "lock jobs/nightly -- make report",
    "lease grant 30",
    "lease keep 30",
    "lease renew 7",
    "lease revoke 7",
    "lease list",
    "ttl session/4f",
    "expire session/4f 600",
    "persist session/4f",
    "import users.tsv --prefix user/",
    "export users.jsonl --prefix user/",
    "backup create store.backup",
    "user add ada --role writers",
    "role add writers",
    "grant add writers read,write user/*",
    "token create deploy --role writers --ttl 30d",
    "passwd ada",
    "metrics kv_",
    "services",
    """call kv get '["user/1"]'""",
    "maintenance on --reason 'the disk is replaced'",
    "help set",
    "compare stock/7 version = 12",
    "unwatch 1",
    "output json",
    "timing on",
    "whoami",
    "status --json",
    "doctor",
    "snapshot",
    "multi",
    "otherwise",
    "exec",
    "discard",
    "exit",
    "quit",
)


def example_of(command: Sequence[str]) -> str | None:
    """The example of a command, or the first one of a group of commands; None where there is none."""
    beginning = [*command]
    return next((line for line in EXAMPLES if line.split(" ")[: len(beginning)] == beginning), None)
