"""The one database of a process, for all of its threads, and the orders that are kept there."""

from __future__ import annotations

import atexit
import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

import haptera.sync

#: Seconds for which a repeated order is recognised.
REMEMBERED_S = 24 * 3600.0


@dataclass
class Order:
    """An order that was taken."""

    number: int
    item: str
    count: int


@dataclass
class Taken:
    """The answer to an idempotency key: the order, and the digest of the request that it was given to."""

    digest: str
    order: Order


class SoldOut(Exception):
    """There are not as many pieces as were ordered."""


class KeyReused(Exception):
    """The idempotency key belongs to another request."""


_opening = threading.Lock()  # threads that begin together would each open a database otherwise
_opened: tuple[haptera.sync.Database, haptera.sync.Cache] | None = None


def opened() -> tuple[haptera.sync.Database, haptera.sync.Cache]:
    """Return the database of this process, and a copy of the flags in its memory that follows the store.

    Both are opened by the first request, and so behind the fork where a server loads the program before it forks.
    """
    global _opened
    with _opening:
        if _opened is None:
            db = haptera.sync.connect(settings.HAPTERA_URL)
            atexit.register(db.close)
            _opened = db, db.cached(prefix="flags/").__enter__()
        return _opened


def database() -> haptera.sync.Database:
    """Return the database of this process. Its threads share one connection."""
    return opened()[0]


def is_on(name: str) -> bool:
    """Return whether a flag is on, without a call to the store."""
    _, flags = opened()
    entry = flags.get(f"flags/{name}")
    return entry is not None and entry.text == "on"


def take_order(idempotency_key: str, item: str, count: int) -> tuple[Order, bool]:
    """Take an order once, however often it is sent.

    The stock, the number, the order and the answer are one transaction. Of two equal orders that come together one
    finds at its end that the key was taken, and runs again.

    Returns:
        The order, and whether it was taken before.

    Raises:
        SoldOut: There are not as many pieces.
        KeyReused: The idempotency key belongs to another request.
    """
    db = database()
    digest = hashlib.sha256(f"{item}\n{count}".encode()).hexdigest()
    answer_key = f"idempotency/{hashlib.sha256(idempotency_key.encode()).hexdigest()}"

    def take(tx: haptera.sync.Transaction) -> tuple[Order, bool]:
        answers = db.typed(Taken).within(tx)
        taken = answers.get(answer_key)
        if taken is not None:
            if taken.value.digest != digest:
                raise KeyReused
            return taken.value.order, True
        stock, last = tx.get_many([f"stock/{item}", "orders/last"])
        left = int(stock.text) if stock else 0
        if left < count:
            raise SoldOut
        order = Order(int(last.text) + 1 if last else 1, item, count)
        tx.set(f"stock/{item}", str(left - count))
        tx.set("orders/last", str(order.number))
        db.typed(Order).within(tx).set(f"orders/{order.number:08}", order)
        answers.set(answer_key, Taken(digest, order), ttl=REMEMBERED_S)
        return order, False

    return db.run(take)


@receiver(setting_changed)
def forget(*, setting: str, **_: Any) -> None:
    """Have the tests of a project name another store, by ``override_settings(HAPTERA_URL=...)``."""
    global _opened
    if setting == "HAPTERA_URL" and _opened is not None:
        _opened[0].close()
        _opened = None
