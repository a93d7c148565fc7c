"""The part of the services in the audit log of their node, and what of it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.node.services.recorded_commands import RecordedCommands
from haptera.node.services.recorded_requests import RecordedRequests

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.node.audit.audit import Audit
    from haptera.node.config import NodeConfig
    from haptera.peer import Request

__all__ = ["AuditRecording"]


class AuditRecording:
    """Gives each service what it records with."""

    def __init__(self, audit: Audit, config: NodeConfig) -> None:
        #: Records denials, administration and attempts to authenticate.
        self.requests: RecordedRequests = RecordedRequests(audit)
        self._audit = audit
        self._config = config

    def commands(self, followed: dict[Request, Failure | None]) -> RecordedCommands:
        """Record the requests of a kv service with these long reads, as far as they are slow or configured."""
        return RecordedCommands(self._audit, self._config.audit_data, self._config.audit_slow, followed)
