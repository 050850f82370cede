"""What a reading means for each operation, row by row."""

import pytest

from pgbreaker.core.judge import GONE, OPERATIONS, deciding, judge
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Outcome

ALL = frozenset(("ping", "login", "commit", "identity", "saturation"))
OWN = {"ping": ["read"], "login": ["connect"], "commit": ["write"]}


def seen(probe: str, finding: Finding, *, confirmed: bool = False) -> Reading:
    return Reading("main", probe, 0.0, 0.001, finding, confirmed=confirmed)


def failed(probe: str, finding: Finding, *, confirmed: bool = False) -> list[str]:
    verdict = judge(seen(probe, finding, confirmed=confirmed), deciding(ALL))
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
    assert deciding(frozenset(probes)) == expected


@pytest.mark.parametrize("probe", ALL)
@pytest.mark.parametrize("finding", [Finding.OK, Finding.SLOW])
def test_a_good_answer_speaks_for_the_one_operation_it_tries(probe, finding):
    verdict = judge(seen(probe, finding), deciding(ALL))

    assert list(verdict.outcomes) == OWN.get(probe, [])
    assert verdict.slow is (finding is Finding.SLOW)


@pytest.mark.parametrize("finding", GONE)
def test_a_server_gone_for_an_old_and_a_new_connection_is_gone_for_all(finding):
    assert failed("ping", finding, confirmed=True) == sorted(OPERATIONS)


@pytest.mark.parametrize("finding", GONE)
@pytest.mark.parametrize("probe", ["ping", "login", "commit"])
def test_one_bad_sign_speaks_for_its_own_operation(finding, probe):
    assert failed(probe, finding) == OWN[probe]


@pytest.mark.parametrize("probe", ALL)
def test_a_full_server_fails_new_connections_alone(probe):
    assert failed(probe, Finding.FULL, confirmed=True) == ["connect"]


@pytest.mark.parametrize("probe", ALL)
def test_a_read_only_server_fails_writes_alone_and_needs_no_second_word(probe):
    verdict = judge(seen(probe, Finding.WRONG_ROLE), deciding(ALL))

    assert list(verdict.outcomes) == ["write"]
    assert verdict.confirmed


@pytest.mark.parametrize("probe", ALL)
@pytest.mark.parametrize("finding", [Finding.AUTH, Finding.QUERY])
def test_mistakes_of_the_monitor_fail_nobody(probe, finding):
    assert failed(probe, finding, confirmed=True) == []


@pytest.mark.parametrize("probe", ["ping", "login", "commit"])
def test_a_server_that_says_it_is_ill_fails_what_was_asked(probe):
    assert failed(probe, Finding.SYSTEM) == OWN[probe]
