"""``haptera audit verify``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.audit.audit_options import OF_AUDIT, audit_options, described, run
from haptera.cli.exit_codes import DAMAGED, DONE, NO, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node import AuditVerification, Fault

_HELP: Final = f"""Check every line of an audit log, and name each that was changed, put in, taken out or moved.

Each line names the one before it. So a change shows, unless every line behind it was made again, or the last lines were
cut off: that shows where the log is compared with a head that was kept elsewhere, by `haptera audit head` or from
`haptera status`. Give it as --head. A node keeps one in its own log: --noted compares with that, too. It needs the
master key of the directory, and as much memory as the node.

{
    listed(
        dict(
            sorted(
                (
                    OF_AUDIT
                    | {
                        DONE: "the chain is whole",
                        NO: "it is whole, and the line of a --head is not kept any more",
                        DAMAGED: "the log was changed",
                    }
                ).items()
            )
        )
    )
}
"""


@click.command(help=_HELP)
@click.option("--head", "heads", metavar="SEQUENCE:HASH", multiple=True, help="A line that must be there. Repeatable.")
@click.option("--noted", is_flag=True, help="The line that the store has noted must be there, too.")
@click.option(
    "--master-key-file",
    metavar="FILE",
    envvar="HAPTERA_MASTER_KEY_FILE",
    help="For --noted: the master key of the directory. HAPTERA_MASTER_KEY can hold its digits.",
)
@click.option(
    "--master-key-command",
    metavar="COMMAND",
    envvar="HAPTERA_MASTER_KEY_COMMAND",
    help="For --noted: a command that writes the master key to its standard output.",
)
@audit_options
def command(
    data_dir: str,
    heads: Sequence[str],
    noted: bool,
    master_key_file: str | None,
    master_key_command: str | None,
    as_json: bool,
) -> int:
    """Verify, and report."""
    from haptera.node import Head, NodeConfig, noted_head, verify_audit
    from haptera.storage import OsFileSystem

    try:
        asked = [Head.parse(text) for text in heads]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--head") from error

    def work() -> int:
        config = NodeConfig(data_dir=data_dir, master_key_file=master_key_file, master_key_command=master_key_command)
        # Before the files are read: a node that runs meanwhile notes lines that are on the disk.
        kept = noted_head(OsFileSystem(), config) if noted else None
        found = verify_audit(OsFileSystem(), data_dir, asked if kept is None else [*asked, kept])
        if as_json:
            output.json_line(_fields(found) | {"noted": None if kept is None else str(kept)})
        else:
            if noted:
                output.line(
                    "the store has noted no line" if kept is None else f"the store has noted line {kept.sequence}"
                )
            for text in _lines(found):
                output.line(output.shown(text))
        if not found.sound:
            return DAMAGED
        return NO if found.unknown else DONE

    return run(work)


def _lines(found: AuditVerification) -> list[str]:
    lines = [described(found), *(f"changed: {_place(fault)}" for fault in found.faults)]
    if found.omitted:
        lines.append(f"{output.counted(found.omitted, 'more finding')}")
    if found.torn is not None:
        lines.append(f"torn line: {_place(found.torn)}")
    lines += [f"unknown: line {head.sequence} is not kept any more" for head in found.unknown]
    lines.append("the chain is whole" if found.sound else "the log was changed")
    return lines


def _place(fault: Fault) -> str:
    return f"{fault.file} line {fault.line} at byte {fault.offset}: {fault.problem}"


def _fields(found: AuditVerification) -> dict[str, Any]:
    return {
        "directory": found.path,
        "sound": found.sound,
        "files": found.files,
        "lines": found.lines,
        "first": found.first,
        "head": None if found.head is None else str(found.head),
        "faults": [_fault_fields(fault) for fault in found.faults],
        "faults_omitted": found.omitted,
        "torn": None if found.torn is None else _fault_fields(found.torn),
        "unknown_heads": [str(head) for head in found.unknown],
    }


def _fault_fields(fault: Fault) -> dict[str, Any]:
    return {"file": fault.file, "line": fault.line, "offset": fault.offset, "problem": fault.problem}
