"""What `pgbreaker probe` says where nobody has to be asked for it."""

import pytest

from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.monitor.examine import Report, Step, _weighed, examine

LATE = {
    "replay_age_seconds": 45.0,
    "replay_paused": False,
    "wal_receiver_wanted": True,
    "wal_receiver_up": 1,
}


def plan_of(limit: float | None) -> ProbePlan:
    return ProbePlan(interval=5.0, timeout=0.5, limit=limit)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hunter2@db1?sslmode=never",
        "postgresql://me:hunter2@a,b/app",
        "postgresql://me:hunter2@db1?sslnegotiation=direct",
    ],
)
async def test_a_dsn_that_leads_nowhere_is_a_step_that_failed(dsn):
    report = await examine(TargetPlan(name="main", dsn=Secret(dsn), probes=USUAL))

    (step,) = report.steps
    assert step.name == "resolve"
    assert not report.is_good
    assert "hunter2" not in report.text(debug=True)
    assert report.line.startswith("main: resolve ended ")
    assert step.said


async def test_a_socket_that_nobody_listens_at_is_told_as_one(tmp_path):
    dsn = Secret(f"postgresql://me@/app?host={tmp_path}")

    report = await examine(TargetPlan(name="main", dsn=dsn, probes=USUAL))

    resolve, knock = report.steps
    assert resolve.values == {"socket": f"{tmp_path}/.s.PGSQL.5432"}
    assert knock.finding is Finding.REFUSED


def test_an_answer_that_is_worse_than_it_may_be_is_no_good_one():
    finding, said = _weighed("replication", plan_of(30.0), LATE, 0.01)
    report = Report("main", (Step("replication", 0.01, finding, said, LATE),))

    assert finding is Finding.LAGGING
    assert not report.is_good
    assert report.line == f"main: replication ended lagging: {said}"


@pytest.mark.parametrize("limit", [None, 60.0])
def test_an_answer_that_nobody_limits_or_that_is_within_is_a_good_one(limit):
    assert _weighed("replication", plan_of(limit), LATE, 0.01) == (Finding.OK, "")
