"""The kinds of options that a node has: how the value of each is checked, shown, and given to a listener.

The options themselves are the fields of `haptera.node.config.NodeConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import msgspec

from haptera import defaults
from haptera.access_rules import LOCAL_USER, is_user_name
from haptera.connection import BOUNDS, Bound
from haptera.errors import ConfigurationError

#: Listeners of one node: more than any machine has addresses to name, few enough to print.
LISTENERS_MAX = 64

VARIABLE_PREFIX = "HAPTERA_"

#: The variable that holds the master key itself. It is no option, because every user of the machine can read a flag.
MASTER_KEY_VARIABLE = "HAPTERA_MASTER_KEY"
#: The variable that holds the password of the first administrator. It is no option for the same reason.
ADMIN_PASSWORD_VARIABLE = "HAPTERA_ADMIN_PASSWORD"  # noqa: S105  # its name alone

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

Group = Literal["Data", "Listeners", "Security", "Audit", "Connections", "Limits of a peer", "Logs"]


class Option(msgspec.Struct, frozen=True):
    """One option, beside its name, its type and its default.

    ``parse`` checks and converts its value from any source and raises ValueError for a wrong one. ``value`` is how the
    help shows the value, ``meaning`` a sentence or two, ``several`` whether its flag may be given more than once.
    ``keyword`` is the keyword of `haptera.peer.listen` that it sets, if it sets one, and ``give`` converts the value
    for that keyword. ``is_switch`` says that its flag takes no value.
    """

    parse: Callable[[Any], Any]
    group: Group
    value: str
    meaning: str
    several: bool = False
    keyword: str | None = None
    give: Callable[[Any], Any] | None = None
    is_switch: bool = False

    def show(self, value: Any) -> str:
        """A value as the help and the documentation have it; empty for one that says nothing."""
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:g}"
        if isinstance(value, bool):
            return str(value).lower()
        return " ".join(value) if self.several else str(value)

    def __call__(self, value: Any) -> Any:
        """The value, checked and converted."""
        return self.parse(value)

    def given(self, value: Any) -> Any:
        """The value as ``keyword`` takes it."""
        return value if self.give is None else self.give(value)


def flag_of(name: str) -> str:
    """The flag of the option of this name."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """The variable of the environment that sets the option of this name."""
    return VARIABLE_PREFIX + name.upper()


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


def path_text(value: Any) -> str:
    """The path of a file or a directory, as text."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, not {value!r}")
    return value


def command_text(value: Any) -> str:
    """A command with its arguments, as text."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("expected a command with its arguments, as text")
    return value


def mode_text(value: Any) -> str:
    """A file mode in octal, as text: in the configuration file a number would be a decimal one."""
    text = value.removeprefix("0o") if isinstance(value, str) else ""
    if not 3 <= len(text) <= 4 or text.strip("01234567") or int(text, 8) > BOUNDS["mode"].high:
        raise ValueError(f"expected a file mode in octal, such as 660, as text, not {value!r}")
    return text


def group_text(value: Any) -> str:
    """The name or the number of a group of users, as text."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the name or the number of a group, as text, not {value!r}")
    return value


def user_text(value: Any) -> str:
    """The name of a user that is stored."""
    if not isinstance(value, str) or not is_user_name(value) or value == LOCAL_USER:
        raise ValueError(f"expected the name of a user, not {value!r}")
    return value


def address_list(value: Any) -> tuple[str, ...]:
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
        parsed = parse(url, tuple(defaults.PORTS))
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    if parsed.user or parsed.password:
        raise ValueError("an address to listen on has no user and no password")


def choice(group: Group, choices: Sequence[str], meaning: str, value: str | None = None, **more: Any) -> Option:
    """One of some words."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, not {value!r}")
        return value

    return Option(parse, group, value or "|".join(choices), meaning, **more)


def switch(group: Group, meaning: str) -> Option:
    """Something that is on or off."""
    return Option(_on_or_off, group, "true|false", meaning, is_switch=True)


def _on_or_off(value: Any) -> bool:
    """A truth, or in the environment a word for one."""
    found = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return found


def amount(group: Group, value: str, bound: Bound, meaning: str) -> Option:
    """A number that the node itself uses."""
    return Option(_number(bound), group, value, meaning)


def of_listener(
    group: Group,
    value: str,
    keyword: str,
    meaning: str,
    *,
    bound: Bound | None = None,
    give: Callable[[Any], Any] | None = None,
) -> Option:
    """A number that a listener takes, within the bounds of its keyword unless ``bound`` says otherwise."""
    return Option(_number(bound or BOUNDS[keyword]), group, value, meaning, keyword=keyword, give=give)


def of_limits(name: str, value: str, meaning: str) -> Option:
    """One of the limits that a listener announces: the field of `haptera.wire.Limits` that has the option's name."""
    return Option(_number(BOUNDS[name]), "Limits of a peer", value, meaning)


class ConflictingOptions(ConfigurationError):
    """Of two options of a configuration the first may not be more than a share of the second; ``names`` are theirs."""

    def __init__(self, config: object, first: str, share: str, second: str) -> None:
        super().__init__(f"{first} is {getattr(config, first)}, more than {share}{second}, {getattr(config, second)}")
        self.names: tuple[str, str] = first, second
