"""Works with a store as a Django project does: its cache, and a limit of requests that django-ratelimit keeps there.

A result of a Celery task, which django-celery-results keeps in that cache, is read back.
"""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings


def configure(url: str) -> None:
    """Set up a project that has nothing but a cache."""
    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}},
        INSTALLED_APPS=["django_celery_results"],
        SECRET_KEY="of a test",
        USE_TZ=True,
    )
    django.setup()


def caching(cache: Any) -> None:
    """Make each call that Django's cache has."""
    cache.clear()
    cache.set("a", {"x": [1, 2]}, 1000)
    assert cache.get("a") == {"x": [1, 2]}
    assert cache.add("a", 1) is False
    assert cache.add("b", 1, timeout=1000) is True
    assert cache.get("nothing", "else") == "else"
    assert cache.incr("b") == 2
    assert cache.decr("b", 2) == 0
    assert cache.set_many({f"m:{number}": number for number in range(20)}, timeout=1000) == []
    assert cache.get_many([f"m:{number}" for number in range(22)]) == {f"m:{number}": number for number in range(20)}
    assert cache.touch("a", 5000)
    assert cache.has_key("a")
    assert cache.get_or_set("c", lambda: "made") == "made"
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.delete_many(["m:1", "m:2"])
    assert cache.delete("a")
    assert not cache.delete("a")
    try:
        cache.incr("nothing")
    except ValueError:
        pass
    else:
        raise AssertionError("a key that is not there was counted with")
    cache.clear()
    assert cache.get("c") is None


def limiting() -> None:
    """Let five requests in an hour pass."""
    from django.test import RequestFactory
    from django_ratelimit.core import is_ratelimited

    request = RequestFactory().get("/")
    limited = [is_ratelimited(request, group="g", key="ip", rate="5/h", increment=True) for _ in range(7)]
    assert limited == [False] * 5 + [True] * 2


def results() -> None:
    """Keep the result of a task, and read it as another process would."""
    from celery import Celery

    app = Celery("test", broker="memory://", backend="django-cache")
    app.backend.store_result("id-1", {"sum": 3}, "SUCCESS")
    found = app.AsyncResult("id-1")
    assert found.get(timeout=10) == {"sum": 3}
    found.forget()
    assert app.AsyncResult("id-1").state == "PENDING"


if __name__ == "__main__":
    configure(sys.argv[1])
    from django.core.cache import cache

    caching(cache)
    limiting()
    results()
    print("done")
