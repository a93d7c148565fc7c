"""What a node is told: `haptera serve`'s options, from flags, the environment and a TOML file.

A flag wins over the environment (``HAPTERA_`` and the option's name in capitals), that over the file given by
``--config`` or ``HAPTERA_CONFIG``, that over the default. Every value is checked by the same rule wherever it came
from, and an error names both the option and where it was set. A name in the file that is no option is refused: a
misspelt option must not be one that silently does nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from haptera.errors import ConfigurationError
from haptera.node.logging import FORMATS, LEVELS

LISTEN_DEFAULT = "haptera://127.0.0.1:7457"
DATA_DIR_DEFAULT = "./haptera-data"

LISTENERS_MAX = 64
"""Listeners of one node: more than any machine has addresses to name, few enough to print."""

SEGMENT_SIZE_DEFAULT = 64 * 1024 * 1024
SEGMENT_SIZE_MIN = 64 * 1024
SEGMENT_SIZE_MAX = 1024 * 1024 * 1024

DRAIN_TIMEOUT_MAX = 3600.0

CONFIG_FILE_SIZE_MAX = 1024 * 1024
"""A configuration is a page of text; a larger file is the wrong file."""

Durability = Literal["sync", "os"]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one node; every field is an option of `haptera serve`."""

    data_dir: str = DATA_DIR_DEFAULT
    """The data directory; a relative one is taken from the working directory."""
    listen: tuple[str, ...] = (LISTEN_DEFAULT,)
    """Addresses to serve (``haptera://host:port`` or ``haptera+unix:///path``); none for an embedded node."""
    durability: Durability = "sync"
    """`sync`: an answered write is on the disk. `os`: it is with the operating system, and power loss may take it."""
    log_level: str = "info"
    log_format: str = "text"
    drain_timeout: float = 30.0
    """Seconds that a stopping node gives the calls in flight."""
    segment_size: int = SEGMENT_SIZE_DEFAULT
    """Bytes of one log segment, preallocated."""


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
            known = ", ".join(sorted(OPTIONS))
            raise ConfigurationError(f"{name!r} in {path}: no such option; the options are {known}")
    return table


def _check(name: str, value: Any, source: str) -> Any:
    try:
        return OPTIONS[name](value)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def _one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, not {value!r}")
        return value

    return parse


def _number(low: float, high: float, *, whole: bool) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        kind = "a whole number" if whole else "a number"
        number: float
        try:
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise ValueError
            number = int(value) if whole and not isinstance(value, float) else float(value)
        except ValueError:
            raise ValueError(f"expected {kind}, not {value!r}") from None
        # Written so that NaN, which compares with nothing, is refused too.
        if not low <= number <= high or (whole and number != int(number)):
            raise ValueError(f"expected {kind} from {low} to {high}, not {value!r}")
        return int(number) if whole else number

    return parse


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, not {value!r}")
    return value


def _addresses(value: Any) -> tuple[str, ...]:
    """A list of addresses, or in the environment one string that separates them by spaces or commas."""
    urls = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(urls, (list, tuple)) or not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError(f"expected one address or a list of addresses, not {value!r}")
    if len(urls) > LISTENERS_MAX:
        raise ValueError(f"at most {LISTENERS_MAX} addresses, not {len(urls)}")
    for url in urls:
        _address(cast("str", url))
    return tuple(urls)


def _address(url: str) -> None:
    from haptera.peer import address  # noqa: PLC0415  # loaded by what listens, not by every user of the defaults

    try:
        parsed = address.parse(url)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    if parsed.user or parsed.password:
        raise ValueError("an address to listen on has no user and no password")


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "data_dir": _path,
    "listen": _addresses,
    "durability": _one_of(("sync", "os")),
    "log_level": _one_of(LEVELS),
    "log_format": _one_of(FORMATS),
    "drain_timeout": _number(0.0, DRAIN_TIMEOUT_MAX, whole=False),
    "segment_size": _number(SEGMENT_SIZE_MIN, SEGMENT_SIZE_MAX, whole=True),
}
"""Every option by name, with the rule that checks and converts its value from any source."""
