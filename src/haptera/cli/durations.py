"""Times to live on the command line: seconds, or a number with a unit, such as 30d."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from haptera.cli.parameter_type import ParameterType
from haptera.key_rules import TTL_MAX_MS

if TYPE_CHECKING:
    import click

_FORM: Final = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)([smhdw]?)", re.ASCII)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Duration(ParameterType[float]):
    """A time of more than none, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _FORM.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no time: seconds, or a number with s, m, h, d or w, such as 30d.", param, ctx)
        seconds = Decimal(found[1]) * _SECONDS[found[2]]
        if not 0 < seconds <= TTL_MAX_MS // 1000:
            self.fail(f"{value!r} is not between a millisecond and {TTL_MAX_MS // 1000} seconds.", param, ctx)
        return float(seconds)
