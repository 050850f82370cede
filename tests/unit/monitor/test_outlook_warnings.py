"""What the outlook warns of, in which words, and what it never does."""

import json
import random
from dataclasses import replace

import pytest

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.monitor.outlook import Outlook
from pgbreaker.monitor.outlook.naming import said_of
from pgbreaker.monitor.outlook.signals import FEATURES

DAY, HOUR = 86_400.0, 3600.0


def reading(probe, at, **values):
    return Reading("orders", probe, at, 0.01, Finding.OK, values)


def opening(at, code="lost", override=None, breaker="orders/read"):
    return Transition(
        breaker,
        State.CLOSED,
        State.OPEN,
        Cause.CONFIRMED,
        "two signals agree",
        at,
        1,
        evidence=Evidence(code, "gone"),
        override=override,
    )


def leak(outlook, *, since=0.0, lasts=5400.0, until=4000.0):
    """A worker that leaves connections idle in transaction, on a server of 97 slots."""
    at = 0.0
    while at < until:
        held = int(42 * max(at - since, 0.0) / lasts)
        seen = {"active": 5, "idle": 50, "idle_in_transaction": held}
        outlook.take(
            reading("saturation", at, slots_used=55 + held, slots_usable=97, **seen)
        )
        if at % 15 == 0:
            users = [("app_web", 40), ("app_worker", 15 + held)]
            rows = tuple({"user": u, "connections": n} for u, n in users)
            outlook.take(reading("database", at, connections_by_user=rows))
        at += 2.5


def test_a_leak_is_told_with_its_time_and_its_owner():
    outlook = Outlook()
    leak(outlook)

    told = outlook.warnings["connections"]

    assert told.reason.startswith("at this rate the 97 slots are full in ")
    assert told.reason.endswith("; owner: app_worker, idle in transaction")
    assert told.left.soonest <= told.left.seconds <= told.left.latest
    assert outlook.foretold().warnings == (told,)


def test_a_warning_is_among_the_values_of_the_probe_that_bears_them():
    outlook = Outlook()
    leak(outlook, until=1000.0)
    quiet = outlook.take(reading("saturation", 1002.0, slots_used=55, slots_usable=97))
    outlook = Outlook()
    leak(outlook)
    warned = outlook.take(reading("saturation", 4002.0, slots_used=86, slots_usable=97))

    assert quiet["connections_warning"] is None
    assert warned["connections_warning"] == 1
    assert warned["connection_exhaustion_latest_seconds"] is not None


def test_slots_that_fill_up_as_foretold_are_a_warning_that_came_true():
    outlook = Outlook()
    leak(outlook, until=5500.0)

    score = outlook.foretold().record["connections"]

    assert (score.came, score.missed) == (1, 0)
    assert score.lead >= 600
    seen = outlook.take(reading("saturation", 5600.0, slots_used=97, slots_usable=97))
    assert (seen["connections_precision"], seen["connections_recall"]) == (1.0, 1.0)


def test_slots_that_were_full_at_once_were_missed():
    outlook = Outlook()
    for i in range(100):
        outlook.take(reading("saturation", 2.0 * i, slots_used=50, slots_usable=97))
    outlook.note(opening(200.0, Finding.FULL.value))

    score = outlook.foretold().record["connections"]

    assert (score.came, score.missed) == (0, 1)


@pytest.mark.parametrize(
    ("probe", "values", "of", "said"),
    [
        (
            "database",
            lambda i: {"xid_age_max": 2e9 + 1e5 * i, "xid_limit": 2144483648},
            "xid",
            "at this rate its transaction ids are used up in ",
        ),
        (
            "maintenance",
            lambda i: {
                "sequences": ({"sequence": "public.id", "ratio": 0.9 + i / 1e4},)
            },
            "sequence",
            "at this rate the sequence public.id is used up in ",
        ),
        (
            "slots",
            lambda i: {
                "slots": ({"slot": "old", "retained_bytes": i, "safe_bytes": 2000 - i},)
            },
            "slot",
            "at this rate the slot old holds back more WAL than it may in ",
        ),
        (
            "size",
            lambda i: {"disk_used_bytes": 9e5 + 100 * i},
            "disk",
            "at this rate the disk is full in ",
        ),
    ],
)
def test_a_slow_clock_at_a_constant_rate_is_told_days_before(probe, values, of, said):
    """And at once: at the second look at which a week or less is left, or as soon as a
    trend has been seen for long enough to speak for it."""
    outlook = Outlook(capacity=1e6)
    for i in range(1000):
        at = 300.0 * i
        outlook.take(reading(probe, at, **values(i)))
        if of in outlook.warnings:
            break

    told = outlook.warnings[of]
    assert told.reason.startswith(said)
    assert told.left.seconds <= 24 * at
    assert told.left.seconds > 0.2 * DAY


def test_ids_that_vacuum_will_freeze_are_no_news():
    """A busy server uses up all that there are in a week, and freezes them each day."""
    outlook = Outlook()
    for i in range(200):
        seen = {"xid_age_max": 5e7 + 1e6 * i, "xid_limit": 2144483648}
        said = outlook.take(reading("database", 300.0 * i, **seen))

    assert said["xid_runway_seconds"] < 10 * DAY
    assert outlook.warnings == {}


def test_at_ten_days_it_is_told_within_two_readings():
    outlook, rate, step = Outlook(capacity=1e9), 100.0, 900.0
    full = 1e9
    begun = full - 12 * DAY * rate
    at, due, told = 0.0, None, None
    while told is None:
        used = begun + rate * at
        if due is None and (full - used) / rate < 10 * DAY:
            due = at
        outlook.take(reading("size", at, disk_used_bytes=used))
        if "disk" in outlook.warnings:
            told = at
        at += step

    assert told - due <= 2 * step
    assert outlook.warnings["disk"].left.seconds > 9.9 * DAY


def test_a_pool_that_fills_up_is_told_by_its_name():
    outlook = Outlook()
    for i in range(200):
        row = {
            "database": "app",
            "user": "web",
            "server_active": 8 + i / 20,
            "waiting": 0,
        }
        outlook.take(reading("pgbouncer", 5.0 * i, pools=(row,), pooler_pool_size=20.0))

    told = outlook.warnings["pool"]

    assert "every server connection of the pool app/web is taken" in told.reason


def test_a_pool_larger_than_usual_is_not_full():
    """pool_size of one database may be larger than default_pool_size, and is not told."""
    outlook = Outlook()
    for i in range(200):
        row = {"database": "app", "user": "web", "server_active": 30, "waiting": 0}
        outlook.take(reading("pgbouncer", 5.0 * i, pools=(row,), pooler_pool_size=20.0))

    assert outlook.warnings == {}
    assert outlook.foretold().record["pool"].missed == 0


def test_a_pool_that_is_full_for_a_moment_is_a_pool_at_work():
    """A queue that moves is what a pooler is for."""
    outlook = Outlook()
    for busy in (12, 12, 20, 20, 20):
        row = {"database": "app", "user": "web", "server_active": busy, "waiting": 5}
        seen = reading("pgbouncer", 5.0 * busy, pools=(row,), pooler_pool_size=20.0)
        outlook.take(seen)

    assert outlook.warnings == {}


def test_a_replica_that_falls_behind_is_told_before_its_limit():
    outlook = Outlook(lag_limit=600.0)
    for i in range(200):
        outlook.take(reading("replication", 5.0 * i, replay_age_seconds=0.4 * 5.0 * i))

    told = outlook.warnings["lag"]

    assert told.reason.startswith(
        "at this rate it is 10 min 0 s behind its primary in "
    )


def test_without_a_limit_a_replica_may_be_as_late_as_it_likes():
    outlook = Outlook()
    for i in range(200):
        outlook.take(reading("replication", 5.0 * i, replay_age_seconds=0.4 * 5.0 * i))

    assert outlook.warnings == {}


def test_other_limits_end_a_warning_at_once():
    """The operator raised max_connections: nobody reads of 97 slots for ten minutes."""
    outlook = Outlook()
    leak(outlook)
    assert "connections" in outlook.warnings

    outlook.take(reading("saturation", 4002.0, slots_used=80, slots_usable=497))

    assert outlook.warnings == {}


def test_an_owner_is_who_most_of_the_growth_is_of():
    """Two that trade places, and a third that leaks a little, are nobody's leak."""
    outlook = Outlook()
    for i in range(300):
        at = 15.0 * i
        users = [("web", 10 + i // 10), ("batch", 40 - i // 10), ("a", 10 + i // 12)]
        users.append(("b", 10 + i // 12))
        rows = tuple({"user": u, "connections": n} for u, n in users)
        outlook.take(reading("database", at, connections_by_user=rows))
        used = sum(n for _, n in users)
        outlook.take(reading("saturation", at, slots_used=used, slots_usable=130))

    assert "owner" not in outlook.warnings["connections"].reason


def test_a_trend_of_days_outlives_the_process():
    """Else a restart would be silent for half a day of what it had told before."""
    outlook = Outlook()
    for i in range(1500):
        row = {"sequence": "public.id", "ratio": 0.7 + i / 1e4}
        outlook.take(reading("maintenance", 60.0 * i, sequences=(row,)))
    assert "sequence" in outlook.warnings
    shift = 60.0 * 1500 + 300.0  # the next process, five minutes later, from moment 0

    again = Outlook(lambda at: at + shift)
    again.recall(json.loads(json.dumps(outlook.memory())), 300.0)
    for i in range(2):
        row = {"sequence": "public.id", "ratio": 0.7 + (1506 + i) / 1e4}
        again.take(reading("maintenance", 60.0 * i, sequences=(row,)))

    assert again.warnings["sequence"].left.seconds == pytest.approx(
        outlook.warnings["sequence"].left.seconds, rel=0.05
    )


def test_a_leak_outlives_the_process():
    """An upgrade in the midst of one is no reason to say that all is well."""
    outlook = Outlook()
    leak(outlook)
    shift = 4000.0 + 20.0

    again = Outlook(lambda at: at + shift)
    again.recall(json.loads(json.dumps(outlook.memory())), 20.0)
    for i in range(10):
        seen = {"active": 5, "idle": 50, "idle_in_transaction": 31}
        again.take(
            reading("saturation", 2.5 * i, slots_used=86, slots_usable=97, **seen)
        )

    assert again.warnings["connections"].left.seconds == pytest.approx(
        outlook.warnings["connections"].left.seconds, rel=0.2
    )


def test_what_is_remembered_of_trends_is_bounded():
    outlook, draw = Outlook(capacity=1e12), random.Random(5)
    for i in range(400):
        at = 900.0 * i
        ids = {"xid_age_max": 1e5 * i + draw.random(), "mxid_age_max": 7e4 * i}
        outlook.take(reading("database", at, xid_limit=2e9, **ids))
        outlook.take(reading("size", at, disk_used_bytes=5e11 + 1e6 * i))
        several = [f"public.a_rather_long_name_{n}" for n in range(10)]
        rows = tuple({"sequence": s, "ratio": 0.1 + i / 1e5} for s in several)
        outlook.take(reading("maintenance", at, sequences=rows))
        rows = tuple(
            {"slot": s, "retained_bytes": i, "safe_bytes": 1e9 - i} for s in several
        )
        outlook.take(reading("slots", at, slots=rows))

    told = outlook.memory()["runways"]
    assert len(told["sequences"]) == len(told["slots"]) == 3
    assert len(json.dumps(told)) < 20_000


def leaking_with_a_sequence():
    """An outlook that warns of both: slots within the hour, a sequence within hours."""
    outlook = Outlook()
    for i in range(13):
        row = {"sequence": "public.id", "ratio": 0.9 + 5 * i / 1e3}
        outlook.take(reading("maintenance", 300.0 * i, sequences=(row,)))
    leak(outlook)
    return outlook


def test_the_most_urgent_comes_first():
    outlook = leaking_with_a_sequence()

    assert [told.of for told in outlook.foretold().warnings] == [
        "connections",
        "sequence",
    ]


def test_a_warning_whose_reason_is_gone_says_so_and_comes_last():
    outlook = leaking_with_a_sequence()
    for i in range(30):
        at = 4002.0 + 2 * i
        outlook.take(reading("saturation", at, slots_used=20, slots_usable=97))

    told = outlook.foretold().warnings

    assert [one.of for one in told] == ["sequence", "connections"]
    assert told[1].said.startswith("not so any more: at this rate the 97 slots")


def test_of_a_server_that_says_nothing_any_more_no_warning_stands_for_long():
    """The pings that fail go on; what was foretold when it last answered is old."""
    outlook = Outlook()
    leak(outlook)
    assert "connections" in outlook.warnings

    for at in range(4000, 4700, 5):
        outlook.take(Reading("orders", "ping", float(at), 0.5, Finding.TIMEOUT))

    assert outlook.warnings == {}


def test_noise_on_everything_warns_of_nothing():
    draw = random.Random(4)
    outlook = Outlook(capacity=1e6, lag_limit=30.0)
    for i in range(3000):
        at = 5.0 * i
        outlook.take(
            reading(
                "saturation",
                at,
                slots_used=60 + draw.randint(-6, 6),
                slots_usable=97,
                active=10 + draw.randint(-5, 5),
            )
        )
        outlook.take(reading("replication", at, replay_age_seconds=draw.random()))
        outlook.take(reading("size", at, disk_used_bytes=5e5 + draw.gauss(0, 1e3)))

    assert outlook.warnings == {}


@pytest.mark.parametrize(
    ("move", "planned"),
    [
        (opening(10.0, "wrong_role"), False),
        (opening(10.0), True),
        (replace(opening(10.0), cause=Cause.AGREED), False),
        (replace(opening(10.0), cause=Cause.RESUMED), False),
    ],
)
def test_what_is_no_failure_of_the_server_is_not_counted(move, planned):
    """A role is what the server says of itself; maintenance is on purpose; what others say
    is not what this breaker has seen."""
    outlook = Outlook(is_planned=lambda: planned)
    outlook.note(move)

    assert outlook.foretold().record["failure"].missed == 0


def test_what_the_breaker_sees_is_counted_whoever_s_word_goes_before_it():
    """Several daemons rule by a vote, and each learns from what it sees itself."""
    outlook = Outlook()
    outlook.note(opening(10.0, override=State.CLOSED))

    assert outlook.foretold().record["failure"].missed == 1


def test_a_breaker_that_is_open_by_role_does_not_stop_the_model():
    """On a replica the one of writes is open for good."""
    outlook = Outlook()
    outlook.note(opening(10.0, "wrong_role", breaker="orders/write"))
    for minute in range(1, 260):
        at = 60.0 * minute
        outlook.take(Reading("orders", "ping", at, 0.001, Finding.OK))
        if minute == 130:
            outlook.note(opening(at))
        if minute == 140:
            outlook.note(closing(at))

    model = outlook.foretold().model
    assert model.openings == 1
    assert model.learned > 210 * 60.0


def test_what_is_open_as_it_begins_teaches_nothing():
    """A reload in an outage: its minutes are no sign of the next one."""
    outlook = Outlook(troubled=["orders/read"])
    for minute in range(100):
        outlook.take(Reading("orders", "ping", 60.0 * minute, 0.001, Finding.OK))

    model = outlook.foretold().model
    assert (model.openings, model.learned) == (0, None)
    assert outlook.foretold().record["failure"].missed == 0


def test_planned_minutes_teach_nothing():
    outlook = Outlook(is_planned=lambda: True)
    for minute in range(100):
        outlook.take(Reading("orders", "ping", 60.0 * minute, 0.001, Finding.OK))
        outlook.take(
            reading("saturation", 60.0 * minute, slots_used=97, slots_usable=97)
        )

    assert outlook.foretold().model.learned is None
    assert outlook.foretold().record["connections"].missed == 0


def test_an_opening_that_nobody_announced_was_missed():
    outlook = Outlook()
    outlook.note(opening(10.0))

    assert outlook.foretold().record["failure"].missed == 1


def test_every_feature_has_a_name_for_people():
    assert all(said_of(feature) for feature in FEATURES)


# The model.


class Weeks:
    """A server whose statements wait for locks ten minutes before it fails, once a day."""

    def __init__(self):
        self.outlook, self.draw = Outlook(), random.Random(7)
        self.day, self.begun = 0, 60.0  # when the first minute was over

    def live(self, days):
        """Live on; returns how often a warning of a failure stood a minute before."""
        warned = 0
        for _ in range(days):
            fails = self.day * DAY + self.draw.uniform(2, 22) * HOUR
            warned += self._live_day(fails)
            self.day += 1
        return warned

    def _live_day(self, fails):
        stood, at, is_open = False, self.day * DAY, None
        for minute in range(1440):
            moment = at + minute * 60.0
            since = moment - (fails - 600.0)
            waiting = 12 if 0 <= since < 600 else 0
            if moment >= fails and is_open is None:
                stood = "failure" in self.outlook.warnings
                self.outlook.note(opening(moment))
                is_open = True
            if is_open and moment >= fails + 300:
                self.outlook.note(closing(moment))
                is_open = False
            took = 0.001 * self.draw.lognormvariate(0, 0.2)
            self.outlook.take(
                Reading("orders", "ping", moment, took, Finding.OK),
            )
            self.outlook.take(reading("blocking", moment + 1, lock_waiters=waiting))
        return stood


def closing(at):
    return Transition(
        "orders/read", State.HALF_OPEN, State.CLOSED, Cause.RECOVERED, "well", at, 2
    )


@pytest.fixture(scope="module")
def lived():
    weeks = Weeks()
    silent = weeks.outlook.foretold().model.silent_because
    first = weeks.live(4)
    still_silent = weeks.outlook.foretold().model.silent_because
    weeks.live(8)
    return weeks, silent, first, still_silent, weeks.live(8)


def test_at_first_the_model_is_silent_and_says_why(lived):
    _, silent, first, still_silent, _ = lived

    assert silent == "has seen 0 of the 5 openings that it needs"
    assert first == 0
    assert still_silent is not None


def test_what_came_before_openings_is_warned_of_once_it_is_known(lived):
    weeks, *_, later = lived

    score = weeks.outlook.foretold().record["failure"]

    assert later >= 7
    assert score.precision >= 0.8
    assert weeks.outlook.foretold().model.openings == 20


def test_the_reason_names_what_weighs(lived):
    weeks, *_ = lived
    weeks.outlook.take(reading("ping", weeks.day * DAY))
    told = None
    for minute in range(20):
        at = weeks.day * DAY + HOUR + 60.0 * minute
        weeks.outlook.take(Reading("orders", "ping", at, 0.001, Finding.OK))
        weeks.outlook.take(reading("blocking", at + 1, lock_waiters=12))
        told = told or weeks.outlook.warnings.get("failure")

    assert "a breaker opens within a quarter of an hour" in told.reason
    assert "how many sessions wait for locks" in told.reason
    assert told.probability > 0.8


def test_what_was_learned_outlives_the_process(lived):
    weeks, *_ = lived
    memory = json.loads(json.dumps(weeks.outlook.memory()))
    again = Outlook()
    again.recall(memory, ago=HOUR)
    for at in (5.0, 65.0, 125.0):  # by the clock of another process
        again.take(Reading("orders", "ping", at, 0.001, Finding.OK))

    model, record = again.foretold().model, again.foretold().record
    assert model.openings == weeks.outlook.foretold().model.openings
    assert model.begun == pytest.approx(
        65.0 - HOUR - weeks.outlook._odds._last + weeks.begun, abs=1.0
    )
    assert record["failure"].came == weeks.outlook.foretold().record["failure"].came
    assert len(json.dumps(memory)) < 25_000


@pytest.mark.parametrize(
    "rubbish",
    [{}, {"version": 1}, {"version": 1, "record": 3, "odds": {}, "signals": {}}],
)
def test_rubbish_is_no_memory(rubbish):
    with pytest.raises(ValueError, match="no memory"):
        Outlook().recall(rubbish)
