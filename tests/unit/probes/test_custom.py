"""What the rows of a user's own query become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.probes import probe_called
from pgbreaker.probes.custom import ShapeError, custom

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
    assert [row["value"] for row in seen["custom.queue_total"]] == [10.0, 7.0]


def test_truth_is_a_number_and_nothing_is_nothing():
    (row,) = READS([{"is_paused": True, "last": None}])["custom.queue"]

    assert (row["column"], row["key"], row["value"]) == ("is_paused", "", 1.0)
    assert READS([]) == {"custom.queue": (), "custom.queue_total": ()}


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
