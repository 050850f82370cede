"""How a watch paces itself, and what it leaves alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from pgbreaker.config.load import USUAL
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome, State
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.watch import Watch
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub
from support.boards import Stopped


class Answers:
    """Stands for a line: answers as it is told to, and remembers what it was asked."""

    def __init__(self, time: Stopped) -> None:
        self.time = time
        self.is_up = True
        self.connections = 1
        self.asked: list[tuple[str, ...]] = []
        self.took = 0.001
        self.finding = Finding.OK

    async def ask(self, probes: Sequence[str]) -> list[Reading]:
        self.asked.append(tuple(probes))
        return [self.reading(probe) for probe in probes]

    def echo(self, probe: str) -> Reading:
        return Reading("main", probe, self.time.now, 0.0, Finding.LOST)

    def reading(self, probe: str) -> Reading:
        evidence = Evidence(self.finding.value, probe=probe)
        return Reading(
            "main", probe, self.time.now, self.took, self.finding, evidence=evidence
        )


class Stand:
    """One watch on a board of its own."""

    def __init__(self, *probes: str, **plans: ProbePlan) -> None:
        self.time = Stopped()
        clock = self.time.clock()
        plan = TargetPlan(
            name="main", dsn=Secret("postgresql://h/a"), probes={**USUAL, **plans}
        )
        breakers = {
            name: Breaker(f"main/{name}", DAEMON, self.time.now)
            for name in plan.operations
        }
        self.board = TargetBoard(plan, breakers, clock)
        hub = Hub([Board([self.board], clock)])
        self.feed = Feed(self.board, hub, clock)
        self.line = Answers(self.time)
        self.watch = Watch(probes, self.line, self.feed, clock)
        self.feed.judge(Reading("main", "ping", self.time.now, 0.001, Finding.OK))

    async def run(self, times: int) -> int:
        """Tick so many times; returns how often something was asked."""
        before = len(self.line.asked)
        for _ in range(times):
            await self.watch.tick()
            self.time.now += self.watch.interval
        return len(self.line.asked) - before


async def test_a_question_that_takes_long_is_asked_less_often_and_then_as_usual():
    stand = Stand("size")
    stand.line.took = 60.0  # of 900 s

    assert await stand.run(32) < 8
    assert stand.board.intervals["size"] == 16 * 900.0

    stand.line.took = 0.01
    await stand.run(64)
    assert stand.board.intervals["size"] == 900.0
    assert await stand.run(10) == 10


@pytest.mark.parametrize("finding", [Finding.QUERY, Finding.TIMEOUT, Finding.DENIED])
async def test_a_question_in_vain_is_asked_less_often(finding):
    stand = Stand("slots", "wal_ckpt")
    stand.line.finding = finding

    assert await stand.run(32) < 8


@pytest.mark.parametrize("probe", ["login", "commit"])
async def test_a_probe_that_decides_is_never_asked_less_often(probe):
    stand = Stand(probe)
    stand.line.finding, stand.line.took = Finding.TIMEOUT, 5.0

    assert await stand.run(20) >= 20
    assert stand.board.intervals[probe] == USUAL[probe].interval


async def test_one_that_is_asked_less_often_takes_no_other_with_it():
    stand = Stand("slots", "wal_ckpt")
    reading: Callable[[str], Reading] = stand.line.reading

    def denied(probe: str) -> Reading:
        stand.line.finding = Finding.DENIED if probe == "slots" else Finding.OK
        return reading(probe)

    stand.line.reading = denied
    await stand.run(20)

    assert sum("wal_ckpt" in asked for asked in stand.line.asked) == 20
    assert sum("slots" in asked for asked in stand.line.asked) < 6


async def test_a_server_in_trouble_is_not_asked_what_is_dear():
    stand = Stand("size")
    breaker = stand.board.breakers["read"]
    for move in breaker.observe(Outcome.FAILURE, stand.time.now, confirmed=True):
        assert move.after is State.OPEN

    assert await stand.run(3) == 0
    reading = stand.board.readings["size"]
    assert reading.finding is Finding.SKIPPED
    assert str(reading.evidence).startswith("not asked while a breaker")


async def test_what_is_asked_elsewhere_does_not_wait_for_the_server():
    pooler = ProbePlan(interval=5.0, timeout=1.0, limit=1.0)
    stand = Stand("pgbouncer", pgbouncer=pooler)
    stand.line.is_up = False

    assert await stand.run(3) == 3


async def test_nobody_is_asked_before_the_sentinel():
    stand = Stand("slots")
    stand.board.readings.clear()

    assert await stand.run(3) == 0


async def test_two_failures_of_a_deciding_probe_are_one_that_is_sure():
    stand = Stand("commit")
    stand.line.finding = Finding.SYSTEM

    await stand.watch.tick()

    assert stand.line.asked == [("commit",), ("commit",)]
    assert stand.board.breakers["write"].state is State.OPEN


async def test_a_canary_that_is_slow_three_times_opens_reads_though_pings_are_fine():
    canary = ProbePlan(interval=5.0, timeout=2.0, limit=0.25, query="SELECT 1")
    stand = Stand("latency", latency=canary)
    stand.line.finding = Finding.SLOW
    read = stand.board.breakers["read"]

    for expected in (State.CLOSED, State.CLOSED, State.OPEN):
        await stand.watch.tick()
        stand.feed.judge(Reading("main", "ping", stand.time.now, 0.001, Finding.OK))
        assert read.state is expected
        stand.time.now += 1.0

    stand.line.finding = Finding.OK
    for _ in range(3):
        stand.time.now += 2.0
        await stand.watch.tick()
    assert read.state is State.CLOSED


async def test_a_replica_is_no_trouble_for_its_role():
    """Its write breaker is open for ever; that hastens nothing, and spares nothing."""
    stand = Stand("commit")
    stand.line.finding = Finding.WRONG_ROLE

    await stand.run(3)

    assert stand.board.breakers["write"].state is State.OPEN
    assert stand.feed.all_pass
    assert not stand.feed.is_wanted("commit")
    assert stand.watch.due >= stand.time.now  # not in a hurry


async def test_a_probe_that_cannot_tell_hands_over_to_the_next():
    stand = Stand("login")
    connect = stand.board.breakers["connect"]
    stand.feed.judge(
        replace(stand.line.reading("login"), finding=Finding.TIMEOUT, confirmed=True)
    )
    assert connect.state is State.OPEN

    stand.line.finding = Finding.QUERY  # the CONNECTION LIMIT of our own role
    await stand.watch.tick()
    for _ in range(4):
        stand.time.now += 2.0
        stand.feed.judge(Reading("main", "ping", stand.time.now, 0.001, Finding.OK))

    assert connect.state is State.CLOSED


async def test_a_turn_that_was_left_out_comes_soon():
    stand = Stand("size")
    read = stand.board.breakers["read"]
    read.observe(Outcome.FAILURE, stand.time.now, confirmed=True)
    await stand.watch.tick()

    assert stand.watch.due == stand.time.now + 15.0


async def test_a_long_way_is_no_dear_question():
    stand = Stand("slots")
    stand.feed.judge(Reading("main", "ping", stand.time.now, 0.4, Finding.OK))
    stand.line.took = 1.2

    assert await stand.run(10) == 10
