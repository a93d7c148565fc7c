"""What a node is told: `haptera serve`'s options, from flags, the environment and a TOML file.

A flag wins over the environment (``HAPTERA_`` and the option's name in capitals), that over the file given by
``--config`` or ``HAPTERA_CONFIG``, that over the default. Every value is checked by the same rule wherever it came
from, and an error names both the option and where it was set. A name in the file that is no option is refused: a
misspelt option must not be one that silently does nothing.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from haptera.connection.config import (
    CONNECTION_BUDGET,
    FRAME_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    IDLE_FRAMES_BURST,
    IDLE_FRAMES_PER_S,
    MESSAGE_SHARE_MAX,
    MESSAGE_TIMEOUT_S,
    PROCESS_BUDGET,
)
from haptera.errors import ConfigurationError
from haptera.node.options import OPTIONS
from haptera.wire.payload import LIMITS

__all__ = ["OPTIONS", "Durability", "NodeConfig", "load"]

LISTEN_DEFAULT = "haptera://127.0.0.1:7457"
DATA_DIR_DEFAULT = "./haptera-data"
SEGMENT_SIZE_DEFAULT = 64 * 1024 * 1024

CONFIG_FILE_SIZE_MAX = 1024 * 1024
"""A configuration is a page of text; a larger file is the wrong file."""

Durability = Literal["sync", "os"]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one node; every field is an option of `haptera serve`, described in `options.OPTIONS`.

    Times are in seconds, sizes in bytes. Raises ConfigurationError for values that do not go together.
    """

    data_dir: str = DATA_DIR_DEFAULT
    durability: Durability = "sync"
    segment_size: int = SEGMENT_SIZE_DEFAULT
    listen: tuple[str, ...] = (LISTEN_DEFAULT,)  # none for an embedded node
    drain_timeout: float = 30.0
    max_connections: int = 10_000
    max_half_open: int = 256
    signing_key_file: str | None = None
    compression: Literal["auto", "zstd", "none"] = "auto"
    handshake_timeout: float = HANDSHAKE_TIMEOUT_S
    ping_interval: float = 30.0
    idle_timeout: float = 0.0
    write_timeout: float = 30.0
    frame_timeout: float = FRAME_TIMEOUT_S
    message_timeout: float = MESSAGE_TIMEOUT_S
    max_frame: int = LIMITS["max_frame"].default
    max_message: int = LIMITS["max_message"].default
    max_streams: int = LIMITS["max_streams"].default
    stream_window: int = LIMITS["stream_window"].default
    connection_window: int = LIMITS["connection_window"].default
    connection_budget: int = CONNECTION_BUDGET
    process_budget: int = PROCESS_BUDGET
    flood_burst: int = IDLE_FRAMES_BURST
    flood_rate: float = IDLE_FRAMES_PER_S
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        if self.max_message * MESSAGE_SHARE_MAX > self.connection_budget:
            raise ConfigurationError(
                f"max_message is {self.max_message}, more than a quarter of connection_budget, {self.connection_budget}"
            )
        if self.connection_budget > self.process_budget:
            raise ConfigurationError(
                f"connection_budget is {self.connection_budget}, more than process_budget, {self.process_budget}"
            )


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> NodeConfig:
    """The configuration from `flags` (option name to value, None where not given), `environ` and the TOML file.

    `flags` may hold `config`, the file's path. Raises ConfigurationError, naming the option and where it was set.
    """
    values: dict[str, Any] = {}
    path = flags.get("config") or environ.get("HAPTERA_CONFIG")
    if path:
        for name, value in _read_file(path).items():
            values[name] = _check(name, value, f"{name} in {path}")
    for name in OPTIONS:
        variable = "HAPTERA_" + name.upper()
        # An empty variable is how a shell or a container file says "not set".
        if environ.get(variable):
            values[name] = _check(name, environ[variable], variable)
    for name in OPTIONS:
        if flags.get(name) is not None:
            values[name] = _check(name, flags[name], "--" + name.replace("_", "-"))
    return NodeConfig(**values)


def _read_file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(CONFIG_FILE_SIZE_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"--config {path}: {error.strerror or error}") from error
    if len(data) > CONFIG_FILE_SIZE_MAX:
        raise ConfigurationError(f"--config {path}: larger than {CONFIG_FILE_SIZE_MAX} bytes; is it the right file?")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: not a TOML file: {error}") from error
    for name in table:
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean {close[0]}?" if close else "haptera serve --help lists them, with - for _"
            raise ConfigurationError(f"{name!r} in {path}: no such option; {hint}")
    return table


def _check(name: str, value: Any, source: str) -> Any:
    try:
        return OPTIONS[name](value)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from error
