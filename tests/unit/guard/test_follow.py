"""Following: what is heard, and what a daemon that lies or babbles comes to."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, State
from pgbreaker.clock import boot_id
from pgbreaker.guard.advisor import Advisor
from pgbreaker.guard.follow import Follower, follow
from pgbreaker.guard.target import Target
from pgbreaker.guard.ways import Address, Connection
from pgbreaker.metrics import BreakerCollector
from pgbreaker.testing import ManualClock
from support.speaking import Speaker

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
                with connection, suppress(OSError):
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


# Several daemons, or one that begins anew.


@pytest.fixture
def told(advisor):
    """Says what a daemon says first of all, by a connection of its own."""

    def tell(daemon, opinion, *, epoch, seq=1, **more):
        advisor.listen(daemon)
        message = said(opinion, version={"epoch": str(epoch), "seq": seq}, **more)
        message["version"] = {"epoch": str(epoch), "seq": seq}
        assert not take(advisor, message)

    return tell


def test_another_daemon_is_heard_though_its_clock_is_behind(told, target, clock):
    """Versions are those of one run of one daemon."""
    read = target.breaker("read")
    told("a", "healthy", epoch=9)

    told("b", "open", epoch=3)

    assert read.state is State.OPEN
    assert read.snapshot()["advice"]["daemon"] == "b"


@pytest.fixture
def spread_over(clock):
    """Waits until it is the turn of a breaker to come back, whose fleet does by and by."""

    def wait(breaker):
        clock.advance(1.01)
        breaker.lapse()

    return wait


def test_one_that_was_started_again_with_an_older_clock_is_heard_at_once(
    told, target, spread_over
):
    read = target.breaker("read")
    told("a", "open", epoch=9)

    told("a", "open", epoch=3)
    told("a", "unknown", epoch=2)
    spread_over(read)

    moves = list(read.transitions.values())
    assert (read.state, moves) == (State.CLOSED, [1, 1])


def test_what_the_daemon_said_that_was_left_counts_no_more(
    told, advisor, target, spread_over
):
    read = target.breaker("read")
    told("a", "open", epoch=9, seq=7)
    left = advisor.known["main/read"]
    told("b", "unknown", epoch=3)
    spread_over(read)

    read.advise(left, 1.0, 0.0)

    assert read.state is State.CLOSED


def test_of_one_daemon_what_is_older_is_not_taken(told, advisor, target, clock):
    """As something between repeats it that keeps what went through it."""
    read = target.breaker("read")
    told("a", "unknown", epoch=9, seq=7)
    clock.advance(2.0)
    before = advisor.until
    older = said("open") | {"version": {"epoch": "9", "seq": 6}}

    advisor.listen("a")
    take(advisor, older)

    assert (advisor.unread, advisor.until) == (1, before)
    assert read.state is State.CLOSED


def test_another_run_in_the_middle_of_a_connection_is_not_believed(
    told, advisor, target
):
    read = target.breaker("read")
    told("a", "unknown", epoch=9)
    other = said("open", version={"epoch": "3", "seq": 1})

    take(advisor, other | {"version": {"epoch": "3", "seq": 1}})

    assert read.state is State.CLOSED


@pytest.mark.parametrize("kind", ["advice", "heartbeat"])
def test_news_of_another_daemon_are_not_put_on_top_of_what_one_said(
    kind, told, advisor, target
):
    """Also where both were started in the same millisecond."""
    told("a", "unknown", epoch=9)
    news = said("open", complete=False) | {"version": {"epoch": "9", "seq": 1}}

    advisor.listen("b")

    assert advisor.seen == ""
    assert take(advisor, news, kind)
    assert target.breaker("read").state is State.CLOSED


def test_that_another_says_the_same_moves_nothing(told, target, clock):
    """What own calls have found against the one stands against the other."""
    shut, proven = target.breaker("read"), target.breaker("report")
    told("a", "open", epoch=9)
    for _ in range(30):
        clock.advance(0.1)
        with suppress(Exception), proven:
            clock.advance(0.001)
        told("a", "open", epoch=9)
    before = [shut.transitions, proven.transitions]

    for epoch in (3, 12, 1):
        told(f"{epoch}", "open", epoch=epoch, reason="another word for it")
        clock.advance(0.1)

    assert (shut.state, proven.state) == (State.OPEN, State.CLOSED)
    assert [shut.transitions, proven.transitions] == before
    assert proven.core.disagrees(clock.at)


def test_who_is_to_come_back_comes_back_no_later_for_another_daemon(
    told, target, clock
):
    """Else a fleet that goes from one to the next would never come back."""
    read = target.breaker("read")
    told("a", "open", epoch=9)
    for epoch in range(8, 0, -1):
        told(f"{epoch}", "healthy", epoch=epoch)
        clock.advance(0.2)
        read.lapse()

    assert read.state is State.CLOSED


def test_the_word_of_an_operator_goes_on_where_both_know_it(told, target, clock):
    read = target.breaker("read")
    word = {"state": "forced_open", "reason": "r", "author": "mia", "seconds_left": 60}
    told("a", "healthy", epoch=9, override=word)
    clock.advance(1.0)

    told("b", "healthy", epoch=3, override=word | {"seconds_left": 58.5})
    held, moves = read.state, dict(read.transitions)
    told("c", "healthy", epoch=5)

    assert (held, list(moves.values())) == (State.FORCED_OPEN, [1])
    assert read.state is State.CLOSED


@pytest.fixture
def listening():
    """Follows, and ends that with the test."""
    started = []

    def listen(*urls, first=None, **more):
        follower = Follower(urls, **more)
        if first is not None:
            follower._ways.sort(key=lambda way: way.where != first)
        follower.start()
        started.append(follower)
        return follower

    yield listen
    for follower in started:
        follower.stop()


@pytest.fixture
def here():
    """A server as the application has it, by the clock of the machine."""
    return Target("main", CONFIG)


@pytest.mark.parametrize("where", ["headers", "event", "chunk", "now", "killed"])
def test_the_next_is_heard_before_the_lease_of_one_that_is_lost_ends(
    where, listening, here
):
    """Frozen in the middle of a word, or before the first; or gone. The second of three
    is frozen, too, and all have epochs of their own."""
    read = here.breaker("read")
    with Speaker(epoch=9) as a, Speaker(epoch=5) as frozen, Speaker(epoch=3) as b:
        frozen.freezes = "headers"
        follower = listening(a.url, frozen.url, b.url, first=a.url)
        follower._ways[1:] = sorted(
            follower._ways[1:], key=lambda way: way.where == b.url
        )
        until(lambda: read.state is State.OPEN)

        if where == "killed":
            a.kill()
        else:
            a.freezes = where
            if where == "headers":
                follower._connection.hang_up()
        leases = []
        until(lambda: leases.append(follower.lease) or follower.where == b.url)
        told = read.explain()

    assert min(leases) > 0.0
    assert list(read.transitions.values()) == [1]
    assert told.endswith(f"; advised by {b.url}")
    assert "Last-Event-Id" not in b.heard[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "it answers 503 No"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "it answers 401 No"),
        (b"HTTP/1.1 302 \x1b[1m\r\nLocation: /\r\n\r\n", "it answers 302 [1m"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "what it answers is no HTTP"),
        (b"", "it has hung up"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Hello",
            "it answers with text/html, and not with a stream",
        ),
        (
            OK.replace(b"Connection: close", b"Content-Encoding: gzip") + b"\x1f\x8b",
            "it answers in gzip, which was not asked for",
        ),
        (OK + b"data: \xff\n\n", "what it says is no text"),
        (OK + (b": " + b"x" * 1000 + b"\n") * 9_000, "it babbles"),
        (
            OK + b"event: advice\ndata: {}\n\n",
            "what it says is no advice, or is older than what it has said",
        ),
    ],
)
def test_one_that_is_no_use_is_left_for_the_next_at_once(
    answer, why, listening, here, caplog
):
    with babbling(answer) as (bad, heard), Speaker("healthy") as good:
        follower = listening(bad, good.url, first=bad)
        until(lambda: follower.is_connected)
        where = follower.where
        follower.stop()

    assert (where, len(heard)) == (good.url, 1)
    assert f"advice of {bad} is not heard: {why}" in caplog.messages


def test_it_rests_only_once_all_were_tried():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    follower = Follower([f"http://127.0.0.{n}:{port}" for n in (1, 2, 3)])
    tried, rests = [], []
    listen = follower.advisor.listen
    follower.advisor.listen = lambda where: (tried.append(where), listen(where))
    follower._rest = lambda stopped, wait: (
        rests.append((len(tried), wait)),
        stopped.set() if len(rests) == 4 else None,
    )
    follower.start()
    until(lambda: len(rests) == 4)

    assert [count for count, _ in rests] == [3, 6, 9, 12]
    assert tried[:3] == tried[3:6]
    assert len(set(tried)) == 3
    assert all(wait <= 0.25 * 2**n for n, (_, wait) in enumerate(rests, 1))


def test_thousands_who_lose_one_daemon_do_not_run_over_the_next(listening, here):
    """Who says that it takes ten seconds for all to come has thousands who follow."""
    read = here.breaker("read")
    with Speaker(lease=0.9) as a, Speaker(lease=0.9) as b:
        a.spread = b.spread = 10.0
        follower = listening(a.url, b.url, first=a.url)
        rests, rest = [], follower._rest
        follower._rest = lambda stopped, wait: (
            rests.append((wait, follower._crowd)),
            rest(stopped, wait),
        )
        until(lambda: read.state is State.OPEN)
        a.kill()
        until(lambda: follower.where == b.url)

        ((wait, most),) = rests
        assert 0.0 < wait <= 0.3
        assert 0.1 < most <= 0.3
        assert list(read.transitions.values()) == [1]


def test_a_fleet_does_not_all_begin_with_the_first_nor_go_to_the_same_next():
    urls = [f"http://daemon-{n}:9432" for n in range(3)]
    orders = [Follower(urls).addresses for _ in range(300)]

    for first in urls:
        seconds = [order[1] for order in orders if order[0] == first]
        assert len(seconds) > 50
        assert min(seconds.count(url) for url in urls if url != first) > 15


@pytest.mark.parametrize(
    "urls", [[], (), ["http://h", ""], ["http://h:0"], "http://a b"]
)
def test_an_address_of_several_that_is_none_is_told_at_once(urls):
    with pytest.raises(ValueError, match=r"is no|there is no address"):
        follow(urls)


def test_one_address_given_twice_is_one():
    assert Follower(["http://h", "http://h/"]).addresses == ("http://h",)


def test_who_is_heard_is_named_everywhere(listening, here):
    read = here.breaker("read")
    with Speaker() as a, Speaker() as b:
        follower = listening(a.url, b.url, first=a.url)
        until(lambda: read.state is State.OPEN)
        a.kill()
        until(lambda: follower.where == b.url)
        made = {family.name: family for family in BreakerCollector().collect()}
        samples = made["pgbreaker_follower_connected"].samples

        connected = {one.labels["daemon"]: one.value for one in samples}
        assert connected[b.url] == 1.0
        assert a.url not in connected
        assert read.snapshot()["advice"]["daemon"] == b.url
        assert read.explain().endswith(f"; advised by {b.url}")
        assert repr(follower) == f"<Follower {b.url} connected>"


def test_a_daemon_alone_that_comes_back_with_an_older_clock_moves_nothing(
    listening, here
):
    read = here.breaker("read")
    with Speaker(epoch=9, lease=6.0) as one:
        follower = listening(one.url)
        until(lambda: read.state is State.OPEN)
        one.kill()
        until(lambda: not follower.is_connected)
        one.come_back(epoch=3)
        until(lambda: follower.is_connected)

        assert follower.lease > 5.0
        assert list(read.transitions.values()) == [1]


def test_a_connection_that_died_is_made_anew_in_time_also_to_the_only_daemon(
    listening, here
):
    """Something between has forgotten it; the daemon itself is well."""
    read = here.breaker("read")
    with Speaker(lease=1.5) as one:
        follower = listening(one.url)
        until(lambda: read.state is State.OPEN)
        follower._rest = lambda *_: None  # which takes a quarter of a second
        one.freezes = "now"
        until(lambda: one.frozen == 1)
        one.freezes = None
        until(lambda: follower.reconnects == 2)

        assert list(read.transitions.values()) == [1]


def test_a_file_that_nobody_writes_is_left_for_a_daemon_in_time(
    tmp_path, listening, here
):
    path = tmp_path / "advice.json"
    written(path, said() | {"lease_seconds": 1.0})
    read = here.breaker("read")
    with Speaker() as other:
        follower = listening(path.as_uri(), other.url, first=path.as_uri())
        until(lambda: read.state is State.OPEN)
        until(lambda: follower.where == other.url)

        assert list(read.transitions.values()) == [1]


def test_a_token_that_the_daemon_learns_later_is_good_then(listening):
    with Speaker("healthy") as daemon:
        daemon.status = 401
        follower = listening(daemon.url, token="new")
        until(lambda: follower.why.startswith("it answers 401"))
        daemon.status = 200
        until(lambda: follower.is_connected)

    assert {one["Authorization"] for one in daemon.heard} == {"Bearer new"}


def test_whatever_goes_wrong_it_goes_on(here, caplog):
    """A process that follows no longer, and says so to nobody, would be worse."""

    class Odd(Follower):
        times = 0

        def hear(self, kind, text):
            self.times += 1
            if self.times == 1:
                raise RuntimeError("odd")
            super().hear(kind, text)

    with Speaker("healthy") as daemon:
        follower = Odd(daemon.url)
        follower.start()
        until(lambda: follower.is_connected)
        follower.stop()

    assert f"following {daemon.url} has failed" in caplog.messages


def test_stopping_waits_for_nobody(listening, here):
    with Speaker(lease=30.0) as daemon:
        follower = listening(daemon.url)
        until(lambda: follower.is_connected)

        begun = time.monotonic()
        follower.stop(within=5.0)

        assert time.monotonic() - begun < 1.0
        assert follower.why == "it was stopped"


def test_a_forked_child_leaves_its_parents_connection_alone(listening, here):
    """It would be kept open by it, though the parent is gone: the daemon would speak to
    nobody, and count one who follows too many."""
    with Speaker() as daemon:
        follower = listening(daemon.url, report=True)
        until(lambda: follower.is_connected)
        line = os.fstat(follower._connection._sock.fileno()).st_ino

        child = os.fork()
        if child == 0:
            mine = {
                os.stat(f"/proc/self/fd/{number}").st_ino
                for number in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{number}")
            }
            os._exit(1 if line in mine else 0)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert (follower.is_connected, follower.reconnects) == (True, 1)


def test_a_forked_child_does_not_wait_for_a_lock_of_its_parents(listening):
    """A thread had the lock of a breaker at the moment of the fork, and is not there to
    give it back; the breaker was made after the follower."""
    with Speaker() as daemon:
        follower = listening(daemon.url)
        read = Target("main", CONFIG).breaker("read")
        until(lambda: read.state is State.OPEN)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with read._lock:
                held.set()
                done.wait(10.0)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            heard, deadline = follower.advisor.heard, time.monotonic() + 5.0
            while follower.advisor.heard < heard + 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            os._exit(0 if follower.advisor.heard >= heard + 2 else 1)
        done.set()
        thread.join()
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("phase", [None, "headers", "event"])
def test_a_process_that_follows_ends_at_once_and_silently(phase):
    script = """if True:
        import logging, sys
        import pgbreaker
        logging.getLogger("pgbreaker").setLevel(logging.CRITICAL)
        breaker = pgbreaker.PostgreSQLCircuitBreaker("main/read")
        follower = pgbreaker.follow(sys.argv[1:], report="shop")
        while sys.argv[2:] and not follower.is_connected:
            pass
    """
    with Speaker() as daemon:
        daemon.freezes = phase
        urls = [daemon.url] if phase else [daemon.url, daemon.url + "/"]
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", script, *urls],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, "")


# The way there.


@pytest.mark.parametrize("head", [b"", OK], ids=["before", "after"])
def test_what_comes_byte_by_byte_comes_to_an_end(head):
    """A timeout of a socket begins anew with each byte."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as there:

        def drip() -> None:
            connection, _ = there.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(head or OK[:20])
                while not ended.wait(0.01):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        way = Address(f"http://127.0.0.1:{there.getsockname()[1]}", None)
        begun = time.monotonic()
        with (
            pytest.raises(TimeoutError),
            Connection(way, time.monotonic, 0.3) as connection,
        ):
            connection.ask("GET", "/", {}).read()
        took = time.monotonic() - begun
        ended.set()
        thread.join()

    assert 0.3 <= took < 1.0


def test_a_name_that_nobody_looks_up_is_where_it_was_last():
    """Who answers for names is gone together with a daemon, as within a cluster."""
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
    answers, hangs = threading.Event(), threading.Event()

    def look_up(host, port):
        if answers.is_set():
            return [place]
        hangs.wait(10.0)
        raise OSError(host, port)

    way = Address("http://daemon.internal:1", None, look_up)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        way.places(0.05)
    took = time.monotonic() - begun
    hangs.set()
    with pytest.raises(OSError, match=r"daemon\.internal"):
        way.places(5.0)
    answers.set()
    known = way.places(5.0)
    answers.clear(), hangs.clear()

    assert (known, way.places(0.05)) == ([place], [place])
    assert took < 1.0
    hangs.set()


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
