"""Who reports: counted as it comes, bounded, and forgotten soon."""

import json
import random
import sys
import tracemalloc

import pytest

from pgbreaker.core.report import MOST, By, report_of
from pgbreaker.sinks import reports as module
from pgbreaker.sinks.reports import EVERY, VOICES, Reports
from support.figures import tell

BREAKERS = ("main/read", "main/write")


def keeping(most: int = 5000) -> Reports:
    return Reports(BREAKERS.__contains__, most)


def report(instance: str, held: By | None = By.CALLS, **more):
    """A report of one breaker, which is open or not."""
    state = "closed" if held is None else "open"
    told = {"name": "orders", "follows": "main/read", "state": state, "by": held}
    return report_of({"instance": instance, "breakers": [told | more]})


def counts(reports: Reports, now: float = 0.0, breaker: str = "main/read"):
    """Processes, and of these those that hold calls back, by whom."""
    crowd = reports.crowd(breaker, now)
    if crowd is None:
        return None
    return crowd.processes, {by.value: n for by, n in crowd.held.items() if n}


def test_processes_are_counted_by_who_holds_their_calls_back():
    reports = keeping()
    held = [By.CALLS, By.CALLS, By.ADVICE, By.OPERATOR, None]
    for number, by in enumerate(held):
        assert reports.take(report(f"web-{number}", by), None, 0.0)

    assert counts(reports) == (5, {"calls": 2, "advice": 1, "operator": 1})
    assert reports.crowd("main/write", 0.0) is None


def test_a_report_takes_the_place_of_the_one_before():
    reports = keeping()
    reports.take(report("web-1", By.CALLS), None, 0.0)
    reports.take(report("web-1", By.ADVICE, reason="it is said"), None, 5.0)

    assert counts(reports, 5.0) == (1, {"advice": 1})
    assert [v.reason for v in reports.crowd("main/read", 5.0).voices] == ["it is said"]

    reports.take(report("web-1", None), None, 10.0)
    assert counts(reports, 10.0) == (1, {})
    assert reports.crowd("main/read", 10.0).voices == ()

    reports.take(report("web-1", follows="main/write"), None, 15.0)
    assert counts(reports, 15.0) is None
    assert counts(reports, 15.0, "main/write") == (1, {"calls": 1})


def test_of_a_breaker_that_there_is_not_nothing_is_counted():
    reports = keeping()
    reports.take(report("web-1", follows="other/read"), None, 0.0)

    assert reports.crowd("other/read", 0.0) is None
    assert reports.count(0.0) == 1


def test_who_is_silent_for_three_intervals_is_forgotten():
    reports = keeping()
    reports.take(report("web-1"), None, 0.0)
    reports.take(report("web-2"), None, 1.0)

    assert counts(reports, 14.9) == (2, {"calls": 2})
    assert counts(reports, 15.0) == (1, {"calls": 1})
    assert counts(reports, 16.0) is None
    assert reports.count(16.0) == 0


def test_where_there_are_many_each_reports_less_often_and_is_kept_longer():
    reports = keeping(10_000)
    for at in (0.0, 5.0):
        for number in range(1000):
            reports.take(report(f"web-{number}"), None, at)

    assert reports.every == 10.0
    assert reports.count(34.9) == 1000
    assert reports.count(35.0) == 0
    assert reports.every == EVERY


def test_there_are_only_so_many_and_who_is_known_has_a_place():
    reports = keeping(2)
    taken = [reports.take(report(f"web-{n}"), None, 0.0) for n in (1, 2, 3)]

    assert taken == [True, True, False]
    assert reports.refused == 1
    assert reports.take(report("web-1", None), None, 1.0)
    assert counts(reports, 1.0) == (2, {"calls": 1})
    assert reports.take(report("web-3"), None, 15.0)  # for web-2 is forgotten


def test_nobody_speaks_for_a_process_of_somebody_else():
    reports = keeping()
    reports.take(report("web-1", By.CALLS), "shop", 0.0)
    reports.take(report("web-1", None), "liar", 0.0)

    assert counts(reports) == (2, {"calls": 1})


def test_the_newest_reasons_are_kept_and_a_few():
    reports = keeping()
    for number in range(9):
        reports.take(report(f"web-{number}", reason=f"because {number}"), None, 0.0)
    # Who has said so says so again, and is no news.
    reports.take(report("web-0", reason="because"), None, 1.0)

    voices = reports.crowd("main/read", 1.0).voices
    assert [v.reason for v in voices] == [f"because {n}" for n in (8, 7, 6, 5, 4)]

    reports.take(report("web-6", None), None, 2.0)
    reports.take(report("web-1", reason="still"), None, 3.0)
    voices = reports.crowd("main/read", 3.0).voices
    assert [v.instance for v in voices] == ["web-1", "web-8", "web-7", "web-5", "web-4"]
    assert len(voices) == VOICES


def test_those_who_hold_calls_back_are_shown_first_and_then_the_latest():
    reports = keeping()
    for number in range(4):
        held = By.CALLS if number == 1 else None
        reports.take(report(f"web-{number}", held), None, float(number))

    shown = list(reports.instances(5.0, None, 3))

    assert [one["instance"] for one in shown] == ["web-1", "web-3", "web-2"]
    assert shown[0]["age_seconds"] == 4.0
    assert shown[0]["breakers"][0]["name"] == "orders"
    assert list(reports.instances(5.0, "main/write", 3)) == []


def test_without_room_a_process_is_counted_and_its_details_are_not_kept(monkeypatch):
    monkeypatch.setattr(module, "_ROOM", 500)
    reports = keeping()
    for number in range(10):
        reports.take(report(f"web-{number}"), None, 0.0)

    details = [one["breakers"] for one in reports.instances(0.0, None, 10)]
    assert counts(reports) == (10, {"calls": 10})
    assert 0 < details.count(None) < 10

    for number in range(10):  # what is given back can be used again
        reports.take(report(f"web-{number}", None), None, 1.0)
    assert reports._size <= 500
    reports.forget(100.0)
    assert reports._size == 0


@pytest.mark.parametrize("seed", range(20))
def test_what_is_counted_as_it_comes_is_what_is_counted_by_hand(seed):
    """The counts are kept up, report by report; the sum over all reporters is the truth."""
    draw = random.Random(seed)
    reports, known, now = keeping(8), {}, 0.0
    for _ in range(400):
        now += draw.choice([0.0, 0.1, 1.0, 6.0])
        key = draw.choice(["a", "b", None]), f"web-{draw.randrange(6)}"
        told = [
            {
                "name": f"b{n}",
                "follows": draw.choice([*BREAKERS, "other", None]),
                "state": draw.choice(["open", "closed", "half_open"]),
                "by": draw.choice([*By, None]),
            }
            for n in range(draw.randrange(4))
        ]
        one = report_of({"instance": key[1], "breakers": told})
        known = {k: (r, at) for k, (r, at) in known.items() if now < at + 3 * EVERY}
        if reports.take(one, key[0], now):
            known[key] = one, now
        else:
            assert len(known) == 8

        for breaker in BREAKERS:
            held = [
                stances[breaker].held
                for r, _ in known.values()
                if breaker in (stances := r.stances())
            ]
            found = counts(reports, now, breaker)
            wanted = {by.value: held.count(by) for by in By if by in held}
            assert found == ((len(held), wanted) if held else None)
            crowd = reports.crowd(breaker, now)
            assert crowd is None or len(crowd.voices) <= min(VOICES, crowd.open)


def grown(breakers: int, processes: int) -> float:
    """Bytes that each of these processes takes, of so many breakers."""
    # Interned beforehand, as the board's are: Python's own table of all such texts may
    # happen to grow meanwhile, by megabytes.
    names = [sys.intern(f"main/b{n}") for n in range(breakers)]
    reports = Reports(set(names).__contains__, processes)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(processes):
        told = [
            {
                "name": f"query-{n}",
                "follows": name,
                "state": "open",
                "computed_state": "closed",
                "by": "advice",
                "reason": f"{number} of 20 calls failed in the last 10 s",
                "calls": {"success": number * 1000 + n, "failure": n},
            }
            for n, name in enumerate(names)
        ]
        sent = {"instance": f"web-{number}:4711:9f3a21c0", "application": "shop"}
        # As it comes: no two texts are the same object.
        sent = json.loads(json.dumps(sent | {"breakers": told}))
        reports.take(report_of(sent), None, 0.0)
    found = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return found / processes


def test_a_reporter_takes_as_much_as_is_said(monkeypatch):
    usual = grown(5, 400)
    monkeypatch.setattr(module, "_ROOM", 0)
    worst = grown(MOST, 100)

    tell("a process of five breakers", f"{usual:.0f} bytes", "1,200 bytes")
    tell("one of two hundred, but for details", f"{worst:.0f} bytes", "15,000 bytes")
    assert usual <= 1200
    assert worst <= 15_000
