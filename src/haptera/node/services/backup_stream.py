"""``server.backup`` (spec/protocol.md 7.2): the bytes of a backup as items, and its end as the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, LocalProtocolError, ServerError, StorageError, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.backups import Backups, OpenBackup
    from haptera.node.services.recorded_requests import RecordedRequests
    from haptera.peer import Request

_logger = logging.getLogger(__name__)

#: Seconds in which a requester takes no item, after which its backup ends: it pins files as long as it is open.
STALLED_S: Final = 300.0
_STALLED: Final = f"no item of the backup was taken for {STALLED_S:g} seconds"


class BackupStreams:
    """Answers the requests for a backup, each in a task."""

    def __init__(self, backups: Backups, recorded: RecordedRequests) -> None:
        self._backups = backups
        self._recorded = recorded
        self._tasks: dict[asyncio.Task[None], Request] = {}
        self._stopped = False

    def add(self, request: Request, judge: Callable[[], Failure | None]) -> None:
        """Send the request a backup of the state as it is now, as long as ``judge`` gives no reason against it."""
        if self._stopped:
            self._recorded.fail(request, failure(Code.SHUTTING_DOWN, outcome="not_applied"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, judge))
        self._tasks[task] = request
        task.add_done_callback(self._ended)

        def cancel() -> None:
            task.cancel()

        request.on_cancel = cancel

    def stop(self) -> None:
        """End every backup: the node is stopping (5005)."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        request = self._tasks.pop(task)
        if task.cancelled():  # before its first step
            self._recorded.fail(request, failure(Code.CANCELLED, outcome="not_applied"))

    async def _answer(self, request: Request, judge: Callable[[], Failure | None]) -> None:
        try:
            async with self._backups.begin() as backup:
                async for piece in backup.pieces():
                    if (refused := judge()) is not None:
                        self._recorded.fail(request, refused)
                        return
                    async with asyncio.timeout(STALLED_S):
                        await request.send(piece)
            self._recorded.respond(request, msgspec.msgpack.encode(backup_answer(backup)))
        except asyncio.CancelledError:
            self._recorded.fail(
                request, failure(Code.SHUTTING_DOWN if self._stopped else Code.CANCELLED, outcome="not_applied")
            )
        except TimeoutError:
            self._recorded.fail(request, failure(Code.DEADLINE_EXCEEDED, outcome="not_applied", message=_STALLED))
        except ConnectionError:  # no one is left to be answered
            self._recorded.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
        except LocalProtocolError as error:
            self._recorded.fail(
                request, error.failure("not_applied")
            )  # there is no memory for an item, or the peer takes none as large
        except ServerError as error:
            self._recorded.fail(request, Failure(error.code, error.name, error.message, error.outcome, error.details))
        except StorageError as error:
            _logger.error("backup_failed", exc_info=error, extra={"code": int(Code.STORAGE_FAILED)})
            self._recorded.fail(request, failure(Code.STORAGE_FAILED, outcome="not_applied"))
        except Exception:
            _logger.exception("backup_failed", extra={"stream": request.stream})
            self._recorded.fail(request, failure(Code.HANDLER_FAILED, outcome="not_applied"))


def backup_answer(backup: OpenBackup) -> dict[str, Any]:
    """The map that ``server.backup`` answers with; an embedded node gives the same."""
    return {"index": backup.index, "revision": backup.revision, "size": backup.size, "master_key": backup.master_key}
