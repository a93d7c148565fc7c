"""The user on whose behalf commands are submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from haptera.access_rules import NodePermission
    from haptera.errors import Failure


class Submitter(Struct, frozen=True):
    """``user`` is the name, empty for an anonymous one. One that is unrestricted may do everything."""

    user: str = ""

    def lacks(self, permission: NodePermission) -> Failure | None:
        """Return 2004 where the submitter may not do what is of the node as a whole."""
        return None


#: The caller of an embedded store, and of a node without authentication.
ANONYMOUS = Submitter()
