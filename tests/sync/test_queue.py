# Generated from tests/unit/client/recipes/test_queue.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Queues, on a served and on an embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haptera.errors import Fenced, KeyExists, NotAnInteger, ValueTooLarge
from haptera.sync import Database, Job, Worker
from tests.support.stores import opened_in_thread

LONG_S = 3600.0


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def keys_of(db: Database, name: str) -> set[str]:
    return {entry.key.removeprefix(name) for entry in db.scan(prefix=name + "/", keys_only=True)}


def taken(worker: Worker) -> Job:
    job = worker.take(wait=10.0)
    assert job is not None
    return job


def test_jobs_are_taken_in_their_order_and_are_gone_when_they_are_done(db: Database) -> None:
    mail = db.queue("mail")
    assert mail.put("a") == 1
    assert mail.put_many([b"b", "c"]) == range(2, 4)
    assert mail.put_many([]) == range(0)
    assert mail.size() == 3
    with mail.worker() as worker:
        for number, text in enumerate("abc", 1):
            with taken(worker) as job:
                assert (job.number, job.text, job.value, job.attempts) == (number, text, text.encode(), 1)
                assert job.held
            assert not job.held
        assert worker.take(wait=0) is None
    assert mail.size() == 0
    assert keys_of(db, "mail") == {"/.last", "/.claims/ready"}


def test_a_worker_that_was_entered_knows_the_jobs_that_are_there(db: Database) -> None:
    db.queue("mail").put("a")
    with db.queue("mail").worker() as worker:
        job = worker.take(wait=0)
        assert job is not None
        job.ack()


def test_a_job_whose_block_raises_comes_back_and_counts_its_attempts(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("a")
    with mail.worker() as one, mail.worker() as other:
        for attempts, worker in enumerate((one, other, one), 1):
            job = taken(worker)
            assert job.attempts == attempts
            with pytest.raises(RuntimeError, match="no luck"):
                with job:
                    raise RuntimeError("no luck")
        with taken(other) as job:
            assert job.attempts == 4
    assert keys_of(db, "mail") == {"/.last", "/.claims/ready"}


def test_a_job_that_is_put_or_given_back_with_a_delay_waits_for_it(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("never", delay=LONG_S)
    with mail.worker(delay=LONG_S) as worker:
        assert worker.take(wait=0) is None
        mail.put("soon", delay=0.05)
        job = taken(worker)
        assert job.text == "soon"
        job.release(delay=0.05)
        job = taken(worker)
        assert (job.text, job.attempts) == ("soon", 2)
        with pytest.raises(RuntimeError):
            with job:
                raise RuntimeError
        assert worker.take(wait=0.05) is None
    assert mail.size() == 2


def test_jobs_in_hand_are_free_when_their_worker_ends(db: Database) -> None:
    mail = db.queue("mail")
    mail.put_many(["a", "b"])
    with mail.worker() as other:
        with mail.worker() as worker:
            one, two = (taken(worker), taken(worker))
            assert other.take(wait=0) is None
        assert {taken(other).number for _ in range(2)} == {one.number, two.number}
        with pytest.raises(Fenced):
            one.ack()
        two.release()
    assert mail.size() == 2


def test_a_worker_that_has_lost_its_lease_cannot_acknowledge_what_another_has(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("a")
    with mail.worker() as one, mail.worker() as other:
        lost = taken(one)
        claim = db.get("mail/.claims/00000000000000000001")
        assert claim is not None
        assert claim.version == lost.token
        db.revoke_lease(int(claim.value, 16))
        job = taken(other)
        assert job.token > lost.token
        with pytest.raises(Fenced):
            lost.ack()
        with pytest.raises(Fenced):
            db.set("sent", "by the first", fence=lost.token)
        db.set("sent", "by the second", fence=job.token)
        job.ack()
        mail.put("b")
        with taken(one) as job:
            assert job.text == "b"


def test_changes_that_are_made_with_the_acknowledgement_are_made_once(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("a")
    with mail.worker() as one, mail.worker() as other:
        first = taken(one)
        claim = db.get("mail/.claims/00000000000000000001")
        assert claim is not None
        db.revoke_lease(int(claim.value, 16))
        second = taken(other)
        with pytest.raises(Fenced):
            first.ack(then=[("increment", ["sent", 1])])
        second.ack(then=[("increment", ["sent", 1])])
    assert db.counter("sent").get() == 1


def test_an_acknowledgement_that_is_refused_leaves_the_job_in_hand(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("a")
    db.set("sent", "once")
    with mail.worker() as worker:
        with taken(worker) as job:
            with pytest.raises(KeyExists):
                job.ack(then=[("set", ["sent", b"twice", {"if": "absent"}])])
            assert job.held
        with pytest.raises(RuntimeError, match="already"):
            job.ack()
        with pytest.raises(RuntimeError, match="already"):
            job.release()
    assert mail.size() == 0


def test_a_put_may_be_a_part_of_a_transact(db: Database) -> None:
    mail = db.queue("mail")
    put = mail.put_operations("paid")
    later = mail.put_operations("asked for an opinion", delay=LONG_S)
    db.transact(then=[("set", ["order/7", b"paid"]), *put, *later])
    with mail.worker() as worker:
        assert taken(worker).text == "paid"
        assert worker.take(wait=0) is None


def test_a_number_that_stands_is_never_written_over(db: Database) -> None:
    mail = db.queue("mail")
    mail.put("a")
    db.delete("mail/.last")
    with pytest.raises(KeyExists):
        mail.put("b")
    assert mail.put("b") == 2
    db.set("mail/.last", "-7")
    with pytest.raises(NotAnInteger):
        mail.put("c")
    assert mail.size() == 2


def test_keys_of_other_programs_are_passed_over(db: Database) -> None:
    db.set_many({f"mail/.items/{number:020}x": "" for number in range(300)})
    db.set_many({"mail/.items/x": "", "mail/.claims/x": "", "mail/.claims/ready": "soon"})
    mail = db.queue("mail")
    db.set("mail/.attempts/00000000000000000001", "text")
    with mail.worker() as worker:
        mail.put_many(["a", "b"])
        with pytest.raises(NotAnInteger):
            worker.take()
        assert taken(worker).text == "b"
        db.set("mail/.claims/x", "")
        db.set("mail/.claims/ready", "soon")
        assert mail.put("c") == 3
        assert taken(worker).text == "c"


def test_a_job_that_is_not_there_is_not_claimed(db: Database) -> None:
    with db.queue("mail").worker() as worker:
        db.set("mail/.claims/ready", "7-9")
        assert worker.take(wait=0.1) is None
    assert keys_of(db, "mail") == {"/.claims/ready"}


def test_jobs_of_any_size_are_put(db: Database) -> None:
    mail = db.queue("mail")
    large = b"x" * (6 * 1024 * 1024)
    assert mail.put_many([large] * 3 + [b"y"] * 200) == range(1, 204)
    assert mail.put_many([b"z"] * 129, delay=LONG_S) == range(204, 333)
    assert mail.size() == 332
    with pytest.raises(ValueTooLarge):
        mail.put(b"x" * (8 * 1024 * 1024 + 1))
    with mail.worker() as worker:
        assert taken(worker).value == large


def test_mistakes_of_a_program_are_told_before_anything_is_sent(db: Database) -> None:
    mail = db.queue("mail")
    for value in (7, None):
        with pytest.raises(TypeError):
            mail.put(value)
    with pytest.raises(TypeError):
        mail.put_many("text")
    with pytest.raises(TypeError):
        mail.put_many(b"bytes")
    with pytest.raises(ValueError, match="ttl is between"):
        mail.put("a", delay=-1.0)
    with pytest.raises(ValueError, match="ttl is between"):
        mail.worker(ttl=0.5)
    with pytest.raises(ValueError, match="ttl is between"):
        mail.worker(delay=-1.0)
    with pytest.raises(RuntimeError, match="async with"):
        mail.worker().take()
    assert keys_of(db, "mail") == set()
