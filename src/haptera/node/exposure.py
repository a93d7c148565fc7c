"""The rules of what a node lays open: an address beyond this machine has authentication, and TLS or signed frames."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import ConfigurationError
from haptera.peer import read_listening_options
from haptera.transport import is_loopback, parse

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig

_logger = logging.getLogger(__name__)

_PROTECTED: Final = "listen with hapteras://, sign with signing_key_file or with signed=scram in the address"


def check_exposure(url: str, config: NodeConfig) -> None:
    """Raise ConfigurationError for an address that lays open more than the configuration says in so many words."""
    lack = exposure(url, config)
    if lack is not None and not config.insecure_listen:
        ways = "leave no_auth out" if config.no_auth else _PROTECTED
        raise ConfigurationError(
            f"{parse(url)} can be reached from other machines, and {lack}: {ways}, listen on 127.0.0.1 or a Unix "
            "socket alone, or say insecure_listen"
        )


def warn_of_exposure(configured: str, url: str, config: NodeConfig) -> None:
    """Log what an address lays open that is listened on."""
    lack = exposure(configured, config)
    if lack is not None:
        _logger.warning("insecure_listen", extra={"url": url, "meaning": lack})


def warn_of_no_authentication(config: NodeConfig) -> None:
    """Log that a node asks nobody for a proof."""
    if config.no_auth and config.listen:
        _logger.warning(
            "no_authentication",
            extra={
                "meaning": "anyone who can reach this node can read and change everything",
                "help": "no_auth = false",
            },
        )


def exposure(url: str, config: NodeConfig) -> str | None:
    """Why an address is open to more than it should be, in a clause; None where it is not."""
    if is_local(url):
        return None
    if config.no_auth:
        return "no_auth lets everyone in"
    options = read_listening_options(parse(url))
    signed = options.signs_by_exchange or options.signing_key is not None or config.signing_key_file is not None
    if options.tls is None and not signed:
        return "its frames are neither encrypted nor signed"
    return None


def is_local(url: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    hosts = parse(url).hosts
    return not hosts or is_loopback(hosts[0][0])
