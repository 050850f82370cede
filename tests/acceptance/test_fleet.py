"""Three daemons, fifty targets, two hundred followers, one engine: all of them real, and
each of them frozen, killed, cut off or set wrong."""

import time

import pytest

from pgbreaker.guard.follow import Follower
from pgbreaker.guard.target import Target
from support.engines import running_redis
from support.servers import running_server
from support.troop import Eye, Member, Tap, enlist, following, troop, until
from support.wall import wall_at

NAMES = ("a", "b", "c")
STEADY = tuple(f"t{number:02}" for number in range(45))
SHAKY = tuple(f"s{number}" for number in range(5))
"""Those behind a proxy, which fail when a test wants it."""
TARGETS = (*STEADY, *SHAKY)
FOLLOWERS = 200


@pytest.fixture(scope="module")
def server():
    with running_server(17, max_connections="300") as one:
        enlist(one, NAMES, TARGETS)
        yield one


@pytest.fixture(scope="module")
def redis():
    """Keeps nothing on disk: killed, it has lost everything."""
    with running_redis() as one:
        yield one


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """The wall clock of b."""
    return wall_at(tmp_path_factory.mktemp("wall") / "wall", looks=1)


@pytest.fixture(scope="module")
def shaky(server):
    with Tap(server.port) as tap:
        yield tap


@pytest.fixture(scope="module")
def _fleet(server, redis, wall, shaky, tmp_path_factory):
    ports = dict.fromkeys(SHAKY, shaky.port)
    targets = {
        name: {t: server.dsn(user=f"{name}.{t}", port=ports.get(t)) for t in TARGETS}
        for name in NAMES
    }
    engines = dict.fromkeys(NAMES, redis.url())
    home = tmp_path_factory.mktemp("fleet")
    with troop(home, engines, targets, env={"b": wall.env}) as one:
        yield one


@pytest.fixture
def fleet(_fleet):
    """All there and well, whatever the test before has left."""
    _fleet.settle()
    _fleet.heal()
    return _fleet


def reads(targets):
    return [f"{target}/read" for target in targets]


def test_each_of_fifty_targets_is_probed_by_exactly_one_of_three(fleet, server):
    with Eye(server) as eye:
        until(lambda: sorted(map(len, eye.now.values())) == [1] * len(TARGETS))
        probed = eye.now

    for member in fleet:
        its = {target for target, who in probed.items() if who == {member.name}}
        assert its == member.watched()
        assert its, "each has a share"


def test_all_two_hundred_who_follow_hear_once_of_what_one_daemon_sees(fleet, shaky):
    with following(fleet, FOLLOWERS) as ears:
        until(lambda: ears.know("healthy", reads(TARGETS), FOLLOWERS))

        shaky.reset()
        opened = until(lambda: ears.know("open", reads(SHAKY), FOLLOWERS))
        shaky.restore()
        until(lambda: ears.know("healthy", reads(TARGETS), FOLLOWERS))

        told = {tuple(sorted(ear.turns)) for ear in ears.all}
    assert opened < 5.0
    assert told == {
        tuple(
            (read, opinion) for read in reads(SHAKY) for opinion in ("healthy", "open")
        )
    }
    assert not fleet.agree()


def test_what_a_killed_daemon_watched_is_probed_by_others_within_three_seconds(
    fleet, server
):
    """Those who follow it by a bare socket are hung up on. Who follows by the library
    goes on by himself, and comes back when it does."""
    dead = fleet["c"]
    target = Target("t00")
    follower = Follower(dead.url)
    follower.start()
    until(lambda: follower.is_connected)
    its, before = dead.watched(), fleet.last()
    with following(fleet, FOLLOWERS) as ears, Eye(server) as eye:
        until(lambda: ears.know("healthy", reads(TARGETS), FOLLOWERS))

        dead.kill()
        until(lambda: not any("c" in who for who in eye.now.values()))
        until(lambda: its <= eye.now.keys())
        fleet.settle()
        gap = eye.longest_gap(TARGETS)
        lost = {ear.daemon for ear in ears.all if ear.is_lost}
        turns = [ear.turns for ear in ears.all if ear.turns]
        until(lambda: not follower.is_connected)

        dead.start()
        fleet.settle()
    until(lambda: follower.is_connected)
    follower.stop()

    assert gap < 3.0
    assert lost == {"c"}
    assert turns == []
    assert target.breaker("read").transitions == {}
    assert fleet.moves(before) == {"a": [], "b": [], "c": []}


def test_a_frozen_engine_leaves_each_daemon_alone_within_half_a_second(fleet, redis):
    before = fleet.last()

    redis.freeze()
    frozen = time.time()
    try:
        until(lambda: not any(fleet.together(lambda m: m.peers()["joined"])))
        until(lambda: all(w == set(TARGETS) for w in fleet.together(Member.watched)))
        metrics = fleet.together(lambda m: m.metric("pgbreaker_engine_up"))
        shown = fleet["a"].run("status")
        alone = [member.said("the engine is lost", frozen) - frozen for member in fleet]
    finally:
        redis.thaw()
    fleet.settle()

    assert max(alone) < 0.5
    assert metrics == [0.0, 0.0, 0.0]
    assert "the engine is lost, a goes on alone" in shown
    up = fleet.together(lambda m: m.metric("pgbreaker_engine_up"))
    assert up == [1.0, 1.0, 1.0]
    assert fleet.moves(before) == {"a": [], "b": [], "c": []}


def test_the_word_of_an_operator_outlives_the_engine_and_a_daemon(fleet, redis):
    def states():
        return [member.states()["t01/read"] for member in fleet.up]

    fleet["a"].run("open", "t01/read", "-y", "--reason", "moving the disk")
    until(lambda: states() == ["forced_open"] * 3)

    fleet["c"].kill()
    redis.kill()
    until(lambda: not any(fleet.together(lambda m: m.peers()["joined"])))
    redis.start()
    fleet["c"].start()
    fleet.settle()
    held = states()
    fleet["b"].run("auto", "t01/read", "-y", "--reason", "moved")

    assert held == ["forced_open"] * 3
    until(lambda: states() == ["closed"] * 3)
    assert not fleet.agree()


def test_a_daemon_that_was_frozen_is_fenced_and_comes_back_as_if_nothing_was(
    fleet, redis, server, shaky
):
    """What happened meanwhile it hears once, and in order."""

    def token():
        leases = redis.tell("HGETALL", "{pgbreaker}:leases")
        if isinstance(leases, list):
            leases = dict(zip(leases[::2], leases[1::2], strict=True))
        return int(leases["c"].split()[0])

    frozen, before, first = fleet["c"], fleet.last(), token()
    others = [fleet["a"], fleet["b"]]
    with Eye(server) as eye:
        frozen.freeze()
        begun = time.monotonic()
        shaky.reset()
        until(lambda: all(set(_of(m, SHAKY)) == {"open"} for m in others))
        shaky.restore()
        until(lambda: time.monotonic() - begun >= 4.0)
        frozen.thaw()
        fleet.settle()
        fleet.heal()
        gap = eye.longest_gap(STEADY, besides="c")

    assert token() > first
    assert gap < 3.5
    assert not fleet.agree()
    # What it slept through is told in its history, and was never so of its breakers.
    for name, told in fleet.moves(before).items():
        assert {line.partition("/")[0] for line in told} <= set(SHAKY), told
        for target in SHAKY if name != "c" else ():
            mine = [line.partition(": ")[2] for line in told if line.startswith(target)]
            assert mine[0] == "closed -> open", told
            assert mine[-1] == "half_open -> closed", told
            assert "closed -> open" not in mine[1:], told


def _of(member, targets):
    states = member.states()
    return [states[read] for read in reads(targets)]


def test_a_wall_clock_that_is_set_moves_nothing(fleet, wall, shaky):
    """What fails meanwhile opens as ever, and is in every history once."""
    its, before = fleet["b"], fleet.last()

    for step, jump in ((3600, 3600), (-3600, -7200)):
        wall.step(step)
        until(lambda jump=jump: f"the wall clock jumped by {jump}.0 s" in its.log)
        shaky.reset()
        until(lambda: all(set(_of(m, SHAKY)) == {"open"} for m in fleet))
        shaky.restore()
        fleet.heal()
    wall.step(0)
    until(lambda: its.log.count("the wall clock jumped by 3600.0 s") == 2)
    fleet.settle()

    assert not fleet.agree()
    for told in fleet.moves(before).values():
        assert {line.partition("/")[0] for line in told} == set(SHAKY)


def test_a_rolling_restart_is_felt_by_nobody(fleet, server):
    before = fleet.last()
    with following(fleet, FOLLOWERS) as ears, Eye(server) as eye:
        until(lambda: ears.know("healthy", reads(TARGETS), FOLLOWERS))
        for member in fleet:
            assert member.stop() == 0
            member.start()
            fleet.settle()
        gap = eye.longest_gap(TARGETS)
        turns = [ear.turns for ear in ears.all if ear.turns]

    assert gap < 2.0
    assert turns == []
    assert fleet.moves(before) == {"a": [], "b": [], "c": []}


def test_who_alone_is_cut_off_opens_nothing_for_the_others(tmp_path, redis, server):
    """a is cut off from the engine, b from the servers, c from nothing."""
    targets, disagreed = ("t00", "t01", "t02"), ("healthy", ["b"])
    with (
        Tap(redis.port) as engine,
        Tap(server.port) as b_only,
        Tap(server.port) as c_only,
    ):
        ports = {"b": b_only.port, "c": c_only.port}
        dsns = {
            name: {
                t: server.dsn(user=f"{name}.{t}", port=ports.get(name)) for t in targets
            }
            for name in NAMES
        }
        url = redis.url()
        engines = {
            "a": url.replace(f":{redis.port}", f":{engine.port}"),
            "b": url,
            "c": url,
        }
        with troop(
            tmp_path, engines, dsns, watchers=3, peers=", prefix: three"
        ) as three:
            a, b, c = three
            before = three.last()

            b_only.reset()
            until(lambda: fleet_of(c)["minority"] == ["b"])
            until(lambda: fleet_of(a)["minority"] == ["b"])
            explained = c.run("explain", "t00/read")
            until(
                lambda: (fleet_of(b)["opinion"], fleet_of(b)["minority"]) == disagreed
            )
            engine.blackhole()
            until(lambda: not a.peers()["joined"])
            until(lambda: c.peers()["daemons"] == ["b", "c"])
            until(
                lambda: (fleet_of(c)["minority"], fleet_of(c)["voters"]) == (["b"], 2)
            )
            alone = fleet_of(a)
            engine.restore()
            three.settle()
            felt = three.moves(before)

            c_only.reset()
            until(lambda: all(set(_of(m, targets)) == {"open"} for m in three))
            b_only.restore()
            c_only.restore()
            three.heal()
            opened = three.moves(before)

    assert "1 of 3 see it open (2 needed)" in explained
    assert "b" in explained
    assert alone["opinion"] == "healthy"
    assert felt == {"a": [], "b": [], "c": []}
    for told in opened.values():
        for read in reads(targets):
            mine = [line.partition(": ")[2] for line in told if line.startswith(read)]
            assert mine == ["closed -> open", "open -> closed"]


def fleet_of(member):
    """How the daemons see the first breaker, as one of them has it."""
    return member.ask("/api/v1/breakers/t00/read")["fleet"]
