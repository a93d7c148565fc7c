"""``server.rotate_key`` (spec/protocol.md 7.2): the keys of a node are changed while it serves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from haptera.errors import Code, ConfigurationError, Failure, StorageError, failure
from haptera.node.shortage import no_room
from haptera.storage import DiskFailed, DiskFull

if TYPE_CHECKING:
    from haptera.node.key_rotation import KeyRotation
    from haptera.node.services.recorded_requests import RecordedRequests
    from haptera.peer import Request

_logger = logging.getLogger(__name__)


class RotateKey(msgspec.Struct, frozen=True):
    """The argument of the method: the data key is changed, or with ``master`` the master key."""

    master: bool = False


class KeyRotations:
    """Answers the requests to change a key, one after the other; a second one at the same time is refused (3007)."""

    def __init__(self, rotation: KeyRotation, recorded: RecordedRequests) -> None:
        self._rotation = rotation
        self._recorded = recorded
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def add(self, request: Request, asked: RotateKey) -> None:
        """Change a key, and answer with the ids of the keys that are in use then."""
        if self._stopped:
            self._recorded.fail(request, failure(Code.SHUTTING_DOWN, outcome="not_applied"))
            return
        if self._task is not None:
            self._recorded.fail(request, failure(Code.TOO_MANY_REQUESTS, outcome="not_applied"))
            return
        # A task of the node and not of the request: a change that has begun goes on when its requester has gone.
        self._task = asyncio.get_running_loop().create_task(self._change(request, asked))
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Wait for no source of a master key any more: the node is stopping (5005)."""
        self._stopped = True
        self._rotation.stop()
        if self._task is not None:
            self._task.cancel()

    def _ended(self, _: object) -> None:
        self._task = None

    async def _change(self, request: Request, asked: RotateKey) -> None:
        rotation = self._rotation
        try:
            keys = await (rotation.change_master_key() if asked.master else rotation.rotate_data_key())
        except ConfigurationError as error:
            self._recorded.fail(request, failure(Code.INVALID_ARGUMENT, {"field": "master", "reason": str(error)}))
        except StorageError as error:
            self._recorded.fail(request, _failed(error))
        except asyncio.CancelledError:
            self._recorded.fail(request, failure(Code.SHUTTING_DOWN, outcome="unknown"))
        except Exception:
            _logger.exception("key_not_changed", extra={"stream": request.stream})
            self._recorded.fail(request, failure(Code.HANDLER_FAILED))
        else:
            _logger.info(
                "key_changed",
                extra={"data_key": keys.data_key.hex(), "master_key": keys.master_key.hex(), "master": asked.master},
            )
            self._recorded.respond(request, msgspec.msgpack.encode(keys))


def _failed(error: StorageError) -> Failure:
    _logger.error("key_not_changed", extra={"reason": str(error)})
    if isinstance(error, DiskFailed):
        return failure(Code.STORAGE_FAILED, outcome="unknown")
    if isinstance(error, DiskFull):
        return no_room(error.number)
    return failure(Code.STORAGE_FULL, outcome="not_applied", message=str(error))  # there are too many keys
