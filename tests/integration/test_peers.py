"""Daemons that share a real engine: each sees what the others see, and goes on alone."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from pgbreaker.core.advice import Opinion
from pgbreaker.core.entry import Kind
from pgbreaker.core.sharding import chosen
from pgbreaker.core.states import State
from pgbreaker.sinks.peers.engine import EngineLostError, Heard
from pgbreaker.sinks.peers.words import FleetWord
from pgbreaker.web.agent import Agent
from support.crew import Hand, crew, settled, until
from support.engines import RedisServer, running_redis


@pytest.fixture
def redis():
    with running_redis() as server:
        yield server


def moves(hand: Hand) -> list[tuple[str, str, str]]:
    """What callers of this daemon have felt of its breakers."""
    return [
        (entry.breaker, entry.details["from"], entry.details["to"])
        for entry in hand.history.entries
        if entry.kind is Kind.TRANSITION and entry.details["override"] is None
    ]


def watchers(hands: list[Hand], target: str) -> list[Hand]:
    return [hand for hand in hands if target in hand.watching]


async def test_each_target_is_watched_by_one_and_known_to_all(redis: RedisServer):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        for target in hands[0].board.targets:
            (one,) = watchers(hands, target)
            for other in hands:
                seen = Opinion.HEALTHY, (one.name,)
                await until(lambda o=other, t=target, s=seen: ballot(o, t) == s)


def ballot(hand: Hand, target: str) -> tuple[Opinion, tuple[str, ...]]:
    """What holds of a target's breaker, and whose views are counted."""
    found = hand.peers.circle.ballot(f"{target}/read", hand.clock.now())
    return found.opinion, tuple(found.views)


async def test_a_move_is_known_to_all_at_once_and_in_everybodys_history(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        (one,) = watchers(hands, "t00")

        one.fail("t00")

        took = await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        assert took < 0.5
        for hand in hands:
            await until(lambda hand=hand: ("t00/read", "closed", "open") in moves(hand))
            thought = hand.peers.sights.thought_of(
                hand.board.targets["t00"], hand.breaker("t00")
            )
            assert (thought.opinion, thought.reason) == (
                Opinion.OPEN,
                "connection refused",
            )


async def test_what_a_dead_daemon_watched_is_watched_by_others_and_goes_on_as_it_was(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        (dead,) = watchers(hands, "t00")
        dead.fail("t00")
        await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        its = set(dead.watching)
        left = [hand for hand in hands if hand is not dead]
        for hand in left:
            hand.unwell.add("t00")

        await dead.kill()

        took = await until(lambda: its <= left[0].watching | left[1].watching)
        assert took < 3.0
        await settled(left)
        for hand in left:
            felt = [move for move in moves(hand) if move[0] != "t00/read"]
            assert felt == []
            assert moves(hand)[0] == ("t00/read", "closed", "open")
            assert ("t00/read", "half_open", "closed") not in moves(hand)


async def test_what_a_daemon_thought_before_its_death_counts_no_more_once_it_is_back(
    redis: RedisServer,
):
    """Others watch that by now; who comes later cannot tell when it was said."""
    async with crew(redis.plan(), "a", "b") as (a, b):
        names = ("a", "b", "c", "d")
        moved = next(t for t in a.watching if chosen(t, names, 1)[0] in ("c", "d"))
        a.fail(moved)
        await until(lambda: b.states()[moved] == "open")
        await a.kill()
        others = [Hand(redis.plan(), name, b.board.targets) for name in ("c", "d")]
        for other in others:
            await other.join()
        await settled([b, *others])
        await until(lambda: b.states()[moved] == "closed")

        again = Hand(redis.plan(), "a", b.board.targets)
        await again.join()
        await settled([again, b, *others])
        late = Hand(redis.plan(), "e", ())
        late.board.add(late._target(moved))
        late.peers.turn()
        await late.join()

        (one,) = watchers([again, b, *others], moved)
        await until(lambda: ballot(late, moved) == (Opinion.HEALTHY, (one.name,)))
        assert not redis.tell("HEXISTS", "{pgbreaker}:views:a", f"{moved}/read")
        for hand in (late, again, *others):
            await hand.close()


async def test_who_leaves_in_order_is_replaced_without_waiting(redis: RedisServer):
    async with crew(redis.plan(), "a", "b") as hands:
        gone, stays = hands
        its = set(gone.watching)

        await gone.close()

        assert await until(lambda: its <= stays.watching) < 1.0


async def test_a_frozen_engine_leaves_each_alone_and_moves_nothing(redis: RedisServer):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        (one,) = watchers(hands, "t00")
        one.fail("t00")
        await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        for hand in hands:
            hand.unwell.add("t00")
        before = [moves(hand) for hand in hands]

        redis.freeze()
        try:
            alone = await until(lambda: not any(h.peers.is_joined for h in hands))
            everything = set(one.board.targets)
            await until(lambda: all(h.watching == everything for h in hands))
        finally:
            redis.thaw()
        await settled(hands)

        assert alone < 0.5
        for hand, known in zip(hands, before, strict=True):
            felt = [m for m in moves(hand)[len(known) :] if "closed" in m]
            assert felt == []
            assert hand.peers.losses == 1


async def test_an_engine_that_lost_everything_is_told_all_of_it_again(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        (one,) = watchers(hands, "t00")
        one.fail("t00")
        await hands[0].desk.override(
            hands[0].breaker("t01"),
            State.FORCED_OPEN,
            reason="failing over",
            author="ana",
        )
        await until(lambda: all(h.states()["t01"] == "forced_open" for h in hands))

        redis.kill()
        redis.lose()
        await until(lambda: not any(h.peers.is_joined for h in hands))
        redis.start()
        await settled(hands)

        for hand in hands:
            await until(lambda hand=hand: hand.states()["t00"] != "closed")
            assert hand.states()["t01"] == "forced_open"
        assert "ana" in redis.tell("HGET", "{pgbreaker}:words", "t01/read")


async def test_an_operators_word_reaches_all_and_is_taken_back_by_anybody(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b", "c") as hands:
        a, b, _ = hands
        await a.desk.override(
            a.breaker("t01"), State.DISABLED, reason="let them try", author="ana"
        )
        await until(lambda: all(h.states()["t01"] == "disabled" for h in hands))
        late = Hand(redis.plan(), "d", a.board.targets)
        await late.join()
        await until(lambda: late.states()["t01"] == "disabled")

        await b.desk.hand_back(b.breaker("t01"), author="ben", reason="they have")

        await until(lambda: all(h.states()["t01"] == "closed" for h in (*hands, late)))
        told = [e for e in a.history.entries if e.kind is Kind.OVERRIDE][-1]
        assert (told.author, told.details["daemon"]) == ("ben", "b")
        assert "they have" in told.text
        await late.close()


async def test_one_of_three_opens_nothing_and_is_shown(redis: RedisServer):
    async with crew(redis.plan(), "a", "b", "c", targets=3, watchers=3) as hands:
        a, b, _ = hands

        a.fail("t00")

        minority = [("a",)] * 3

        def seen() -> list[tuple[str, ...]]:
            return [
                h.peers.circle.ballot("t00/read", h.clock.now()).minority for h in hands
            ]

        await until(lambda: seen() == minority)
        assert [h.states()["t00"] for h in hands] == ["closed"] * 3
        assert a.breaker("t00").computed_state is not State.CLOSED
        assert "1 of 3 daemons see it open (2 needed)" in a.breaker("t00").explain(
            a.clock.now()
        )

        b.fail("t00")

        await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        b.unwell.clear()
        await until(lambda: all(h.states()["t00"] == "closed" for h in hands))
        # Callers have felt one opening, and its end.
        for hand in hands:
            assert moves(hand) == [
                ("t00/read", "closed", "open"),
                ("t00/read", "open", "closed"),
            ]


async def test_without_the_engine_a_minority_goes_by_what_it_sees(redis: RedisServer):
    async with crew(redis.plan(), "a", "b", "c", targets=1, watchers=3) as hands:
        a, b, c = hands
        a.fail("t00")

        redis.freeze()
        try:
            await until(lambda: not any(h.peers.is_joined for h in hands))
            await until(lambda: a.states()["t00"] != "closed")
            assert [b.states()["t00"], c.states()["t00"]] == ["closed", "closed"]
        finally:
            redis.thaw()

        await settled(hands)
        await until(lambda: a.states()["t00"] == "closed")


RUBBISH = (
    ("view", "t00/read", "no JSON"),
    ("view", "t00/read", '{"breaker": "t00/read"}'),
    ("view", "t00/read", "[" * 5000),
    ("gone", "", ""),
    ("entry", "1", "[]"),
    ("entry", "2", '{"breaker": "t00/read", "text": "x", "at": "nan", "details": 1}'),
    ("word", "t00/read", '{"version": [1, "z"], "state": "half_open"}'),
    ("dance", "t00/read", "{}"),
)


async def test_what_is_no_message_is_counted_and_left_out(redis: RedisServer):
    """Of a later version, or of somebody else who has the daemons' user."""
    async with crew(redis.plan(), "a", "b") as hands:
        a, b = hands
        (one,) = watchers(hands, "t00")
        for kind, key, body in RUBBISH:
            last = redis.tell("HINCRBY", "{pgbreaker}:fleet", "last", 1)
            fields = ("daemon", "z", "token", 1, "kind", kind, "key", key, "body", body)
            redis.tell("XADD", "{pgbreaker}:said", f"{last}-0", *fields)
        redis.tell("PUBLISH", "{pgbreaker}:said", str(last))

        one.fail("t00")

        await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        wanted = len(RUBBISH) - 2
        await until(lambda: a.peers.unread == b.peers.unread == wanted)
        assert all(h.peers.is_joined and h.peers.losses == 0 for h in hands)


async def test_two_of_one_name_are_not_taken_for_one(redis: RedisServer):
    async with crew(redis.plan(), "a", targets=3) as hands:
        twin = Hand(redis.plan(), "a", hands[0].board.targets)
        await twin.join()

        assert not twin.peers.is_joined
        assert twin.peers.why == "another daemon is called 'a'"
        assert twin.watching == set(twin.board.targets), "it goes on alone"
        await twin.close()
        assert hands[0].peers.is_joined


async def test_no_transition_is_lost_or_out_of_order_whatever_is_killed(
    redis: RedisServer,
):
    """The engine keeps what it has on disk, and loses it every third time."""
    redis.settings |= {"appendonly": "yes", "appendfsync": "always"}
    redis.stop()
    redis.start()
    rng = random.Random(8)
    async with crew(redis.plan(), "a", "b", "c", targets=6) as hands:
        for turn in range(6):
            for _ in range(5):
                flap(hands, f"t{rng.randrange(6):02}")
                await asyncio.sleep(rng.uniform(0.0, 0.05))
            redis.kill()
            if turn % 3 == 2:
                redis.lose()
            flap(hands, f"t{turn:02}")
            await until(lambda: not any(h.peers.is_joined for h in hands))
            redis.start()
            await until(lambda: all(h.is_settled for h in hands))
        await settled(hands)

        assert sum(len(own(one)) for one in hands) > 20
        for one in hands:
            made = own(one)
            for other in hands:
                if other is not one:
                    await until(lambda o=other, n=one.name, m=made: heard(o, n) == m)


def flap(hands: list[Hand], target: str) -> None:
    """Have those who watch a target see it fail, for a moment."""
    for hand in watchers(hands, target):
        hand.see(target, False)


def own(hand: Hand) -> list[int]:
    """What a daemon saw itself."""
    return [
        entry.id
        for entry in hand.history.entries
        if entry.kind is Kind.TRANSITION and "daemon" not in entry.details
    ]


def heard(hand: Hand, of: str) -> list[int]:
    """What it has of another, by the numbers that this one gave it."""
    return [
        e.details["of"] for e in hand.history.entries if e.details.get("daemon") == of
    ]


# Found by trying: none of these may come back.

ORDER = chosen("t00", "abcd", 4)


async def test_what_a_daemon_thought_before_it_died_is_no_view_of_the_one_after_it(
    redis: RedisServer,
):
    third, first, second, last = ORDER
    async with AsyncExitStack() as stack:

        async def joined(name: str) -> Hand:
            hand = Hand(redis.plan(), name, ["t00"])
            stack.push_async_callback(hand.close)
            await hand.join()
            return hand

        one, two = await joined(first), await joined(second)
        await settled([one, two])
        one.fail("t00")
        await until(lambda: two.states()["t00"] == "open")
        await one.kill()
        three = await joined(third)
        await settled([two, three])
        await until(lambda: three.states()["t00"] == "closed", 20.0)
        again, four = await joined(first), await joined(last)
        await settled([two, three, again, four])

        assert ballot(four, "t00") == (Opinion.HEALTHY, (third,))


async def test_a_daemon_without_a_store_obeys_its_own_word_when_it_is_back(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b", targets=2) as (a, b):
        await a.desk.override(
            a.breaker("t00"), State.FORCED_OPEN, reason="as agreed", author="mia"
        )
        await until(lambda: b.states()["t00"] == "forced_open")
        await a.kill()
        again = Hand(redis.plan(), "a", ["t00", "t01"])
        await again.join()

        await until(lambda: again.states()["t00"] == "forced_open")
        await again.close()


async def test_a_word_that_ran_out_ends_the_one_before_it(redis: RedisServer):
    async with crew(redis.plan(), "a", targets=1) as (a,):
        now = a.peers.sights.wall()
        first = FleetWord(
            breaker="t00/read",
            version=(int(now * 1000) - 5000, "b"),
            state=State.FORCED_OPEN,
            reason="for a day",
            author="mia",
            until=now + 86400,
        )
        over = replace(
            first,
            version=(first.version[0] + 1, "b"),
            state=State.DISABLED,
            until=now - 3,
        )
        said = (
            Heard(0, "b", 1, "word", "t00/read", w.written()) for w in (first, over)
        )

        a.peers._take(next(said))
        await until(lambda: a.states()["t00"] == "forced_open")
        a.peers._take(next(said))

        await until(lambda: a.breaker("t00").override is None)


@pytest.mark.parametrize("what", ["open", "forced_open"])
async def test_of_a_target_that_is_added_all_is_heard(redis: RedisServer, what: str):
    watcher, other = chosen("t01", "ab", 2)
    one = Hand(redis.plan(), watcher, ["t00", "t01"])
    two = Hand(redis.plan(), other, ["t00"])
    try:
        await one.join()
        await two.join()
        await until(lambda: len(two.peers.circle.live) == 2 and "t01" in one.watching)
        if what == "open":
            one.fail("t01")
        else:
            await one.desk.override(
                one.breaker("t01"), State.FORCED_OPEN, reason="as agreed", author="mia"
            )
        await until(lambda: one.is_settled)

        two.board.add(two._target("t01"))
        two.peers.turn()

        await until(lambda: two.states()["t01"] == what)
    finally:
        await one.close()
        await two.close()


async def test_haproxy_is_told_up_again_of_a_target_that_others_watch(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b") as hands:
        (one,) = watchers(hands, "t00")
        (other,) = (hand for hand in hands if hand is not one)
        agent = Agent(other.board, other.clock.now)
        one.fail("t00")
        await until(lambda: agent.answer("t00/read").startswith("down"))

        one.unwell.clear()

        await until(lambda: agent.answer("t00/read") == "up")


async def test_a_later_word_given_here_is_not_undone_by_an_earlier_one(
    redis: RedisServer,
):
    """It was being written down when that one came."""
    async with crew(redis.plan(), "a", "b", targets=2) as (a, b):
        written = asyncio.Event()
        begun = asyncio.Event()

        class Slow:
            async def record(self, _entries):
                begun.set()
                await written.wait()

        a.history._ledger = Slow()
        later = asyncio.create_task(
            a.desk.override(
                a.breaker("t00"), State.FORCED_OPEN, reason="the later", author="ann"
            )
        )
        await begun.wait()
        await b.desk.override(
            b.breaker("t00"), State.DISABLED, reason="the earlier", author="bob"
        )
        await until(lambda: a.peers.words.of("t00/read") is not None)
        written.set()
        await later

        await until(lambda: b.states()["t00"] == "forced_open")
        await until(lambda: not a.peers._orders)
        assert a.states()["t00"] == "forced_open"


async def test_what_a_stranger_publishes_ends_nothing(redis: RedisServer):
    async with crew(redis.plan(), "a", "b", targets=4) as hands:
        redis.tell("PUBLISH", "{pgbreaker}:said", "nonsense")
        last = redis.tell("HINCRBY", "{pgbreaker}:fleet", "last", 1)
        redis.tell("XADD", "{pgbreaker}:said", f"{last}-0", "what", "ever")
        (one,) = watchers(hands, "t00")

        one.fail("t00")

        await until(lambda: all(h.states()["t00"] == "open" for h in hands))
        assert not any(task.done() for h in hands for task in h._tasks)


async def test_where_one_of_two_suffices_all_are_told_the_same(redis: RedisServer):
    async with crew(
        redis.plan(), "a", "b", "c", targets=2, watchers=2, quorum=1
    ) as hands:
        one, _ = watchers(hands, "t00")

        one.fail("t00")

        await until(lambda: all(h.states()["t00"] == "open" for h in hands))


async def test_who_is_just_telling_what_it_can_watch_can_watch_what_it_could(
    redis: RedisServer,
):
    async with crew(redis.plan(), "a", "b") as (a, b):
        before = b.peers.circle.chosen("t00"), b.peers.circle.chosen("t01")

        a.peers._digest = "another"

        beats = [hand.peers._looked_at for hand in (a, b)]
        await until(lambda: b.peers._looked_at > beats[1] + 0.5)
        after = b.peers.circle.chosen("t00"), b.peers.circle.chosen("t01")
        assert after == before


async def test_a_lease_by_which_nothing_can_be_told_is_given_back(redis: RedisServer):
    """Its user may beat, and say nothing: others watch in its place."""
    async with crew(redis.plan(), "a", "b", targets=6) as (a, b):
        its = set(a.watching)

        async def refused(*_: object) -> int:
            raise EngineLostError("not permitted: xadd")

        a.peers._engine.say = refused  # type: ignore[method-assign]
        a.fail(min(its))

        await until(lambda: its <= b.watching)
        assert not a.peers.is_joined
        assert a.peers.why == "not permitted: xadd"
