"""``haptera serve``: a node in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import click

from haptera import defaults
from haptera.cli import output
from haptera.cli.exit_codes import (
    CANNOT_APPLY,
    CANNOT_WRITE,
    CONFIGURATION,
    DAMAGED,
    DONE,
    IN_USE,
    NEWER_FORMAT,
    OF_SERVE,
    OUTDATED,
    WRONG_KEY,
    listed,
)
from haptera.cli.redis_command import redis_command
from haptera.cli.remedies import remedy
from haptera.cli.startup import has_terminal, stop_signals
from haptera.errors import ConfigurationError, CorruptionError, HapteraError
from haptera.node import OPTIONS, NodeConfig, flag_of, load, misspelt
from haptera.version import __version__

if TYPE_CHECKING:
    from haptera.node import AdminPassword, Node, NodeServer

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_DEFAULTS: Final = NodeConfig()

#: The commands that the greeting shows.
_FIRST_COMMANDS: Final = ("set greeting hello", "get greeting", "status")


def _options(function: Callable[..., int]) -> Callable[..., int]:
    """Add a flag for every option of a node, and --config."""
    for name, option in reversed(OPTIONS.items()):
        default = option.show(getattr(_DEFAULTS, name))
        help_ = f"{option.meaning} [{default}]" if default and not option.is_switch else option.meaning
        how: dict[str, Any] = (
            {"is_flag": True, "flag_value": True, "default": None}
            if option.is_switch
            else {"multiple": option.several, "metavar": option.value}
        )
        function = click.option(flag_of(name), help=help_, **how)(function)
    return click.option("--config", metavar="FILE", help="A TOML file with these options, their names with _ for -.")(
        function
    )


_HELP: Final = f"""Serve a store from a data directory, in the foreground.

Each option can also be set by a variable of the environment, such as HAPTERA_DATA_DIR, or in the file of --config. A
flag wins over the environment, and the environment over the file. The node always listens on the local socket
<data-dir>/{defaults.SOCKET_NAME}, too.

On SIGTERM or Ctrl-C the node answers the requests under way and exits with 0; a second signal ends it at once. A
terminal that closes sends SIGHUP, which acts as SIGTERM does, unless it was ignored from the start, as under nohup.
Any other SIGHUP has a node with TLS or with --external-users-file read those files again.

A four-digit number in parentheses is the code of the error that the other side gets.

{listed(OF_SERVE)}
"""


@click.command(help=_HELP)
@_options
def command(**flags: Any) -> int:
    """Serve until a signal or a failure."""
    from haptera.node import AdminPassword, configure_logging, raise_limit, return_large_blocks

    try:
        config = load({**flags, "listen": flags["listen"] or None}, os.environ)
        password = AdminPassword.take(config)
    except ConfigurationError as error:
        output.error_line(str(error))
        return CONFIGURATION
    configure_logging(config.log_level, config.log_format)
    for variable, meant in misspelt(os.environ):
        _logger.warning("unknown_variable", extra={"variable": variable, "did_you_mean": meant})
    raise_limit()
    return_large_blocks()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Serving(config, password).run())


class _Serving:
    """One run of the command, from opening the data directory to the exit code."""

    def __init__(self, config: NodeConfig, password: AdminPassword) -> None:
        self._config = config
        self._password = password
        self._stop = asyncio.Event()
        #: The signals that ask to stop. A hang-up is not among them under nohup.
        self._stops = stop_signals()
        self._had_terminal = has_terminal()
        self._reloading: asyncio.Task[bool] | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in self._stops:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            return await self._serve()
        except (HapteraError, OSError) as error:
            return self._report(error)

    async def _serve(self) -> int:
        from haptera.dialects import DIALECTS
        from haptera.node import Node, NodeServer, check_listening, check_password, make_administrator, parse_listener

        check_listening(self._config, DIALECTS)
        check_password(self._config, self._password)
        node = await self._unless_stopped(Node.open(self._config))
        if node is None:
            return DONE
        server = NodeServer(node, DIALECTS)
        try:
            node.freeze()
            made = await make_administrator(node, self._password)
            if made is not None:
                _show_password(self._config.admin_user, made)
            # Before the log says that it listens: who reads that may send one at once.
            config = self._config
            if config.external_users_file is not None or any(parse_listener(url).tls for url in config.listen):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hang_up, server)
            await server.start()
            self._announce(node, server)
            await self._unless_stopped(_first(node.failed))
            _logger.info("stopping", extra={"connections": node.connections, "revision": node.revision})
            await server.drain(self._config.drain_timeout)
        finally:
            await server.aclose()
            await node.aclose()
        _logger.info("stopped", extra={"revision": node.revision})
        return DONE if not node.failed.done() else self._report(node.failed.result())

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of `work`, or None if the node is told to stop before it has ended."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        return None if task.cancelled() else await task

    def _on_hang_up(self, server: NodeServer) -> None:
        """A terminal that has closed stops the node; a SIGHUP of another sender says that files were replaced."""
        if signal.SIGHUP in self._stops and self._had_terminal and not has_terminal():
            self._on_signal(signal.SIGHUP)
        # A file that is replaced while it is read is found by the next look at it.
        elif self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(server.reload_files())

    def _on_signal(self, number: int) -> None:
        # A second signal means that someone does not want to wait. A second SIGHUP means nothing: a terminal that
        # closes sends one, and so does its shell. An answered write is durable however the process ends.
        if self._stop.is_set() and number != signal.SIGHUP:
            os._exit(128 + number)
        self._stop.set()

    def _announce(self, node: Node, server: NodeServer) -> None:
        """A greeting for a person at the terminal; programs read the log's `listening`."""
        if self._config.log_format == "json":
            return
        durability = {
            "sync": "sync (an answered write is on the disk)",
            "os": "os (an answered write is with the operating system; power loss may take it)",
        }[self._config.durability]
        program, target, signing = _program(), _client_options(server, self._config), self._config.signing_key_file
        redis = redis_command(server.urls, None if self._config.no_auth else self._config.admin_user)
        tried = [] if target is None else [f"{program} {each}{target}" for each in _FIRST_COMMANDS]
        tried += [] if redis is None else [redis]
        lines = [
            f"Haptera {__version__} serves {node.data_dir}",
            *(f"  listening   {url}" for url in server.urls),
            f"  durability  {durability}",
            f"  encryption  AES-256-GCM; {_master_key(node)}",
            *([f"  signing     every frame, with the key in {signing}"] if signing is not None else []),
            *(
                f"  signing     every frame at {url}, with keys of each login"
                for url in self._signed_by_exchange(server)
            ),
            f"  users       {_who_may(self._config, server)}",
            *(["In another terminal:"] if tried else []),
            *(f"  {each}" for each in tried),
            "Ctrl-C answers the requests under way and stops.",
        ]
        output.to_standard_error("\n".join(map(output.shown, lines)))

    def _signed_by_exchange(self, server: NodeServer) -> list[str]:
        """The addresses whose frames the keys of a login sign."""
        from haptera.dialects import DIALECTS
        from haptera.node import read_listened

        pairs = zip(self._config.listen, server.urls, strict=False)  # the local socket is behind them
        return [url for configured, url in pairs if read_listened(configured, DIALECTS).signs_by_exchange]

    def _report(self, error: BaseException) -> int:
        """Say in one line why the node cannot serve, and give the exit code that stands for it."""
        code, next_step = exit_code(error), remedy(error, self._config.data_dir)
        if self._config.log_format == "json":
            told = {"help": next_step} if next_step else {}
            _logger.error("cannot_serve", extra={"exit_code": code, "reason": str(error), **told})
        else:
            output.error(str(error), {"message": str(error)}, help_=next_step)
        return code


def _show_password(user: str, password: str) -> None:
    """Show the password that was generated for the first administrator, this once, on standard output."""
    try:
        output.line(f"The administrator of this store is {user}. Its password is not shown again: {password}")
        output.flush()
    except output.OutputError:
        help_ = "haptera passwd at the socket in the data directory gives it another one"
        _logger.warning("password_not_shown", extra={"user": user, "help": help_})


def _who_may(config: NodeConfig, server: NodeServer) -> str:
    """The line of the greeting about the users that may come in."""
    if config.no_auth:
        return "anyone who can reach it may do everything (no_auth)"
    if server.local_socket is None:
        return "each has to log in, also from this machine"
    return "each has to log in, but for your own account of this machine at the socket in the data directory"


def _master_key(node: Node) -> str:
    """Where the master key is, for the greeting."""
    if node.master_key_path is not None:
        return f"the master key is beside the data, in {node.master_key_path}"
    origin = {"file": "a file", "environment": "the environment", "command": "a command"}[node.master_key_origin]
    return f"the master key {node.master_key_id.hex()} is from {origin}"


def exit_code(error: BaseException) -> int:
    """The exit code for the trouble that kept a node from serving."""
    from haptera.errors import DirectoryInUse, MissingKey, NewerFormat, OutdatedCopy, WrongKey
    from haptera.node import ApplyFailed

    match error:
        case ConfigurationError():
            return CONFIGURATION
        case DirectoryInUse():
            return IN_USE
        case CorruptionError():
            return DAMAGED
        case WrongKey() | MissingKey():
            return WRONG_KEY
        case NewerFormat():
            return NEWER_FORMAT
        case ApplyFailed():
            return CANNOT_APPLY
        case OutdatedCopy():
            return OUTDATED
        case _:
            return CANNOT_WRITE


def _program() -> str:
    """How to call this command line in another terminal: by name where the shell finds it, else by path."""
    if shutil.which("haptera") is not None:
        return "haptera"
    script = os.path.join(os.path.dirname(sys.executable), "haptera")
    if not os.access(script, os.X_OK):
        return f"{shlex.quote(sys.executable)} -m haptera"
    try:
        beneath = os.path.relpath(script)
    except FileNotFoundError:  # the present directory was removed
        return shlex.quote(script)
    return shlex.quote(script if beneath.startswith(os.pardir) else beneath)


def _client_options(server: NodeServer, config: NodeConfig) -> str | None:
    """The option by which client commands find this node from here; empty where they look first, and None where it
    listens for dialects alone.
    """
    from haptera.client import default_url
    from haptera.node import parse_listener
    from haptera.transport import TCP_SCHEME

    try:
        found = default_url()
    except ConfigurationError:  # another user's node is here: ours has to be named
        found = ""
    local = server.urls[-1] if server.local_socket is not None else None
    if found in server.urls and (found == local or (config.no_auth and config.signing_key_file is None)):
        return ""
    url = next((each for each in server.urls if parse_listener(each).protocol == TCP_SCHEME), None)
    if url is None:
        return None
    # The socket in the data directory is not signed and asks its owner for nothing: the shortest way in from here.
    if config.signing_key_file is not None:
        url = local or f"{url}?signed=psk&key_file={quote(os.fsencode(os.path.abspath(config.signing_key_file)))}"
    elif not config.no_auth:
        url = local or url.replace("://", f"://{quote(config.admin_user, safe='')}@", 1)
    return f" --url {shlex.quote(url)}"


async def _first(future: asyncio.Future[Any]) -> None:
    await asyncio.wait([future])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
