"""``haptera decode``"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from haptera.cli import output, standard_streams
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.frame_lines import FrameLines, line_of
from haptera.errors import ConfigurationError
from haptera.peer import read_key_file
from haptera.wire import FrameType, RecordedFrames, RecordingFault, Signer, preshared_keys

if TYPE_CHECKING:
    from haptera.wire import RecordedFrame

_BLOCK_SIZE: Final = 256 * 1024
#: The two directions of a connection.
_FILES_MAX: Final = 2
_SPACE: Final = re.compile(rb"\s+")


@click.command()
@click.argument("files", metavar="[FILE|-]...", nargs=-1)
@click.option("--hex", "as_hex", is_flag=True, help="The recording is in hexadecimal digits; blanks are passed over.")
@click.option(
    "--payload",
    type=click.Choice(["short", "full", "none"]),
    default="short",
    show_default=True,
    help="How much of each payload is shown.",
)
@click.option("--key-file", metavar="FILE", help="Verify the signatures by this pre-shared key; needs both directions.")
@click.option("--json", "as_json", is_flag=True, help="Write each frame as a line of JSON.")
def command(files: tuple[str, ...], as_hex: bool, payload: str, key_file: str | None, as_json: bool) -> int:
    """Show the frames in a recording of a connection; - is standard input, and the default.

    A recording holds the bytes of one direction, as `socat -r FILE -R FILE` writes them. Both may be given, one after
    the other. Each frame has a line: its offset, type, stream, service and method, its flags and metadata, the size of
    its payload, and the payload. The checksums of headers and bodies are verified. Exit code 1: there is a fault, which
    is named with its offset.

    Payloads may hold secrets: --payload none leaves out all but the ones of the handshake, of errors and of the end. A
    proof of identity is never shown. Bytes inside of TLS cannot be read.
    """
    if len(files) > _FILES_MAX:
        raise click.UsageError("a connection has two directions, so at most two files")
    names = files or ("-",)
    signers = _signers(names, key_file, as_hex) if key_file is not None else {}
    code = DONE
    for name in names:
        if len(names) > 1 and not as_json:
            output.line(f"{output.shown(name)}:")
        lines = FrameLines(payload, signers.get(name))
        for found in _recorded(name, as_hex):
            fields = _fault_fields(found) if isinstance(found, RecordingFault) else lines.fields(found)
            if len(names) > 1:
                fields = {"file": name, **fields}
            if "faults" in fields:
                code = NO
            if as_json:
                output.json_line(fields)
            elif isinstance(found, RecordingFault):
                output.line(f"{found.offset:>10}  FAULT: {output.shown(found.reason)}")
            else:
                output.line(line_of(fields))
    return code


def _fault_fields(fault: RecordingFault) -> dict[str, Any]:
    return {"offset": fault.offset, "faults": [fault.reason]}


def _recorded(name: str, as_hex: bool) -> Iterator[RecordedFrame | RecordingFault]:
    """The frames of a recording as they come, and the fault that ends it. Raises ``UsageError``."""
    frames = RecordedFrames()
    for block in _blocks(name, as_hex):
        yield from frames.receive(block)
        output.flush()  # a recording may still be written
        if frames.fault is not None:
            break
    frames.end()
    if frames.fault is not None:
        yield frames.fault


def _blocks(name: str, as_hex: bool) -> Iterator[bytes]:
    try:
        with _open(name) as file:
            rest = b""
            while block := file.read(_BLOCK_SIZE):
                if as_hex:
                    digits = rest + _SPACE.sub(b"", block)
                    whole = len(digits) // 2 * 2
                    rest, block = digits[whole:], binascii.unhexlify(digits[:whole])
                yield block
            if rest:
                raise click.UsageError(f"{name} ends with half of a byte")
    except OSError as error:
        told = "standard input" if name == "-" else name
        raise click.UsageError(f"cannot read {told}: {error.strerror or error}") from None
    except binascii.Error:
        raise click.UsageError(f"{name} holds something else than hexadecimal digits") from None


def _open(name: str) -> BinaryIO:
    return standard_streams.open_input() if name == "-" else open(name, "rb", buffering=0)


def _signers(names: tuple[str, ...], key_file: str, as_hex: bool) -> dict[str, Signer]:
    """The verifier of each direction. Raises ``UsageError``."""
    if len(names) != _FILES_MAX or "-" in names:
        raise click.UsageError(
            "--key-file needs the files of both directions, because their first frames make the keys"
        )
    try:
        secret = read_key_file(key_file)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    first = {}
    for name in names:
        found = next(_recorded(name, as_hex), None)
        if found is not None and not isinstance(found, RecordingFault):
            first[found.frame.type] = (name, found.whole)
    if first.keys() != {FrameType.HELLO, FrameType.WELCOME}:
        raise click.UsageError("--key-file needs one file that begins with HELLO and one that begins with WELCOME")
    (dialer, hello), (acceptor, welcome) = first[FrameType.HELLO], first[FrameType.WELCOME]
    keys = preshared_keys(secret, hello, welcome)
    return {dialer: Signer(keys[0]), acceptor: Signer(keys[1])}
