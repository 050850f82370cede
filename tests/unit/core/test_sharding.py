"""Who watches what: the same everywhere, in equal shares, and little of it ever moves."""

import random
import subprocess
import sys
from collections import Counter

from pgbreaker.core.sharding import chosen, chosen_by_seed, seed_of

DAEMONS = [f"pgbreaker-{number}" for number in range(10)]
TARGETS = [f"shop-{number:05d}" for number in range(10_000)]
SEEDS = [seed_of(target) for target in TARGETS]

# What every version that was released decides. A daemon that decides otherwise, in a
# fleet of several versions, leaves targets to nobody: these never change.
SEEN_SEEDS = {
    "": 0xE4A6A0577479B2B4,
    "main": 0x026E63CB9E60D1EF,
    "orders-ü": 0x05F83C8B8D31A5B5,
    "pgbreaker-0": 0xB041488C6EF37033,
}
GREEKS = ("alpha", "beta", "gamma", "delta")
SEEN = {
    "main": ("beta", "delta", "alpha", "gamma"),
    "replica": ("delta", "beta", "alpha", "gamma"),
    "orders": ("gamma", "delta", "beta", "alpha"),
    "orders-ü": ("gamma", "alpha", "delta", "beta"),
    "shop-00042": ("gamma", "alpha", "delta", "beta"),
}


def first(daemons: list[str], count: int = 1) -> list[tuple[str, ...]]:
    """Target by target, who watches it."""
    could = [(seed_of(name), name) for name in daemons]
    return [chosen_by_seed(seed, could, count) for seed in SEEDS]


def test_ten_daemons_have_equal_shares_of_ten_thousand_targets():
    shares = Counter(name for (name,) in first(DAEMONS))

    assert len(shares) == 10
    assert max(shares.values()) < 1.1 * len(TARGETS) / 10
    assert min(shares.values()) > 0.9 * len(TARGETS) / 10


def test_names_that_differ_in_one_letter_have_equal_shares_too():
    daemons = ["db-watch-a", "db-watch-b", "db-watch-c"]

    shares = Counter(name for (name,) in first(daemons))

    assert max(shares.values()) < 1.1 * min(shares.values())


def test_second_choices_are_spread_over_all_the_others():
    """Where they were not, one daemon would get all that another did which dies."""
    seconds = Counter(b for a, b in first(DAEMONS, 2) if a == DAEMONS[0])

    assert len(seconds) == 9
    assert max(seconds.values()) < 1.6 * min(seconds.values())


def test_of_a_daemon_that_comes_or_goes_only_its_own_share_moves():
    before, after = first(DAEMONS[:-1]), first(DAEMONS)

    moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert {b for _, b in moved} == {(DAEMONS[-1],)}
    assert 900 < len(moved) < 1100


def test_with_several_watchers_the_others_stay_and_keep_their_order():
    for before, after in zip(first(DAEMONS[:-1], 3), first(DAEMONS, 3), strict=True):
        stay = tuple(name for name in after if name != DAEMONS[-1])

        assert stay == before[: len(stay)]


def test_where_there_are_fewer_all_of_them_watch():
    assert chosen("main", [], 2) == ()
    assert chosen("main", ["a"], 2) == ("a",)
    assert sorted(chosen("main", ["a", "b"], 3)) == ["a", "b"]


def test_neither_the_order_nor_the_way_of_asking_matters():
    mixed, chance = list(DAEMONS), random.Random(1)
    for target in TARGETS[:300]:
        chance.shuffle(mixed)
        could = [(seed_of(name), name) for name in mixed]

        expected = chosen(target, DAEMONS, 3)
        assert chosen(target, mixed, 3) == expected
        assert chosen_by_seed(seed_of(target), could, 3) == expected


def test_every_process_decides_the_same():
    script = (
        "from pgbreaker.core.sharding import chosen\n"
        "print([chosen(f't{n}', {'a', 'b', 'c', 'ü'}, 2) for n in range(50)])"
    )

    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }

    here = [chosen(f"t{n}", ["a", "b", "c", "ü"], 2) for n in range(50)]
    assert said == {f"{here}\n".encode()}


def test_every_version_decides_the_same():
    assert {name: seed_of(name) for name in SEEN_SEEDS} == SEEN_SEEDS
    assert {target: chosen(target, GREEKS, 4) for target in SEEN} == SEEN
