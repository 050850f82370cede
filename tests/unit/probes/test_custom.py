"""What the rows of a user's own query become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pgbreaker.probes import probe_called
from pgbreaker.probes.custom import ShapeError, custom
from pgbreaker.probes.statement import statement
from pgbreaker.sinks.metrics import Metrics
from support.boards import Scene

READS = custom("custom.queue").reads


def test_numbers_are_values_and_texts_tell_the_rows_apart():
    rows = [
        {"queue": "mail", "waiting": 3, "oldest_seconds": 1.5, "done_total": 10},
        {"queue": "sms", "waiting": 0, "oldest_seconds": None, "done_total": 7},
    ]

    seen = READS(rows)

    assert seen["custom.queue"] == (
        {"query": "queue", "column": "waiting", "key": "mail", "value": 3.0},
        {"query": "queue", "column": "oldest_seconds", "key": "mail", "value": 1.5},
        {"query": "queue", "column": "waiting", "key": "sms", "value": 0.0},
    )
    assert [row["value"] for row in seen["custom.queue.total"]] == [10.0, 7.0]


def test_truth_is_a_number_and_nothing_is_nothing():
    (row,) = READS([{"is_paused": True, "last": None}])["custom.queue"]

    assert (row["column"], row["key"], row["value"]) == ("is_paused", "", 1.0)
    assert READS([]) == {"custom.queue": (), "custom.queue.total": ()}


def test_what_a_query_counts_up_is_no_other_querys():
    counting, other = custom("custom.foo"), custom("custom.foo_total")

    seen = counting.reads([{"done_total": 3}]), other.reads([{"waiting": 1}])

    assert not seen[0].keys() & seen[1].keys()
    assert {shown.rows for shown in counting.shows} == seen[0].keys()


def test_a_comment_at_its_end_is_no_end_of_the_question():
    text = statement({"answer": "SELECT 1 AS n -- note"})

    assert "-- note\n) AS q" in text


async def test_its_gauges_and_counters_are_two_metrics_in_openmetrics():
    queue = custom("custom.queue")
    scene = Scene()
    metrics = Metrics(scene.board, "1", queue.shows)
    values = queue.reads([{"waiting": 3, "done_total": 7}])
    scene.read(values=values)

    text = await metrics.render(openmetrics=True)

    kinds = {f.name: f.type for f in text_string_to_metric_families(text)}
    assert kinds["pgbreaker_custom_value"] == "gauge"
    assert kinds["pgbreaker_custom_count"] == "counter"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"n": i} for i in range(21)], "21 rows; a query may come to 20"),
        ([{f"n{i}": i for i in range(11)}], "11 columns of numbers; at most 10"),
        ([{"tags": ["a"]}], "the column 'tags' is neither a number nor a text"),
    ],
)
def test_what_no_metric_can_be_made_of_is_said(rows, complaint):
    with pytest.raises(ShapeError, match=complaint):
        READS(rows)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()
)


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=10), max_size=20))
def test_series_are_bounded_whatever_comes(rows):
    seen = READS(rows)

    values = [row for found in seen.values() for row in found]
    assert len(values) <= 200
    assert all(len(row["key"]) <= 64 for row in values)


def test_each_query_is_a_probe_of_its_own_in_the_same_metrics():
    one, other = probe_called("custom.one"), probe_called("custom.other")

    assert one.name != other.name
    assert [s.family.name for s in one.shows] == [s.family.name for s in other.shows]
    assert one.is_dear
    assert probe_called("custom.one") is one
