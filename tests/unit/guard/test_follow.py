"""Following: what is heard, and what a daemon that lies or babbles comes to."""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, State
from pgbreaker.clock import boot_id
from pgbreaker.guard.advisor import Advisor
from pgbreaker.guard.follow import Follower, follow
from pgbreaker.guard.target import Target
from pgbreaker.metrics import BreakerCollector
from pgbreaker.testing import ManualClock

CONFIG = PostgreSQLCircuitBreakerConfig(minimum_calls=5, success_threshold=2)


def said(opinion="open", seq=1, *, complete=True, breaker="main/read", **more):
    """A message of a daemon."""
    one = {
        "breaker": breaker,
        "opinion": opinion,
        "reason": "connection refused",
        "sqlstate": None,
        "authoritative": False,
        "version": {"epoch": "1", "seq": seq},
        "lease_seconds": 6.0,
        "override": None,
    }
    return {
        "version": {"epoch": "1", "seq": seq},
        "lease_seconds": 6.0,
        "spread_seconds": 1.0,
        "complete": complete,
        "advice": [one | more],
    }


def heartbeat(seq=1, **more):
    heading = {
        k: v for k, v in said(seq=seq).items() if k not in ("complete", "advice")
    }
    return json.dumps(heading | more)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def target(clock):
    return Target("main", CONFIG, clock=clock.clock)


@pytest.fixture
def advisor(clock):
    return Advisor(clock.clock, {"orders": "main/read"}, 1.0, None)


def take(advisor, message, kind="advice"):
    return advisor.take(kind, json.dumps(message))


def test_breakers_hear_of_the_one_that_has_their_name_or_of_reads(
    advisor, target, clock
):
    read, report = target.breaker("read"), target.breaker("report")
    write, plain = target.breaker("write"), target.breaker()
    orders = PostgreSQLCircuitBreaker("orders", CONFIG, clock=clock.clock)
    others = PostgreSQLCircuitBreaker("others", CONFIG, clock=clock.clock)
    take(advisor, said("healthy", breaker="main/write"))

    take(advisor, said(seq=2, complete=False))

    shut = [b.state is State.OPEN for b in (read, report, plain, orders)]
    assert shut == [True] * 4
    assert [b.state for b in (write, others, target.connect)] == [State.CLOSED] * 3


def test_a_beat_has_all_that_was_said_hold_longer(advisor, target, clock):
    read = target.breaker("read")
    take(advisor, said())
    for _ in range(5):
        clock.advance(2.0)
        assert not advisor.take("heartbeat", heartbeat())

    assert read.state is State.OPEN
    assert not advisor.lapse()
    clock.advance(6.01)
    assert advisor.lapse()
    assert read.state is State.CLOSED
    assert not advisor.lapse()  # it is told once


def test_a_breaker_that_is_made_later_hears_with_the_next_beat(advisor, target):
    take(advisor, said())
    late = target.breaker("late")
    assert late.state is State.CLOSED

    advisor.take("heartbeat", heartbeat())

    assert late.state is State.OPEN


def test_a_beat_of_what_was_never_heard_asks_for_all_anew(advisor):
    take(advisor, said(seq=1))

    assert advisor.take("heartbeat", heartbeat(seq=3))
    assert not advisor.take("heartbeat", heartbeat(seq=1))


def test_what_the_daemon_says_no_more_ends_with_its_lease(advisor, target, clock):
    read = target.breaker("read")
    take(advisor, said())
    take(advisor, said("healthy", seq=2, breaker="other/read"))
    for _ in range(4):
        clock.advance(2.0)
        advisor.take("heartbeat", heartbeat(seq=2))
    read.lapse()

    assert read.state is State.CLOSED


def test_a_word_of_what_the_daemon_no_longer_knows_ends_with_that(
    advisor, target, clock
):
    """Its target was taken out of the configuration: nobody could hand it back, and it
    would hold for a month."""
    read = target.breaker("read")
    word = {"state": "forced_open", "reason": "r", "author": "mia", "seconds_left": 9e9}
    take(advisor, said("healthy", override=word))
    was = read.state
    clock.advance(1.0)

    take(advisor, said("healthy", seq=2, breaker="other/read"))

    assert was is State.FORCED_OPEN
    assert read.state is State.CLOSED


def test_a_kind_of_work_that_is_known_no_longer_goes_by_reads(advisor, target, clock):
    write = target.breaker("write")
    take(advisor, said("healthy", breaker="main/write"))

    take(advisor, said(seq=2))

    assert write.state is State.OPEN


def test_a_daemon_whose_clock_went_back_is_heard_after_a_lease(advisor, target, clock):
    read = target.breaker("read")
    take(advisor, said(version={"epoch": "9", "seq": 1}))
    older = said("healthy", seq=1)
    for _ in range(4):
        clock.advance(2.0)
        take(advisor, older)
    clock.advance(1.0)

    assert read.lapse() is None
    assert read.state is State.CLOSED
    assert read.core.snapshot(clock.at)["advice"]["opinion"] == "healthy"


def test_an_operators_word_is_not_made_longer_by_beats(advisor, target, clock):
    read = target.breaker("read")
    word = {"state": "forced_open", "reason": "r", "author": "mia", "seconds_left": 5.0}
    take(advisor, said("healthy", override=word))
    assert read.state is State.FORCED_OPEN
    for _ in range(3):
        clock.advance(2.0)
        advisor.take("heartbeat", heartbeat())

    assert read.state is State.CLOSED


@pytest.mark.parametrize(
    "message",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        "null",
        '{"version": 1}',
        json.dumps(said() | {"lease_seconds": 0}),
        json.dumps(said() | {"lease_seconds": -5}),
        json.dumps(said() | {"lease_seconds": "long"}),
        json.dumps(said() | {"advice": None}),
        json.dumps(said() | {"advice": [None]}),
        json.dumps(said(opinion="doomed")),
        json.dumps(said() | {"spread_seconds": None}),
        json.dumps(said() | {"spread_seconds": float("nan")}),
        json.dumps(said() | {"lease_seconds": 10**400}),
        json.dumps(said(lease_seconds=10**400)),
        "[" * 20_000,
    ],
)
def test_what_is_none_of_a_daemon_moves_nothing(message, advisor, target):
    read = target.breaker("read")

    for kind in ("advice", "heartbeat", "snapshot", "bye"):
        advisor.take(kind, message)

    assert read.state is State.CLOSED
    assert advisor.known == {}
    assert advisor.left == 0.0


def test_a_daemon_that_lies_is_found_out_by_a_few_calls(advisor, target, clock):
    """Without calls of its own a breaker believes it; with them, for seconds."""
    read = target.breaker("read")
    refused = good = 0
    for beat in range(60):
        clock.advance(0.5)
        take(advisor, said(authoritative=True))
        try:
            with read:
                clock.advance(0.01)
                good += 1
        except Exception:
            refused += 1
        assert refused < 10, beat

    assert good > 50
    assert read.core.disagrees(clock.at)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://127.0.0.1", "is no address of a daemon"),
        ("127.0.0.1:9432", "is no address of a daemon"),
        ("http://", "is no address of a daemon"),
        ("http://h:port", "is no address of a daemon"),
        ("file://elsewhere/x", "is no address of a daemon"),
        ("ftp://mia:hunter2@h", r"'ftp://h' is no address"),
        ("http://mia:hunter2@h:port", r"'http://h:port' is no address"),
        ("http://mia:hunter2/@h", r"'http://h' is no address"),
    ],
)
def test_an_address_that_is_none_is_told_at_once_without_its_secrets(url, says):
    with pytest.raises(ValueError, match=says) as told:
        follow(url)

    assert "hunter2" not in str(told.value)


def test_a_token_with_a_line_break_is_told_at_once_without_it():
    with pytest.raises(ValueError, match="line break") as told:
        follow("http://127.0.0.1:1", token="hunter2\n")

    assert "hunter2" not in str(told.value)


def until(holds, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


@contextmanager
def babbling(*answers: bytes):
    """A server that answers each who comes with the next of *answers*, and hangs up; the
    last one it says for ever."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for number in range(1_000):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5.0)
                    heard.append(connection.recv(65536))
                    connection.sendall(answers[min(number, len(answers) - 1)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5.0)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(message, kind="advice") -> bytes:
    return f"event: {kind}\ndata: {json.dumps(message)}\n\n".encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01\x00",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        OK,
        OK + b"event: advice\ndata: \xff\xfe\n\n",
        OK + b"event: advice\ndata: {}\n\nevent: heartbeat\ndata: []\n\n",
        OK + event(said() | {"lease_seconds": 10**400}),
        OK + b"event: advice\ndata: " + b"[" * 50_000 + b"\n\n",
        OK + b"x" * 100_000,
        OK + b"data: " + b"y" * 9_000_000 + b"\n\n",
    ],
)
def test_whatever_a_server_says_the_follower_goes_on(answer, target):
    with babbling(answer, OK + event(said("healthy"))) as (url, heard):
        follower = Follower(url)
        follower.start()
        until(lambda: follower.reconnects > 0)
        follower.stop()

    assert len(heard) >= 2
    assert target.breaker("read").state is State.CLOSED


@pytest.mark.parametrize("keeps_up", [b": here\n\n", b"x"])
def test_a_lease_ends_though_something_still_comes(keeps_up):
    """Of a daemon that is frozen, behind what speaks for it; or a byte now and then."""
    target = Target("main", CONFIG)  # by the same clock as the follower
    read = target.breaker("read")
    message = said() | {"lease_seconds": 0.4}
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(OK + event(message))
                for _ in range(1_000):
                    connection.sendall(keeps_up)
                    time.sleep(0.02)

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        follower = Follower(f"http://127.0.0.1:{listening.getsockname()[1]}")
        follower.start()
        until(lambda: read.state is State.OPEN)
        until(lambda: read.state is State.CLOSED, 3.0)
        follower.stop()
        listening.close()
    thread.join(30.0)

    assert follower.reconnects == 1
    assert not thread.is_alive()


def test_one_that_greets_and_hangs_up_is_left_alone_for_longer_each_time():
    with babbling(OK + event(said("healthy"))) as (url, _heard):
        follower = Follower(url)
        waits: list[float] = []
        rest = follower._rest
        follower._rest = lambda stopped, wait: (waits.append(wait), rest(stopped, 0.0))
        follower.start()
        until(lambda: len(waits) >= 40)
        follower.stop()

    assert max(waits) > 0.5


def test_two_who_follow_one_daemon_are_one_series():
    """Else whoever scrapes them throws all of it away."""
    followers = [Follower("http://127.0.0.1:1") for _ in range(2)]
    made = {family.name: family for family in BreakerCollector().collect()}
    samples = made["pgbreaker_follower_connected"].samples
    about = [one.labels["daemon"] for one in samples]

    assert about.count(followers[0].where) == 1


def test_the_address_of_ipv6_is_shown_as_it_is_written():
    assert Follower("http://[::1]:9432").where == "http://[::1]:9432"


def test_it_comes_back_with_what_it_has_seen():
    first = OK + event(said("healthy", seq=7))
    with babbling(first, OK + event(said("healthy", seq=7))) as (url, heard):
        follower = Follower(url, token="secret")
        follower.start()
        until(lambda: len(heard) >= 2)
        follower.stop()

    assert b"Last-Event-ID" not in heard[0]
    assert b"Last-Event-ID: 1-7\r\n" in heard[1]
    assert b"Authorization: Bearer secret\r\n" in heard[0]
    assert "secret" not in repr(follower)


def test_many_who_come_back_do_not_come_at_once():
    """A daemon that is started again is not run over by those who follow."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    followers = [Follower(url) for _ in range(30)]
    waits: list[float] = []
    for follower in followers:
        follower._rest = lambda _stopped, wait, f=follower: (
            waits.append(wait),
            f._stopped.set(),
        )
        follower.start()
    until(lambda: len(waits) == 30)

    assert len({round(wait, 3) for wait in waits}) > 20
    assert max(waits) <= 0.5


# The file.


def written(path, message, **more):
    path.write_text(
        json.dumps(
            {
                **message,
                "boot": boot_id(),
                "written_monotonic": time.monotonic(),
                **more,
            }
        )
    )


def test_a_file_is_taken_as_long_as_it_is_fresh(tmp_path, target):
    path = tmp_path / "advice.json"
    written(path, said("healthy"))
    follower = Follower(path.as_uri())
    follower.start()
    until(lambda: follower.is_connected)
    follower.stop()

    assert follower.advisor.known["main/read"].opinion.value == "healthy"


def test_what_is_no_file_is_not_waited_for(tmp_path):
    path = tmp_path / "advice.json"
    os.mkfifo(path)
    follower = Follower(path.as_uri())
    follower.start()
    until(lambda: follower.why == "it is no file")
    follower.stop()


@pytest.mark.parametrize("text", ["[" * 50_000, "", "{", "\xff"])
def test_a_file_that_is_nonsense_is_read_again_when_it_is_another(
    text, tmp_path, target
):
    path = tmp_path / "advice.json"
    path.write_text(text, "latin-1")
    follower = Follower(path.as_uri())
    follower.start()
    until(lambda: follower.why != "it has not been heard yet")
    written(path, said("healthy"))
    until(lambda: follower.is_connected)
    follower.stop()


@pytest.mark.parametrize(
    "more",
    [
        {"boot": "another"},
        {"written_monotonic": 0.0},
        {"written_monotonic": "now"},
        {"written_monotonic": float("inf")},
        {"written_monotonic": 10**400},
        {"lease_seconds": None},
    ],
)
def test_a_file_of_another_time_or_place_is_not(more, tmp_path):
    path = tmp_path / "advice.json"
    written(path, said(), **more)
    follower = Follower(path.as_uri())
    follower.start()
    until(lambda: follower.why != "it has not been heard yet")
    follower.stop()

    assert follower.reconnects == 0
    assert follower.advisor.known == {}
