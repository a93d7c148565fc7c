"""The rules of what a node lays open: an address beyond this machine has authentication, and TLS or signed frames."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import ConfigurationError
from haptera.node.listened import parse_listener, read_listened
from haptera.transport import TCP_SCHEME, is_loopback

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.listened import Dialects

_logger = logging.getLogger(__name__)

_PROTECTED: Final = "listen with hapteras://, sign with signing_key_file or with signed=scram in the address"

_PROTECTED_DIALECT: Final = "listen inside TLS, with an s behind the name of the protocol in the address"


def check_exposure(url: str, config: NodeConfig, dialects: Dialects) -> None:
    """Raise ConfigurationError for an address that lays open more than the configuration says in so many words."""
    lack = exposure(url, config, dialects)
    if lack is not None and not config.insecure_listen:
        of_dialect = parse_listener(url).protocol != TCP_SCHEME
        ways = "leave no_auth out" if config.no_auth else _PROTECTED_DIALECT if of_dialect else _PROTECTED
        raise ConfigurationError(
            f"{parse_listener(url)} can be reached from other machines, and {lack}: {ways}, listen on 127.0.0.1 or a "
            "Unix socket alone, or say insecure_listen"
        )


def warn_of_exposure(configured: str, url: str, config: NodeConfig, dialects: Dialects) -> None:
    """Log what an address lays open that is listened on."""
    lack = exposure(configured, config, dialects)
    if lack is not None:
        _logger.warning("insecure_listen", extra={"url": url, "meaning": lack})


def warn_of_no_authentication(config: NodeConfig) -> None:
    """Log that a node asks no caller for a proof."""
    if config.no_auth and config.listen:
        _logger.warning(
            "no_authentication",
            extra={
                "meaning": "anyone who can reach this node can read and change everything",
                "help": "no_auth = false",
            },
        )


def exposure(url: str, config: NodeConfig, dialects: Dialects) -> str | None:
    """Why an address is open to more than it should be, in a clause; None where it is not."""
    if is_local(url):
        return None
    if config.no_auth:
        return "no_auth lets everyone in"
    listened = read_listened(url, dialects)
    ours = listened.address.protocol == TCP_SCHEME
    if listened.tls is None and not listened.signed and not (ours and config.signing_key_file is not None):
        return "its frames are neither encrypted nor signed"
    return None


def is_local(url: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    hosts = parse_listener(url).hosts
    return not hosts or is_loopback(hosts[0][0])
