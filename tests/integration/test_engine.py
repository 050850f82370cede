"""The engine that daemons share, on a real Redis: what it keeps, and what it may lose."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from pgbreaker.core.plan import EnginePlan
from pgbreaker.core.secret import Secret
from pgbreaker.sinks.peers import engine as module
from pgbreaker.sinks.peers.engine import (
    KEPT,
    LONGEST,
    MOST,
    Engine,
    EngineLostError,
    FencedError,
    Message,
    MissedError,
)
from support.authority import Authority
from support.engines import need_client, running_redis
from support.process import free_port

TIMEOUT = 0.25
LATE = TIMEOUT + 0.1  # after which a call that is given up has to be back
LEASE = 2.0
HOUR = 3600
PREFIX = "{pgbreaker}"


@pytest.fixture(scope="module", autouse=True)
def client():
    need_client()


@pytest.fixture(scope="module")
def running():
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(running):
    """A Redis that is empty, and that the test may stop in any way."""
    if not running.is_running:
        running.lose()
        running.start()
    running.tell("FLUSHALL")
    yield running
    if running.is_running:
        running.thaw()


@asynccontextmanager
async def engines(server, *names: str, **more):
    """An engine for each of *names*, for the time of the block."""
    made = [Engine(server.plan(**more), name) for name in names]
    try:
        yield made[0] if len(made) == 1 else made
    finally:
        for engine in made:
            await engine.close()


def view(key: str, body: str = "{}") -> Message:
    return Message("view", key, body)


def word(key: str, at: int, by: str, **more) -> Message:
    return Message("word", key, json.dumps({"version": [at, by], **more}))


def entry(number: int) -> Message:
    return Message("entry", str(number), f"entry {number}")


async def heard_all(engine: Engine, after: int):
    """Everything after a number, as a daemon that catches up takes it."""
    found = []
    while part := await engine.heard(after):
        found += part
        after = part[-1].number
    return found


async def until(what, within: float = 5.0):
    """Ask *what* until it says something true, which is given back."""
    async with asyncio.timeout(within):
        while not (found := await what()):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)
    return found


def calls(engine: Engine, token: int):
    """Every call that an engine takes, by its name."""
    return {
        "beat": lambda: engine.beat(token),
        "say": lambda: engine.say(token, [view("main/read")]),
        "heard": lambda: engine.heard(0),
        "standing": engine.standing,
        "announce": lambda: engine.announce(token, "[]"),
        "hints": lambda: first_hint(engine),
        "leave": lambda: engine.leave(token),
    }


async def first_hint(engine: Engine) -> int:
    async with aclosing(engine.hints()) as hints:
        return await anext(hints)


async def lost(call) -> str:
    """Why the engine is lost to *call*, which has to be back in time."""
    began = time.monotonic()
    with pytest.raises(EngineLostError) as told:
        await call()
    assert time.monotonic() - began < LATE
    assert str(told.value) == told.value.why
    return told.value.why


# Leases.


async def test_a_lease_is_renewed_with_its_token_and_shown_to_the_others(redis):
    async with engines(redis, "a", "b") as (a, b):
        first = await a.beat(None, "digest of a")
        other = await b.beat(None)
        again = await a.beat(first.token, "another digest")

        assert again.token == first.token < other.token
        assert first.born == other.born == again.born
        assert {*again.peers} == {"a", "b"}
        mine = again.peers["a"]
        assert (mine.token, mine.left, mine.targets) == (
            first.token,
            LEASE,
            "another digest",
        )
        assert 0 < again.peers["b"].left <= LEASE
        assert again.peers["b"].targets == ""
        assert abs(again.now - time.time()) < 5


async def test_a_lease_that_nobody_renews_ends_by_the_engines_clock(redis):
    async with engines(redis, "a") as a, engines(redis, "b", lease=0.3) as b:
        dead = await b.beat(None)
        alive = await a.beat(None)
        assert "b" in alive.peers

        async def only_a():
            return {*(await a.beat(alive.token)).peers} == {"a"}

        await until(only_a, within=1.0)
        with pytest.raises(FencedError, match="'b'"):
            await b.say(dead.token, [view("main/read")])
        assert (await b.beat(dead.token)).token > alive.token


async def test_a_daemon_that_leaves_is_gone_at_once_and_what_it_said_stays(redis):
    async with engines(redis, "a", "b") as (a, b):
        mine, its = await a.beat(None), await b.beat(None)
        await b.say(its.token, [view("main/read", "open")])

        await b.leave(its.token)

        assert {*(await a.beat(mine.token)).peers} == {"a"}
        assert (await a.standing()).views == {"b": {"main/read": "open"}}


async def test_leaving_with_a_token_of_old_leaves_the_lease_that_holds(redis):
    async with engines(redis, "a") as a:
        old = await a.beat(None)
        await a.leave(old.token)
        new = await a.beat(None)

        await a.leave(old.token)

        assert (await a.beat(new.token)).token == new.token


async def test_two_processes_of_one_name_never_share_a_lease(redis):
    """
    The second is refused for as long as the first lives, and the first goes on; what
    the second says meanwhile is not said in the other's name.
    """
    async with engines(redis, "a", "a") as (first, second):
        held = await first.beat(None)

        assert await lost(lambda: second.beat(None)) == "another daemon is called 'a'"
        assert "another" in await lost(lambda: second.beat(held.token + 1))
        with pytest.raises(FencedError):
            await second.say(held.token, [view("main/read")])
        assert (await first.beat(held.token)).token == held.token

        await first.leave(held.token)
        taken = await second.beat(None)
        assert taken.token > held.token
        with pytest.raises(FencedError):
            await first.say(held.token, [view("main/read")])


async def test_a_daemon_that_lost_the_answer_to_its_first_beat_is_not_refused(redis):
    """It does not know the token that it has got, and asks again without one."""
    async with engines(redis, "a") as a:
        unheard = await a.beat(None)

        assert (await a.beat(None)).token > unheard.token


async def test_an_heir_that_knows_the_token_takes_the_lease_over(redis):
    """As after a reload, when another object goes on with what the first one had."""
    async with engines(redis, "a", "a") as (old, heir):
        held = await old.beat(None)

        assert (await heir.beat(held.token)).token == held.token
        await heir.say(held.token, [view("main/read")])
        with pytest.raises(FencedError):
            await old.say(held.token, [view("main/read")])


# What is said.


async def test_what_is_said_is_heard_in_order_and_stands_together(redis):
    async with engines(redis, "a", "b") as (a, b):
        mine, its = await a.beat(None), await b.beat(None)
        start = its.last

        last = await a.say(
            mine.token,
            [
                view("main/read", "open"),
                view("main/write", "open"),
                word("main/read", 5, "a", state="forced_open"),
                entry(1),
                Message("gone", "main/write", ""),
            ],
        )
        await b.announce(its.token, '["main"]')

        heard = await b.heard(start)
        assert [m.number for m in heard] == [*range(start + 1, last + 1)]
        assert {(m.daemon, m.token) for m in heard} == {("a", mine.token)}
        assert [m.kind for m in heard] == ["view", "view", "word", "entry", "gone"]
        assert (heard[0].key, heard[0].body) == ("main/read", "open")
        assert await b.heard(last) == []
        assert [m.number for m in await b.heard(start, limit=2)] == [
            start + 1,
            start + 2,
        ]
        standing = await b.standing()
        assert standing.last == last
        assert standing.views == {"a": {"main/read": "open"}}
        assert json.loads(standing.words["main/read"])["state"] == "forced_open"
        assert await b.targets_of(["a", "b"]) == {"b": '["main"]'}
        assert standing.entries == {"a": 1}


async def test_texts_of_any_kind_come_back_as_they_were(redis):
    texts = ["", "a b\r\nc", "Grüße, 世界 \x00 \N{PILE OF POO}", "x" * 60_000]
    async with engines(redis, "a") as a:
        mine = await a.beat(None, "a digest of words")

        await a.say(mine.token, [view(text[:50], text) for text in texts])
        await a.announce(mine.token, texts[-1] * 10)

        assert [m.body for m in await a.heard(mine.last)] == texts
        standing = await a.standing()
        assert standing.views["a"] == {text[:50]: text for text in texts}
        assert await a.targets_of(["a", "nobody"]) == {"a": texts[-1] * 10}


async def test_an_entry_is_said_once_however_often_it_is_said(redis):
    """A daemon that does not know what became of its saying says it again."""
    async with engines(redis, "a", "b") as (a, b):
        mine, its = await a.beat(None), await b.beat(None)

        await a.say(mine.token, [entry(8), entry(9)])
        await a.say(mine.token, [entry(8), entry(9), entry(10)])
        await b.say(its.token, [entry(3)])

        said = [(m.daemon, m.key) for m in await a.heard(its.last)]
        assert said == [("a", "8"), ("a", "9"), ("a", "10"), ("b", "3")]


async def test_of_the_words_of_operators_only_the_latest_stands(redis):
    """Capitals go before small letters, whatever language the machine has."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        said = [(5, "b"), (5, "a"), (5, "Z"), (4, "z"), (5, "b"), (6, "a"), (6, "aa")]

        for at, by in said:
            await a.say(mine.token, [word("main/read", at, by)])

        heard = await a.heard(mine.last)
        assert [json.loads(m.body)["version"] for m in heard] == [
            [5, "b"],
            [6, "a"],
            [6, "aa"],
        ]
        standing = (await a.standing()).words["main/read"]
        assert json.loads(standing)["version"] == [6, "aa"]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Message("wiev", "main", ""), "no kind of message is called 'wiev'"),
        (view("main", "x" * LONGEST), "65536 characters at most"),
        (Message("entry", "x", ""), "the key of an entry is its number, got 'x'"),
        (Message("entry", "-1", ""), "the key of an entry is its number, got '-1'"),
        (Message("word", "main", "{}"), "a pair of milliseconds and a daemon's name"),
        (Message("word", "main", "{"), "a pair of milliseconds and a daemon's name"),
    ],
    ids=["kind", "long", "entry", "below 0", "no version", "no JSON"],
)
async def test_of_messages_with_one_that_is_none_nothing_is_said(redis, message, why):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)

        with pytest.raises(ValueError, match=why):
            await a.say(mine.token, [view("main/read"), message])
        with pytest.raises(ValueError, match=f"{MOST} messages at once"):
            await a.say(mine.token, [view("main/read")] * (MOST + 1))

        assert await a.heard(mine.last) == []


async def test_what_is_said_behind_the_fence_changes_nothing(redis):
    async with engines(redis, "a") as a:
        old = await a.beat(None)
        await a.leave(old.token)
        mine = await a.beat(None)
        before = await a.standing()

        with pytest.raises(FencedError):
            await a.say(old.token, [view("k"), word("k", 1, "a"), entry(1)])
        with pytest.raises(FencedError):
            await a.announce(old.token, "[]")

        assert await a.standing() == before
        assert await a.heard(mine.last) == []


async def test_two_daemons_that_talk_at_once_are_heard_whole_and_each_in_its_order(
    redis,
):
    each = 2000
    async with engines(redis, "a", "b", "c") as (a, b, c):
        start = (await c.beat(None)).last

        async def talk(engine: Engine, part: int):
            token = (await engine.beat(None)).token
            for at in range(0, each, part):
                texts = [str(n) for n in range(at, at + part)]
                await engine.say(token, [view("k", text) for text in texts])

        await asyncio.gather(talk(a, 5), talk(b, 8))

        heard = await heard_all(c, start)
        assert [m.number for m in heard] == [*range(start + 1, start + 2 * each + 1)]
        for name in "ab":
            bodies = [m.body for m in heard if m.daemon == name]
            assert bodies == [str(n) for n in range(each)]


async def test_who_comes_too_late_for_what_was_said_is_told_so(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        last = mine.last
        for _ in range(KEPT // MOST + 1):
            last = await a.say(mine.token, [view("k")] * MOST)

        with pytest.raises(MissedError, match=f"message {mine.last + 1} is not kept"):
            await a.heard(mine.last)
        with pytest.raises(MissedError):
            await a.heard(last + 1)
        assert len(await heard_all(a, last - KEPT)) == KEPT
        kept = redis.tell("XLEN", f"{PREFIX}:said")
        assert KEPT <= kept < KEPT + MOST


async def test_much_that_stands_is_read_in_parts(redis):
    """Reading all at once would keep the engine from everybody else's questions."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        for at in range(0, 4000, MOST):
            keys = range(at, at + MOST)
            await a.say(mine.token, [view(f"t{n}/read", "x" * 700) for n in keys])
        redis.tell("CONFIG", "RESETSTAT")

        standing = await a.standing()

        assert len(standing.views["a"]) == 4000
        asked = redis.tell("INFO", "commandstats")
        scans = re.search(r"cmdstat_hscan:calls=(\d+),", asked)
        assert int(scans[1]) >= 8


async def test_nothing_that_is_kept_outlives_the_daemons(redis):
    """Their own for a day, what all have in common for three months."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k"), word("k", 1, "a"), entry(1)])
        await a.announce(mine.token, "[]")
        for _ in range(101):  # it is looked after now and then
            await a.beat(mine.token)

        left = {key: redis.tell("PTTL", key) for key in redis.tell("KEYS", "*")}

        day = 86_400_000
        own = {f"{PREFIX}:{name}" for name in ("views:a", "targets:a", "said")}
        common = ("fleet", "leases", "seen", "words", "entries")
        assert {*left} == own | {f"{PREFIX}:{name}" for name in common}
        for key, time_left in left.items():
            assert day / 2 < time_left <= (day if key in own else 90 * day), key


async def test_a_daemon_that_is_long_gone_is_forgotten(redis):
    long_ago = round((time.time() - 40 * 86_400) * 1000)
    async with engines(redis, "a") as a:
        redis.tell("ZADD", f"{PREFIX}:seen", long_ago, "pod-4711")
        redis.tell("HSET", f"{PREFIX}:entries", "pod-4711", 7, "other", 8)

        await a.beat(None)  # the first one born: all are as if seen now
        redis.tell("ZADD", f"{PREFIX}:seen", long_ago, "pod-4711")
        async with engines(redis, "b") as b:
            await b.beat(None)

            assert redis.tell("ZRANGE", f"{PREFIX}:seen", 0, -1) == ["a", "b"]
            assert (await b.standing()).entries == {"other": 8}


# An engine that fails.


async def test_a_frozen_engine_holds_up_no_call_and_is_there_again_after_it(redis):
    """
    The connections are warm, so that questions are sent and answers come late: none of
    them may be taken for that to another question.
    """
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k", str(n)) for n in range(9)])
        redis.freeze()
        try:
            for call in calls(a, mine.token).values():
                assert await lost(call) == "no answer within 250 ms"
            at_once = calls(a, mine.token).values()
            whys = await asyncio.gather(*(lost(call) for call in at_once))
            assert {*whys} == {"no answer within 250 ms"}
        finally:
            redis.thaw()

        again = await a.beat(mine.token)
        assert {*again.peers} == {"a"}
        assert len(await a.heard(mine.last, limit=9)) == 9

        async def only_what_is_used():
            return redis.clients("pgbreaker:a") == 2

        await until(only_what_is_used)
        await a.say(again.token, [view("k", "after")])
        assert (await a.standing()).views["a"]["k"] == "after"
        assert await first_hint(a) == (await a.beat(again.token)).last


async def test_a_call_that_was_given_up_changes_nothing_once_a_later_one_has_been_made(
    redis,
):
    """
    A thawed engine still runs what it was sent while it was frozen. Were that to come
    after what we said since, an old view would stand for good.
    """
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        redis.freeze()
        for n in range(4):
            await lost(lambda n=n: a.say(mine.token, [view("k", f"frozen {n}")]))
        redis.thaw()
        await a.beat(mine.token)
        last = await a.say(mine.token, [view("k", "now")])

        heard = await heard_all(a, mine.last)
        bodies = [m.body for m in heard]
        assert heard[-1].number == last
        assert bodies == sorted(bodies, key=lambda body: (body == "now", body))
        assert (await a.standing()).views == {"a": {"k": "now"}}


async def test_what_the_engine_runs_too_late_is_void(redis):
    """As above, whatever the order in which a thawed engine takes its connections."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k", "now")])
        a._work._attempts = a._beats._attempts = 0  # what runs next is of before

        with pytest.raises(FencedError):
            await a.say(mine.token, [view("k", "before")])
        assert "a later sign of life" in await lost(lambda: a.beat(None))

        assert (await a.standing()).views == {"a": {"k": "now"}}
        assert (await a.beat(mine.token)).token == mine.token


async def test_leases_outlast_a_frozen_engine(redis):
    """Nobody could renew them: no daemon is to take over another's targets for that."""
    async with engines(redis, "a", "b", lease=0.3) as (a, b):
        mine, its = await a.beat(None), await b.beat(None)
        redis.freeze()
        await asyncio.sleep(1.0)  # what is tested is that this much time does nothing
        redis.thaw()

        again = await a.beat(mine.token)
        assert {name: peer.token for name, peer in again.peers.items()} == {
            "a": mine.token,
            "b": its.token,
        }


async def test_an_answer_that_came_while_our_own_loop_stood_still_counts(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        beating = asyncio.create_task(a.beat(mine.token))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(2 * TIMEOUT)  # noqa: ASYNC251 - the loop is to stand still

        assert (await beating).token == mine.token


async def test_a_caller_that_walks_away_leaves_no_answer_for_the_next(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k", str(n)) for n in range(50)])
        for turns in range(12):
            walking = asyncio.create_task(a.heard(mine.last, limit=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            walking.cancel()
            with suppress(asyncio.CancelledError):
                await walking

            assert len(await a.heard(mine.last, limit=3)) == 3


async def test_a_killed_engine_that_comes_back_empty_is_born_anew(redis):
    async with engines(redis, "a", "b") as (a, b):
        mine, its = await a.beat(None), await b.beat(None)
        last = await a.say(mine.token, [view("k", "open"), entry(4)])
        redis.kill()
        assert "nobody listens" in await lost(lambda: a.beat(mine.token))
        redis.lose()
        redis.start()

        with pytest.raises(FencedError):  # nobody has come by yet
            await b.say(its.token, [view("k")])
        again = await a.beat(mine.token)

        assert again.born != mine.born
        assert again.token > mine.token
        assert again.last > last
        with pytest.raises(MissedError):
            await a.heard(last)
        standing = await a.standing()
        assert (standing.last, standing.views, standing.entries) == (again.last, {}, {})
        await a.say(again.token, [entry(4)])
        assert [m.key for m in await a.heard(again.last)] == ["4"]


async def test_a_killed_engine_that_comes_back_with_old_data_is_born_anew_too(redis):
    """
    Redis saves now and then. What it comes back with can lack the last messages, and
    their numbers must not be given to others.
    """
    async with engines(redis, "a", "b") as (a, b):
        mine, its = await a.beat(None), await b.beat(None)
        saved = await a.say(mine.token, [view("k", "saved"), entry(1)])
        redis.tell("SAVE")
        last = await a.say(mine.token, [view("k", "lost"), entry(2)])
        redis.kill()
        redis.start()

        with pytest.raises(FencedError):
            await b.say(its.token, [view("k")])
        again = await b.beat(its.token)

        assert again.born != its.born
        assert again.token == its.token
        assert again.last > last
        assert [m.number for m in await b.heard(its.last)] == [saved - 1, saved]
        for number in (saved, last):
            with pytest.raises(MissedError):
                await b.heard(number)
        standing = await b.standing()
        assert standing.views == {"a": {"k": "saved"}}
        assert standing.entries == {"a": 1}
        renewed = await a.beat(mine.token)
        await a.say(renewed.token, [view("k", "lost"), entry(1), entry(2)])
        assert [m.kind for m in await b.heard(again.last)] == ["view", "entry"]


async def test_a_connection_that_was_closed_while_idle_costs_no_error(redis):
    """As ``timeout`` of redis.conf does it, and load balancers."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k")])
        redis.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def none_left():
            return redis.clients("pgbreaker:a") == 0

        await until(none_left)
        assert (await a.beat(mine.token)).token == mine.token
        await a.say(mine.token, [view("k")])


async def test_scripts_that_the_engine_has_forgotten_are_told_it_again(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k")])
        redis.tell("SCRIPT", "FLUSH")

        assert (await a.beat(mine.token)).token == mine.token
        assert await a.say(mine.token, [view("k")]) == mine.last + 2


async def test_a_daemon_has_three_connections_at_most_and_they_bear_its_name(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        async with aclosing(a.hints()) as hints:
            await anext(hints)
            await asyncio.gather(
                *(a.say(mine.token, [view("k")]) for _ in range(20)),
                *(a.beat(mine.token) for _ in range(5)),
                *(a.heard(mine.last) for _ in range(5)),
            )

            assert redis.clients("pgbreaker:a") == 3


async def test_once_it_is_closed_whoever_waits_is_told_and_nothing_is_left(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        hints = a.hints()
        await anext(hints)
        waiting = asyncio.create_task(anext(hints))
        redis.freeze()
        asking = asyncio.create_task(a.beat(mine.token))
        await asyncio.sleep(0.05)  # both are on their way

        await a.close()

        for task in (waiting, asking):
            with pytest.raises(EngineLostError):
                await task
        redis.thaw()
        assert await lost(lambda: a.beat(mine.token)) == "it is not used any more"

        async def none_left():
            return redis.clients("pgbreaker:a") == 0

        await until(none_left)


# Hints.


async def test_what_is_said_is_hinted_at_once_the_first_hint_is_there(redis):
    """The first says what was said before: nothing falls between."""
    async with engines(redis, "a", "b") as (a, b):
        mine = await a.beat(None)
        last = await a.say(mine.token, [view("k")])

        async with aclosing(b.hints()) as hints:
            assert await anext(hints) == last
            for _ in range(3):
                last = await a.say(mine.token, [view("k"), view("k")])
                assert await anext(hints) == last


async def test_hints_of_a_quiet_fleet_go_on(redis):
    """Silence alone is no loss: the engine is asked whether it is there."""
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        async with aclosing(a.hints()) as hints:
            await anext(hints)
            waiting = asyncio.create_task(anext(hints))
            await asyncio.sleep(3 * TIMEOUT)  # longer than an answer may take

            last = await a.say(mine.token, [view("k")])
            assert await waiting == last


@pytest.mark.parametrize("what", ["freeze", "kill"])
async def test_hints_end_when_the_engine_does_and_begin_anew_when_asked(redis, what):
    async with engines(redis, "a") as a:
        await a.beat(None)
        async with aclosing(a.hints()) as hints:
            await anext(hints)
            getattr(redis, what)()
            why = await lost(lambda: anext(hints))
        assert why == "no answer within 250 ms" if what == "freeze" else "closed" in why
        await lost(lambda: first_hint(a))
        if what == "freeze":
            redis.thaw()
        else:
            redis.lose()
            redis.start()

        mine = await a.beat(None)
        async with aclosing(a.hints()) as hints:
            await anext(hints)
            last = await a.say(mine.token, [view("k")])
            assert await anext(hints) == last


# What is no engine, or does not let us.


class Answering(asyncio.Protocol):
    """Something that says the same to whatever it is asked."""

    def __init__(self, said: bytes, then_close: bool, accepted: list) -> None:
        self._said = said
        self._then_close = then_close
        self._accepted = accepted

    def connection_made(self, transport):
        self._transport = transport
        self._accepted.append(transport)

    def data_received(self, _):
        self._transport.write(self._said)
        if self._then_close:
            self._transport.close()


@asynccontextmanager
async def answering(said: bytes, *, then_close: bool = False):
    """The address of such a thing, for the time of the block."""
    loop, accepted = asyncio.get_running_loop(), []
    server = await loop.create_server(
        lambda: Answering(said, then_close, accepted), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    try:
        yield Secret(f"redis://127.0.0.1:{port}")
    finally:
        server.close()
        for transport in accepted:
            transport.abort()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "no answer within 250 ms"),
        (b"$900\r\nhalf", "no answer within 250 ms"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no Redis"),
        (b"$x\r\n", "is no Redis"),
        (b":1\r\n", "Error setting client name"),
    ],
    ids=["silent", "halfway", "HTTP", "garbage", "numbers"],
)
async def test_what_is_no_engine_holds_up_no_call(said, why):
    async with answering(said) as url:
        a = Engine(EnginePlan(url=url), "a")
        whys = await asyncio.gather(*(lost(call) for call in calls(a, 1).values()))
        assert all(why in told for told in whys), whys
        await a.close()


async def test_a_black_hole_holds_up_no_call():
    """Nothing takes the connection: its queue is full."""
    with socket.socket() as hole, socket.socket() as filler:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        filler.connect(hole.getsockname())
        port = hole.getsockname()[1]
        others = [socket.socket() for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        a = Engine(EnginePlan(url=Secret(f"redis://127.0.0.1:{port}")), "a")

        whys = await asyncio.gather(*(lost(call) for call in calls(a, 1).values()))
        assert {*whys} == {"no answer within 250 ms"}

        await a.close()
        for other in others:
            other.close()


async def test_an_engine_that_hangs_up_is_lost_at_once():
    async with answering(b"+OK\r\n", then_close=True) as url:
        a = Engine(EnginePlan(url=url), "a")
        assert "closed" in await lost(lambda: a.beat(None))
        await a.close()


async def test_where_nobody_listens_is_said_so(tmp_path):
    port = free_port()
    for url, why in [
        (f"redis://127.0.0.1:{port}", f"nobody listens on 127.0.0.1:{port}"),
        (f"unix://{tmp_path}/none", f"{tmp_path}/none: No such file or directory"),
    ]:
        a = Engine(EnginePlan(url=Secret(url)), "a")
        assert await lost(lambda a=a: a.beat(None)) == why
        await a.close()


async def test_a_user_that_is_refused_is_told_why_and_never_its_password(redis):
    redis.permit("app", "right horse", "~*", "&*", "+@all")
    redis.tell("CONFIG", "SET", "requirepass", "boss")
    try:
        for login, why in [
            ("app:wrong-horse@", "it does not take this user and password"),
            (":wrong-horse@", "it does not take this user and password"),
            ("", "it wants a password, and none is given"),
        ]:
            url = Secret(redis.url().replace("//", f"//{login}"))
            async with engines(redis, "a", url=url) as a:
                assert await lost(lambda a=a: a.beat(None)) == why
    finally:
        redis.tell("CONFIG", "SET", "requirepass", "")
        redis.tell("ACL", "DELUSER", "app")


async def test_the_password_is_read_at_each_connect(redis, tmp_path):
    file = tmp_path / "password"
    redis.permit("app", "first", "~*", "&*", "+@all")
    plan = {"url": Secret(redis.url("app")), "password_file": file}
    async with engines(redis, "a", **plan) as a:
        assert str(file) in await lost(lambda: a.beat(None))
        file.write_text("first\n", "utf-8")
        mine = await a.beat(None)

        redis.permit("app", "second", "~*", "&*", "+@all")  # which ends its connections
        file.write_text("second\n", "utf-8")

        assert (await a.beat(mine.token)).token == mine.token
    redis.tell("ACL", "DELUSER", "app")


async def test_an_engine_that_takes_no_writes_says_why_and_takes_none_of_them(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        await a.say(mine.token, [view("k", "before")])
        before = await a.standing()
        for begin, end, why in [
            (
                ("CONFIG", "SET", "maxmemory", "1"),
                ("CONFIG", "SET", "maxmemory", "0"),
                "it takes no writes: its memory is full (maxmemory)",
            ),
            (
                ("REPLICAOF", "127.0.0.1", free_port()),
                ("REPLICAOF", "NO", "ONE"),
                "it is a replica, which takes no writes",
            ),
            (
                ("CONFIG", "SET", "min-replicas-to-write", "1"),
                ("CONFIG", "SET", "min-replicas-to-write", "0"),
                "it takes no writes, because too few replicas follow it",
            ),
        ]:
            redis.tell(*begin)
            try:
                assert await lost(lambda: a.beat(mine.token)) == why
                said = [view("k", "after"), word("w", 1, "a"), entry(1)]
                assert await lost(lambda said=said: a.say(mine.token, said)) == why
                assert await a.standing() == before
            finally:
                redis.tell(*end)
        assert (await a.beat(mine.token)).token == mine.token


async def test_an_engine_that_cannot_save_says_so(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        away = redis.home / "dump.rdb"
        away.unlink(missing_ok=True)
        away.mkdir()  # nothing can be saved in its place
        redis.tell("CONFIG", "SET", "save", "3600 1")
        try:
            redis.tell("BGSAVE")

            async def failed():
                return "rdb_last_bgsave_status:err" in redis.tell("INFO", "persistence")

            await until(failed)
            assert "cannot save to disk" in await lost(lambda: a.beat(mine.token))
        finally:
            redis.tell("CONFIG", "SET", "save", "")
            away.rmdir()


async def test_an_engine_that_loads_its_data_says_so(redis):
    """It looks after connections now and then only, so that it is given time."""
    async with engines(redis, "a", timeout=1.0) as a:
        await a.beat(None)
        for n in range(600):
            redis.tell("SET", f"large:{n}", "x" * 1024)
        redis.tell("SAVE")
        redis.kill()
        slow = {
            "key-load-delay": "2000",
            "loading-process-events-interval-bytes": "1024",
            "rdbcompression": "no",
        }
        redis.settings.update(slow)
        try:
            redis.start(until="BusyLoading")
            with pytest.raises(EngineLostError, match="is still loading its data"):
                await a.beat(None)
        finally:
            for name in slow:
                del redis.settings[name]
            redis.kill()
            redis.lose()


# Who may what.


def rules() -> list[str]:
    """What an operator permits, as the module tells him."""
    (block,) = re.findall(
        r"ACL SETUSER pgbreaker on >PASSWORD(.+?)\n\n", module.__doc__, re.S
    )
    return block.split()


async def use_all(engine: Engine) -> None:
    """Do everything that a daemon does."""
    mine = await engine.beat(None)
    said = [view("k"), Message("gone", "k", ""), word("k", 1, "a"), entry(1)]
    await engine.say(mine.token, said)
    await engine.announce(mine.token, "[]")
    await engine.heard(mine.last)
    await engine.standing()
    await engine.targets_of(["a"])
    async with aclosing(engine.kept(0)) as kept:
        await anext(kept)
    async with aclosing(engine.hints()) as hints:
        await anext(hints)
        with suppress(TimeoutError):
            async with asyncio.timeout(
                0.7 * TIMEOUT
            ):  # it is asked whether it is there
                await anext(hints)
    await engine.leave(mine.token)


async def use_twice(redis, **plan) -> None:
    """The second time there is a daemon that is long gone, and is forgotten."""
    for _ in range(2):
        async with engines(redis, "a", **plan) as a:
            await use_all(a)
        redis.tell("ZADD", f"{PREFIX}:seen", 1, "pod-4711")


async def test_what_the_documents_permit_is_enough(redis):
    redis.permit("app", "secret", *rules())
    for db in (0, 3):
        await use_twice(redis, url=Secret(redis.url("app", "secret", db=db)))
    redis.tell("ACL", "DELUSER", "app")


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule[0] in "+~&"])
async def test_with_one_permission_less_it_says_which(redis, rule):
    """Each is needed by a daemon that does everything: none is there for good measure."""
    redis.permit("app", "secret", *(other for other in rules() if other != rule))
    redis.tell("SCRIPT", "FLUSH")
    db = 3 if rule == "+select" else 0
    with pytest.raises(EngineLostError, match="not permitted") as told:
        await use_twice(redis, url=Secret(redis.url("app", "secret", db=db)))
    redis.tell("ACL", "DELUSER", "app")
    named = f"'{rule[1:]}'" if rule[0] == "+" else f"its user needs {rule}"
    assert named in told.value.why.replace("this user", "its user")


# TLS.


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.found(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority.found(tmp_path_factory.mktemp("tls") / "theirs")


async def test_by_tls_both_sides_show_who_they_are(authority, stranger):
    ours = {
        "ca_file": authority.root,
        "cert_file": authority.home / "server.crt",
        "key_file": authority.home / "server.key",
    }
    with running_redis(authority=authority) as redis:
        async with engines(redis, "a", timeout=1.0, **ours) as a:
            await use_all(a)

        named = Secret(redis.url().replace("localhost", "127.0.0.1"))
        for more, why in [
            ({"ca_file": stranger.root}, "TLS: its certificate is not trusted"),
            ({"ca_file": None}, "TLS: its certificate is not trusted"),
            ({"url": named}, "IP address mismatch"),
            ({"cert_file": None, "key_file": None}, "certificate of ours"),
            ({"key_file": stranger.home / "server.key"}, "server.crt' cannot be used"),
            ({"ca_file": authority.home / "none"}, "none: No such file"),
        ]:
            async with engines(redis, "a", **ours | more) as a:
                with pytest.raises(EngineLostError) as told:
                    await a.beat(None)
            assert why in told.value.why


# Clocks.


def step(redis, seconds: int) -> None:
    """Set the engine's clock, as far as our scripts can see: what they kept of it is by
    so much the other way. (Debian's Redis does not run under libfaketime.)"""
    fleet, leases, seen = (f"{PREFIX}:{key}" for key in ("fleet", "leases", "seen"))
    kept = int(redis.tell("HGET", fleet, "clock"))
    redis.tell("HSET", fleet, "clock", kept - seconds * 1000)
    flat = redis.tell("HGETALL", leases)
    for name, lease in zip(flat[::2], flat[1::2], strict=True):
        token, ends, rest = lease.split(" ", 2)
        redis.tell("HSET", leases, name, f"{token} {int(ends) - seconds * 1000} {rest}")
        redis.tell("ZINCRBY", seen, -seconds * 1000, name)


@pytest.mark.parametrize("hours", [-1, 1, 30], ids=["back", "forward", "by days"])
async def test_a_clock_that_is_set_ends_no_lease_and_keeps_no_dead_daemon(redis, hours):
    """
    Leases go by the engine's wall clock, as it has no other. Whoever is alive keeps its
    token, and who is dead is so one lease later at the latest, not an hour.
    """
    async with engines(redis, "a", "b", "c", lease=0.5) as (a, b, c):
        mine, its = await a.beat(None), await b.beat(None)
        dead = await c.beat(None)
        await b.say(its.token, [view("k")])
        step(redis, hours * HOUR)

        again = await a.beat(mine.token)
        assert {*again.peers} == {"a", "b", "c"}
        assert again.token == mine.token
        renewed = await b.beat(its.token)
        assert renewed.token == its.token
        assert (again.born != mine.born) == (hours > 6)  # keys may have expired
        await b.say(its.token, [view("k")])

        async def only_the_living():
            await b.beat(its.token)
            return {*(await a.beat(mine.token)).peers} == {"a", "b"}

        await until(only_the_living, within=1.0)
        with pytest.raises(FencedError):
            await c.say(dead.token, [view("k")])


async def test_a_clock_that_is_set_between_two_sayings_fences_nobody_out(redis):
    async with engines(redis, "a") as a:
        mine = await a.beat(None)
        for hours in (1, -1, 3):
            step(redis, hours * HOUR)
            await a.say(mine.token, [view("k", str(hours))])
        assert len(await a.heard(mine.last)) == 3

        step(redis, 24 * HOUR)
        with pytest.raises(FencedError):  # what stood may have expired
            await a.say(mine.token, [view("k")])
        again = await a.beat(mine.token)
        assert again.born != mine.born
        await a.say(again.token, [view("k")])


# What is told before anything is tried.


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h:1", "the URL is of no kind that is known; write redis://"),
        ("redis:///0", "the URL names no host"),
        ("redis://:secret@h:port", "the URL cannot be read"),
        ("redis://h:99999", "the URL cannot be read"),
        ("redis://h/zero", "the database in the URL is no number"),
        ("redis://h?timeout=3", "the URL has options that are not known"),
        ("redis://:se#cret@h", "the URL has a '#'"),
        ("unix://run/redis.sock", "has three slashes before its path"),
    ],
    ids=["kind", "host", "port", "large", "database", "option", "hash", "slashes"],
)
def test_a_url_that_is_none_is_refused_without_being_shown(url, why):
    with pytest.raises(ValueError, match=re.escape(why)) as told:
        Engine(EnginePlan(url=Secret(url)), "a")
    assert "cret" not in str(told.value)


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "{a}", "x" * 101])
def test_a_name_that_redis_would_not_take_is_refused(name):
    url = Secret("redis://h")
    with pytest.raises(ValueError, match="the name of a daemon"):
        Engine(EnginePlan(url=url), name)
    with pytest.raises(ValueError, match="the prefix of a daemon"):
        Engine(EnginePlan(url=url, prefix=name), "a")


def test_certificates_without_tls_are_refused(tmp_path):
    plain = EnginePlan(url=Secret("redis://h"), ca_file=tmp_path)
    with pytest.raises(ValueError, match="write rediss://"):
        Engine(plain, "a")
    keyless = EnginePlan(url=Secret("rediss://h"), key_file=tmp_path)
    with pytest.raises(ValueError, match="no certificate"):
        Engine(keyless, "a")


def test_without_the_extra_it_says_what_to_install():
    program = """
        import sys
        sys.modules["redis"] = None
        from pgbreaker.core.plan import EnginePlan
        from pgbreaker.core.secret import Secret
        from pgbreaker.sinks.peers.engine import Engine
        Engine(EnginePlan(url=Secret("redis://h")), "a")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "redis is not installed: pip install 'pgbreaker[redis]'" in done.stderr


async def test_it_is_reached_by_a_unix_socket_too(redis):
    redis.permit("app", "se/cr@t", "~*", "&*", "+@all")
    url = Secret(f"unix://app:se%2Fcr%40t@{redis.socket}?db=2")
    async with engines(redis, "a", url=url) as a:
        await use_all(a)
    assert redis.tell("DBSIZE") == 0
    redis.tell("ACL", "DELUSER", "app")


async def test_fleets_of_other_prefixes_know_nothing_of_each_other(redis):
    async with engines(redis, "a") as a, engines(redis, "a", prefix="blue") as blue:
        mine, its = await a.beat(None), await blue.beat(None)
        await blue.say(its.token, [view("k")])

        assert await a.heard(mine.last) == []
        assert (await a.standing()).views == {}
        keys = redis.tell("KEYS", "*")
        assert all(key.startswith(("{pgbreaker}:", "{blue}:")) for key in keys)


async def test_who_answers_with_an_error_is_asked_on_a_new_connection(redis):
    """Of a primary that was demoted, the name leads elsewhere by then."""
    async with engines(redis, "a") as one:
        beat = await one.beat(None)
        before = redis.tell("CLIENT", "LIST")
        redis.tell("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(EngineLostError):
                await one.beat(beat.token)
        finally:
            redis.tell("REPLICAOF", "NO", "ONE")

        await one.beat(beat.token)

        def ids(text: str) -> set[str]:
            ours = (line for line in text.splitlines() if "name=pgbreaker:a" in line)
            return {line.split()[0] for line in ours}

        assert not ids(before) & ids(redis.tell("CLIENT", "LIST"))
