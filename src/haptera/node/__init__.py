"""A node: the database put together from its state machine, its log, its command interface and its services.

A name is imported when it is first used, so that a process pays for no more of a node than it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.node.apply_committed import ApplyFailed
    from haptera.node.audit.chain import Head
    from haptera.node.audit.chain_check import Fault
    from haptera.node.commands import ANONYMOUS, Envelope
    from haptera.node.config import OPTIONS, NodeConfig
    from haptera.node.config_sources import load, misspelt
    from haptera.node.descriptors import raise_limit
    from haptera.node.first_start import AdminPassword, check_password, make_administrator
    from haptera.node.key_rotation import CurrentKeys
    from haptera.node.listened import parse_listener, read_listened
    from haptera.node.listening import NodeServer
    from haptera.node.listening_checks import check_listening
    from haptera.node.logging import configure_logging, fields_of
    from haptera.node.malloc_settings import return_large_blocks
    from haptera.node.master_key import MasterKeyCommand, MasterKeySource, read_master_key_file
    from haptera.node.node import Node
    from haptera.node.offline.audit import AuditVerification, noted_head, verify_audit
    from haptera.node.offline.audit_lines import audit_lines
    from haptera.node.offline.from_backup import Restored, restore_backup, verify_backup
    from haptera.node.offline.keys import Migration, change_master_key, migrate, rotate_data_key
    from haptera.node.offline.pitr import Reach, Timeline, shown_time
    from haptera.node.offline.salvage import Lost, NothingWhole, Salvaged, salvage
    from haptera.node.offline.target import build_directory
    from haptera.node.offline.verify import Start, Verification, verify
    from haptera.node.option_kinds import flag_of
    from haptera.node.scans import page_steps
    from haptera.node.services.admin_methods import ADMIN_METHODS
    from haptera.node.services.backup_stream import backup_answer
    from haptera.node.services.embedded_administration import administer_embedded, is_administration
    from haptera.node.services.kv_methods import METHODS
    from haptera.node.services.msgpack_slices import ELEMENTS_MAX, convert_steps
    from haptera.node.services.replies import too_many_bytes
    from haptera.node.services.server import status
    from haptera.node.watches import LocalFeed
    from haptera.node.weaknesses import Weakness, in_order, of_directory
    from haptera.node.write_batch import DROPPED

__all__ = [
    "ADMIN_METHODS",
    "ANONYMOUS",
    "DROPPED",
    "ELEMENTS_MAX",
    "METHODS",
    "OPTIONS",
    "AdminPassword",
    "ApplyFailed",
    "AuditVerification",
    "CurrentKeys",
    "Envelope",
    "Fault",
    "Head",
    "LocalFeed",
    "Lost",
    "MasterKeyCommand",
    "MasterKeySource",
    "Migration",
    "Node",
    "NodeConfig",
    "NodeServer",
    "NothingWhole",
    "Reach",
    "Restored",
    "Salvaged",
    "Start",
    "Timeline",
    "Verification",
    "Weakness",
    "administer_embedded",
    "audit_lines",
    "backup_answer",
    "build_directory",
    "change_master_key",
    "check_listening",
    "check_password",
    "configure_logging",
    "convert_steps",
    "fields_of",
    "flag_of",
    "in_order",
    "is_administration",
    "load",
    "make_administrator",
    "migrate",
    "misspelt",
    "noted_head",
    "of_directory",
    "page_steps",
    "parse_listener",
    "raise_limit",
    "read_listened",
    "read_master_key_file",
    "restore_backup",
    "return_large_blocks",
    "rotate_data_key",
    "salvage",
    "shown_time",
    "status",
    "too_many_bytes",
    "verify",
    "verify_audit",
    "verify_backup",
]

# The names of each module.
_NAMES: Final = {
    "haptera.node.apply_committed": ("ApplyFailed",),
    "haptera.node.audit.chain": ("Head",),
    "haptera.node.audit.chain_check": ("Fault",),
    "haptera.node.offline.audit": ("AuditVerification", "noted_head", "verify_audit"),
    "haptera.node.offline.audit_lines": ("audit_lines",),
    "haptera.node.weaknesses": ("Weakness", "in_order", "of_directory"),
    "haptera.node.write_batch": ("DROPPED",),
    "haptera.node.commands": (
        "ANONYMOUS",
        "Envelope",
    ),
    "haptera.node.config": (
        "NodeConfig",
        "OPTIONS",
    ),
    "haptera.node.descriptors": ("raise_limit",),
    "haptera.node.logging": ("configure_logging", "fields_of"),
    "haptera.node.malloc_settings": ("return_large_blocks",),
    "haptera.node.first_start": ("AdminPassword", "check_password", "make_administrator"),
    "haptera.node.key_rotation": ("CurrentKeys",),
    "haptera.node.master_key": ("MasterKeyCommand", "MasterKeySource", "read_master_key_file"),
    "haptera.node.node": ("Node",),
    "haptera.node.offline.from_backup": ("Restored", "restore_backup", "verify_backup"),
    "haptera.node.offline.keys": ("Migration", "change_master_key", "migrate", "rotate_data_key"),
    "haptera.node.offline.pitr": ("Timeline", "Reach", "shown_time"),
    "haptera.node.offline.salvage": ("Lost", "NothingWhole", "Salvaged", "salvage"),
    "haptera.node.offline.target": ("build_directory",),
    "haptera.node.offline.verify": ("Start", "Verification", "verify"),
    "haptera.node.option_kinds": ("flag_of",),
    "haptera.node.scans": ("page_steps",),
    "haptera.node.listened": ("parse_listener", "read_listened"),
    "haptera.node.listening": ("NodeServer",),
    "haptera.node.listening_checks": ("check_listening",),
    "haptera.node.services.admin_methods": ("ADMIN_METHODS",),
    "haptera.node.services.kv_methods": ("METHODS",),
    "haptera.node.services.backup_stream": ("backup_answer",),
    "haptera.node.services.embedded_administration": ("administer_embedded", "is_administration"),
    "haptera.node.services.replies": ("too_many_bytes",),
    "haptera.node.services.msgpack_slices": (
        "ELEMENTS_MAX",
        "convert_steps",
    ),
    "haptera.node.services.server": ("status",),
    "haptera.node.watches": ("LocalFeed",),
    "haptera.node.config_sources": (
        "load",
        "misspelt",
    ),
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, {name: module for module, names in _NAMES.items() for name in names})
