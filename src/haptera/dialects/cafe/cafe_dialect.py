"""CAFE as a dialect of a node: the options of its listeners, and their key (spec/cafe.md, section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.dialects.cafe.cafe_session import CafeSession
from haptera.dialects.cafe.key_files import KEY_FILE, read_shared_key
from haptera.dialects.cafe.message_keys import ConnectionKey
from haptera.errors import ConfigurationError
from haptera.wire import Codec

if TYPE_CHECKING:
    from haptera.node.frontend import FrontendConnection
    from haptera.transport import Address

REQUIRE_BIND: Final = "require_bind"
_TRUTH: Final = {"true": True, "false": False}


class CafeSettings(msgspec.Struct, frozen=True):
    """The settings of one listener. Its connections share the codec, which belongs to one thread."""

    key: ConnectionKey
    require_bind: bool
    codec: Codec


class Cafe:
    """The dialect."""

    protocol: Final = "cafe"
    options: Final = frozenset({KEY_FILE, REQUIRE_BIND})

    def settings(self, address: Address) -> CafeSettings:
        """Read the options in the URL of a listener, and its key file. Raises ConfigurationError."""
        given = address.options
        path = given.get(KEY_FILE)
        if not path:
            raise ConfigurationError(f"{address}: CAFE needs {KEY_FILE}=PATH, the file of the shared key")
        bind = given.get(REQUIRE_BIND, "false")
        if bind not in _TRUTH:
            raise ConfigurationError(f"{address}: {REQUIRE_BIND} is {' or '.join(_TRUTH)}, not {bind!r}")
        return CafeSettings(ConnectionKey(read_shared_key(path)), _TRUTH[bind], Codec())

    def is_signed(self, settings: CafeSettings) -> bool:
        """Whether a key proves each message: always."""
        return True

    def session(self, connection: FrontendConnection, settings: CafeSettings) -> CafeSession:
        """Make the session of a new connection."""
        return CafeSession(connection, settings)
