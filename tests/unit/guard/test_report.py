"""Reports: what a process tells of its breakers, to whom, and when it lets it be."""

import json
import os
import threading
import time
from contextlib import suppress

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, State
from pgbreaker.core.report import MOST, OUTCOMES, report_of
from pgbreaker.guard.follow import Follower, follow
from pgbreaker.guard.report import written
from pgbreaker.guard.target import Target
from support.speaking import REPORTS, Speaker

CONFIG = PostgreSQLCircuitBreakerConfig(minimum_calls=2, failure_threshold=2)


def until(holds, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def reporting():
    """Follows and reports at once, and ends that with the test."""
    started = []

    def start(*urls, first=None, report="shop", **more):
        follower = Follower(urls, report=report, **more)
        follower.reporter.every = 0.02  # until the daemon says otherwise
        if first is not None:
            follower._ways.sort(key=lambda way: way.where != first)
        follower.start()
        started.append(follower)
        return follower

    yield start
    for follower in started:
        follower.stop()


def fail(breaker, times=2):
    for _ in range(times):
        with suppress(ConnectionRefusedError), breaker:
            raise ConnectionRefusedError(111, "Connection refused")


def told(body):
    """What a report tells, by name of the breaker."""
    return {one["name"]: one for one in json.loads(body)["breakers"]}


def test_each_breaker_is_told_as_its_callers_feel_it():
    target = Target("main", CONFIG)
    read, write = target.breaker("read"), target.breaker("write")
    orders = PostgreSQLCircuitBreaker("orders", CONFIG)
    with read, suppress(ZeroDivisionError):
        raise ZeroDivisionError
    fail(write)
    orders.force(State.FORCED_OPEN, "a disk is replaced", author="mia")
    follows = {"main/read": "main/read", "main/write": "main/read"}

    body, left_out = written(
        "web:1:2", None, [read, write, orders], lambda one: follows.get(one.name)
    )
    by_name = told(body)

    seen = {
        name: (one["state"], one["computed_state"], one["by"], one["follows"])
        for name, one in by_name.items()
    }
    assert seen == {
        "main/read": ("closed", "closed", None, "main/read"),
        "main/write": ("open", "open", "calls", "main/read"),
        "orders": ("forced_open", "closed", "operator", None),
    }
    assert by_name["main/read"]["reason"] == ""
    assert "failures in a row" in by_name["main/write"]["reason"]
    assert "a disk is replaced" in by_name["orders"]["reason"]
    assert by_name["main/write"]["calls"] == dict.fromkeys(OUTCOMES, 0) | {"failure": 2}
    assert left_out == 0


def test_what_is_written_is_what_a_daemon_reads():
    breakers = [
        PostgreSQLCircuitBreaker(name, CONFIG)
        for name in ("orders", "Zürich \U0001f418", "a\nb", "x" * 500, "\ud800", "")
    ]

    body, _ = written("web:1:2", "shop", breakers, lambda _one: "main/read")
    report = report_of(json.loads(body))

    assert (report.instance, report.application) == ("web:1:2", "shop")
    assert [one.name for one in report.breakers][:3] == [
        *("orders", "Zürich \U0001f418", "a b")
    ]
    assert len(report.breakers) == 6


@pytest.mark.parametrize("length", [10, 110])
def test_of_too_many_those_that_are_open_are_told(length):
    """A report has room for 200 breakers, and for 64 kB."""
    many = [
        PostgreSQLCircuitBreaker(f"{n:03}{'x' * length}", CONFIG) for n in range(300)
    ]
    fail(many[299])
    fail(many[250])

    body, left_out = written(
        "i", None, many, lambda one: "main/read" if one is many[270] else None
    )
    names = [name[:3] for name in told(body)]

    assert names[:4] == ["250", "299", "270", "000"]
    assert len(body) <= 64 * 1024
    assert len(names) + left_out == 300
    assert len(names) <= MOST


def test_the_daemon_that_is_heard_is_told_as_often_as_it_asks(reporting):
    read = Target("main", CONFIG).breaker("read")
    with Speaker() as daemon:
        daemon.answers = [(200, {}, b'{"every_seconds": 30}')]
        follower = reporting(daemon.url, token="secret")
        until(lambda: follower.reporter.sent == 1)
        path, headers, report = daemon.reports[0]

        assert follower.reporter.every == 30.0
        assert path == REPORTS
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Bearer secret"
        assert report["application"] == "shop"
        assert report["instance"].split(":")[1] == str(os.getpid())
        (one,) = [b for b in report["breakers"] if b["name"] == read.name]
        assert (one["state"], one["by"]) == ("open", "advice")
        assert one["reason"] == "advised: main/read is open (connection refused)"
        assert repr(follower.reporter) == "<Reporter every 30 s>"


@pytest.mark.parametrize(
    ("answer", "every"),
    [
        (b'{"every_seconds": 0.001}', 5.0),
        (b'{"every_seconds": 1e9}', 300.0),
        (b'{"every_seconds": "7"}', 7.0),
    ],
)
def test_no_daemon_has_it_report_without_pause_nor_never(answer, every, reporting):
    with Speaker() as daemon:
        daemon.answers = [(200, {}, answer)]
        follower = reporting(daemon.url)
        until(lambda: follower.reporter.sent == 1)

    assert follower.reporter.every == every


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, {}, b""), "it answers 500"),
        ((422, {}, b"{}"), "it answers 422"),
        ((302, {"Location": "/"}, b""), "it answers 302"),
        ((200, {}, b""), "what it answers is not of a daemon"),
        ((200, {}, b"[]"), "what it answers is not of a daemon"),
        ((200, {}, b'{"every_seconds": NaN}'), "what it answers is not of a daemon"),
        ((200, {}, b"[" * 60_000), "what it answers is not of a daemon"),
    ],
)
def test_one_that_is_not_taken_is_told_of_once_and_the_next_is(
    answer, why, reporting, caplog
):
    with Speaker() as daemon:
        daemon.answers = [answer, answer, (200, {}, b'{"every_seconds": 5}')]
        follower = reporting(daemon.url)
        until(lambda: follower.reporter.why)
        said = follower.reporter.why
        until(lambda: follower.reporter.sent == 1)

    assert said == f"{daemon.url}: {why}"
    assert follower.reporter.why == ""
    about = [text for text in caplog.messages if "reports" in text]
    assert about == [
        f"reports are not taken by {daemon.url}: {why}",
        f"reports are taken again by {daemon.url}",
    ]


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        ((404, {}, b""), 300.0),  # of a daemon that is older
        ((405, {}, b""), 300.0),
        ((503, {"Retry-After": "40"}, b""), 40.0),
        ((429, {"Retry-After": "40"}, b""), 40.0),
        ((503, {"Retry-After": "99999"}, b""), 300.0),
        ((503, {"Retry-After": "-1"}, b""), 0.04),
        ((503, {}, b""), 0.04),
    ],
)
def test_a_daemon_that_wants_none_is_left_alone(answer, least, reporting):
    with Speaker() as daemon:
        daemon.answers = [answer]
        follower = reporting(daemon.url)
        reporter = follower.reporter
        until(lambda: reporter.why and reporter._due > reporter._now() - 0.04 + least)
        wait = reporter._due - reporter._now()

    assert least - 0.04 < wait
    assert follower.reporter.sent == 0


def test_failures_make_it_rarer(reporting):
    with Speaker() as daemon:
        daemon.answers = [(500, {}, b"")]
        follower = reporting(daemon.url)
        until(lambda: len(daemon.reports) == 4)
        begun = time.monotonic()
        until(lambda: len(daemon.reports) == 5)

    assert time.monotonic() - begun > 0.02 * 2**3
    assert follower.reporter._failures >= 4


def test_after_a_change_of_daemon_the_other_one_is_told(reporting):
    """Also where the first wanted none for five minutes."""
    with Speaker() as a, Speaker() as b:
        a.answers = [(404, {}, b"")]
        follower = reporting(a.url, b.url, first=a.url)
        until(lambda: follower.reporter.why)
        a.kill()
        until(lambda: follower.reporter.sent == 1)

    assert (len(a.reports), len(b.reports)) == (1, 1)
    assert follower.reporter.why == ""


def test_nobody_is_told_while_nobody_is_heard(reporting):
    with Speaker() as daemon:
        daemon.status = 503
        follower = reporting(daemon.url)
        until(lambda: len(daemon.heard) >= 2)

        assert daemon.reports == []
        assert follower.reporter.why == ""


def test_one_that_is_never_answered_holds_up_nothing_and_is_the_only_one(reporting):
    read = Target("main", CONFIG).breaker("read")
    with Speaker("healthy", lease=0.3) as daemon:
        daemon.freezes = "report"
        follower = reporting(daemon.url)
        until(lambda: daemon.reports)
        heard, begun = follower.advisor.heard, time.monotonic()
        with read:
            took = time.monotonic() - begun
        until(lambda: follower.advisor.heard >= heard + 5)
        reports = len(daemon.reports)
        begun = time.monotonic()
        follower.stop()

    assert (took < 0.05, reports) == (True, 1)
    assert time.monotonic() - begun < 1.5


def test_a_daemon_is_told_by_its_unix_socket(tmp_path, reporting):
    with Speaker(path=tmp_path / "pgbreaker.sock") as daemon:
        follower = reporting(daemon.url)
        until(lambda: follower.reporter.sent == 1)

        assert follower.where == daemon.url
        assert daemon.reports[0][1]["Host"] == "localhost"


def test_a_forked_child_reports_for_itself(reporting):
    with Speaker(lease=6.0) as daemon:
        follower = reporting(daemon.url)
        until(lambda: follower.reporter.sent == 1)

        follower.reporter.every = 0.02
        child = os.fork()
        if child == 0:
            deadline = time.monotonic() + 8.0
            while follower.reporter.sent < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            os._exit(0 if follower.reporter.sent >= 2 else 1)
        _, status = os.waitpid(child, 0)
        instances = {report["instance"] for _, _, report in daemon.reports}

    assert os.waitstatus_to_exitcode(status) == 0
    assert {one.split(":")[1] for one in instances} == {str(os.getpid()), str(child)}
    assert len({one.split(":")[2] for one in instances}) == 2


def test_two_who_report_are_one_process(reporting):
    with Speaker() as daemon:
        both = [reporting(daemon.url) for _ in range(2)]
        until(lambda: all(follower.reporter.sent for follower in both))

    assert len({report["instance"] for _, _, report in daemon.reports}) == 1


def test_without_it_there_is_no_thread_for_it():
    with Speaker() as daemon:
        follower = follow(daemon.url)
        until(lambda: follower.is_connected)
        names = [thread.name for thread in threading.enumerate()]
        follower.stop()

    assert follower.reporter is None
    assert "pgbreaker-report" not in names
    assert daemon.reports == []


@pytest.mark.parametrize("urls", ["file:///x", ["http://h", "file:///x"]])
def test_by_a_file_nobody_is_told(urls):
    with pytest.raises(ValueError, match="nobody reads reports by 'file:///x'"):
        follow(urls, report=True)


@pytest.mark.parametrize("name", ["", "x" * 61, "a\nb"])
def test_an_application_has_a_name(name):
    with pytest.raises(ValueError, match="1 to 60 printable characters"):
        Follower("http://h", report=name)
