"""The TLS context of one side over time: read again when its files change, and its end announced.

New connections get the new context, and the open ones keep theirs. Files that cannot be used leave the old context in
place, because a node that takes no connections helps no one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from haptera.errors import ConfigurationError
from haptera.transport.limits import TLS_CONTEXTS_MAX
from haptera.transport.secret_files import warn_of_mode
from haptera.transport.tls_context import Signature, TlsContext, TlsFiles, load_context

#: A certificate that ends within this time is warned of, once a day.
WARNING_S: Final = 14 * 86_400
_WARNING_INTERVAL_S: Final = 86_400

_logger = logging.getLogger("haptera.transport")


class TlsKeeper:
    """Keeps the context of some files. Raises ``ConfigurationError`` if they cannot be used at the beginning.

    ``reloads`` and ``failed_reloads`` count how often the files were read again, and how often in vain.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.current: TlsContext = load_context(files)
        self._check_mode()
        self.reloads: int = 0
        self.failed_reloads: int = 0
        self._tried: Signature = self.current.signature
        self._warned_at: float | None = None

    @property
    def ends_at(self) -> int | None:
        """The Unix time in seconds at which the certificate ends; None where this side has none."""
        certificate = self.current.certificate
        return None if certificate is None else certificate.ends_at

    def look(self, now_s: float) -> None:
        """Read the files again if they have changed, and warn of what ends soon. ``now_s`` is Unix time in seconds."""
        if self.files.signature() != self._tried:
            self.reload(now_s)
        else:
            self._warn(now_s)

    def reload(self, now_s: float) -> bool:
        """Read the files again, changed or not, and return whether they can be used."""
        self._tried = self.files.signature()
        try:
            self.current = load_context(self.files)
        except ConfigurationError as error:
            return self._refused(str(error))
        except Exception as error:  # a fault of this program; its text may hold a part of a key
            return self._refused(f"their reading failed: {type(error).__name__}")
        self._tried = self.current.signature
        self._check_mode()
        self.reloads += 1
        ends = {} if self.ends_at is None else {"ends": _shown(self.ends_at)}
        _logger.info("tls_files_loaded", extra={"files": " ".join(self.files.paths), **ends})
        self._warned_at = None
        self._warn(now_s)
        return True

    def _refused(self, reason: str) -> bool:
        """Go on with the context of before."""
        self.failed_reloads += 1
        meaning = "connections go on with the files of before"
        _logger.error("tls_files_refused", extra={"reason": reason, "meaning": meaning})
        return False

    def _check_mode(self) -> None:
        if self.files.key is not None:
            warn_of_mode(self.files.key, self.current.key_mode)

    def _warn(self, now_s: float) -> None:
        """Warn of what has ended or ends soon, once a day."""
        if self._warned_at is not None and now_s - self._warned_at < _WARNING_INTERVAL_S:
            return
        for ends_at, path, ended, soon in (
            (self.ends_at, self.files.certificate, "certificate_ended", "certificate_ends_soon"),
            (self.current.revocations_end_at, self.files.revoked, "revocations_ended", "revocations_end_soon"),
        ):
            if ends_at is not None and ends_at - now_s < WARNING_S:
                self._warned_at = now_s
                _logger.warning(
                    ended if ends_at <= now_s else soon,
                    extra={"file": path, "ends": _shown(ends_at), "help": "replace the file; it is read by itself"},
                )


def _shown(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


#: The keepers of dialling sides, the one used last at the end: a system's authorities take milliseconds to read.
_dialling: OrderedDict[TlsFiles, TlsKeeper] = OrderedDict()


def context_to_dial(files: TlsFiles, now_s: float) -> TlsContext:
    """Return the context of a dialling side, which those with the same files share. Raises ``ConfigurationError``."""
    keeper = _dialling.get(files)
    if keeper is None:
        keeper = _dialling[files] = TlsKeeper(files)
        if len(_dialling) > TLS_CONTEXTS_MAX:
            _dialling.popitem(last=False)
    _dialling.move_to_end(files)
    keeper.look(now_s)
    return keeper.current
