"""The base of the types that values of options and arguments have beside those of click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    ParameterType = click.ParamType
else:

    class ParameterType(click.ParamType):
        """Takes the type of its values as newer versions of click do; click 8.1 knows no such parameter."""

        def __class_getitem__(cls, value: Any) -> Any:
            return cls
