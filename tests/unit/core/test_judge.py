"""What a reading means for each operation, row by row."""

import pytest

from pgbreaker.core.judge import GONE, SERVED, deciding, judge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Outcome

ALL = frozenset(("ping", "login", "commit", "identity", "saturation"))
PLAN = ProbePlan(interval=1.0, timeout=0.5)
DECIDES = deciding(dict.fromkeys(ALL, PLAN))
OWN = {"ping": ["read"], "login": ["connect"], "commit": ["write"]}


def seen(probe: str, finding: Finding, *, confirmed: bool = False) -> Reading:
    return Reading("main", probe, 0.0, 0.001, finding, confirmed=confirmed)


def failed(probe: str, finding: Finding, *, confirmed: bool = False) -> list[str]:
    verdict = judge(seen(probe, finding, confirmed=confirmed), DECIDES)
    assert set(verdict.outcomes.values()) <= {Outcome.FAILURE}
    return sorted(verdict.outcomes)


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        (ALL, {"connect": "login", "read": "ping", "write": "commit"}),
        (ALL - {"commit"}, {"connect": "login", "read": "ping", "write": "identity"}),
        ({"ping"}, {"connect": "ping", "read": "ping", "write": "ping"}),
    ],
)
def test_the_probe_that_decides_is_the_closest_one_there_is(probes, expected):
    found = deciding(dict.fromkeys(probes, PLAN))

    assert found == {operation: (probe,) for operation, probe in expected.items()}


def test_a_canary_and_a_lag_decide_about_reads_besides_the_ping():
    plans = {
        "ping": PLAN,
        "latency": ProbePlan(interval=5.0, timeout=2.0, limit=0.25),
        "replication": ProbePlan(interval=5.0, timeout=0.5, limit=30.0),
        "pgbouncer": ProbePlan(interval=5.0, timeout=1.0, limit=1.0),
    }

    found = deciding(plans)

    assert found["read"] == ("ping", "latency", "replication")
    assert found["pool"] == ("pgbouncer",)


def test_replication_decides_nothing_where_nobody_said_how_old_data_may_be():
    assert deciding({"ping": PLAN, "replication": PLAN})["read"] == ("ping",)


@pytest.mark.parametrize("probe", ALL)
@pytest.mark.parametrize("finding", [Finding.OK, Finding.SLOW])
def test_a_good_answer_speaks_for_the_one_operation_it_tries(probe, finding):
    verdict = judge(seen(probe, finding), DECIDES)

    assert list(verdict.outcomes) == OWN.get(probe, [])
    assert verdict.slow is (finding is Finding.SLOW)


@pytest.mark.parametrize("finding", GONE)
def test_a_server_gone_for_an_old_and_a_new_connection_is_gone_for_all(finding):
    assert failed("ping", finding, confirmed=True) == sorted(SERVED)


@pytest.mark.parametrize("finding", GONE)
@pytest.mark.parametrize("probe", ["ping", "login", "commit"])
def test_one_bad_sign_speaks_for_its_own_operation(finding, probe):
    assert failed(probe, finding) == OWN[probe]


@pytest.mark.parametrize("probe", ALL)
def test_a_full_server_fails_new_connections_alone(probe):
    assert failed(probe, Finding.FULL, confirmed=True) == ["connect"]


def test_a_read_only_server_fails_writes_alone_and_needs_no_second_word():
    verdict = judge(seen("commit", Finding.WRONG_ROLE), DECIDES)

    assert list(verdict.outcomes) == ["write"]
    assert verdict.confirmed


@pytest.mark.parametrize("probe", [*(ALL - {"commit"}), "custom.queue", "latency"])
def test_a_session_that_is_read_only_by_our_own_doing_fails_nobody(probe):
    assert failed(probe, Finding.WRONG_ROLE) == []


@pytest.mark.parametrize("probe", ALL)
@pytest.mark.parametrize(
    "finding",
    [Finding.AUTH, Finding.QUERY, Finding.DENIED, Finding.ABSENT, Finding.SKIPPED],
)
def test_mistakes_of_the_monitor_fail_nobody(probe, finding):
    assert failed(probe, finding, confirmed=True) == []


@pytest.mark.parametrize("probe", ["ping", "login", "commit"])
def test_a_server_that_says_it_is_ill_fails_what_was_asked(probe):
    assert failed(probe, Finding.SYSTEM) == OWN[probe]


@pytest.mark.parametrize(
    ("probe", "finding", "operation"),
    [
        ("latency", Finding.SLOW, "read"),
        ("latency", Finding.TIMEOUT, "read"),
        ("replication", Finding.LAGGING, "read"),
        ("commit", Finding.SYNC_REP, "write"),
        ("pgbouncer", Finding.WAITING, "pool"),
        ("pgbouncer", Finding.REFUSED, "pool"),
        ("pgbouncer", Finding.FULL, "pool"),
    ],
)
def test_an_answer_worse_than_it_may_be_fails_what_it_stands_for(
    probe, finding, operation
):
    limited = ProbePlan(interval=5.0, timeout=1.0, limit=1.0)
    names = (*ALL, "latency", "replication", "pgbouncer")

    verdict = judge(seen(probe, finding), deciding(dict.fromkeys(names, limited)))

    assert verdict.outcomes == {operation: Outcome.FAILURE}
    assert not verdict.confirmed  # once is no reason yet


@pytest.mark.parametrize("finding", [Finding.AUTH, Finding.QUERY])
def test_a_pooler_that_does_not_let_us_look_fails_nobody(finding):
    decides = deciding({"ping": PLAN, "pgbouncer": PLAN})

    assert judge(seen("pgbouncer", finding), decides).outcomes == {}
