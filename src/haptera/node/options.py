"""The options of `haptera serve`: the name of each, its meaning, and the rule that checks its value.

From this one table come the flags of the command, the variables of the environment, the keys of the configuration file
and docs/configuration.md. The defaults stand in `haptera.node.config.NodeConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import msgspec

from haptera.connection.bounds import BOUNDS, BUDGET, Bound, seconds
from haptera.errors import ConfigurationError
from haptera.node.logging import FORMATS, LEVELS

LISTENERS_MAX = 64
"""Listeners of one node: more than any machine has addresses to name, few enough to print."""

SEGMENT_SIZE_MIN = 64 * 1024
SEGMENT_SIZE_MAX = 1024 * 1024 * 1024

Group = Literal["Data", "Listeners", "Security", "Connections", "What a peer may send", "Logs"]


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option. ``parse`` checks and converts its value from any source and raises ValueError for a wrong one.

    ``value`` is how the help shows the value, ``meaning`` a sentence or two, ``several`` whether its flag may be given
    more than once.
    """

    parse: Callable[[Any], Any]
    group: Group
    value: str
    meaning: str
    several: bool = False

    def show(self, value: Any) -> str:
        """A value as the help and the documentation have it; empty for one that says nothing."""
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:g}"
        return " ".join(value) if self.several else str(value)

    def __call__(self, value: Any) -> Any:
        """The value, checked and converted."""
        return self.parse(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, not {value!r}")
        return value

    return parse


def _number(bound: Bound) -> Callable[[Any], float]:
    """A number, or text that is one."""

    def parse(value: Any) -> float:
        if not isinstance(value, str):
            return bound.check(value)
        try:
            number = int(value) if bound.whole else float(value)
        except ValueError:
            raise ValueError(f"expected {bound}, not {value!r}") from None
        return bound.check(number)

    return parse


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, not {value!r}")
    return value


def _mode(value: Any) -> str:
    """A file mode in octal, as text: in the configuration file a number would be a decimal one."""
    text = value.removeprefix("0o") if isinstance(value, str) else ""
    if not 3 <= len(text) <= 4 or text.strip("01234567") or int(text, 8) > BOUNDS["mode"].high:
        raise ValueError(f"expected a file mode in octal, such as 660, as text, not {value!r}")
    return text


def _group(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the name or the number of a group, as text, not {value!r}")
    return value


def _addresses(value: Any) -> tuple[str, ...]:
    """A list of addresses, or in the environment one string that separates them by spaces or commas."""
    urls = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(urls, (list, tuple)) or not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError(f"expected one address or a list of addresses, not {value!r}")
    if len(urls) > LISTENERS_MAX:
        raise ValueError(f"at most {LISTENERS_MAX} addresses, not {len(urls)}")
    for url in cast("Sequence[str]", urls):
        _address(url)
    return tuple(urls)


def _address(url: str) -> None:
    from haptera.transport import parse  # noqa: PLC0415  # only a node that listens needs it, not every user of the defaults

    try:
        parsed = parse(url)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    if parsed.user or parsed.password:
        raise ValueError("an address to listen on has no user and no password")


def _seconds(group: Group, meaning: str, bound: Bound) -> Option:
    return Option(parse=_number(bound), group=group, value="SECONDS", meaning=meaning)


def _limit(name: str, value: str, meaning: str) -> Option:
    return Option(parse=_number(BOUNDS[name]), group="What a peer may send", value=value, meaning=meaning)


OPTIONS: dict[str, Option] = {
    "data_dir": Option(
        parse=_path, group="Data", value="DIR", meaning="Where the data is kept; made if it is not there."
    ),
    "durability": Option(
        parse=_one_of("sync", "os"),
        group="Data",
        value="sync|os",
        meaning="sync: an answered write is on the disk. os: it is with the operating system.",
    ),
    "segment_size": Option(
        parse=_number(Bound(low=SEGMENT_SIZE_MIN, high=SEGMENT_SIZE_MAX)),
        group="Data",
        value="BYTES",
        meaning="Size of one file of the log, allocated as a whole.",
    ),
    "listen": Option(
        parse=_addresses,
        group="Listeners",
        value="URL",
        meaning="Where to serve: haptera://host:port or haptera+unix:///path; several may be given.",
        several=True,
    ),
    "socket_mode": Option(
        parse=_mode,
        group="Listeners",
        value="OCTAL",
        meaning="File mode of the Unix sockets that are listened on: 660 lets a group connect. The local socket in the "
        "data directory stays as it is.",
    ),
    "socket_group": Option(
        parse=_group,
        group="Listeners",
        value="GROUP",
        meaning="Name or number of the group that these sockets belong to; by default that of the process.",
    ),
    "drain_timeout": _seconds("Listeners", "How long a stopping node waits for calls under way.", seconds(0.0)),
    "max_connections": Option(
        parse=_number(BOUNDS["max_connections"]),
        group="Listeners",
        value="COUNT",
        meaning="Connections of one listener, or as many as the limit of open files leaves room for; the newest beyond "
        "is refused (1013). The local socket in the data directory has 1000 at most.",
    ),
    "max_half_open": Option(
        parse=_number(BOUNDS["max_half_open"]),
        group="Listeners",
        value="COUNT",
        meaning="Connections whose handshake is not done, at most half of max_connections; of more, the oldest is "
        "dropped (1013).",
    ),
    "signing_key_file": Option(
        parse=_path,
        group="Security",
        value="FILE",
        meaning="Sign every frame with the secret in this file, of 32 bytes at least, and refuse peers without it. "
        "The local socket in the data directory stays as it is.",
    ),
    "compression": Option(
        parse=_one_of("auto", "zstd", "none"),
        group="Connections",
        value="auto|zstd|none",
        meaning="zstd: payloads are compressed for peers that ask for it. auto: the same, if it is installed.",
    ),
    "handshake_timeout": _seconds(
        "Connections", "The handshake must be done by then (1012).", BOUNDS["handshake_timeout_s"]
    ),
    "ping_interval": _seconds(
        "Connections",
        "A peer that is silent for so long is asked for a sign of life, and given up after as long again (1015); "
        "0: never.",
        seconds(zero=True),
    ),
    "idle_timeout": _seconds(
        "Connections", "A connection without calls for so long is ended; 0: never.", seconds(zero=True)
    ),
    "write_timeout": _seconds(
        "Connections",
        "A peer that takes less than 64 KiB in this time, while more waits for it, is disconnected (3009).",
        BOUNDS["write_timeout_s"],
    ),
    "frame_timeout": _seconds(
        "Connections",
        "A frame that was begun must be whole by then, and a second for each 64 KiB (1015).",
        BOUNDS["frame_timeout_s"],
    ),
    "message_timeout": _seconds(
        "Connections",
        "A message of several frames must be whole by then, and a second for each 64 KiB (3005).",
        BOUNDS["message_timeout_s"],
    ),
    "max_frame": _limit("max_frame", "BYTES", "The largest frame (1004)."),
    "max_message": _limit(
        "max_message", "BYTES", "The largest message (3004); a quarter of connection_budget at most."
    ),
    "max_streams": _limit("max_streams", "COUNT", "Calls under way on one connection (3007)."),
    "stream_window": _limit("stream_window", "BYTES", "Items of one call that were not taken yet (1009)."),
    "connection_window": _limit("connection_window", "BYTES", "Items of all calls of one connection (1009)."),
    "connection_budget": Option(
        parse=_number(BUDGET),
        group="What a peer may send",
        value="BYTES",
        meaning="Bytes that one connection may have in memory: unfinished messages, items, requests without an answer "
        "(3007).",
    ),
    "process_budget": Option(
        parse=_number(BUDGET),
        group="What a peer may send",
        value="BYTES",
        meaning="The same for all connections together; connection_budget at least (3007).",
    ),
    "flood_burst": Option(
        parse=_number(BOUNDS["idle_frames_burst"]),
        group="What a peer may send",
        value="COUNT",
        meaning="Frames without work at once, such as PINGs; more are a flood (3008).",
    ),
    "flood_rate": Option(
        parse=_number(BOUNDS["idle_frames_per_s"]),
        group="What a peer may send",
        value="PER_SECOND",
        meaning="How many of them are allowed in each second after that.",
    ),
    "log_level": Option(parse=_one_of(*LEVELS), group="Logs", value="LEVEL", meaning="debug, info, warning or error."),
    "log_format": Option(
        parse=_one_of(*FORMATS), group="Logs", value="text|json", meaning="One event a line, as text or JSON."
    ),
}
"""Every option by name, in the order of the help."""
