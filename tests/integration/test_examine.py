"""`pgbreaker probe` on a real server: is what the daemon would act on told as bad?"""

from dataclasses import replace

from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.monitor.examine import Report, examine
from pgbreaker.probes import PROBES


async def examined(server, *, slow: float) -> Report:
    """What comes of a canary that takes 0.2 s."""
    canary = replace(
        PROBES["latency"].plan, query="SELECT pg_sleep(0.2)", timeout=8.0, limit=slow
    )
    probes = {"ping": PROBES["ping"].plan, "latency": canary}
    dsn = Secret(server.dsn(user="pgbreaker"))
    return await examine(TargetPlan(name="main", dsn=dsn, probes=probes))


async def test_an_answer_within_its_limit_is_good(server):
    report = await examined(server, slow=6.0)

    assert report.is_good, report.line


async def test_an_answer_beyond_its_limit_is_not(server):
    report = await examined(server, slow=0.1)

    assert report.steps[-1].finding is Finding.SLOW
    assert "main: latency ended slow: the canary took " in report.line
    assert not report.is_good
