"""Recordings replayed through the forecasts: what they were right about, and how often not."""

from dataclasses import replace

import pytest

from pgbreaker.core.forecast.odds import HORIZON, LEAD
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Cause, State, Transition
from pgbreaker.monitor.backtest import (
    FORECAST,
    THRESHOLD,
    Backtested,
    Came,
    Result,
    Said,
    Told,
    backtest,
    tenth_lead,
)
from pgbreaker.monitor.outlook import OUTLOOK, Outlook
from pgbreaker.sinks.record import Heard, read
from support.recordings import BEGAN, FULL, ROLE, USABLE, Recording, leaking

HOUR = 3600.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "readings.jsonl"


@pytest.fixture(scope="module")
def leak(tmp_path_factory):
    path = tmp_path_factory.mktemp("leak") / "readings.jsonl"
    leaking(path)
    return path


def result(done: Backtested, of: str, by: str = FORECAST, target="main") -> Result:
    (found,) = [r for r in done.targets[target].results if (r.of, r.by) == (of, by)]
    return found


def told(done: Backtested, of: str, by: str = FORECAST) -> list[Told]:
    return [one for one in done.told if (one.of, one.by) == (of, by)]


def counts(score):
    return (score.came, score.late, score.false, score.missed, score.leads)


def test_a_leak_is_foreseen_and_the_score_is_that_of_the_forecasts_themselves(leak):
    """Nothing is counted twice, or by other rules than those of the daemon."""
    outlook = Outlook()
    for event in read(leak):
        if isinstance(event, Heard):
            outlook.take(event.reading)
        elif isinstance(event, Transition):
            outlook.note(replace(event, evidence=FULL))
    record = outlook.foretold().record

    done = backtest(read(leak))

    connections = result(done, "connections")
    assert counts(connections.score) == counts(record["connections"])
    assert connections.score.leads == record["connections"].leads
    assert counts(result(done, "failure").score) == counts(record["failure"])
    assert (connections.score.came, connections.failures) == (1, 1)
    assert connections.score.lead > 300
    warning, failure = told(done, "connections")
    assert (warning.came, failure.came) == (Came.TRUE, Came.FORESEEN)
    assert "slots are full in" in warning.reason
    assert failure.at == pytest.approx(BEGAN + 3300)


def test_the_threshold_is_counted_alike(leak):
    done = backtest(read(leak))
    later = backtest(read(leak), threshold=0.9)

    plain = result(done, "connections", THRESHOLD)
    # From half of the slots to all of them in 2400 s: four fifths are three fifths of that.
    assert plain.score.lead == pytest.approx(0.4 * 2400, abs=30)
    assert plain.failures == result(done, "connections").failures == 1
    assert result(later, "connections", THRESHOLD).score.lead == pytest.approx(
        0.2 * 2400, abs=30
    )
    warning, failure = told(done, "connections", THRESHOLD)
    assert warning.reason == "80 % of the connection slots are taken"
    assert failure.lead == plain.score.lead


def test_a_warning_is_false_an_hour_after_its_end_and_untold_before(path):
    with Recording(path) as recording:
        for at in range(0, 4 * 3600, 60):
            # At the hour, and again at the end.
            is_high = 3600 <= at < 3900 or at >= 13_800
            recording.slots(at, 0.85 * USABLE if is_high else 20)

    done = backtest(read(path))

    plain = result(done, "connections", THRESHOLD)
    assert (plain.warnings, plain.score.false, plain.untold) == (2, 1, 1)
    assert plain.score.precision == 0
    assert plain.score.recall is None
    first, second = told(done, "connections", THRESHOLD)
    assert (first.came, first.ended) == (Came.FALSE, pytest.approx(BEGAN + 3900))
    assert (second.came, second.ended) == (Came.UNTOLD, None)


def test_one_that_comes_again_within_an_hour_is_the_same(path):
    with Recording(path) as recording:
        for at in range(0, 7201, 60):
            recording.slots(at, 85 if at % 600 == 0 else 20)

    done = backtest(read(path))

    plain = result(done, "connections", THRESHOLD)
    assert (plain.warnings, plain.untold) == (1, 1)
    (warning,) = told(done, "connections", THRESHOLD)
    assert (warning.at, warning.ended) == (pytest.approx(BEGAN), None)


# -- What is a failure -------------------------------------------------------------


def test_an_operator_is_no_failure(path):
    with Recording(path) as recording:
        recording.slots(0, 20)
        recording.opened(1, cause=Cause.OVERRIDDEN, after=State.FORCED_OPEN)
        recording.slots(2, 20)

    done = backtest(read(path))

    assert done.overridden == 1
    assert result(done, "failure").failures == 0
    assert done.told == []


def test_the_role_is_no_failure_and_all_else_is_by_the_reading_before_it(path):
    """A recorded move has no evidence of its own: what was read before it tells."""
    with Recording(path) as recording:
        recording.slots(0, 20)
        recording.heard("identity", 10, evidence=ROLE)
        recording.opened(10.1, "main/write")
        recording.heard("login", 20, evidence=FULL)
        recording.opened(20.1)

    done = backtest(read(path))

    (failure,) = told(done, "failure")
    assert failure.at == pytest.approx(BEGAN + 20.1)
    assert failure.reason == "main/connect: 3 calls failed in a row"
    assert result(done, "connections").score.missed == 1
    assert result(done, "connections", THRESHOLD).score.missed == 1


@pytest.mark.parametrize(
    ("waiting", "missed"), [(0, 0), (1, 1)], ids=["has room", "is full"]
)
def test_a_pool_that_is_larger_than_usual_is_full_when_somebody_waits(
    path, waiting, missed
):
    row = {"database": "app", "user": "me", "server_active": 20, "waiting": waiting}
    with Recording(path) as recording:
        for at in range(0, 60, 5):
            seen = {"pooler_pool_size": 20, "pools": (row,)}
            recording.heard("pgbouncer", at, seen)

    done = backtest(read(path))

    assert result(done, "pool").score.missed == missed
    assert result(done, "pool", THRESHOLD).score.missed == missed


# -- What is replayed --------------------------------------------------------------


def test_what_forecasts_once_said_does_not_matter(leak, path):
    """Else an old version of them would be tested, or the new one by the old."""

    def spoilt():
        for event in read(leak):
            if isinstance(event, Heard):
                said = {shown.value: 1 for shown in OUTLOOK}
                values = {**event.reading.values, **said}
                event = replace(event, reading=replace(event.reading, values=values))
            yield event

    assert backtest(spoilt()) == backtest(read(leak))


def test_whatever_forecasts_say_is_left_out():
    """A name that they get and that no metric has would come through."""
    seen = {"slots_used": 20.0, "slots_usable": 97.0}
    said = Outlook().take(Reading("main", "saturation", 1.0, 0.1, Finding.OK, seen))

    assert said.keys() <= {shown.value for shown in OUTLOOK}


def test_a_clock_that_was_put_back_between_two_runs_is_no_trouble(path):
    with Recording(path) as recording:
        for at in range(0, 600, 5):
            recording.slots(at, 20)
    with Recording(path, wall=BEGAN - 10 * HOUR) as recording:
        recording.leak(0.0, 2400.0)

    done = backtest(read(path))

    moments = [one.at for one in done.told]
    assert moments == sorted(moments)
    assert moments[0] > BEGAN + 600
    assert done.targets["main"].seen == pytest.approx(600 + 2460, abs=10)
    assert result(done, "connections").score.came == 1


def test_the_time_in_which_nobody_looked_is_not_seen(path):
    with Recording(path) as recording:
        for at in (*range(0, 601, 60), *range(36_000, 36_601, 60)):
            recording.slots(at, 20)

    done = backtest(read(path))

    assert done.targets["main"].seen == pytest.approx(1200)
    assert done.ended - done.began == pytest.approx(36_600)


@pytest.mark.parametrize(
    ("probe", "seen"),
    [
        ("identity", {"system_id": "2"}),
        (
            "login",
            {"door_system_id": "1", "door_started": 2.0, "door_in_recovery": False},
        ),
    ],
    ids=["another cluster", "new connections reach another server"],
)
def test_another_server_is_learnt_of_anew(path, probe, seen):
    """What was warned of was another server's: nobody can tell what came of it."""
    here = {"system_id": "1", "started": 1.0, "in_recovery": False}
    with Recording(path) as recording:
        recording.heard("identity", 0, here)
        for n in range(460):
            recording.slots(5 * n + 5, USABLE / 2 + n / 10, held=5 + n // 10)
        recording.heard(probe, 2400, seen)
        recording.slots(2405, USABLE)

    done = backtest(read(path))

    warning, failure = told(done, "connections")
    assert (warning.came, failure.came) == (Came.UNTOLD, Came.MISSED)
    assert result(done, "connections").untold == 1


def test_what_the_recording_tells_of_a_disk_is_used_and_a_configuration_goes_before_it(
    path,
):
    size = ProbePlan(interval=60.0, timeout=1.0, capacity=1000.0)
    with Recording(path, probes={"size": size}) as recording:
        for n in range(60):
            recording.heard("size", 60 * n, {"disk_used_bytes": 500 + 5 * n})
    plans = [_plan(replace(size, capacity=None)), _plan(size, "other")]

    told = backtest(read(path))
    unknown = backtest(read(path), plans)
    other = backtest(read(path), plans[1:])

    assert result(told, "disk").warnings == 1
    assert not result(told, "disk").is_scored
    assert "disk" in unknown.targets["main"].not_looked_at
    assert not other.targets["main"].is_known


def _plan(size: ProbePlan, name: str = "main"):
    return TargetPlan(name=name, dsn=Secret(""), probes={"size": size})


def test_one_target_alone_when_that_is_wanted(path):
    with Recording(path, names=("main", "other")) as recording:
        recording.slots(0, 20)
        recording.heard("ping", 1, target="other")

    done = backtest(read(path), only="other")

    assert set(done.targets) == {"other"}
    assert done.left_out == {"main"}
    assert done.readings == 1


def test_nothing_comes_to_nothing():
    assert backtest([]) == Backtested()


# -- Numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leads", "least"),
    [([], None), ([120.0], 120), ([*range(60, 70)], 60), ([*range(60, 80)], 61)],
    ids=["none", "one", "ten", "twenty"],
)
def test_nine_of_ten_leads_are_as_long(leads, least):
    counts = {"came": len(leads), "late": 0, "false": 0, "missed": 0}
    score = Score.recall_from({**counts, "leads": leads})

    assert tenth_lead(score) == least


def test_what_the_model_said_is_held_against_what_came():
    said = Said()
    for minute in range(60):
        said.take(60.0 * minute, 0.95 if minute >= 40 else 0.05)
    said.opened(60.0 * 59 + 30)

    low, high = said.bins()
    # The last quarter of an hour came, but for what was said within the last minute.
    assert (low.minutes, low.came) == (40, 0)
    assert (high.minutes, high.came) == (5 + 14, 14)
    assert high.said == pytest.approx(0.95)
    assert high.share == pytest.approx(14 / 19)
    assert (HORIZON, LEAD) == (900, 60)


def test_the_model_learns_from_what_is_recorded_and_is_held_against_it(path):
    """Sessions wait for locks before each opening, every three hours for two days; that
    writes are for another server now is none."""
    with Recording(path) as recording:
        for minute in range(48 * 60):
            at, phase = 60.0 * minute, minute % 180
            waiting = max(phase - 164, 0) * 2 or phase % 7 // 6
            recording.heard("blocking", at, {"lock_waiters": waiting})
            if phase == 90:
                recording.heard("identity", at + 5, evidence=ROLE)
                recording.opened(at + 6, "main/write")
                recording.closed(at + 8, "main/write")
            if phase == 179:
                recording.heard("ping", at + 5)
                recording.opened(at + 10)
                recording.closed(at + 14)

    done = backtest(read(path))

    bins = done.targets["main"].bins
    assert result(done, "failure").failures == 16
    assert bins[0].low == 0
    assert bins[0].share < 0.05
    assert bins[-1].said > 0.5
    assert bins[-1].share > 0.8


def test_of_what_was_said_last_nobody_knows_what_comes():
    said = Said()
    said.take(0.0, 0.5)
    said.take(60.0, None)

    assert said.bins() == []
