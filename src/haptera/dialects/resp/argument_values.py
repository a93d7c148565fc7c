"""The values of arguments: numbers, times and options, with the words of Redis for wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX, CommandFault, invalid_expiry
from haptera.key_rules import INT64_MAX, INT64_MIN, TTL_MAX_MS, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container

#: The options that say when a key expires: milliseconds of a unit, and whether they count from the epoch.
EXPIRY_OPTIONS: Final = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}


class SetOptions(Struct):
    """The options of SET, and of GETEX, which has some of them."""

    condition: Literal["absent", "present"] | None = None
    get: bool = False
    keep_ttl: bool = False
    persist: bool = False
    expiry: tuple[bytes, bytes] | None = None


def integer(argument: bytes) -> int:
    """The number of 64 bits that an argument is. Raises CommandFault."""
    number = number_of(argument)
    if number is None:
        raise CommandFault(NOT_AN_INTEGER)
    return number


def expiry(command: str, unit: bytes, argument: bytes, now_ms: Callable[[], int]) -> int:
    """The milliseconds to live that an option of SET or GETEX says. Raises CommandFault if no key can have them."""
    number = integer(argument)
    if number <= 0:
        raise CommandFault(invalid_expiry(command))
    return ending(command, number, *EXPIRY_OPTIONS[unit], now_ms)


def ending(command: str, number: int, unit_ms: int, absolute: bool, now_ms: Callable[[], int]) -> int:
    """The milliseconds to live that a number of units is, from now or from the epoch: not above 0 where that is over.

    Raises CommandFault.
    """
    when_ms = number * unit_ms
    if not INT64_MIN <= when_ms <= INT64_MAX:
        raise CommandFault(invalid_expiry(command))
    ttl_ms = when_ms - now_ms() if absolute else when_ms
    if ttl_ms > TTL_MAX_MS:
        raise CommandFault(invalid_expiry(command))
    return ttl_ms


def set_options(arguments: list[bytes], taken: Container[bytes]) -> SetOptions:
    """Read options, of which a command takes those that are ``taken``. Raises CommandFault."""
    options = SetOptions()
    at, end = 0, len(arguments)
    while at < end:
        option = arguments[at].upper()
        at += 1
        if option not in taken:
            raise CommandFault(SYNTAX)
        timed = options.keep_ttl or options.persist or options.expiry is not None
        if option in EXPIRY_OPTIONS:
            other = options.keep_ttl or options.persist or (options.expiry is not None and options.expiry[0] != option)
            if other or at == end:
                raise CommandFault(SYNTAX)
            options.expiry = (option, arguments[at])
            at += 1
        elif option in _CONDITIONS:
            condition = _CONDITIONS[option]
            if options.condition not in {None, condition}:
                raise CommandFault(SYNTAX)
            options.condition = condition
        elif option == b"GET":
            options.get = True
        elif options.expiry is not None or (timed and not getattr(options, _FLAGS[option])):
            raise CommandFault(SYNTAX)
        else:
            setattr(options, _FLAGS[option], True)
    return options


_CONDITIONS: Final[dict[bytes, Literal["absent", "present"]]] = {b"NX": "absent", b"XX": "present"}
_FLAGS: Final = {b"KEEPTTL": "keep_ttl", b"PERSIST": "persist"}
OPTIONS_OF_SET: Final = frozenset({*EXPIRY_OPTIONS, *_CONDITIONS, b"GET", b"KEEPTTL"})
OPTIONS_OF_GETEX: Final = frozenset({*EXPIRY_OPTIONS, b"PERSIST"})
