"""The options of CLIENT TRACKING, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX, CommandFault
from haptera.dialects.resp.reply_encoding import error
from haptera.key_rules import BOUND_SIZE_MAX, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Prefixes of one connection: each is a watch.
PREFIXES_MAX: Final = 64

_OTHER_MODE: Final = "before disabling tracking for this client, and then re-enabling it with a different mode."
_ONE_REDIRECTION: Final = error("ERR A client can only redirect to a single other client")
_PREFIX_ALONE: Final = error("ERR PREFIX option requires BCAST mode to be enabled")
_SWITCHED_BROADCAST: Final = error(f"ERR You can't switch BCAST mode on/off {_OTHER_MODE}")
_OPT_WITH_BROADCAST: Final = error("ERR OPTIN and OPTOUT are not compatible with BCAST")
_BOTH_OPTS: Final = error("ERR You can't specify both OPTIN mode and OPTOUT mode")
_SWITCHED_OPT: Final = error(f"ERR You can't switch OPTIN/OPTOUT mode {_OTHER_MODE}")
_TOO_MANY_PREFIXES: Final = error(f"ERR too many prefixes: {PREFIXES_MAX} at most")
_NO_PREFIX: Final = error("ERR invalid key")

_FLAGS: Final = {b"BCAST": "broadcast", b"OPTIN": "opt_in", b"OPTOUT": "opt_out", b"NOLOOP": "no_loop"}


@dataclass(slots=True)
class TrackingOptions:
    """``redirect`` is the number of the connection that is told, 0 for the connection itself.

    With ``broadcast`` it is told of all keys with the ``prefixes``, whether it has read them or not.
    """

    redirect: int = 0
    broadcast: bool = False
    opt_in: bool = False
    opt_out: bool = False
    no_loop: bool = False
    prefixes: dict[str, None] = field(default_factory=dict)


def read_tracking_options(arguments: list[bytes]) -> TrackingOptions:
    """Read the options behind ON. Raises CommandFault."""
    options = TrackingOptions()
    rest = iter(arguments)
    for argument in rest:
        option = argument.upper()
        if option in _FLAGS:
            setattr(options, _FLAGS[option], True)
            continue
        operand = next(rest, None)
        if operand is None or option not in {b"REDIRECT", b"PREFIX"}:
            raise CommandFault(SYNTAX)
        if option == b"PREFIX":
            options.prefixes[_prefix(operand)] = None
            continue
        if options.redirect:
            raise CommandFault(_ONE_REDIRECTION)
        number = number_of(operand)
        if number is None:
            raise CommandFault(NOT_AN_INTEGER)
        options.redirect = number
    return options


def _prefix(operand: bytes) -> str:
    try:
        prefix = operand.decode()
    except UnicodeDecodeError:
        raise CommandFault(_NO_PREFIX) from None
    if len(operand) > BOUND_SIZE_MAX:
        raise CommandFault(_NO_PREFIX)
    return prefix


def check_tracking_options(options: TrackingOptions, before: TrackingOptions | None) -> None:
    """Check that options go together, and with the ones of ``before``. Raises CommandFault."""
    if options.prefixes and not options.broadcast:
        raise CommandFault(_PREFIX_ALONE)
    if before is not None and before.broadcast != options.broadcast:
        raise CommandFault(_SWITCHED_BROADCAST)
    if options.broadcast and (options.opt_in or options.opt_out):
        raise CommandFault(_OPT_WITH_BROADCAST)
    if options.opt_in and options.opt_out:
        raise CommandFault(_BOTH_OPTS)
    if before is not None and ((options.opt_in and before.opt_out) or (options.opt_out and before.opt_in)):
        raise CommandFault(_SWITCHED_OPT)
    if options.broadcast:
        present = {} if before is None else before.prefixes
        options.prefixes = options.prefixes or {"": None}
        _check_prefixes(options.prefixes, present)
        if len({*options.prefixes, *present}) > PREFIXES_MAX:
            raise CommandFault(_TOO_MANY_PREFIXES)


def _check_prefixes(prefixes: Iterable[str], present: Iterable[str]) -> None:
    """No prefix may begin with another, because a key would be told twice."""
    given = list(prefixes)
    for place, prefix in enumerate(given, 1):
        for other, kind in [
            *((each, "an existing") for each in present),
            *((each, "another provided") for each in given[place:]),
        ]:
            if prefix != other and (prefix.startswith(other) or other.startswith(prefix)):
                words = f"Prefix '{prefix}' overlaps with {kind} prefix '{other}'. "
                raise CommandFault(error(f"ERR {words}Prefixes for a single client must not overlap."))
