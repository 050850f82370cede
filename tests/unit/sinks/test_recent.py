"""What probes saw lately, and how little it takes."""

import gc
import tracemalloc

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence
from pgbreaker.sinks.recent import KEPT, SLICES, Recent
from support.figures import tell

STARTING = Evidence("starting", "the database system is starting up", "57P03", "ping")
STEPS = (("tcp", 0.001), ("tls", 0.002), ("auth", 0.003), ("query", 0.004))


def ping(at: float, took: float = 0.002, finding: Finding = Finding.OK, **more):
    return Reading("main", "ping", at, took, finding, **more)


def login(at: float, **more):
    return Reading("main", "login", at, 0.01, Finding.OK, **more)


def test_runs_come_newest_first_with_their_steps_and_what_went_wrong():
    recent = Recent()

    recent(login(1.0, connecting=0.006, steps=STEPS))
    recent(ping(2.0, finding=Finding.STARTING, evidence=STARTING))

    last, first = recent.targets["main"].runs()
    assert (last.probe, last.finding, last.evidence) == (
        "ping",
        Finding.STARTING,
        STARTING,
    )
    assert [name for name, _ in first.steps] == ["tcp", "tls", "auth", "query"]
    assert round(first.steps[2][1], 6) == 0.003


def test_what_is_asked_each_second_does_not_push_out_the_login_of_a_minute_ago():
    recent = Recent()

    recent(login(0.0, steps=STEPS))
    for second in range(1, 1000):
        recent(ping(float(second)))

    runs = recent.targets["main"].runs("login")
    assert [run.at for run in runs] == [0.0]
    assert len(recent.targets["main"].runs()) == KEPT


def test_a_place_that_is_used_again_keeps_nothing_of_the_run_before():
    recent = Recent()

    recent(login(0.0, steps=STEPS, evidence=STARTING))
    for second in range(KEPT):
        recent(login(1.0 + second))

    runs = recent.targets["main"].runs("login")
    assert len(runs) == KEPT
    assert all(run.steps == () and run.evidence is None for run in runs)


def test_errors_are_counted_by_sqlstate_or_by_what_the_probe_found():
    recent = Recent()

    for second in range(3):
        recent(ping(float(second), finding=Finding.STARTING, evidence=STARTING))
    recent(ping(5.0, finding=Finding.TIMEOUT, evidence=Evidence("timeout", "silence")))
    recent(ping(6.0, finding=Finding.ABSENT, evidence=Evidence("absent", "not there")))

    errors = recent.targets["main"].errors
    assert {code: error.count for code, error in errors.items()} == {
        "57P03": 3,
        "timeout": 1,
    }
    assert errors["57P03"].last == 2.0


def test_kinds_of_errors_do_not_pile_up():
    recent = Recent()

    for number in range(200):
        seen = Evidence("query", "wrong", f"X{number:04}")
        recent(ping(float(number), finding=Finding.QUERY, evidence=seen))

    assert len(recent.targets["main"].errors) <= 16
    assert "X0199" in recent.targets["main"].errors


def test_the_course_has_the_slowest_ping_of_each_slice_and_where_any_failed():
    recent = Recent()
    for second in range(300):
        took = 0.5 if second == 151 else 0.002
        finding = Finding.TIMEOUT if second == 200 else Finding.OK
        recent(ping(float(second), took, finding))

    slices = recent.targets["main"].course.slices(299.0)

    assert len(slices) == SLICES
    assert [n for n, (took, _) in enumerate(slices) if took and took > 0.4] == [30]
    assert [n for n, (_, failed) in enumerate(slices) if failed] == [40]


def test_a_target_that_went_silent_leaves_a_gap():
    recent = Recent()
    for second in range(100):
        recent(ping(float(second)))

    slices = recent.targets["main"].course.slices(200.0)

    assert all(took is None for took, _ in slices[-20:])
    assert any(took is not None for took, _ in slices)


def test_what_is_usual_is_known_after_a_while_and_holds_the_usual():
    recent = Recent()
    recent(ping(0.0))
    course = recent.targets["main"].course
    assert course.usual is None

    for second in range(1, 600):
        recent(ping(float(second), 0.002 if second % 2 else 0.003))

    low, high = course.usual or (0.0, 0.0)
    assert low < 0.002 < 0.003 < high < 0.02


def test_the_age_is_that_of_the_newest_reading_of_any_target():
    recent = Recent()
    assert recent.age(5.0) is None

    recent(ping(10.0, took=0.5))

    assert recent.age(12.5) == 2.0


def test_a_target_that_is_watched_no_more_is_forgotten():
    recent = Recent()
    recent(ping(1.0))

    recent.keep(frozenset(("other",)))

    assert recent.targets == {}


def test_it_takes_ten_kilobytes_of_a_target():
    """At a thousand targets that is what a browser's tab takes: it must not grow."""
    targets = 5
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    recent = Recent()

    for second in range(200):
        at = float(second)
        for number in range(targets):
            name = f"target-{number}"
            recent(Reading(name, "ping", at, 0.001 + second / 1e6, Finding.OK))
            recent(Reading(name, "login", at, 0.01, Finding.OK, steps=STEPS))
            recent(Reading(name, "saturation", at, 0.01, Finding.OK))
    gc.collect()
    taken = (tracemalloc.get_traced_memory()[0] - before) / targets
    tracemalloc.stop()

    tell("what was seen lately of a target", f"{taken:.0f} bytes", "10,000 bytes")
    assert taken < 10_000
