"""What daemon/docs/stability.md promises holds: nothing that is stable goes unseen."""

import copy

import pytest

from support.references import stable
from support.references.parts import promised

HELP = (
    "\n\nWithin a major version this stays (daemon/docs/stability.md). Where it has to"
    " go: keep the old beside the new for a minor version, say so in CHANGELOG.md and in"
    " daemon/docs/upgrading.md, and take it out of tests/stable.json by hand."
)
NOW = promised()


def test_nothing_that_was_promised_has_gone_or_is_another():
    broken = stable.broken(stable.read(), NOW)

    assert broken == [], "\n".join(broken) + HELP


def test_what_is_new_is_promised_from_now_on():
    assert stable.grown(stable.read(), NOW) == stable.read(), "run make docs"


@pytest.mark.parametrize("kind", stable.WORDS)
def test_something_is_promised_of_each_kind(kind):
    assert NOW[kind]


@pytest.mark.parametrize("kind", stable.WORDS)
def test_it_is_seen_that_one_is_gone(kind):
    after = copy.deepcopy(NOW)
    name = next(iter(after[kind]))
    del after[kind][name]

    assert stable.broken(NOW, after) == [f"{stable.WORDS[kind]} {name} is gone"]


@pytest.mark.parametrize(
    ("kind", "name", "then", "complaint"),
    [
        (
            "metrics",
            "pgbreaker_target_up",
            "gauge target zone",
            "the metric pgbreaker_target_up was 'gauge target', and is 'gauge target zone'",
        ),
        (
            "configuration",
            "defaults.interval",
            "2s",
            "the key defaults.interval was '1s', and is '2s'",
        ),
        (
            "commands",
            "schema",
            [],
            "the command schema has lost --indent",
        ),
        (
            "addresses",
            "GET /metrics",
            "admin",
            "the address GET /metrics was 'viewer', and is 'admin'",
        ),
        (
            "library",
            "classify",
            ["1. error", "*, phase=None", "*, strict=True"],
            "the public name classify has lost *, strict=False",
        ),
    ],
    ids=["label", "default", "option", "role", "parameter"],
)
def test_it_is_seen_that_one_is_another(kind, name, then, complaint):
    before = copy.deepcopy(NOW)
    if name == "schema":
        before[kind][name] = ["--indent"]
    after = copy.deepcopy(before)
    after[kind][name] = then

    assert stable.broken(before, after) == [complaint]


def test_what_is_added_breaks_nothing():
    after = copy.deepcopy(NOW)
    after["commands"]["schema"] = [*after["commands"]["schema"], "--indent"]
    after["metrics"]["pgbreaker_new"] = "gauge target"

    assert stable.broken(NOW, after) == []


def test_writing_it_anew_forgets_nothing():
    before = copy.deepcopy(NOW)
    before["commands"]["schema"] = ["--indent"]
    before["metrics"]["pgbreaker_old"] = "gauge target"

    grown = stable.grown(before, NOW)

    assert "--indent" in grown["commands"]["schema"]
    assert grown["metrics"]["pgbreaker_old"] == "gauge target"
