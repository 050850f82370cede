"""What a feed's forecasts have learned: who goes on by it, and who begins anew."""

import copy
import json
import random
from dataclasses import replace

import pytest

from pgbreaker.core.forecast.warning import FAILURE
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, State
from pgbreaker.monitor.feed import Feed
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Notice
from support.boards import Scene

REFUSED = Evidence("refused", "nobody listens", None, "ping")
ANEW = "the forecasts of main begin anew: "


class Life:
    """A target that one process watches, or one patrol.

    Args:
        memory: What is remembered of it. None: nothing.
        dsn: Its address. None: as any other life's.
    """

    def __init__(self, memory=None, *, ago: float = 60.0, dsn: str | None = None):
        self.scene = Scene()
        target = self.scene.board.targets["main"]
        if dsn is not None:
            plan = replace(target.plan, dsn=Secret(dsn))
            target = TargetBoard(plan, target.breakers, self.scene.clock)
            self.scene.board.add(target)
        self.target = target
        self.asked = 0

        def recall():
            self.asked += 1
            return None if memory is None else (memory, ago)

        self.feed = Feed(target, self.scene.hub, self.scene.clock, recall=recall)

    def see(self, **values) -> None:
        self.feed.judge(self.scene.reading(values=values))

    def fail(self) -> None:
        """Have all breakers open, with no warning."""
        down = {"evidence": REFUSED, "confirmed": True}
        self.feed.judge(self.scene.reading("ping", Finding.REFUSED, **down))

    @property
    def missed(self) -> int:
        """Failures that its forecasts know of, none of which they warned of."""
        return self.target.foretold().record[FAILURE].missed


def remembered(**values) -> dict:
    """What is left of a life with one failure, as it is read again."""
    life = Life()
    life.see(**values)
    life.fail()
    return json.loads(json.dumps(life.feed.memory()))


def test_forecasts_go_on_with_the_first_reading_and_ask_once():
    life = Life(remembered())
    life.see()
    life.see()

    assert life.missed == 1
    assert life.asked == 1


def test_what_is_not_recalled_yet_is_not_put_by_as_if_it_were_nothing():
    life = Life(remembered())

    assert life.feed.memory() is None
    life.see()
    kept, before = (told["outlook"] for told in (life.feed.memory(), remembered()))
    assert kept["record"] == before["record"]
    assert kept["odds"]["examples"] == before["odds"]["examples"]


def test_a_server_that_has_not_answered_since_has_forecasts_that_go_on():
    life = Life(remembered())
    life.fail()

    assert life.missed == 1  # it is the same, by an hour
    assert life.asked == 1


@pytest.mark.parametrize(
    ("dsn", "missed"),
    [
        ("postgresql://me:hunter2@db/main", 1),
        ("postgresql://other:word@db/main?sslmode=require", 1),
        ("postgresql://me:hunter2@db2/main", 0),
        ("postgresql://me:hunter2@db:5433/main", 0),
        ("postgresql://me:hunter2@db/main?host=db2", 0),
        ("postgresql://me:hunter2@db/app", 0),
    ],
)
def test_another_address_is_another_server_and_another_password_is_not(dsn, missed):
    life = Life(remembered(), dsn=dsn)
    life.see()

    assert life.missed == missed


def test_another_cluster_at_the_same_address_begins_anew():
    """It came while nobody watched, so that nothing was seen to change."""
    same, other = (Life(remembered(system_id="1")) for _ in range(2))
    for life, system in ((same, "1"), (other, "2")):
        life.see()
        assert life.missed == 1
        life.see(system_id=system)

    assert same.missed == 1
    assert other.missed == 0
    assert other.feed.memory()["system"] == "2"


def test_a_cluster_that_says_its_name_for_the_first_time_is_no_other():
    life = Life(remembered())
    life.see(system_id="1")

    assert life.missed == 1


def test_another_cluster_that_is_seen_to_come_begins_anew():
    life = Life()
    life.see(system_id="1")
    life.fail()
    life.see(system_id="2")

    assert life.missed == 0


def test_no_secret_and_no_address_is_remembered():
    told = json.dumps(remembered())

    assert "hunter2" not in told
    assert "db" not in told


def test_what_was_damaged_is_said_once_and_begins_anew(caplog):
    life = Life({**remembered(), "outlook": {"version": 0}})
    for _ in range(3):
        life.see()

    assert life.missed == 0
    assert caplog.text.count(ANEW) == 1


def test_what_cannot_be_read_is_said_once_and_begins_anew(caplog):
    scene = Scene()

    def recall():
        raise ValueError("it was damaged")

    feed = Feed(scene.board.targets["main"], scene.hub, scene.clock, recall=recall)
    feed.show(scene.reading())
    feed.show(scene.reading())

    assert caplog.text.count(f"{ANEW}it was damaged") == 1
    assert feed.memory() is not None


ODD = (None, True, -1, 2**80, 1e308, float("nan"), float("inf"), "", "x", [], {}, [[]])


def damaged(memory, luck: random.Random):
    """A copy with one thing of it gone, or another."""
    memory = copy.deepcopy(memory)
    place, rest = memory["outlook"], True
    while rest:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = luck.choice(keys)
        inner = place[key]
        rest = isinstance(inner, dict | list) and inner and luck.random() < 0.8
        if rest:
            place = inner
    if luck.random() < 0.3:
        del place[key]
    else:
        place[key] = luck.choice(ODD)
    return memory


def test_no_damage_harms_the_watch(caplog):
    """Whatever a memory has become, it is taken or refused; the readings go on."""
    memory = remembered(slots_used=1, slots_usable=97)
    for seed in range(300):
        life = Life(damaged(memory, random.Random(seed)))
        life.see()
        life.fail()
        life.see(slots_used=5, slots_usable=97)
        json.dumps(life.feed.memory(), allow_nan=False)

    assert caplog.text.count(ANEW) > 50


class Broken:
    """An outlook that fails."""

    def __init__(self):
        self.warnings = {}

    def take(self, reading):
        raise OverflowError("int too large to convert to float")

    def note(self, move):
        raise ZeroDivisionError("float division by zero")


def test_a_forecast_that_fails_keeps_no_breaker_from_opening(caplog):
    """It only warns: whatever becomes of it, what was seen is judged, and told once."""
    life = Life()
    life.see()
    for _ in range(3):
        life.feed._outlook = Broken()
        life.fail()

    states = {b.state for b in life.target.breakers.values()}
    assert State.CLOSED not in states
    assert caplog.text.count("which is a fault of ours; they begin anew") == 1


def test_when_it_warned_is_known_afterwards():
    """Events tell of the beginning and the end of a warning."""
    life, told = Life(), []
    life.scene.hub.add(told.append)
    for minute in range(60):
        life.scene.time.now += 60
        row = {"sequence": "public.id", "ratio": 0.7 + min(minute, 30) / 100}
        ratio = row if minute < 30 else {**row, "ratio": 0.1}
        reading = life.scene.reading("maintenance", values={"sequences": (ratio,)})
        life.feed.show(reading)
    life.scene.time.now += 7200
    for _ in range(2):
        life.scene.time.now += 60
        life.feed.show(life.scene.reading("ping"))

    notices = [one for one in told if isinstance(one, Notice)]
    assert [one.code for one in notices] == ["warned", "warning_over"]
    assert "the sequence public.id is used up in " in notices[0].text
    assert notices[1].text == "warned no longer of a sequence"
