"""What Prometheus gets: well formed, complete from the start, and cheap."""

import asyncio
import gzip

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import BY_CALLS, MOVES, State
from pgbreaker.sinks.exposition import OPENMETRICS, TEXT, Histogram, escape, label
from pgbreaker.sinks.hub import Notice
from pgbreaker.sinks.metrics import FAMILIES, OWN, Metrics
from support.boards import Scene


def watched(*names: str, **more) -> tuple[Scene, Metrics]:
    scene = Scene(names or ("main",), **more)
    metrics = Metrics(scene.board, "1.2.3")
    scene.also(metrics)
    return scene, metrics


async def samples(metrics: Metrics) -> dict[str, dict[tuple, float]]:
    text = await metrics.render()
    found: dict[str, dict[tuple, float]] = {}
    for family in parse_text(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


async def test_everything_promised_is_there_before_anything_has_happened():
    _, metrics = watched("a", "b")

    found = await samples(metrics)

    assert {dict(k)["target"]: v for k, v in found["pgbreaker_target_up"].items()} == {
        "a": 0,
        "b": 0,
    }
    assert len(found["pgbreaker_breaker_state"]) == 2 * 3 * len(State)
    assert len(found["pgbreaker_breaker_transitions_total"]) == 2 * 3 * len(
        [cause for _, cause in MOVES if cause not in BY_CALLS]
    )
    assert len(found["pgbreaker_probes_total"]) == 2 * 2 * len(Finding)
    assert set(found["pgbreaker_probes_total"].values()) == {0}
    unknown = (("state", "unknown"), ("target", "a"))
    assert found["pgbreaker_target_state"][unknown] == 1


async def test_every_family_is_written_or_waits_for_what_a_server_says():
    scene, metrics = watched()
    scene.read(
        "login",
        values={
            "in_recovery": False,
            "started": 1.7e9,
            "version": 170010,
            "system_id": "77",
            "slots_used": 3,
            "slots_usable": 17,
            "active": 1,
            "slots_ratio": 3 / 17,
            "max_connections": 20,
            "idle": 2,
            "superuser_reserved_connections": 3,
            "reserved_connections": 0,
            "idle_in_transaction": 0,
            "oldest_transaction_seconds": 0.5,
            "oldest_idle_in_transaction_seconds": 0.0,
        },
    )
    scene.hub.publish(Notice("main", "restarted", "the server was restarted", 100.0))

    text = await metrics.render()

    for name in {**FAMILIES, **OWN}:
        assert f"# TYPE {name} " in text, name


async def test_it_counts_what_happens():
    scene, metrics = watched()
    scene.read()
    scene.open("connect")

    found = await samples(metrics)

    assert (
        found["pgbreaker_probes_total"][
            (("outcome", "full"), ("probe", "login"), ("target", "main"))
        ]
        == 1
    )
    place = (("breaker", "main/connect"), ("operation", "connect"))
    move = (("breaker", "main/connect"), ("cause", "confirmed"), ("from", "closed"))
    rest = (("operation", "connect"), ("target", "main"))
    assert (
        found["pgbreaker_breaker_transitions_total"][(*move, *rest, ("to", "open"))]
        == 1
    )
    state = found["pgbreaker_breaker_state"]
    assert state[(*place, ("state", "open"), ("target", "main"))] == 1
    assert state[(*place, ("state", "closed"), ("target", "main"))] == 0
    assert found["pgbreaker_target_up"][(("target", "main"),)] == 1
    answered = (("probe", "ping"), ("target", "main"))
    name = "pgbreaker_probe_last_success_timestamp_seconds"
    assert found[name][answered] == 1_800_000_100.002


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "a,b={}", "ä → ü"])
async def test_labels_of_any_text_come_back_as_they_were(value):
    _, metrics = watched(labels={"note": value})

    text = await metrics.render()

    families = {family.name: family for family in parse_text(text)}
    (sample,) = families["pgbreaker_target_info"].samples
    assert sample.labels["label_note"] == value


async def test_both_formats_say_the_same_and_parse():
    scene, metrics = watched()
    scene.open()

    plain = {f.name.removesuffix("_total") for f in parse_text(await metrics.render())}
    openmetrics = {
        f.name for f in parse_openmetrics(await metrics.render(openmetrics=True))
    }

    assert plain == openmetrics


async def test_what_a_scraper_asks_for_is_what_it_gets():
    _, metrics = watched()

    plain, headers = await metrics.scrape("*/*", "")
    zipped, zipped_headers = await metrics.scrape(
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1", "gzip, deflate"
    )

    assert headers["Content-Type"] == TEXT
    assert "Content-Encoding" not in headers
    assert zipped_headers["Content-Type"] == OPENMETRICS
    assert zipped_headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped).endswith(b"# EOF\n")
    assert len(zipped) < len(plain) / 5


async def test_lines_of_a_target_are_made_once_until_it_changes():
    scene, metrics = watched("main", "other")
    await metrics.render()
    before = {name: counts.blocks() for name, counts in metrics._counts.items()}

    scene.read()

    after = {name: counts.blocks() for name, counts in metrics._counts.items()}
    assert after["other"] is before["other"]
    assert after["main"] is not before["main"]
    assert metrics._counts["main"].blocks() is after["main"]


async def test_a_scrape_of_many_targets_lets_the_loop_go_on():
    _, metrics = watched(*(f"t{n}" for n in range(200)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    text = await metrics.render()
    other.cancel()

    assert text.count("\n") / turns < 1000  # lines for each turn that others got


def test_a_histogram_adds_up():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(seconds)

    assert list(histogram.lines("x", label(a="b"))) == [
        'x_bucket{a="b",le="0.1"} 2\n',
        'x_bucket{a="b",le="1.0"} 3\n',
        'x_bucket{a="b",le="+Inf"} 4\n',
        'x_sum{a="b"} 5.65\n',
        'x_count{a="b"} 4\n',
    ]


def test_escaping_is_the_formats_own():
    assert escape('\\ " \n') == r"\\ \" \n"
