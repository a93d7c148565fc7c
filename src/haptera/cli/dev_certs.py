"""``haptera dev-certs``"""

from __future__ import annotations

import os
import shlex
from typing import Final
from urllib.parse import quote

import click

from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_WRITE, DONE, USAGE

#: Days for which the certificates are valid: long enough for a project, short enough for a lost file.
DAYS: Final = 90
DAYS_MAX: Final = 825
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


@click.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name or an address of the server, beside localhost, 127.0.0.1 and ::1. Several may be given.",
)
@click.option("--client", default="dev", metavar="NAME", show_default=True, help="The name of the client.")
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=DAYS,
    metavar="DAYS",
    show_default=True,
    help="For how long the certificates are valid.",
)
def command(directory: str, names: tuple[str, ...], client: str, days: int) -> int:
    """Make certificates for tests of TLS: an authority, a server and a client.

    DIR gets ca.pem, server.pem, server.key, client.pem and client.key, and is made if it does not exist. Files that are
    there already are never replaced. The client's certificate names it as urn:haptera:client:NAME, and a user of that
    name has to be added to the node. The key of the authority is thrown away.

    These certificates are for tests alone: a store that matters has certificates of an authority that somebody is
    responsible for.
    """
    from haptera.cli import dev_certificates

    if not (client.isascii() and client.isprintable() and client and " " not in client):
        raise click.BadParameter("expected a name of printable ASCII characters without a space", param_hint="--client")
    try:
        made = dev_certificates.make(names, client, days)
    except ValueError as error:
        output.error_line(f"no certificate can have one of the names {', '.join(names)}: {error}")
        return USAGE
    try:
        _write(directory, {name: (content, dev_certificates.FILES[name]) for name, content in made.items()})
    except OSError as error:
        output.error_line(f"cannot make {error.filename or directory}: {error.strerror or error}")
        return CANNOT_WRITE
    for name in made:
        output.line(os.path.join(directory, name))
    output.flush()
    output.to_standard_error("\n".join(map(output.shown, _advice(directory, dev_certificates.CLIENT_URI + client))))
    return DONE


def _write(directory: str, files: dict[str, tuple[bytes, bool]]) -> None:
    """Write all files or none. Raises OSError, for one that exists, too."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    made: list[str] = []
    try:
        for name, (content, secret) in files.items():
            path = os.path.join(directory, name)
            mode = _SECRET_MODE if secret else _PUBLIC_MODE
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            made.append(path)
            with open(descriptor, "wb") as file:
                file.write(content)
    except OSError:
        for path in made:
            os.unlink(path)
        raise


def _advice(directory: str, user: str) -> list[str]:
    """The commands that use the files: a node, the user that the client's certificate stands for, and a client."""
    server, client = _options(directory, "server", "client_ca"), _options(directory, "client", "ca")
    return [
        "For tests alone. A node with them, in another terminal of this directory the client's user, and a client:",
        f"  haptera serve --listen {shlex.quote(f'hapteras://127.0.0.1:7457?{server}')}",
        f"  haptera user add {shlex.quote(user)} --no-password --role admin",
        f"  haptera whoami --url {shlex.quote(f'hapteras://127.0.0.1:7457?{client}')}",
    ]


def _options(directory: str, side: str, authority: str) -> str:
    paths = {"cert": f"{side}.pem", "key": f"{side}.key", authority: "ca.pem"}
    return "&".join(f"{name}={quote(os.path.join(directory, path))}" for name, path in paths.items())
