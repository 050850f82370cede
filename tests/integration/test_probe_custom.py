"""A user's own queries, on a real server."""

from dataclasses import replace

from pgbreaker.core.reading import Finding
from pgbreaker.probes import PROBES, probe_called
from pgbreaker.sinks.metrics import Metrics
from support.servers import psql
from support.watching import QUICK, Watching


def plans(**queries: str):
    custom = PROBES["custom"].plan
    return {"ping": QUICK["ping"]} | {
        f"custom.{name}": replace(custom, interval=0.5, query=query)
        for name, query in queries.items()
    }


async def test_its_numbers_become_metrics(server):
    sql = "SELECT 'mail' AS queue, 3 AS waiting, 7::numeric AS done_total -- of all"
    async with Watching(server.dsn(user="pgbreaker"), probes=plans(queue=sql)) as seen:
        metrics = Metrics(seen.boards, "1", probe_called("custom.queue").shows)
        await seen.until(lambda: seen.answers("custom.queue"), within=5.0)

        text = await metrics.render()

    labels = 'target="main",query="queue",column="{}",key="mail"'
    assert f"pgbreaker_custom_value{{{labels.format('waiting')}}} 3" in text
    assert f"pgbreaker_custom_count_total{{{labels.format('done_total')}}} 7" in text


async def test_one_that_fails_is_a_state_and_takes_no_other_with_it(server):
    psql(server, "CREATE TABLE IF NOT EXISTS hidden (id int)")
    queries = plans(
        good="SELECT 1 AS one",
        typo="SELECT nothing FROM nowhere",
        denied="SELECT count(*) AS n FROM public.hidden",
        writing="WITH w AS (SELECT nextval('public.counted')) SELECT 1 AS n FROM w",
        slow="SELECT pg_sleep(30)::text AS x, 1 AS n",
    )
    psql(server, "CREATE SEQUENCE IF NOT EXISTS counted")
    psql(server, "GRANT ALL ON SEQUENCE counted TO pgbreaker")
    async with Watching(server.dsn(user="pgbreaker"), probes=queries) as seen:
        await seen.until(
            lambda: all(
                seen.readings(f"custom.{name}")
                for name in ("good", "typo", "denied", "writing", "slow")
            ),
            within=15.0,
        )
        found = {
            name: seen.readings(f"custom.{name}")[0]
            for name in ("good", "typo", "denied", "writing", "slow")
        }

        assert found["good"].finding is Finding.OK
        assert found["typo"].evidence.sqlstate == "42P01"
        assert found["denied"].finding is Finding.DENIED
        assert found["writing"].evidence.sqlstate == "25006"
        assert found["slow"].finding is Finding.QUERY  # statement_timeout of ours
        assert seen.board.condition.value == "up"
        assert seen.moves == []
