"""The circle: who watches what, and what holds for the fleet, as one daemon knows it.

`circles` has the daemons and the engine that live through the random years below.
"""

import itertools

import pytest
from circles import HOLDS, LEASE, QUIET, TICK, Daemon, World

from pgbreaker.core.advice import Opinion
from pgbreaker.core.circle import Circle, Duties
from pgbreaker.core.sharding import chosen
from support.peering import view

OPEN, HEALTHY, UNKNOWN = Opinion.OPEN, Opinion.HEALTHY, Opinion.UNKNOWN
NOTHING = Duties()
MAIN = frozenset(("main",))
READ = "main/read"
FIRST, SECOND, THIRD = chosen("main", "abc", 3)


def circle(name: str = FIRST, targets=MAIN, **more) -> Circle:
    made = Circle(name, 100.0, takeover=LEASE, holds=HOLDS, **more)
    made.can_watch(targets)
    return made


def there(*names: str, targets=MAIN, **tokens: int):
    """Who is there, and under which token."""
    return {name: (tokens.get(name, 1), targets) for name in names}


def take(*targets: str) -> Duties:
    return Duties(take=frozenset(targets))


def leave(*targets: str) -> Duties:
    return Duties(leave=frozenset(targets))


# -- Alone -------------------------------------------------------------------------


def test_who_has_never_met_anybody_watches_everything_at_once():
    alone = circle(targets={"main", "other"})

    assert alone.decide(100.0) == take("main", "other")
    assert alone.live == ()


def test_who_loses_the_engine_goes_on_and_watches_everything_after_the_takeover():
    one = circle(SECOND, targets={"main", "mine"})
    peers = there(SECOND, targets=frozenset(("main", "mine"))) | there(FIRST)
    one.meet(peers, 200.0)
    assert one.decide(200.0) == take("mine")

    one.lose(200.5)

    assert one.decide(200.5) == NOTHING
    assert one.decide(202.4) == NOTHING
    assert one.decide(202.5) == take("main")
    assert one.is_settled


def test_who_finds_the_engine_before_the_takeover_takes_nothing():
    one = circle(SECOND)
    one.meet(there(FIRST, SECOND), 200.0)
    one.decide(200.0)
    one.lose(200.5)

    one.meet(there(FIRST, SECOND), 202.0)

    assert one.decide(203.0) == NOTHING


def test_to_lose_it_again_and_again_puts_nothing_off():
    one = circle(SECOND)
    one.meet(there(FIRST, SECOND), 200.0)
    one.decide(200.0)
    for tenths in range(2000, 2021):
        one.lose(tenths / 10)

    assert one.decide(202.0) == take("main")


# -- Who watches what --------------------------------------------------------------


def test_the_chosen_one_watches_and_the_others_do_not():
    for name in (FIRST, SECOND, THIRD):
        one = circle(name)
        one.meet(there("a", "b", "c"), 101.0)

        assert one.decide(101.0) == (take("main") if name == FIRST else NOTHING)
        assert one.chosen("main") == (FIRST,)
        assert one.live == ("a", "b", "c")


def test_what_moves_is_kept_until_the_new_one_has_looked():
    one = circle(SECOND)
    one.meet(there(SECOND), 101.0)
    one.decide(101.0)

    one.meet(there(FIRST, SECOND), 102.0)
    assert one.decide(102.0) == NOTHING
    one.hear(FIRST, 1, view(READ, UNKNOWN), 102.0)
    assert one.decide(102.0) == NOTHING
    one.hear(FIRST, 1, view(READ, HEALTHY), 103.0)

    assert one.decide(103.0) == leave("main")
    assert one.watching == set()


def test_what_moves_to_several_is_kept_until_all_of_them_have_looked():
    one = circle(THIRD, watchers=2)
    one.meet(there(THIRD), 101.0)
    one.decide(101.0)
    one.meet(there("a", "b", "c"), 102.0)

    one.hear(FIRST, 1, view(READ, OPEN), 102.0)
    assert one.decide(102.0) == NOTHING
    one.hear(SECOND, 1, view(READ, OPEN), 102.0)

    assert one.decide(102.0) == leave("main")


def test_that_it_looked_before_it_began_anew_counts_for_nothing():
    """
    Whoever is chosen was started again, under another token: it has not looked yet, and
    what it said before stands in the engine still.
    """
    one = circle(SECOND)
    one.meet(there(SECOND), 101.0)
    one.decide(101.0)
    one.hear(FIRST, 1, view(READ, HEALTHY), 102.0)

    one.meet(there(FIRST, SECOND, **{FIRST: 2}), 102.0)

    assert one.decide(102.0) == NOTHING
    one.hear(FIRST, 2, view(READ, HEALTHY), 103.0)
    assert one.decide(103.0) == leave("main")


def test_of_one_that_dies_the_targets_are_taken_at_once():
    one = circle(SECOND)
    one.meet(there(FIRST, SECOND), 101.0)
    one.decide(101.0)

    one.meet(there(SECOND), 103.0)

    assert one.decide(103.0) == take("main")


def test_what_a_daemon_is_not_configured_for_it_does_not_get():
    one = circle(SECOND)

    one.meet(there(SECOND) | there(FIRST, targets=frozenset(("other",))), 101.0)

    assert one.chosen("main") == (SECOND,)
    assert one.decide(101.0) == take("main")


def test_a_daemon_that_is_configured_anew_gets_what_it_can_watch_now():
    """Its lease is the same; only its targets are others."""
    one = circle(SECOND)
    other = frozenset(("other",))
    one.meet(there(SECOND) | there(FIRST, targets=other), 101.0)
    assert one.decide(101.0) == take("main")

    one.meet(there(FIRST, SECOND), 102.0)
    assert one.chosen("main") == (FIRST,)
    one.meet(there(SECOND) | there(FIRST, targets=other), 103.0)

    assert one.chosen("main") == (SECOND,)
    assert one.decide(103.0) == NOTHING
    assert one.watching == {"main"}


def test_what_is_configured_no_more_is_watched_no_more():
    one = circle(targets={"main", "other"})
    one.decide(100.0)

    one.can_watch({"other"})

    assert one.watching == {"other"}
    assert one.decide(101.0) == NOTHING


def test_ten_thousand_targets_are_decided_on_some_at_a_time():
    targets = frozenset(f"db{number}" for number in range(2_000))
    one = circle("a", targets=targets)
    one.meet(there("a", "b", targets=targets), 101.0)
    sizes = []
    while not one.is_settled:
        sizes.append(len(one.decide(101.0).take))

    assert len(sizes) == 4
    assert sum(sizes) == len(one.watching)
    assert 900 < len(one.watching) < 1100


def test_one_who_never_looks_at_what_it_got_keeps_nobody_from_what_another_left():
    """
    Whatever a daemon waits for, it goes on deciding about the rest: the first five
    hundred must not keep it busy for ever.
    """
    targets = frozenset(f"db{number}" for number in range(3_000))
    one = circle("a", targets=targets)
    one.meet(there("a", "c", targets=targets), 101.0)
    while not one.is_settled:
        one.decide(101.0)
    kept = frozenset(one.watching)

    one.meet(there("a", "b", targets=targets), 103.0)  # b looks at nothing
    for _ in range(6):
        one.decide(103.0)

    could = ("a", "b")
    assert one.watching == kept | {t for t in targets if chosen(t, could, 1) == ("a",)}
    assert one.is_settled


# -- What holds --------------------------------------------------------------------


def seen(*opinions: Opinion, watchers: int, now: float = 101.0, **more) -> Circle:
    """What the first choice knows when as many as these have said so."""
    one = circle(watchers=watchers, **more)
    one.meet(there("a", "b", "c"), now)
    for name, opinion in zip((FIRST, SECOND, THIRD), opinions, strict=False):
        one.hear(name, 1, view(READ, opinion), now)
    return one


def test_one_that_is_cut_off_opens_nothing_and_is_named():
    ballot = seen(OPEN, HEALTHY, HEALTHY, watchers=3).ballot(READ, 101.0)

    assert ballot.opinion is HEALTHY
    assert ballot.minority == (FIRST,)
    assert (ballot.need, ballot.voters) == (2, 3)


def test_enough_of_them_open():
    ballot = seen(OPEN, HEALTHY, OPEN, watchers=3).ballot(READ, 101.0)

    assert ballot.opinion is OPEN
    assert ballot.minority == (SECOND,)


def test_the_quorum_is_more_than_half_unless_it_is_given():
    needs = [circle(watchers=n)._quorum for n in (1, 2, 3, 4, 5)]

    assert needs == [1, 2, 2, 3, 3]
    assert seen(OPEN, HEALTHY, watchers=2, quorum=1).ballot(READ, 101).opinion is OPEN


def test_who_cannot_look_is_waited_for_and_then_no_more():
    one = seen(OPEN, UNKNOWN, watchers=2)

    assert one.ballot(READ, 101.0 + HOLDS - 0.01).opinion is UNKNOWN
    assert one.ballot(READ, 101.0 + HOLDS).opinion is OPEN


def test_who_says_nothing_at_all_is_waited_for_and_then_no_more():
    """As one does whose configuration has not this operation of the target; each beat
    tells that it is there."""
    one = seen(OPEN, watchers=2)

    opinions = []
    for tenths in range(1010, 1080):
        one.meet(there("a", "b", "c"), tenths / 10)
        opinions.append(one.ballot(READ, tenths / 10).opinion)

    waited = opinions.index(OPEN)
    assert set(opinions[:waited]) == {UNKNOWN}
    assert set(opinions[waited:]) == {OPEN}
    assert waited == 60


def test_who_has_just_got_a_target_is_waited_for_though_it_is_there_for_long():
    """
    One that is cut off and one that is not; this one dies, and whoever takes its place
    has not looked. It has been there for a day, and is no reason to open.
    """
    one = seen(OPEN, HEALTHY, watchers=2)
    for seconds in range(102, 200):
        one.meet(there("a", "b", "c"), seconds)
        one.ballot(READ, seconds)

    one.meet(there(FIRST, THIRD), 200.0)

    assert one.chosen("main") == (FIRST, THIRD)
    assert one.ballot(READ, 200.0).opinion is UNKNOWN
    assert one.ballot(READ, 200.0 + HOLDS - 0.1).opinion is not OPEN
    one.hear(THIRD, 1, view(READ, HEALTHY), 206.0)
    assert one.ballot(READ, 206.0 + HOLDS).opinion is HEALTHY


def test_who_comes_back_is_waited_for_anew():
    one = seen(OPEN, watchers=2)
    assert one.ballot(READ, 101.0).opinion is UNKNOWN
    one.meet(there(FIRST), 103.0)
    assert one.ballot(READ, 103.0).opinion is OPEN

    one.meet(there("a", "b", "c", **{SECOND: 2}), 200.0)

    assert one.ballot(READ, 200.0).opinion is UNKNOWN
    assert one.ballot(READ, 200.0 + HOLDS).opinion is OPEN


def test_whoever_ceases_to_watch_is_waited_for_like_one_that_has_not_looked():
    one = seen(OPEN, HEALTHY, watchers=2, now=101.0)
    one.ballot(READ, 101.0)

    one.forget(SECOND, READ)

    assert one.ballot(READ, 150.0).opinion is UNKNOWN
    assert one.ballot(READ, 150.0 + HOLDS).opinion is OPEN


def test_a_view_counts_with_the_present_token_alone():
    one = seen(OPEN, watchers=1)

    one.meet(there("a", "b", "c", **{FIRST: 2}), 110.0)
    one.hear(FIRST, 2, view(READ, HEALTHY), 110.0)
    assert one.ballot(READ, 110.0).opinion is HEALTHY

    one.hear(FIRST, 1, view(READ, OPEN), 110.0)  # late, and of the lease before
    assert one.ballot(READ, 110.0 + HOLDS).opinion is UNKNOWN


def test_who_is_configured_for_it_no_more_has_no_say():
    """Its lease is the same, and what it said last was that it is open."""
    one = seen(OPEN, watchers=1)
    one.hear(SECOND, 1, view(READ, HEALTHY), 101.0)

    other = frozenset(("other",))
    one.meet(there(SECOND, THIRD) | there(FIRST, targets=other), 102.0)

    assert one.ballot(READ, 102.0).opinion is HEALTHY


def test_what_one_thought_that_died_holds_for_a_while():
    one = seen(OPEN, watchers=1)

    one.meet(there(SECOND, THIRD), 103.0)

    assert one.ballot(READ, 101.0 + HOLDS - 0.01).opinion is OPEN
    assert one.ballot(READ, 101.0 + HOLDS).opinion is UNKNOWN


def test_what_one_thought_that_died_holds_no_more_once_another_has_looked():
    one = seen(OPEN, watchers=1)
    one.meet(there(SECOND, THIRD), 103.0)

    one.hear(SECOND, 1, view(READ, UNKNOWN), 103.0)
    assert one.ballot(READ, 103.0).opinion is OPEN
    one.hear(SECOND, 1, view(READ, HEALTHY), 104.0)

    assert one.ballot(READ, 104.0).opinion is HEALTHY


def test_what_one_thought_holds_while_it_is_started_again():
    """It is there all the time, by its name, and says at first that it does not know."""
    one = seen(OPEN, watchers=1)

    one.meet(there("a", "b", "c", **{FIRST: 2}), 103.0)
    assert one.ballot(READ, 103.0).opinion is OPEN
    one.hear(FIRST, 2, view(READ, UNKNOWN), 103.5)
    assert one.ballot(READ, 104.0).opinion is OPEN
    assert one.ballot(READ, 103.0 + HOLDS).opinion is UNKNOWN
    one.hear(FIRST, 2, view(READ, HEALTHY), 104.0)

    assert one.ballot(READ, 104.0).opinion is HEALTHY


def test_what_one_of_several_thought_that_died_opens_nothing_by_itself():
    """The others are there, and cannot look."""
    one = seen(OPEN, HEALTHY, watchers=2)
    one.hear(SECOND, 1, view(READ, UNKNOWN), 102.0)

    one.meet(there(SECOND, THIRD), 103.0)

    assert one.ballot(READ, 103.0).opinion is UNKNOWN


def test_who_is_gone_for_long_is_forgotten():
    """Daemons of a deployment have a name for each day; none of it is kept for ever."""
    one = circle()
    for number in range(100):
        now = 101.0 + number * 10
        one.meet(there(FIRST, f"pod-{number}"), now)
        one.hear(f"pod-{number}", 1, view(READ, OPEN), now)

    assert len(one._places["main"]) <= 2
    assert len(one._dead) <= 1


def test_whatever_does_not_stand_any_more_was_lost():
    one = seen(OPEN, OPEN, OPEN, watchers=3)

    one.retain({SECOND: {READ}, THIRD: {"main/write"}})

    assert sorted(one.ballot(READ, 101.0).views) == sorted((FIRST, SECOND))


def test_a_lost_engine_leaves_a_daemon_to_what_it_sees_itself():
    one = seen(OPEN, HEALTHY, HEALTHY, watchers=3)
    one.decide(101.0)
    assert one.rules("main")

    one.lose(102.0)

    assert not one.rules("main")
    assert one.ballot(READ, 102.0).opinion is OPEN
    assert one.ballot(READ, 102.0).views.keys() == {FIRST}


def test_of_what_others_watch_it_is_known_for_a_while_after_the_engine_is_lost():
    one = circle(SECOND)
    one.meet(there(FIRST, SECOND), 101.0)
    one.hear(FIRST, 1, view(READ, OPEN), 101.0)

    one.lose(102.0)

    assert one.ballot(READ, 102.0).opinion is OPEN
    assert one.ballot(READ, 101.0 + HOLDS).opinion is UNKNOWN


def test_several_rule_where_several_watch_also_where_one_of_them_suffices():
    assert seen(OPEN, watchers=2).rules("main")
    assert not seen(OPEN, watchers=1).rules("main")
    assert seen(OPEN, watchers=3, quorum=1).rules("main")
    alone = circle(watchers=3)
    alone.meet(there(FIRST), 101.0)
    assert not alone.rules("main")


def test_what_is_not_configured_here_is_of_no_interest():
    one = circle()
    one.meet(there(FIRST, SECOND), 101.0)

    one.hear(SECOND, 1, view("other/read", OPEN), 101.0)

    assert one._places == {}


# -- Random years ------------------------------------------------------------------


def lived(seed: int, *, turns: int = 110) -> World:
    """A world in which things have happened, and whatever always holds has held."""
    world = World(seed, 1 + seed % 3)
    for _ in range(turns):
        if world.chance.random() < 0.1:
            world.happen()
        ticked(world)
    return world


def ticked(world: World) -> None:
    for daemon in world.tick():
        world.turns += 1
        assert daemon.circle.watching <= daemon.targets
        for target in daemon.targets:
            checked(world, daemon, target)
    for target in world.targets:
        assert not world.is_bare(target), (target, world.watched_by(target))


def checked(world: World, daemon: Daemon, target: str) -> None:
    """What holds is what all see who can see; whoever is blind makes no difference while
    enough of them are needed and the others have looked."""
    ballot = daemon.circle.ballot(f"{target}/read", world.now)
    if world.blind is None:
        assert ballot.opinion in (UNKNOWN, world.opinion(target))
    elif ballot.opinion is OPEN and target not in world.down:
        assert ballot.opens == (world.blind,)
        assert ballot.need == 1


@pytest.mark.parametrize("seed", range(45))
def test_whatever_happens_somebody_watches_and_all_come_to_agree(seed):
    """
    Daemons die, freeze, come back under their names, lose the engine, are configured
    anew; the engine loses all. At every moment each target is seen by somebody who could
    see it, but for the time that it takes to find a death out. Nobody says of a server
    what nobody has seen. Once nothing happens any more, each is watched by as many as it
    shall be, and all think the same.
    """
    world = lived(seed)

    world.settle()
    for _ in range(int(QUIET / TICK)):
        ticked(world)

    assert world.turns > 100
    agreed(world)


def agreed(world: World) -> None:
    for target in world.targets:
        could = world.could_watch(target)
        assert world.watched_by(target) == sorted(chosen(target, could, world.watchers))
        ballots = [
            daemon.circle.ballot(f"{target}/read", world.now)
            for daemon in world.awake
            if target in daemon.targets
        ]
        for one, other in itertools.pairwise(ballots):
            assert one == other
        if ballots and world.blind is None:
            assert ballots[0].opinion is world.opinion(target)
            assert sorted(ballots[0].views) == world.watched_by(target)
            assert not ballots[0].passes
    assert all(daemon.circle.is_settled for daemon in world.awake)


@pytest.mark.parametrize("seed", range(3, 30, 3))
def test_one_that_is_blind_opens_nothing_while_others_see(seed):
    world = World(seed, 3, quorum=2)
    world.down.clear()
    world.blind = "a"
    for _ in range(110):
        if world.chance.random() < 0.1:
            world.happen()
        ticked(world)
    world.settle()
    for _ in range(int(QUIET / TICK)):
        ticked(world)

    agreed(world)
    for daemon in world.awake:
        for target in daemon.targets:
            ballot = daemon.circle.ballot(f"{target}/read", world.now)
            others = set(ballot.views) - {"a"}
            assert ballot.opinion is (HEALTHY if others else OPEN)
            assert ballot.minority == (("a",) if others and "a" in ballot.views else ())


@pytest.mark.parametrize("seed", range(15))
def test_a_lost_engine_moves_nothing_where_all_agree_and_nor_does_its_return(seed):
    world = lived(seed, turns=40)
    world.settle()
    for _ in range(int(QUIET / TICK)):
        ticked(world)
    before = known(world)

    for daemon in world.awake:
        daemon.circle.lose(world.now)
    assert known(world) == before
    assert all(daemon.circle.decide(world.now) == NOTHING for daemon in world.awake)

    for daemon in world.awake:
        daemon.is_cut = True
    for _ in range(40):
        ticked(world)
        assert none_else(known(world), before)
    for daemon in world.awake:
        assert daemon.circle.watching == daemon.targets

    for daemon in world.awake:
        daemon.is_cut = False
    for _ in range(int(QUIET / TICK)):
        ticked(world)
        assert none_else(known(world), before)
    assert known(world) == before
    agreed(world)


def known(world: World) -> dict[tuple[str, str], Opinion]:
    """(daemon, target) -> what holds there."""
    return {
        (daemon.name, target): daemon.circle.ballot(f"{target}/read", world.now).opinion
        for daemon in world.awake
        for target in daemon.targets
    }


def none_else(now: dict, before: dict) -> bool:
    """Whether nothing holds otherwise than before; that nobody knows keeps what was."""
    return all(now[key] in (UNKNOWN, before[key]) for key in before)
