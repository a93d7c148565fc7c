"""The weak settings of a node and of its data directory, for ``haptera doctor`` (spec/protocol.md, section 7.2).

A weakness is a setting that works and protects less than it could. Each has a name that stays, a severity, the finding
and the next step of the operator.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from haptera.access_rules import ADMIN_ROLE
from haptera.node.exposure import exposure, is_local
from haptera.node.listened import parse_listener, read_listened
from haptera.storage import OsFileSystem, kept_master_keys
from haptera.transport import TLS_VERSION_DEFAULT

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.listened import Dialects
    from haptera.node.node import Node
    from haptera.state import Access

Severity = Literal["high", "medium", "low"]

#: Names that one finding lists; the others are counted.
NAMES_MAX: Final = 5
#: Seconds before the end of a certificate from which on it is a finding: as the log warns.
CERTIFICATE_WARNING_S: Final = 14 * 86_400
#: Seconds after which a snapshot is old: four times the time that a node keeps the past by default.
SNAPSHOT_AGE_S: Final = 28 * 86_400
#: Seconds after which maintenance may have been forgotten.
MAINTENANCE_AGE_S: Final = 86_400
#: Where Linux says which swap there is.
_SWAPS: Final = "/proc/swaps"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITING_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_SECRETS: Final = ("keys", "master.key")


class Weakness(NamedTuple):
    """``name`` is for programs, and stays; ``finding`` and ``help`` are sentences for people."""

    severity: Severity
    name: str
    finding: str
    help: str


def of_settings(node: Node, now_s: float) -> list[Weakness]:
    """The weaknesses that a running node knows of itself, without a look at the disk. ``now_s`` is Unix time."""
    return [
        *_of_listeners(node.config, node.dialects),
        *_of_certificates(node.certificate_ends_at, now_s),
        *_of_revocations(node.revocations_end_at, now_s),
        *_of_users(node.access, node.config),
        *_of_configuration(node.config),
        *_of_audit(node.audit.damage),
        *_of_work(node, now_s),
    ]


def in_order(found: list[Weakness]) -> list[Weakness]:
    """Weaknesses, the worst first."""
    severities: tuple[Severity, ...] = ("high", "medium", "low")
    return sorted(found, key=lambda weakness: severities.index(weakness.severity))


def _of_listeners(config: NodeConfig, dialects: Dialects) -> Iterator[Weakness]:
    if config.no_auth:
        finding = "no caller has to prove its identity: anyone who can reach the node may read and change everything"
        yield Weakness("high", "no_authentication", finding, "start it without no_auth")
    for url in config.listen:
        lack = exposure(url, config, dialects)
        if lack is not None:
            yield Weakness("high", "insecure_listen", f"{url}: {lack}", "listen inside TLS, and with users")
        elif not is_local(url) and read_listened(url, dialects).tls is None:
            finding = f"{url} is signed and not encrypted: keys and values can be read on the way"
            yield Weakness("medium", "no_encryption", finding, "listen inside TLS")
        tls = read_listened(url, dialects).tls
        if tls is not None and tls.oldest_version != TLS_VERSION_DEFAULT:
            finding = f"{url} takes TLS {tls.oldest_version}, whose handshake shows certificates to all on the way"
            yield Weakness(
                "low", "old_tls", finding, f"leave out tls_min once all clients speak TLS {TLS_VERSION_DEFAULT}"
            )
    if int(config.socket_mode, 8) & stat.S_IRWXO and any(not parse_listener(url).hosts for url in config.listen):
        finding = f"every user of this machine may open the Unix sockets, because their mode is {config.socket_mode}"
        yield Weakness("low", "socket_open_to_all", finding, "socket_mode 660 with a socket_group")


def _of_certificates(ends_at: int | None, now_s: float) -> Iterator[Weakness]:
    if ends_at is None:
        return
    help_ = "replace its files: the node reads them again by itself"
    if ends_at <= now_s:
        yield Weakness("high", "certificate_ended", "the certificate of a listener has ended", help_)
    elif ends_at - now_s < CERTIFICATE_WARNING_S:
        days = int((ends_at - now_s) // 86_400)
        yield Weakness(
            "medium", "certificate_ends_soon", f"a listener's certificate ends within {days + 1} days", help_
        )


def _of_revocations(ends_at: int | None, now_s: float) -> Iterator[Weakness]:
    if ends_at is None:
        return
    help_ = "replace the file of crl: the node reads it again by itself"
    if ends_at <= now_s:
        finding = "a list of revoked certificates has ended, and every client of its listener is refused"
        yield Weakness("high", "revocations_ended", finding, help_)
    elif ends_at - now_s < CERTIFICATE_WARNING_S:
        days = int((ends_at - now_s) // 86_400)
        finding = f"a list of revoked certificates ends within {days + 1} days: it refuses every client from then on"
        yield Weakness("medium", "revocations_end_soon", finding, help_)


def _of_users(access: Access, config: NodeConfig) -> Iterator[Weakness]:
    if not config.no_auth and not access.has_administrator:
        finding = "no user with a password has the role admin"
        yield Weakness("medium", "no_administrator", finding, f"start it with room on the disk, or give {ADMIN_ROLE}")
    bare = sorted(name for name, user in access.users.items() if user.verifier is None and not user.disabled)
    if bare:
        finding = f"users without a password, whom a certificate or a process lets in: {_listed(bare)}"
        yield Weakness("low", "users_without_password", finding, "see that each certificate of theirs can be revoked")
    endless = sorted(name for name, token in access.tokens.items() if token.expires_at_ms is None)
    if endless:
        finding = f"tokens without an end: {_listed(endless)}"
        yield Weakness("medium", "tokens_without_end", finding, "make others with --ttl, and revoke these")
    if config.signing_key_file is not None and not config.no_auth:
        name = config.signing_user or config.admin_user
        user = access.users.get(name)
        if user is None or user.disabled:
            lack = "is disabled" if user is not None else "is not there"
            finding = f"peers with the key of signing_key_file act as {name!r}, which {lack}, and may do nothing"
            yield Weakness("low", "signing_user_unknown", finding, "name a user that is there: signing_user")
        elif ADMIN_ROLE in user.roles:
            finding = "each peer that has the key of signing_key_file acts as an administrator"
            yield Weakness(
                "medium", "signing_key_of_administrator", finding, "name a user of fewer rights: signing_user"
            )


def _of_configuration(config: NodeConfig) -> Iterator[Weakness]:
    if config.durability == "os":
        finding = "writes are answered before they are on the disk; a power failure can lose some of them"
        yield Weakness("medium", "durability_os", finding, "durability sync")


def _of_audit(damage: str) -> Iterator[Weakness]:
    if damage:
        finding = f"the audit log was changed while the node was stopped: {damage}"
        yield Weakness("high", "audit_log_changed", finding, "haptera audit verify, and a copy of its files elsewhere")


def of_secret_files(config: NodeConfig) -> Iterator[Weakness]:
    """The files of keys and passwords that others may read, of those that the configuration names.

    Files of the data directory are looked at by `of_directory`.
    """
    named = [config.signing_key_file, config.master_key_file, config.admin_password_file]
    for url in config.listen:
        address = parse_listener(url)
        named += [address.options.get("key"), address.options.get("key_file")]
    for file in dict.fromkeys(name for name in named if name is not None):
        yield from _of_secret_file(file)


def _of_secret_file(file: str) -> Iterator[Weakness]:
    try:
        mode = stat.S_IMODE(os.stat(file).st_mode)
    except OSError:
        return
    if mode & _OTHERS:
        finding = f"others than its owner may read {file} (mode {mode:o})"
        yield Weakness("high", "key_file_open_to_others", finding, f"chmod 600 {file}")


def _of_work(node: Node, now_s: float) -> Iterator[Weakness]:
    if node.audit.trouble:
        finding = f"the audit log cannot be written, and administration is refused: {node.audit.trouble}"
        yield Weakness("high", "audit_not_written", finding, "make room; after a failure of the disk start it again")
    period = node.maintenance
    if period is not None and now_s - period.since_ms / 1000 >= MAINTENANCE_AGE_S:
        days = int((now_s - period.since_ms / 1000) // 86_400)
        finding = f"changes have been refused for {days} days, by maintenance: {period.reason}"
        yield Weakness("low", "maintenance_lasts", finding, "haptera maintenance off")


def of_process(swaps: str = _SWAPS) -> Iterator[Weakness]:
    """The weaknesses of this process, as that of a node."""
    if os.geteuid() == 0:
        finding = "the node runs as root: a fault in it is a fault of the whole machine"
        yield Weakness("medium", "runs_as_root", finding, "start it as a user of its own")
    if resource.getrlimit(resource.RLIMIT_CORE)[0]:
        finding = "a crash may write keys and values from memory into a core file"
        yield Weakness("medium", "core_dumps", finding, "ulimit -c 0, LimitCORE=0 for systemd")
    if _has_swap(swaps):
        finding = "memory with keys and values may be written to swap, which the node does not encrypt"
        yield Weakness("low", "swap", finding, "encrypt the swap, or MemorySwapMax=0 for systemd")


def of_directory(path: str, now_s: float) -> list[Weakness]:
    """The weaknesses of a data directory, whether a node has it open or not. Raises OSError where it cannot be read."""
    found: list[Weakness] = []
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        finding = f"{path} belongs to the user {status.st_uid}, and not to the one who asks, {os.geteuid()}"
        found.append(Weakness("low", "directory_of_another", finding, "run the node, and this command, as its owner"))
    mode = stat.S_IMODE(status.st_mode)
    if mode & _WRITING_OTHERS:
        finding = f"others than its owner may change files in {path} (mode {mode:o})"
        found.append(Weakness("high", "directory_open_to_others", finding, f"chmod 700 {path}"))
    elif mode & _OTHERS:
        finding = f"others than its owner may look into {path} (mode {mode:o})"
        found.append(Weakness("low", "directory_readable", finding, f"chmod 700 {path}"))
    parent = os.path.dirname(os.path.abspath(path))
    above = os.stat(parent).st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX:
        finding = f"everyone may put another directory in the place of this one, in {parent}"
        found.append(Weakness("high", "parent_open_to_all", finding, f"chmod o-w {parent}"))
    for name in _SECRETS:
        found += _of_secret_file(os.path.join(path, name))
    found += _of_master_keys(path)
    found += _of_snapshots(os.path.join(path, "snapshots"), now_s)
    return found


def _of_master_keys(path: str) -> Iterator[Weakness]:
    if os.path.exists(os.path.join(path, "master.key")):
        finding = "the master key is beside the data: any reader of the directory can read the data"
        help_ = "haptera storage rotate-key DIR --new-master-key-file FILE, with the node stopped"
        yield Weakness("medium", "master_key_beside_data", finding, help_)
    kept = [os.path.basename(file) for file in kept_master_keys(OsFileSystem(), path)]
    if kept:
        finding = f"master keys that were replaced are still here, and open backups: {_listed(kept)}"
        yield Weakness("low", "unused_master_keys", finding, "keep them where no one finds the backups, and not here")


def _of_snapshots(path: str, now_s: float) -> Iterator[Weakness]:
    times = [entry.stat().st_mtime for entry in os.scandir(path)] if os.path.isdir(path) else []
    age_s = now_s - min(times, default=now_s)
    if age_s > SNAPSHOT_AGE_S:
        finding = f"a snapshot is {int(age_s // 86_400)} days old, and has values that may have been deleted since"
        yield Weakness("low", "old_snapshot", finding, "a smaller retain_for, and a node that runs")


def _listed(names: list[str]) -> str:
    left = len(names) - NAMES_MAX
    more = f" and {left} others" if left > 0 else ""
    return ", ".join(names[:NAMES_MAX]) + more


def _has_swap(swaps: str) -> bool:
    try:
        return len(Path(swaps).read_text().splitlines()) > 1  # behind its head
    except (OSError, ValueError):
        return False
