"""Where the configuration of a node comes from: flags, the environment and a TOML file.

A flag wins over the environment (``HAPTERA_`` and the option's name in capitals), that over the file given by
``--config`` or ``HAPTERA_CONFIG``, that over the default. Every value is checked by the same rule wherever it came
from, and an error names both the option and where it was set. A name in the file that is no option is refused: a
misspelt option must not be one that silently does nothing.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from haptera.errors import ConfigurationError
from haptera.node.config import OPTIONS, NodeConfig
from haptera.node.option_kinds import (
    ADMIN_PASSWORD_VARIABLE,
    MASTER_KEY_VARIABLE,
    VARIABLE_PREFIX,
    ConflictingOptions,
    flag_of,
    variable_of,
)

#: Variables that are no option's: the configuration file, the secrets, and where clients find a store.
OTHER_VARIABLES = frozenset({"HAPTERA_CONFIG", MASTER_KEY_VARIABLE, ADMIN_PASSWORD_VARIABLE, "HAPTERA_URL"})

#: How much like an option's a variable's name must be to be taken for a misspelt one: others have theirs.
LIKENESS_MIN = 0.75

#: A configuration is a page of text; a larger file is the wrong file.
CONFIG_FILE_SIZE_MAX = 1024 * 1024


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> NodeConfig:
    """The configuration from `flags` (option name to value, None where not given), `environ` and the TOML file.

    `flags` may hold `config`, the file's path. Raises ConfigurationError, naming the option and where it was set.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}

    def take(name: str, value: Any, place: str) -> None:
        values[name] = _check(name, value, place)
        places[name] = place

    path = flags.get("config") or environ.get("HAPTERA_CONFIG")
    if path:
        for name, value in _read_file(path).items():
            take(name, value, f"{name} in {path}")
    for name in OPTIONS:
        variable = variable_of(name)
        # An empty variable is how a shell or a container file says "not set".
        if environ.get(variable):
            take(name, environ[variable], variable)
    for name in OPTIONS:
        if flags.get(name) is not None:
            take(name, flags[name], flag_of(name))
    return _made(values, places)


def misspelt(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that look like a misspelt option, each with the one that it likely stands for.

    They are no errors, as in the file: others, a container's runtime for instance, make variables with the same prefix.
    """
    for variable, value in environ.items():
        name = variable.removeprefix(VARIABLE_PREFIX).lower()
        if value and variable.startswith(VARIABLE_PREFIX) and variable not in OTHER_VARIABLES and name not in OPTIONS:
            for close in difflib.get_close_matches(name, OPTIONS, n=1, cutoff=LIKENESS_MIN):
                yield variable, variable_of(close)


def _made(values: Mapping[str, Any], places: Mapping[str, str]) -> NodeConfig:
    """The configuration from values that were checked each by itself. The content of a key file is checked as well."""
    try:
        config = NodeConfig(**values)
    except ConflictingOptions as conflict:
        found = [places.get(name, f"the default of {name}") for name in conflict.names]
        raise ConfigurationError(f"{conflict} ({' and '.join(found)})") from None
    if config.signing_key_file is not None:
        from haptera.peer import check_key_file  # noqa: PLC0415  # only a node that listens needs it

        try:
            check_key_file(config.signing_key_file)
        except ConfigurationError as error:
            raise ConfigurationError(f"{places['signing_key_file']}: {error}") from error
    return config


def _read_file(path: str) -> dict[str, Any]:
    from haptera.storage import open_regular  # noqa: PLC0415  # only a node that starts needs it

    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
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
