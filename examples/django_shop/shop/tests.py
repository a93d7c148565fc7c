"""Tests of the shop with Django's test client, each with a store of its own: ``python manage.py test``."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.test import Client, SimpleTestCase, override_settings

from haptera.testing import node_in_thread
from shop import store


class ShopTests(SimpleTestCase):
    """The shop as its clients see it."""

    def setUp(self) -> None:
        """Begin with an empty store."""
        url = self.enterContext(node_in_thread(storage="memory"))
        self.enterContext(override_settings(HAPTERA_URL=url))

    def order(self, key: str, item: str = "apple", count: int = 1) -> Any:
        """Send an order."""
        return Client().post(
            "/orders", {"item": item, "count": count}, content_type="application/json", headers={"Idempotency-Key": key}
        )

    def eventually(self, holds: Callable[[], bool]) -> None:
        """Wait for something that a copy of the flags will say soon."""
        end = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_an_order_that_is_sent_again_is_taken_once(self) -> None:
        store.database().set("stock/apple", "3")
        first, again = self.order("k1", count=2), self.order("k1", count=2)
        self.assertEqual((first.status_code, again.status_code), (201, 200))
        self.assertEqual(first.json(), again.json())
        self.assertEqual(self.order("k1", count=1).status_code, 422)
        self.assertEqual(self.order("k2", count=2).status_code, 409)
        self.assertEqual(self.order("k3", item="pear").status_code, 409)
        self.assertEqual(self.order("").status_code, 400)

    def test_of_equal_orders_that_come_together_one_is_taken(self) -> None:
        store.database().set("stock/apple", "100")
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda number: self.order(f"k{number % 4}"), range(32)))
        self.assertEqual(sorted(answer.status_code for answer in answers), [200] * 28 + [201] * 4)
        self.assertEqual({answer.json()["number"] for answer in answers}, {1, 2, 3, 4})
        stock = store.database().get("stock/apple")
        assert stock is not None
        self.assertEqual(stock.text, "96")

    def test_a_flag_is_changed_by_the_version_that_was_read(self) -> None:
        client = Client()
        tag = client.get("/flags/closed").headers["ETag"]
        closed = client.put("/flags/closed", "on", headers={"If-Match": tag})
        self.assertEqual(closed.status_code, 200)
        self.assertEqual(client.put("/flags/closed", "on", headers={"If-Match": tag}).status_code, 412)
        self.eventually(lambda: self.order("k").status_code == 503)
        client.put("/flags/closed", "off", headers={"If-Match": closed.headers["ETag"]})
        self.eventually(lambda: self.order("k").status_code == 409)
