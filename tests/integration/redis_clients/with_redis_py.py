"""Works with a store as a program with redis-py does: its calls, pipelines, transactions, scans, locks and messages."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Literal

import redis
from redis.cache import CacheConfig
from redis.exceptions import LockNotOwnedError, ResponseError, WatchError
from redis.lock import Lock


class ConditionalLock(Lock):
    """redis-py's lock without its scripts: it is given back and kept under the condition that it is still ours."""

    def register_scripts(self) -> None:
        """Register nothing: there are no scripts."""

    def do_release(self, expected_token: Any) -> None:
        """Delete the lock if it has our token."""
        if not self.redis.execute_command("DELEX", self.name, "IFEQ", expected_token):
            raise LockNotOwnedError("the lock is not ours any more")

    def do_reacquire(self) -> Literal[True]:
        """Begin the lock's time again."""
        token = self.local.token
        milliseconds = int((self.timeout or 0) * 1000)
        if not self.redis.execute_command("SET", self.name, token, "IFEQ", token, "PX", milliseconds):
            raise LockNotOwnedError("the lock is not ours any more")
        return True


def work(db: Any) -> None:
    """Do what programs do with strings and times to live."""
    assert db.ping()
    assert db.set("a", "1")
    assert db.get("a") == b"1"
    assert db.set("a", "2", nx=True) is None
    assert db.set("a", "2", xx=True, ex=1000, get=True) == b"1"
    assert 990 < db.ttl("a") <= 1000
    assert db.set("a", "3", keepttl=True)
    assert db.pttl("a") > 0
    assert db.persist("a")
    assert db.incr("n", 5) == 5
    assert db.decr("n") == 4
    assert db.getdel("n") == b"4"
    assert db.mset({"x": "1", "y": "2"})
    assert db.mget("x", "nothing", "y") == [b"1", None, b"2"]
    assert db.msetnx({"x": "9", "z": "9"}) is False
    assert db.exists("x", "y", "z") == 2
    assert db.rename("x", "w")
    assert db.type("w") == b"string"
    assert db.strlen("w") == 1
    assert db.expire("w", 100, lt=True)
    assert db.getex("w", persist=True) == b"1"
    assert db.delete("w", "y", "nothing") == 2
    try:
        db.incr("text") if db.set("text", "text") else None
    except ResponseError as error:
        assert str(error) == "value is not an integer or out of range"
    else:
        raise AssertionError("a text was counted with")
    assert db.object("encoding", "text") == b"embstr"
    assert db.dbsize() == 2
    assert sorted(db.keys("*")) == [b"a", b"text"]


def server(db: Any) -> None:
    """Ask about the server and the connection."""
    assert db.client_getname() in {"test", b"test"}
    assert int(db.info("server")["uptime_in_seconds"]) >= 0
    assert db.info()["role"] == "master"
    assert db.time()[0] > 0
    assert db.wait(0, 1) == 0
    assert db.config_get("databases")
    assert db.client_id() > 0
    assert any(client["name"] == "test" for client in db.client_list())
    assert db.command_count() > 50
    assert db.echo("hello") in {"hello", b"hello"}
    assert db.memory_usage("a") > 0


def pipelines(db: Any) -> None:
    """Send many commands at once, in transactions and without; one fails because a watched key has changed."""
    with db.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"p:{number}", number)
        assert pipe.execute() == [True] * 500
    with db.pipeline() as pipe:
        replies = pipe.get("p:7").incr("p:7").mget("p:7", "p:8").expire("p:7", 100).ttl("p:7").execute()
    assert replies[:3] == [b"7", 8, [b"8", b"8"]]
    assert replies[3:] == [True, 100]
    with db.pipeline() as pipe:
        pipe.watch("p:1")
        value = int(pipe.get("p:1"))
        pipe.multi()
        pipe.set("p:1", value + 1)
        assert pipe.execute() == [True]
        pipe.watch("p:1")
        db.set("p:1", "other")
        pipe.multi()
        pipe.set("p:1", "mine")
        try:
            pipe.execute()
        except WatchError:
            pass
        else:
            raise AssertionError("a change of a watched key was overwritten")
    assert db.get("p:1") == b"other"
    assert db.transaction(lambda pipe: pipe.multi() or pipe.incr("p:2"), "p:2") == [3]
    assert len(set(db.scan_iter("p:*", count=50))) == 500
    assert len(set(db.scan_iter(match="p:1?"))) == 10


def has_delex(db: Any) -> bool:
    """Whether the server deletes under a condition: a Redis before 8.4 has no lock without scripts."""
    try:
        db.execute_command("DELEX", "nothing", "IFEQ", "x")
    except ResponseError as error:
        assert str(error).startswith("unknown command")
        return False
    return True


def locks(db: Any) -> None:
    """Hold a lock that another one wants."""
    lock = ConditionalLock(db, "lock", timeout=100)
    assert lock.acquire(blocking=False)
    assert not ConditionalLock(db, "lock", timeout=100).acquire(blocking=False)
    assert lock.owned()
    assert lock.reacquire()
    lock.release()
    assert db.get("lock") is None
    assert lock.acquire(blocking=False)
    db.set("lock", "another's")
    try:
        lock.release()
    except LockNotOwnedError:
        pass
    else:
        raise AssertionError("another's lock was given back")


def messages(db: Any) -> None:
    """Hear of a key's changes."""
    with db.pubsub() as heard:
        heard.psubscribe("__keyspace@0__:m*")
        assert heard.get_message(timeout=10)["type"] == "psubscribe"
        db.set("m1", "1")
        db.delete("m1")
        found: list[Any] = []
        while len(found) < 2:
            message = heard.get_message(timeout=10)
            assert message is not None, found
            found.append((message["channel"], message["data"]))
    assert found == [(b"__keyspace@0__:m1", b"set"), (b"__keyspace@0__:m1", b"del")]


def caching(url: str) -> None:
    """Read from the client's own memory, until another connection changes the key."""
    db: Any = redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig())
    other = redis.Redis.from_url(url)
    db.set("c", "1")
    assert db.get("c") == b"1"
    assert db.get("c") == b"1"
    assert db.get_cache().size == 1
    other.set("c", "2")
    limit = time.monotonic() + 10
    while db.get("c") != b"2":
        assert time.monotonic() < limit, "the client was not told of a change"
        time.sleep(0.01)
    db.close()
    other.close()


def many_threads(db: Any) -> None:
    """Count together: no increment is lost."""

    def count() -> None:
        for _ in range(50):
            db.incr("together")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.get("together") == b"200"


def main(url: str) -> None:
    """Do all of it by RESP2 and by RESP3."""
    for protocol in (2, 3):
        with redis.Redis.from_url(url, protocol=protocol, client_name="test") as db:
            db.flushdb()
            work(db)
            pipelines(db)
            messages(db)
            many_threads(db)
            if has_delex(db):
                locks(db)
            server(db)
            version = [int(number) for number in db.info()["redis_version"].split(".")]
            if protocol == 3 and version >= [7, 4]:  # the client refuses to cache beside an older one
                caching(url)


if __name__ == "__main__":
    main(sys.argv[1])
    print("done")
