"""The facts about a process are those that the system tells of it."""

from __future__ import annotations

import os

from haptera.node.process_facts import process_facts


def test_the_facts_are_those_of_this_process() -> None:
    facts = process_facts()
    assert facts.pid == os.getpid()
    assert 1_000_000 < facts.resident_bytes < facts.system_memory_bytes
    assert facts.cpu_user_s > 0
    assert facts.cpu_system_s >= 0
    assert len(facts.system.split()) >= 3


def test_time_of_the_processor_only_grows() -> None:
    before = process_facts()
    sum(number * number for number in range(200_000))
    after = process_facts()
    assert after.cpu_user_s + after.cpu_system_s >= before.cpu_user_s + before.cpu_system_s
