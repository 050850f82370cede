"""The signals of a target: what a minute comes to, and what of it is unlike usual."""

import json
import math
import random
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.reading import NOTHING, Finding, Reading
from pgbreaker.monitor.outlook.signals import FEATURES, Signals
from pgbreaker.probes import PROBES
from pgbreaker.probes.pgbouncer import read

MONDAY = 1_699_833_600.0  # 2023-11-13, at midnight
DAY = 24 * 60  # minutes
LONG = DAY + 400  # minutes in which all was usual


def wall_of(at):
    return MONDAY + at


def reading(probe, at, took=0.001, finding=Finding.OK, **values):
    return Reading("orders", probe, at, took, finding, values or NOTHING)


@dataclass
class Office:
    """A server that is busy by day, and whose readings are as noisy as real ones.

    Of each probe there is one reading a minute; its noise is like that of the minute
    before.
    """

    signals: Signals = field(default_factory=lambda: Signals(wall_of))
    draw: random.Random = field(default_factory=lambda: random.Random(5))
    minute: int = 0
    slower: float = 1.0
    waves: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)

    def wave(self, name, size):
        noise = 0.5 * self.waves.get(name, 0.0) + 0.866 * self.draw.gauss(0, 1)
        self.waves[name] = noise
        return size * noise

    def count(self, name, more):
        self.counts[name] = self.counts.get(name, 0) + max(int(more), 0)
        return self.counts[name]

    def busy(self):
        hour = self.minute / 60 % 24
        day = 0.5 if self.minute // DAY % 7 >= 5 else 1.0
        return day * max(math.sin(math.pi * (hour - 6) / 14), 0.0)

    def readings(self):
        at, busy, wave = 60.0 * self.minute, self.busy(), self.wave
        ping = 0.0009 * self.slower * math.exp(0.2 * busy + wave("ping", 0.1))
        calls = 6000 * (0.05 + busy)
        active = max(1 + 20 * busy + wave("active", 1 + 2 * busy), 1.0)
        return (
            reading("ping", at + 1, ping),
            reading("login", at + 2, 0.01 * math.exp(0.3 * busy + wave("login", 0.2))),
            reading("commit", at + 3, 0.005 * math.exp(wave("commit", 0.3))),
            reading("latency", at + 4, 0.03 * math.exp(busy + wave("latency", 0.2))),
            reading(
                "saturation",
                at + 5,
                slots_used=int(30 + active + wave("used", 3)),
                slots_usable=97,
                active=round(active),
                idle_in_transaction=int(self.draw.expovariate(0.7)),
                waiting_lwlock=int(self.draw.expovariate(1)),
                waiting_io=int(self.draw.expovariate(0.5)),
                oldest_transaction_seconds=self.draw.expovariate(1 / (1 + 5 * busy)),
            ),
            reading("blocking", at + 6, lock_waiters=int(self.draw.expovariate(1.2))),
            reading("replication", at + 7, replay_age_seconds=self.draw.random()),
            reading("pgbouncer", at + 8, pooler_maxwait_seconds=0.0),
            reading(
                "database",
                at + 9,
                databases=(
                    {
                        "database": "shop",
                        "commits": self.count("commits", calls + wave("c", calls / 9)),
                        "rollbacks": self.count("rollbacks", calls / 50),
                        "sessions": self.count(
                            "sessions", 60 + 300 * busy + wave("s", 20 + 30 * busy)
                        ),
                    },
                ),
            ),
            reading(
                "statements",
                at + 10,
                statement_calls=self.count("calls", calls),
                statement_seconds=self.count(
                    "spent", 2 * calls * math.exp(wave("spent", 0.15))
                )
                / 1000,
            ),
        )

    def run(self, minutes):
        """Go on; returns the names of changes that began."""
        began, standing = [], {change.signal for change in self.signals.changes}
        for _ in range(minutes):
            for one in self.readings():
                self.signals.take(one)
            self.minute += 1
            now = {change.signal for change in self.signals.changes}
            began += now - standing
            standing = now
        return began


@pytest.fixture(scope="module")
def two_weeks():
    """An office of two weeks, and the changes there were after the first two days."""
    office = Office()
    office.run(2 * DAY)
    return office, office.run(12 * DAY)


@pytest.fixture
def office(two_weeks):
    """One that remembers two weeks."""
    first, _ = two_weeks
    new = Office(
        minute=first.minute, waves=dict(first.waves), counts=dict(first.counts)
    )
    new.signals.recall(json.loads(json.dumps(first.signals.memory())))
    new.run(5)
    return new


def changes(signals):
    return {change.signal: change for change in signals.changes}


# An office of two weeks.


def test_a_healthy_server_has_at_most_one_change_a_day(two_weeks):
    _, began = two_weeks

    assert len(began) <= 12


def test_a_ping_that_takes_three_times_as_long_is_a_change_within_three_minutes(office):
    office.slower = 3.0
    office.run(4)  # the last of which is not closed

    change = changes(office.signals)["ping"]
    assert change.now == pytest.approx(0.0027, rel=0.3)
    assert change.usual == pytest.approx(0.0009, rel=0.3)
    assert change.since == pytest.approx(wall_of(60 * (office.minute - 4)), abs=120)
    assert office.signals.features[FEATURES.index("ping")] > 0.5
    assert office.signals.features[-1] >= 0.5


def test_it_is_none_any_more_when_it_has_been_back_for_some_minutes(office):
    office.slower = 3.0
    office.run(10)
    office.slower = 1.0
    office.run(16)

    assert "ping" not in changes(office.signals)


def test_what_it_remembers_is_small_and_enough(two_weeks):
    first, _ = two_weeks
    text = json.dumps(first.signals.memory(), separators=(",", ":"))
    second = Signals(wall_of)

    second.recall(json.loads(text))

    assert len(text) < 20_000
    other = Office(minute=first.minute, counts=dict(first.counts))
    before = Signals(wall_of)
    before.recall(first.signals.memory())
    for one in (*other.readings(), reading("ping", 60.0 * first.minute + 61)):
        before.take(one)
        second.take(one)
    assert second.features == pytest.approx(before.features, abs=0.05)
    assert any(second.features)


def test_the_longest_memory_is_bounded():
    """Whatever is measured: numbers of all sizes, below 0, and at every hour."""
    draw, signals = random.Random(1), Signals(wall_of)
    signals.recall({"version": 1, "signals": {}})
    for name, usual in signals._usual.items():
        for minute in range(14 * DAY)[:: 7 if name != "ping" else 1]:
            usual.take(wall_of(60.0 * minute), -(draw.expovariate(1) ** 9))

    assert len(json.dumps(signals.memory(), separators=(",", ":"))) < 20_000


# Each signal.


def saturation(at, **values):
    return reading(
        "saturation", at, **({"slots_used": 10, "slots_usable": 100} | values)
    )


def database(at, **values):
    row = {"database": "shop", "commits": 100, "rollbacks": 0, "sessions": 0}
    return reading("database", at, databases=(row | values,))


def statements(at, minute, mean):
    """100 calls a minute."""
    spent = minute * 100 * 0.01 + max(minute - LONG, 0) * 100 * (mean - 0.01)
    return reading(
        "statements", at, statement_calls=100 * minute, statement_seconds=spent
    )


# Signal -> a reading of minute n, as usual or not, and what is said in the end. Of what
# is usual a little is learnt in these five minutes.
TELLING = {
    "ping": (
        lambda n, at, bad: reading("ping", at, 0.0032 if bad else 0.0009),
        "ping takes 3.2 ms, usually 0.9 ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "login": (
        lambda n, at, bad: reading("login", at, 0.09 if bad else 0.02),
        "a login takes 90 ms, usually 20 ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "commit": (
        lambda n, at, bad: reading("commit", at, 0.5 if bad else 0.005),
        "a commit takes 500 ms, usually 5.[01] ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "latency": (
        lambda n, at, bad: reading("latency", at, 0.2 if bad else 0.02),
        "the canary takes 200 ms, usually 20 ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "statements": (
        lambda n, at, bad: statements(at, n, 0.08),
        "a statement takes 80 ms on average, usually 10 ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "errors": (
        lambda n, at, bad: reading(
            "ping", at, finding=Finding.TIMEOUT if bad else Finding.OK
        ),
        "100 % of what is asked fails or is slow, usually 0 % at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "lock_waiters": (
        lambda n, at, bad: reading("blocking", at, lock_waiters=12 if bad else 0),
        "12 sessions wait for a lock, usually 0 at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "active": (
        lambda n, at, bad: saturation(at, active=40 if bad else 10),
        "40.0 clients are active, usually 10.[0-3] at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "used": (
        lambda n, at, bad: saturation(at, slots_used=90 if bad else 40),
        "90 % of the usable slots are taken, usually 40 % at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "idle_in_transaction": (
        lambda n, at, bad: saturation(at, idle_in_transaction=20 if bad else 1),
        "20.0 clients are idle in transaction, usually 1.[01] at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "waiting": (
        lambda n, at, bad: saturation(at, waiting_io=9 if bad else 0, waiting_lwlock=3),
        (
            "12.0 clients wait for I/O or within the server, usually 3.[01] at this hour"
            " and less in 9[0-9] % of all minutes, since 06:41 UTC"
        ),
    ),
    "oldest_transaction": (
        lambda n, at, bad: saturation(
            at, oldest_transaction_seconds=3600 if bad else 0.5
        ),
        (
            "the oldest transaction is 1 h 0 min old, usually [56].. ms at this hour and less in 9[0-9] % of all minutes, since"
            " 06:41 UTC"
        ),
    ),
    "connects": (
        lambda n, at, bad: database(at, sessions=60 * n + 1200 * max(n - LONG, 0)),
        "21.0 sessions begin a second, usually 1.0 at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "rollbacks": (
        lambda n, at, bad: database(
            at, commits=100 * n, rollbacks=100 * max(n - LONG, 0)
        ),
        "50 % of transactions are rolled back, usually 0 % at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "pool_wait": (
        lambda n, at, bad: reading(
            "pgbouncer", at, pooler_maxwait_seconds=2.5 if bad else 0.0
        ),
        "clients wait 2.5 s for the pooler, usually [0-9.]+ ms at this hour and less in 9[0-9] % of all minutes, since 06:41 UTC",
    ),
    "lag": (
        lambda n, at, bad: reading(
            "replication", at, replay_age_seconds=90.0 if bad else 0.2
        ),
        (
            "the replica's data are 1 min 30 s old, usually 2.. ms at this hour and less in 9[0-9] % of all minutes, since"
            " 06:41 UTC"
        ),
    ),
}


def told(signal, minutes=LONG + 6):
    """Signals after a day and some hours of usual minutes, and then others."""
    of, _ = TELLING[signal]
    signals = Signals(wall_of)
    for n in range(minutes):
        signals.take(of(n, 60.0 * n, n > LONG))
    return signals


def test_there_is_a_row_for_each_signal():
    assert tuple(TELLING) == FEATURES[:16]


@pytest.mark.parametrize("signal", TELLING)
def test_a_signal_that_grows_is_told_of(signal):
    signals = told(signal)

    assert re.fullmatch(TELLING[signal][1], changes(signals)[signal].text)
    assert signals.features[FEATURES.index(signal)] > 0.3


def test_values_are_called_as_probes_call_them():
    shown = {
        name: {shows.value for shows in PROBES[name].shows}
        for name in ("saturation", "blocking", "database", "statements", "replication")
    }

    assert shown["saturation"] >= {"slots_used", "slots_usable", "active"}
    assert shown["saturation"] >= {"idle_in_transaction", "oldest_transaction_seconds"}
    assert shown["saturation"] >= {"waiting_lwlock", "waiting_io"}
    assert "lock_waiters" in shown["blocking"]
    assert shown["database"] >= {"commits", "rollbacks", "sessions"}
    assert shown["statements"] >= {"statement_calls", "statement_seconds"}
    assert "replay_age_seconds" in shown["replication"]
    none = {key: [] for key in ("POOLS", "DATABASES", "CONFIG", "LISTS", "STATS")}
    assert "pooler_maxwait_seconds" in read(none)


def test_levels_are_told_whatever_is_usual():
    signals = Signals(wall_of)
    signals.take(saturation(0.0, slots_used=90))
    signals.take(reading("blocking", 1.0, lock_waiters=10))
    signals.take(reading("pgbouncer", 2.0, pooler_maxwait_seconds=3.0))
    signals.take(reading("ping", 3.0, finding=Finding.LOST))
    signals.take(reading("ping", 60.0))

    found = dict(zip(FEATURES, signals.features, strict=True))
    assert found["used_level"] == pytest.approx(0.9)
    assert found["lock_waiters_level"] == pytest.approx(0.5)
    assert found["pool_wait_level"] == pytest.approx(0.75)
    assert found["errors_level"] == pytest.approx(0.25)
    assert {found[name] for name in TELLING} == {0.0}


@pytest.mark.parametrize(
    ("finding", "share"),
    [
        (Finding.OK, 0.0),
        (Finding.SLOW, 0.5),
        (Finding.TIMEOUT, 0.5),
        (Finding.FULL, 0.5),
        (Finding.LAGGING, 0.5),
        # These say nothing of the server.
        (Finding.SKIPPED, 0.0),
        (Finding.DENIED, 0.0),
        (Finding.ABSENT, 0.0),
        (Finding.QUERY, 0.0),
    ],
)
def test_what_is_bad_for_the_server_or_slow_is_an_error(finding, share):
    signals = Signals(wall_of)
    signals.take(reading("ping", 0.0))
    signals.take(reading("commit", 1.0, finding=finding))
    signals.take(reading("ping", 60.0))

    assert signals.features[FEATURES.index("errors_level")] == share


def test_a_lagging_replica_still_tells_its_lag():
    """It is bad that it lags, and by how much is known."""
    signals = Signals(wall_of)
    for n in range(407):
        age, how = (90.0, Finding.LAGGING) if n > 400 else (0.2, Finding.OK)
        signals.take(
            reading("replication", 60.0 * n, finding=how, replay_age_seconds=age)
        )

    assert "lag" in changes(signals)


# Minutes.


def test_a_minute_is_closed_by_the_first_reading_after_it():
    signals = Signals(wall_of)

    closed = [at for at in range(300) if signals.take(reading("ping", at + 7.5))]

    assert closed == [60, 120, 180, 240]


def test_hours_without_readings_are_one_minute():
    signals = Signals(wall_of)

    assert [signals.take(reading("ping", at)) for at in (0, 30, 9000, 9030, 9061)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_reading_that_ended_late_counts_where_it_comes():
    signals = Signals(wall_of)
    signals.take(reading("ping", 59.0))
    signals.take(reading("ping", 119.5))

    assert signals.take(reading("login", 118.0, finding=Finding.TIMEOUT)) is False


def test_moments_that_begin_anew_are_another_minute():
    signals = Signals(wall_of)
    signals.take(reading("ping", 1e6))

    assert signals.take(reading("ping", 5.0)) is True
    assert signals.take(reading("ping", 10.0)) is False
    assert signals.take(reading("ping", 65.0)) is True


def test_a_signal_without_a_reading_is_absent():
    signals = told("ping")
    assert "ping" in changes(signals)

    for n in range(LONG + 6, LONG + 9):
        signals.take(reading("blocking", 60.0 * n, lock_waiters=0))

    assert signals.changes == []
    assert signals.features[0] == 0.0


# What surprises.


def test_sessions_that_wait_for_a_lock_for_a_minute_are_no_change():
    """deadlock_timeout, a migration that waits its turn: locks are waited for."""
    signals = told("lock_waiters", minutes=LONG + 2)
    for n in range(LONG + 2, LONG + 20):
        signals.take(reading("blocking", 60.0 * n, lock_waiters=0))

        assert signals.changes == []


def test_midnight_is_an_hour_like_others():
    signals = Signals(wall_of)
    for n in range(3 * DAY):
        signals.take(reading("ping", 60.0 * n, 0.001 * (1 + 0.02 * math.sin(n / 7))))

        assert signals.changes == []


def test_a_change_of_another_day_is_told_with_its_day():
    signals = Signals(wall_of)
    for n in range(DAY + 5):
        late = n > DAY - 5
        signals.take(reading("ping", 60.0 * n, 0.009 if late else 0.001))

    text = changes(signals)["ping"].text
    assert text.endswith("since 2023-11-13 23:56 UTC")


def test_a_wall_clock_that_steps_does_no_harm():
    step = {"by": 0.0}
    signals = Signals(lambda at: MONDAY + at + step["by"])
    for n in range(1200):
        step["by"] = -90_000.0 if n == 700 else 7200.0 if n == 900 else step["by"]
        signals.take(reading("ping", 60.0 * n, 0.001))

    assert signals.changes == []
    assert set(signals.features) == {0.0}


@pytest.mark.parametrize(
    "odd",
    [math.nan, math.inf, -math.inf, None, "12", True, 10**400],
    ids=lambda odd: str(odd)[:8],
)
def test_what_is_no_number_is_ignored(odd):
    signals = Signals(wall_of)
    for minute in range(8):
        at = 60.0 * minute
        signals.take(
            saturation(at, active=odd, slots_used=odd, oldest_transaction_seconds=odd)
        )
        signals.take(saturation(at + 1, slots_used=50))
        signals.take(database(at + 2, commits=odd, sessions=odd))
        signals.take(statements(at + 3, minute, 0.0))
        signals.take(
            reading("statements", at + 4, statement_calls=odd, statement_seconds=odd)
        )
        signals.take(reading("blocking", at + 5, lock_waiters=odd))
    signals.take(reading("ping", 481.0, odd if isinstance(odd, float) else 0.001))
    signals.take(reading("ping", 600.0))

    json.dumps(signals.memory(), allow_nan=False)
    assert all(map(math.isfinite, signals.features))
    assert "active" not in signals.memory()["signals"]
    assert "used" in signals.memory()["signals"]


def test_counters_that_were_reset_are_no_growth():
    signals = Signals(wall_of)
    for n in range(450):
        since = n if n < 410 else n - 410
        signals.take(database(60.0 * n, sessions=60 * since, commits=100 * since))
        signals.take(statements(60.0 * n + 1, since, 0.01))

        assert signals.changes == []
    assert set(signals.features[:16]) == {0.0} or max(signals.features[:16]) < 0.01


PROBE_NAMES = st.sampled_from([*PROBES, "custom.mine"])
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)
)
VALUES = st.dictionaries(
    st.sampled_from(
        [
            "slots_used",
            "slots_usable",
            "active",
            "waiting_io",
            "waiting_lwlock",
            "lock_waiters",
            "statement_calls",
            "statement_seconds",
            "replay_age_seconds",
        ]
    ),
    ODD,
)


@given(
    st.lists(
        st.tuples(
            PROBE_NAMES,
            st.floats(-1e9, 1e9),
            st.floats(),
            st.sampled_from(Finding),
            VALUES,
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=50)
def test_whatever_comes_features_are_within_bounds(readings):
    signals = Signals(wall_of)
    for probe, at, took, finding, values in readings:
        signals.take(Reading("orders", probe, at, took, finding, values))

        assert len(signals.features) == len(FEATURES)
        assert all(-1 <= feature <= 1 for feature in signals.features)


# Memory.


def test_what_changed_before_is_known_afterwards():
    before = told("ping")
    after = Signals(wall_of)

    after.recall(json.loads(json.dumps(before.memory())))
    for n in (LONG + 6, LONG + 7):
        after.take(reading("ping", 60.0 * n, 0.0032))

    assert changes(after)["ping"].since == changes(before)["ping"].since


GOOD = told("ping").memory()
PING = GOOD["signals"]["ping"]


@pytest.mark.parametrize(
    "memory",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": 2, "signals": {}},
        {"version": 1, "signals": []},
        {"version": 1, "signals": {"pong": PING}},
        {"version": 1, "signals": {"ping": None}},
        {"version": 1, "signals": {"ping": PING[:1]}},
        {"version": 1, "signals": {"ping": [PING[1], PING[0]]}},
        {"version": 1, "signals": {"ping": PING, "login": [PING[0], []]}},
    ],
    ids=lambda memory: str(memory)[:60],
)
def test_rubbish_is_no_memory(memory):
    signals = told("ping")

    with pytest.raises(ValueError, match="memory"):
        signals.recall(memory)

    assert signals.memory() == GOOD
