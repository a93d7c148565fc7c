"""The checks of a node's listeners before it begins: a start by mistake leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import ConfigurationError
from haptera.node.descriptors import connections_max
from haptera.node.exposure import check_exposure
from haptera.node.external_users import read_external_users
from haptera.node.listened import NO_DIALECTS, read_listened
from haptera.transport import TCP_SCHEME, check_free, group_id, load_context
from haptera.wire import available

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.listened import Dialects


def check_listening(config: NodeConfig, dialects: Dialects = NO_DIALECTS) -> None:
    """Raise ConfigurationError for an address that the node cannot listen on, for a group or codec that is missing, and
    for too few descriptors.

    A node asks before it makes its data directory, so that a start by mistake leaves nothing behind.
    """
    for url in config.listen:
        address, tls, _, signs_by_exchange = read_listened(url, dialects)
        if tls is not None:
            load_context(tls)
            ours = address.protocol == TCP_SCHEME
            if ours and config.no_auth and config.signing_key_file is not None and tls.authorities is None:
                raise ConfigurationError(
                    f"{address}: frames are never signed inside TLS, so that signing_key_file protects nothing there; "
                    "name the authority of the clients' certificates with client_ca=FILE"
                )
        if config.no_auth and signs_by_exchange:
            raise ConfigurationError(f"{address}: signed=scram takes its keys from a login, and no_auth has none")
        check_exposure(url, config, dialects)
        check_free(address, config.data_dir)
    read_external_users(config.external_users_file)
    connections_max(config.max_connections, len(config.listen))
    if config.socket_group is not None:
        group_id(config.socket_group)
    if config.compression == "zstd" and not available():
        raise ConfigurationError("compression needs the extra: pip install 'haptera[zstd]'")
