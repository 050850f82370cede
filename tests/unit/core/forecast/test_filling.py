"""Slots that fill up: a leak from afar, a surge in time, and no wave of everyday."""

import json
import math
import random

import pytest

from pgbreaker.core.forecast.filling import _COURSES, Filling

USABLE = 100


class Server:
    """A server, looked at every two seconds."""

    def __init__(self, strained=None):
        self.filling, self.at, self.strained = Filling(), 0.0, strained
        self.warned = None  # when it was first short

    def goes(self, used, *, seconds, active=None, held=None):
        """Have *used*, and the others, go on for so long: each a function of the seconds
        since then."""
        begun = self.at
        while self.at < begun + seconds:
            since = self.at - begun
            self.filling.take(
                self.at,
                used(since),
                USABLE,
                active(since) if active else 5.0,
                held(since) if held else 0.0,
                self.strained,
            )
            if self.filling.is_short and self.warned is None:
                self.warned = self.at
            self.at += 2.0
        return self


def noisy(level, spread, seed=1):
    """A level that wanders a little, as connections do."""
    draw = random.Random(seed)
    wander = 0.0

    def value(since):
        nonlocal wander
        wander = 0.97 * wander + draw.gauss(0.0, spread * 0.24)
        return level(since) + wander

    return value


def test_a_leak_is_short_long_before_the_slots_are_full():
    server = Server()
    server.goes(noisy(lambda _: 55, 2), seconds=3600)
    assert server.warned is None

    server.goes(noisy(lambda s: 55 + 45 * s / 5400, 2), seconds=5000)

    assert 3600 + 5400 - server.warned >= 600


def test_the_interval_holds_the_end():
    """Nine times of ten, were the noise independent; it is not, quite."""
    held, told = 0, 0
    for seed in range(20):
        server = Server()
        server.goes(noisy(lambda _: 55, 2, seed), seconds=1800)
        server.goes(noisy(lambda s: 55 + 45 * s / 5400, 2, seed), seconds=3600)
        left = server.filling.left
        told += left is not None
        held += left is not None and left.soonest <= 1800 <= left.latest

    assert told >= 18
    assert held >= 0.5 * told


def test_what_is_held_within_transactions_tells_a_leak_sooner():
    """No burst leaves connections idle within a transaction."""
    plain, held = Server(), Server()
    for server in (plain, held):
        server.goes(noisy(lambda _: 45, 2), seconds=3600)
    plain.goes(noisy(lambda s: 45 + 55 * s / 1500, 2), seconds=1500)
    held.goes(
        noisy(lambda s: 45 + 55 * s / 1500, 2),
        seconds=1500,
        held=lambda s: 55 * s // 1500,
    )

    assert held.warned < plain.warned
    assert 3600 + 1500 - held.warned >= 600


def test_a_slow_leak_is_seen_under_the_waves_of_all_else():
    server = Server()
    server.goes(
        lambda s: 60 + 10 * math.sin(s / 900) + s * 30 / 14_400,
        seconds=14_400,
        held=lambda s: 2 + s * 30 // 14_400,
    )

    assert server.warned is not None


@pytest.mark.parametrize("strained", [True, None])
def test_work_that_piles_up_is_short_a_minute_before(strained):
    """The latency doubles each minute, and calls come as before."""
    server = Server(strained)
    server.goes(noisy(lambda _: 55, 1), seconds=600)

    def active(since):
        return min(5.0 * 2 ** (since / 60), 50.0)

    server.goes(lambda s: 50 + active(s), seconds=220, active=active)

    full = 600 + 60 * math.log2(10)
    assert server.filling.is_surge
    assert full - server.warned >= (60 if strained else 20)


def test_a_surge_of_calls_on_a_server_that_is_well_is_none():
    server = Server(strained=False)
    server.goes(noisy(lambda _: 55, 1), seconds=600)

    server.goes(lambda s: 55 + 0.3 * s, seconds=90, active=lambda s: 5 + 0.3 * s)

    assert server.warned is None


def test_new_connections_that_do_nothing_are_no_surge():
    """New processes of an application come up before the old ones go."""
    server = Server()
    server.goes(noisy(lambda _: 50, 1), seconds=1800)
    server.goes(lambda s: 50 + s, seconds=35)
    server.goes(noisy(lambda _: 85, 1), seconds=120)
    server.goes(noisy(lambda _: 50, 1), seconds=1800)

    assert server.warned is None


@pytest.mark.parametrize("lasts", [60, 300, 900])
def test_a_burst_that_levels_off_is_no_leak(lasts):
    server = Server(strained=False)
    for _ in range(3):
        server.goes(noisy(lambda _: 50, 1), seconds=1200)
        server.goes(lambda s: 50 + 30 * (1 - math.exp(-s / 30)), seconds=lasts)

    assert server.warned is None


def test_the_rise_of_a_morning_is_no_leak():
    server = Server()
    server.goes(
        noisy(lambda s: 50 + 15 * (1 - math.cos(math.pi * s / 14_400)), 1.5),
        seconds=14_400,
    )

    assert server.warned is None


def test_a_storm_is_not_foreseen():
    """Everybody connects within half a minute: to claim it would be to boast."""
    server = Server()
    server.goes(noisy(lambda _: 50, 1), seconds=3600)

    server.goes(
        lambda s: min(50 + 50 * s / 30, 100), seconds=40, active=lambda s: 5 + s
    )

    assert server.warned is None or 3600 + 30 - server.warned < 60


def test_a_full_server_has_no_time_left():
    server = Server()
    server.goes(lambda _: 100, seconds=2)

    assert server.filling.left.seconds == 0
    assert server.filling.is_short


def test_a_leak_that_was_mended_is_short_no_more():
    """Its client was killed: the trend of before says nothing of what is there now."""
    server = Server()
    server.goes(
        lambda s: 45 + 50 * s / 1800, seconds=1790, held=lambda s: 50 * s // 1800
    )
    assert server.filling.is_short

    shorts = []
    for _ in range(12):
        server.goes(lambda _: 45, seconds=10)
        shorts.append(server.filling.is_short)

    assert not any(shorts[2:])


def test_other_limits_begin_anew():
    server = Server()
    server.goes(lambda s: 50 + s / 40, seconds=1800)
    assert server.filling.left is not None

    server.filling.take(server.at, 95, 500)

    assert server.filling.left is None
    assert not server.filling.is_short


def test_a_gap_is_no_surge():
    """Nobody looked for some minutes: what is higher then has had time to be."""
    filling = Filling()
    for i in range(5):
        for j in range(5):
            at = i * 60.0 + j * 2.0
            filling.take(at, 50 + 8 * i, USABLE, 5 + 8 * i, 0.0, True)

    assert not filling.is_surge


def test_it_keeps_half_an_hour():
    server = Server()
    server.goes(lambda _: 60, seconds=4 * 3600)

    assert len(server.filling._bins) <= 186


def restarted(server, pause, shift=-1e6):
    """The same server, looked at by another process, whose moments begin elsewhere."""
    again = Server(server.strained)
    memory = json.loads(json.dumps(server.filling.memory(0.0)))
    again.filling.recall(memory, shift)
    again.at = server.at + pause - shift
    return again


def test_a_leak_is_told_of_at_once_after_a_restart():
    server = Server().goes(noisy(lambda s: 45 + 45 * s / 5400, 2), seconds=4000)
    left = server.filling.left.seconds

    again = restarted(server, pause=30)
    again.goes(noisy(lambda s: 78.6 + 45 * s / 5400, 2), seconds=22)

    assert again.filling.is_short
    assert again.filling.left.seconds == pytest.approx(left, rel=0.2)


def test_what_was_seen_too_long_ago_says_nothing_of_now():
    server = Server().goes(noisy(lambda s: 45 + 45 * s / 5400, 2), seconds=4000)
    assert server.filling.is_short

    again = restarted(server, pause=400)
    again.goes(noisy(lambda s: 78.6 + 45 * s / 5400, 2), seconds=60)
    server.at += 400
    server.goes(noisy(lambda s: 78.6 + 45 * s / 5400, 2), seconds=60)

    assert again.filling.left is None
    assert server.filling.left is None


def test_a_clock_that_was_set_back_costs_what_was_seen_and_no_more():
    server = Server().goes(noisy(lambda s: 45 + 45 * s / 5400, 2), seconds=4000)

    again = restarted(server, pause=-3600)
    again.goes(noisy(lambda s: 55 + 45 * s / 5400, 2), seconds=4000)

    assert again.warned is not None


def damaged():
    sane = Server().goes(lambda _: 55.0, seconds=100).filling.memory(0.0)
    yield {}
    yield sane | {"usable": -1}
    yield sane | {"usable": None}
    yield sane | {"at": sane["at"][::-1]}
    yield sane | {"held": sane["held"][1:]}
    yield sane | {"used": [math.nan] * len(sane["used"])}
    yield {"usable": 1} | {name: [0.0] * 1000 for name in ("at", *_COURSES)}


@pytest.mark.parametrize("memory", [*damaged()])
def test_what_is_damaged_is_refused_and_changes_nothing(memory):
    server = Server().goes(lambda _: 55.0, seconds=100)
    before = server.filling.memory(0.0)

    with pytest.raises(ValueError, match="no course of connections"):
        server.filling.recall(memory, 0.0)

    assert server.filling.memory(0.0) == before


def test_what_is_remembered_is_small():
    server = Server().goes(noisy(lambda _: 55, 2), seconds=7200)

    assert len(json.dumps(server.filling.memory(1.8e9))) < 6000
