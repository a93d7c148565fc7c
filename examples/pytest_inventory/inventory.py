"""Stock that customers reserve for a while. A reservation ends by itself, and its pieces are free again.

The tests beside it show how such a program is tested with `haptera.testing`: ``pytest examples/pytest_inventory``.
"""

from __future__ import annotations

import msgspec

import haptera

#: Seconds for which a customer has the pieces in the basket.
HELD_S = 15 * 60.0


class Stock(msgspec.Struct):
    """The pieces of an item that are there, sold ones excepted."""

    pieces: int


class Reservation(msgspec.Struct):
    """Pieces that one customer has in the basket."""

    item: str
    pieces: int


class SoldOut(Exception):
    """There are not as many free pieces."""


class Inventory:
    """The stock in one store. Any number of programs may work with it at once."""

    def __init__(self, db: haptera.Database) -> None:
        self._db = db
        self._stock = db.typed(Stock)
        self._reservations = db.typed(Reservation)

    async def stock(self, item: str, pieces: int) -> None:
        """Set how many pieces of an item are there."""
        await self._stock.set(f"stock/{item}", Stock(pieces))

    async def free(self, item: str) -> int:
        """Return how many pieces of an item are neither sold nor reserved."""
        entry = await self._stock.get(f"stock/{item}")
        held = [each.value.pieces async for each in self._reservations.scan(prefix=f"reserved/{item}/")]
        return (entry.value.pieces if entry else 0) - sum(held)

    async def reserve(self, item: str, customer: str, pieces: int) -> None:
        """Reserve pieces for a customer, in place of those that the customer has reserved before.

        The stock is written, although it stays as it is: so of two reservations that are judged at once one is judged
        again, behind the other.

        Raises:
            SoldOut: There are not as many free pieces.
        """
        while True:
            entry = await self._stock.get(f"stock/{item}")
            own = await self._reservations.get(key := f"reserved/{item}/{customer}")
            free = await self.free(item) + (own.value.pieces if own else 0)
            if entry is None or free < pieces:
                raise SoldOut(item)
            try:
                async with self._db.transaction() as tx:
                    current = await tx.get(entry.key)
                    if current is None or current.version != entry.version:
                        continue
                    self._stock.within(tx).set(entry.key, entry.value)
                    self._reservations.within(tx).set(key, Reservation(item, pieces), ttl=HELD_S)
            except haptera.TransactionConflict:
                continue
            return

    async def buy(self, item: str, customer: str) -> bool:
        """Sell the pieces that a customer has reserved. Gives whether there was a reservation still."""

        async def sell(tx: haptera.Transaction) -> bool:
            reserved = await self._reservations.within(tx).get(f"reserved/{item}/{customer}")
            stock = await self._stock.within(tx).get(f"stock/{item}")
            if reserved is None or stock is None:
                return False
            self._stock.within(tx).set(stock.key, Stock(stock.value.pieces - reserved.value.pieces))
            tx.delete(reserved.key)
            return True

        return await self._db.run(sell)
