"""Which probes are asked together, and when."""

from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import ProbePlan
from pgbreaker.monitor.round import Round, grouped
from support.boards import Stopped

PLAN = ProbePlan(interval=5.0, timeout=1.0)


class Asked:
    """Stands for a watch that only counts."""

    def __init__(
        self, time: Stopped, interval: float, *, is_dear: bool = False
    ) -> None:
        self.time, self.interval = time, interval
        self.timeout, self.is_dear, self.has_asked = 1.0, is_dear, False
        self.due = time.now
        self.ticks: list[float] = []

    async def tick(self, late: float = 0.0) -> None:
        self.ticks.append(self.time.now)
        self.has_asked = True
        self.due = max(self.due + self.interval, self.time.now + self.interval / 2)


def test_the_usual_probes_make_three_rounds():
    rounds = dict(grouped(USUAL))

    assert set(rounds) == {"held", "door", "dear"}
    assert rounds["door"] == [["login", "commit"]]
    assert rounds["dear"] == [["maintenance"], ["size"]]
    assert ["identity", "saturation"] in rounds["held"]


def test_a_pooler_and_a_manager_have_rounds_of_their_own_and_a_canary_its_visit():
    rounds = dict(grouped(dict.fromkeys(("ping", "pgbouncer", "latency"), PLAN)))

    assert rounds == {"pgbouncer": [["pgbouncer"]], "latency": [["latency"]]}


async def test_each_watch_is_asked_at_its_interval_in_the_rounds_of_the_quickest():
    time = Stopped()
    quick, slow = Asked(time, 2.0), Asked(time, 5.0)
    round_ = Round("main/held", [quick, slow], time.clock())

    for _ in range(50):
        await round_.tick()
        assert round_.hurry is None
        time.now += round_.interval

    assert len(quick.ticks) == 50
    assert len(slow.ticks) == 20  # of 100 s


async def test_who_was_asked_out_of_turn_is_asked_in_the_next_round_too():
    time = Stopped()
    watch = Asked(time, 5.0)
    round_ = Round("main/door", [watch], time.clock())
    await round_.tick()

    time.now += 0.4  # the grid's next point
    await round_.tick()

    assert len(watch.ticks) == 2


async def test_who_is_in_a_hurry_has_the_round_come_sooner():
    time = Stopped()
    watch = Asked(time, 5.0)
    round_ = Round("main/door", [watch], time.clock())

    watch.due = time.now + 1.0

    assert round_.hurry == 1.0


async def test_hastened_every_watch_is_asked():
    time = Stopped()
    quick, slow = Asked(time, 2.0), Asked(time, 300.0)
    round_ = Round("main/held", [quick, slow], time.clock())
    await round_.tick()

    round_.hasten()
    await round_.tick()

    assert (len(quick.ticks), len(slow.ticks)) == (2, 2)


async def test_hastened_no_dear_watch_is_asked_that_has_been():
    time = Stopped()
    asked, new = Asked(time, 300.0, is_dear=True), Asked(time, 900.0, is_dear=True)
    round_ = Round("main/dear", [asked, new], time.clock())
    asked.has_asked, asked.due, new.due = True, time.now + 300.0, time.now + 900.0

    round_.hasten()
    await round_.tick()

    assert (len(asked.ticks), len(new.ticks)) == (0, 1)


async def test_a_hurry_leaves_the_job_time_to_end():
    time = Stopped()
    watch = Asked(time, 5.0)
    round_ = Round("main/door", [watch], time.clock())
    watch.due = time.now - 1.0

    assert 0 < round_.hurry < 0.1
