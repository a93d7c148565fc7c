"""Where the master key comes from: a file, the environment, or the output of a command (spec/storage.md, "The key").

The key appears in no error and no log, and is handed to no other process.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from haptera.errors import ConfigurationError
from haptera.node.option_kinds import MASTER_KEY_VARIABLE
from haptera.secret_forms import KEY_DIGITS, size_of_no_key
from haptera.storage import MASTER_KEY_FORM, MasterKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.config import NodeConfig

#: Seconds that the command may take: it may ask another machine, and it does not wait for a person, because it has no
#: input.
COMMAND_TIMEOUT_S: Final = 30.0
#: Bytes of its output. A key has 65, and more than this is another output.
COMMAND_OUTPUT_MAX: Final = 4096

Origin = Literal["generated", "file", "environment", "command"]

#: The value of the variable, once it has been taken out of the environment.
_taken: str | None = None


class MasterKeySource:
    """The place of one node's master key. ``origin`` is the kind of place.

    Raises ConfigurationError where more than one place is given.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._file = config.master_key_file
        self._command = (
            None
            if config.master_key_command is None
            else MasterKeyCommand(config.master_key_command, "master_key_command")
        )
        self._variable = _variable()
        origins: dict[Origin, str] = {}
        if self._file is not None:
            origins["file"] = "master_key_file"
        if self._variable is not None:
            origins["environment"] = MASTER_KEY_VARIABLE
        if self._command is not None:
            origins["command"] = "master_key_command"
        if len(origins) > 1:
            raise ConfigurationError(
                f"{' and '.join(origins.values())} are given: there is one master key, from one place"
            )
        self.origin: Origin = next(iter(origins), "generated")

    def read(self) -> MasterKey | None:
        """The key as the source has it now; None where it is generated and kept beside the data. Blocks.

        Raises ConfigurationError, which shows nothing of what was read.
        """
        if self._file is not None:
            return read_master_key_file(self._file)
        if self._command is not None:
            return self._command.read()
        if self._variable is not None:
            return _parsed(self._variable.encode(errors="replace"), MASTER_KEY_VARIABLE, raw=False)
        return None

    def stop(self) -> None:
        """End a command that runs, from any thread, and begin no other; `read` then raises. Does not wait."""
        if self._command is not None:
            self._command.stop()


class MasterKeyCommand:
    """A command that writes a master key to its standard output. ``name`` is how errors call it."""

    def __init__(self, command: str, name: str) -> None:
        self._command = command
        self._name = name
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None  # while it runs

    def read(self) -> MasterKey:
        """Run the command, and return the key. Blocks. Raises ConfigurationError."""
        return _parsed(self._output(), f"the output of {self._name}")

    def stop(self) -> None:
        """End the command if it runs, from any thread, and begin it no more; `read` then raises. Does not wait."""
        self._stopped = True
        process = self._process
        if process is not None:
            _kill(process)

    def _output(self) -> bytes:
        """The standard output of the command. Its standard error is that of this process."""
        arguments = self._arguments()
        failed = partial(_failed, self._name, arguments[0])
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        process = self._process = _started(arguments, failed)
        try:
            if self._stopped:
                raise failed("is not waited for, because the node stops")
            output = _read(process, deadline)
            if output is None or len(output) > COMMAND_OUTPUT_MAX:
                said = (
                    f"more than {COMMAND_OUTPUT_MAX} bytes"
                    if output
                    else f"nothing within {COMMAND_TIMEOUT_S:g} seconds"
                )
                raise failed(f"wrote {said}")
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise failed(f"did not end within {COMMAND_TIMEOUT_S:g} seconds") from None
        finally:
            self._process = None
            _end(process)
        if status:
            raise failed(f"ended with {f'signal {-status}' if status < 0 else f'the exit code {status}'}")
        return output

    def _arguments(self) -> list[str]:
        try:
            arguments = shlex.split(self._command)
        except ValueError as error:
            raise ConfigurationError(f"{self._name} cannot be read: {error}") from error
        if not arguments:
            raise ConfigurationError(f"{self._name} is empty")
        return arguments


def read_master_key_file(path: str) -> MasterKey:
    """The master key in a file. There is a warning if others than its owner may read it. Raises ConfigurationError."""
    from haptera.transport import read_secret_file  # noqa: PLC0415  # the rules of any file that holds a secret

    name = "master key file"
    return _parsed(read_secret_file(path, name, MASTER_KEY_FORM), f"the {name} {path}")


def _variable() -> str | None:
    """The variable's value. It is taken out of the environment, so that no process that is started later has it."""
    global _taken  # noqa: PLW0603  # the environment is one for the whole process, and so is what was in it
    value = os.environ.pop(MASTER_KEY_VARIABLE, None)
    if value:  # an empty variable is how a shell or a container file says "not set"
        _taken = value
    return _taken


def _parsed(data: bytes, place: str, *, raw: bool = True) -> MasterKey:
    key = MasterKey.parse(data, raw=raw)
    if key is None:
        form = MASTER_KEY_FORM if raw else f"a master key is {KEY_DIGITS} hex digits there"
        raise ConfigurationError(f"{place} cannot be used: it has {size_of_no_key(data)}; {form}")
    return key


def _started(arguments: list[str], failed: Callable[[str], ConfigurationError]) -> subprocess.Popen[bytes]:
    try:
        # A session of its own, so that what the command has started is ended with it.
        return subprocess.Popen(  # noqa: S603  # the operator's own command, without a shell
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no command"
        raise failed(f"cannot be started: {reason}") from error


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """Return the output of a process, up to one byte more than it may; None if that is not at its end in time."""
    assert process.stdout is not None
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= COMMAND_OUTPUT_MAX:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(process.stdout.fileno(), COMMAND_OUTPUT_MAX + 1 - len(output))
            if not piece:
                break
            output += piece
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with those that it has started."""
    assert process.stdout is not None
    process.stdout.close()
    if process.poll() is None:
        _kill(process)
        process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:  # it has ended, and its number may be another's
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _failed(name: str, program: str, reason: str) -> ConfigurationError:
    # The program alone is named: its arguments may hold a secret.
    return ConfigurationError(f"{name}: {program} {reason}")
