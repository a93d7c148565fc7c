"""The second process rests where it leaves the others no processor, and works on where it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haptera.node.snapshots.pacing import LONG_REST_S, LOOK_S, REST_S, WORK_S, Pace, idle_seconds


class Machine:
    """A machine with some processors. Time passes when the test says so."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.time = self.idle = self.used = 0.0
        self.pace = Pace(lambda: self.idle, lambda: self.used, lambda: self.time)

    def run(self, others: float, seconds: float = 1.01 * LOOK_S) -> float:
        """Let the others use so many processors for a while. Gives the seconds that the process rests then."""
        own = WORK_S / (WORK_S + self.pace.rest_s)
        self.time += seconds
        self.used += own * seconds
        self.idle += max(0.0, self.processors - others - own) * seconds
        return self.pace.look()


def test_it_rests_until_it_knows_the_machine() -> None:
    assert Machine(8).pace.look() == LONG_REST_S


@pytest.mark.parametrize(
    ("processors", "others", "rest_s"),
    [
        (2, 0.0, 0.0),
        (2, 0.05, 0.0),
        (2, 0.3, REST_S),
        (2, 1.2, REST_S),
        (4, 1.2, 0.0),
        (4, 2.5, REST_S),
        (64, 62.0, 0.0),
        (2, 2.0, LONG_REST_S),
        (4, 3.95, LONG_REST_S),
    ],
)
def test_it_rests_where_no_processor_is_free_beside_it(processors: int, others: float, rest_s: float) -> None:
    machine = Machine(processors)
    # The answer is the same whether it has rested or not: else it would change its mind with each look.
    assert [machine.run(others) for _ in range(5)] == [rest_s] * 5


def test_it_takes_less_where_its_part_is_what_the_others_lack() -> None:
    machine = Machine(2)
    assert [machine.run(1.75) for _ in range(4)] == [REST_S, LONG_REST_S, REST_S, LONG_REST_S]


def test_it_goes_on_resting_when_the_others_begin_and_works_on_when_they_end() -> None:
    machine = Machine(2)
    assert [machine.run(others) for others in (0.0, 0.5, 0.5, 0.0, 0.0)] == [0.0, REST_S, REST_S, 0.0, 0.0]


def test_it_looks_at_the_processors_no_more_often_than_it_says() -> None:
    machine = Machine(2)
    assert machine.run(0.0) == 0.0
    assert machine.run(2.0, LOOK_S / 2) == 0.0
    assert machine.run(2.0, LOOK_S / 2) > 0.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell what its processors do")
def test_the_idle_time_is_that_of_the_processes_own_processors() -> None:
    before = idle_seconds()
    assert before > 0
    one = min(os.sched_getaffinity(0))
    before = of(one)
    said = subprocess.run([sys.executable, "-c", OF_ONE, str(one)], capture_output=True, text=True, check=True).stdout
    # The time that a disk is waited for is a guess of the system's, which it may take back a little of.
    assert before - 1 <= float(said) <= of(one) + 1


def of(processor: int) -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    times = next(line.split() for line in lines if line.startswith(f"cpu{processor} "))
    return (int(times[4]) + int(times[5])) / os.sysconf("SC_CLK_TCK")


OF_ONE = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from haptera.node.snapshots.pacing import idle_seconds
print(idle_seconds())
"""

PACED = """
import json, os, signal, sys, time
from haptera.node.snapshots import pacing
rests = []
os.sched_getaffinity = lambda _: {0, 1}
time.sleep = rests.append
always = sys.argv[1] == "busy"
pacing.idle_seconds = lambda: 0.0 if always else 100.0 * time.monotonic()
pacing.Pace.__init__.__defaults__ = (pacing.idle_seconds, time.process_time, time.monotonic)
pacing.keep_pace()
end = time.monotonic() + 60
looks = 0
handler = signal.getsignal(signal.SIGALRM)
def counted(*arguments):
    global looks
    looks += 1
    handler(*arguments)
signal.signal(signal.SIGALRM, counted)
while (looks < 200 if always else looks == len(rests)) and time.monotonic() < end:
    sum(range(1000))
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([looks, len(rests), sorted(set(rests))]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it keeps no pace")
def test_a_process_is_interrupted_again_and_again_and_rests_where_it_should() -> None:
    command = [sys.executable, "-c", PACED]
    busy = json.loads(subprocess.run([*command, "busy"], capture_output=True, text=True, check=True).stdout)
    assert busy == [200, 200, [LONG_REST_S]]
    free = json.loads(subprocess.run([*command, "free"], capture_output=True, text=True, check=True).stdout)
    looks, rests, seconds = free
    assert looks == rests + 1, "it works on as soon as it has looked"
    assert seconds == [LONG_REST_S]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it keeps no pace")
@pytest.mark.parametrize(
    "before",
    [
        "os.sched_getaffinity = lambda _: {0}",
        "pacing._STAT = '/nowhere'",
    ],
)
def test_on_one_processor_or_without_knowledge_it_keeps_no_pace(before: str) -> None:
    program = f"import os, signal\nfrom haptera.node.snapshots import pacing\n{before}\npacing.keep_pace()\n"
    program += "print(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "True\n"
