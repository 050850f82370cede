"""What the runbooks say to type can be typed, on every PostgreSQL that is supported.

At three in the morning nobody mends a query. Questions stand in blocks, and are asked of
a server that is in trouble, so that there is something to answer. What is to be done
about it stands in the text, and is done.
"""

import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import click
import pytest
import yaml

from pgbreaker.cli import cli
from pgbreaker.metrics import LIBRARY
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import PROBES
from pgbreaker.sinks.exposition import shown_families
from pgbreaker.sinks.metrics import FAMILIES, OWN
from support.grafana import selectors
from support.pooler import running_pooler
from support.servers import Crowd, psql, running_server, until
from support.standby import running_standby

ALERTS = Path(__file__).parents[2] / "alerts"
TEXTS = [path.read_text("utf-8") for path in sorted(ALERTS.glob("runbooks/*.md"))]
MAJORS = (14, 15, 16, 17, 18)

# What stands for something of the reader's own -> what is called so here.
FILLED = {"NAME": "shop", "TABLE_NAME": "orders", "GID": "left"}
# Kinds of statements that the text speaks of, not to be typed as they stand there.
SPOKEN_OF = {"ALTER TABLE", "COMMIT PREPARED", "ROLLBACK PREPARED"}
STATEMENT = re.compile(r"(SELECT|ALTER|ANALYZE|COMMIT|DROP|ROLLBACK|SET|VACUUM)\b")
CONSOLE = {"PAUSE", "RELOAD", "RESUME"}  # of pgbouncer
ON_REPLICAS = "SELECT pg_wal_replay_resume()"
# What the server in trouble has none of, besides sessions that were idle for minutes.
NONE_THERE = re.compile(
    r"FROM pg_stat_(progress_vacuum|replication|wal_receiver)|interval '5 minutes'"
)

TROUBLE = """
CREATE EXTENSION pg_stat_statements;
CREATE ROLE shop;
CREATE SEQUENCE shop AS int;
CREATE TABLE orders (id int DEFAULT nextval('shop'));
INSERT INTO orders DEFAULT VALUES;
SELECT pg_create_physical_replication_slot('shop');
"""


def blocks(language: str) -> list[str]:
    """What stands in fenced blocks of *language*, in all runbooks."""
    fenced = re.compile(rf"^```{language}\n(.+?)^```$", re.M | re.S)
    return [block for text in TEXTS for block in fenced.findall(text)]


def spans() -> list[str]:
    """What stands between backticks in the text of all runbooks."""
    fenced = re.compile(r"^```.+?^```$", re.M | re.S)
    bare = "\n".join(fenced.sub("", text) for text in TEXTS)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", bare)]


def commands(program: str) -> list[list[str]]:
    """Each call of *program* as words, without its name, in blocks and in the text."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    calls = dict.fromkeys(c for c in lines + spans() if c.startswith(f"{program} "))
    return [shlex.split(call)[1:] for call in calls]


def documented() -> list[list[str]]:
    """Each call of ours in the other documents and on the dashboards, as words."""
    root = ALERTS.parent
    pages = [*root.glob("*.md"), *root.glob("[!.]*/README.md")]
    fenced = re.compile(r"^```(?:sh)?\n(.+?)^```$", re.M | re.S)
    typed = [
        line
        for page in pages
        for block in fenced.findall(page.read_text("utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("pgbreaker ")
    ]
    for board in root.glob("dashboards/*.json"):
        typed += re.findall(r"`(pgbreaker [^`]+)`", board.read_text("utf-8"))
    return [shlex.split(call, comments=True)[1:] for call in dict.fromkeys(typed)]


def statements(texts: Iterable[str]) -> list[str]:
    """The single statements, each once, with names of what is there filled in."""
    parts = (part.strip() for text in texts for part in text.split(";"))
    words = re.compile(rf"\b({'|'.join(FILLED)})\b")
    return list(dict.fromkeys(words.sub(lambda m: FILLED[m[0]], p) for p in parts if p))


PSQL = [(words[-1], "pgbouncer" in words) for words in commands("psql")]
QUESTIONS = statements(
    blocks("sql") + [sql for sql, is_pooler in PSQL if not is_pooler]
)
DEEDS = statements(
    s for s in spans() if STATEMENT.match(s) and s not in SPOKEN_OF and s != ON_REPLICAS
)


async def say(connection: asyncpg.Connection, sql: str) -> list[asyncpg.Record]:
    """Say *sql*; what is wrong with it is raised with *sql* noted."""
    try:
        return await connection.fetch(sql, timeout=10)
    except (asyncpg.PostgresError, TimeoutError) as error:
        error.add_note(sql)
        raise


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def troubled(request):
    settings = {
        "max_prepared_transactions": "2",
        "shared_preload_libraries": "pg_stat_statements",
    }
    with running_server(request.param, **settings) as server:
        psql(server, TROUBLE)
        psql(server, "BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'left'")
        yield server


@pytest.fixture
async def superuser(troubled):
    connection = await asyncpg.connect(troubled.dsn(), timeout=10)
    yield connection
    await connection.close()


one_version = pytest.mark.parametrize("troubled", [17], ids=["pg17"], indirect=True)


# -- What is said to a server ----------------------------------------------------------


async def test_a_server_in_trouble_answers_every_question_and_lets_itself_be_helped(
    troubled, superuser
):
    us = {"user": "postgres", "database": "postgres"}
    async with Crowd(troubled) as crowd:
        in_front = await crowd.join("BEGIN; LOCK TABLE orders", **us)
        await crowd.leave(await crowd.join(**us), "DELETE FROM orders")

        for sql in QUESTIONS:
            assert await say(superuser, sql) or NONE_THERE.search(sql), sql
        pid = str(in_front.get_server_pid())
        # The session in front is cancelled and ended first: others wait for its lock.
        for sql in sorted(DEEDS, key=lambda sql: ("PID" not in sql, sql)):
            rows = await say(superuser, sql.replace("PID", pid))
            assert all(False not in row for row in rows), sql
        gone = f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}"
        await until(troubled, gone, on=superuser)


@one_version
async def test_a_replica_and_its_primary_take_them_too(troubled, superuser):
    with running_standby(troubled) as standby:
        await until(troubled, "SELECT state = 'streaming' FROM pg_stat_replication")
        replica = await asyncpg.connect(standby.dsn(), timeout=10)
        await replica.execute("SELECT pg_wal_replay_pause()")

        for sql in QUESTIONS:
            theirs, ours = await say(replica, sql), await say(superuser, sql)
            if "pg_stat_replication" in sql or "pg_stat_wal_receiver" in sql:
                assert theirs or ours, sql
        await say(replica, ON_REPLICAS)
        assert not await replica.fetchval("SELECT pg_is_wal_replay_paused()")
        await replica.close()


@one_version
def test_pgbouncer_shows_what_it_is_asked_for_and_takes_each_command(troubled):
    shown = set()
    with running_pooler(troubled) as pooler:
        for command in [sql for sql, is_pooler in PSQL if is_pooler]:
            shown |= {column for row in pooler.tell(command) for column in row}
        for command in sorted(CONSOLE & set(spans())):
            pooler.tell(command)

    assert shown >= {"cl_waiting", "sv_active", "paused"}


def test_no_statement_is_overlooked():
    """The rows above are of what stands in the runbooks, and most of it is found."""
    assert len(QUESTIONS) > 30
    assert len(DEEDS) > 10
    assert set(spans()) >= SPOKEN_OF | CONSOLE | {ON_REPLICAS}


# -- What is asked of Prometheus -------------------------------------------------------

SHOWN = [*(one for probe in PROBES.values() for one in probe.shows), *OUTLOOK]
DAEMON = {**FAMILIES, **shown_families(SHOWN), **OWN}
RULES = yaml.safe_load((ALERTS / "pgbreaker.rules.yml").read_text("utf-8"))["groups"]
RECORDED = {rule.get("record") for group in RULES for rule in group["rules"]}
OF_OTHERS = {
    *("up", "process_cpu_seconds_total"),
    *("alertmanager_notifications_total", "alertmanager_notifications_failed_total"),
    "prometheus_notifications_alertmanagers_discovered",
    "prometheus_notifications_errors_total",
}
OURS = re.compile(r"pgbreaker\w*[_:]")
QUERIES = [" ".join(block.split()) for block in blocks("promql")]
QUERIES += [span for span in spans() if OURS.search(span)]


@pytest.mark.parametrize("query", dict.fromkeys(QUERIES))
def test_a_query_asks_for_series_and_labels_that_there_are(query):
    asked = selectors(query)

    assert asked
    for name, matchers in asked:
        stem = re.sub("_(bucket|count|sum)$", "", name)
        families = [
            families[found]
            for families in (DAEMON, LIBRARY)
            for found in {name, stem} & families.keys()
        ]
        assert families or name in OF_OTHERS | RECORDED
        labels = {label for family in families for label in family.labels}
        assert not families or matchers.keys() <= labels | {"job", "instance"}


# -- What is typed into a shell --------------------------------------------------------


@pytest.mark.parametrize("words", [*commands("pgbreaker"), *documented()], ids=" ".join)
def test_a_command_of_ours_has_the_verb_and_the_options_that_are_named(words):
    command: click.Command = cli
    while isinstance(command, click.Group):
        below = command.get_command(click.Context(command), words[0])
        assert below is not None, words[0]
        command, words = below, words[1:]

    command.make_context(command.name, words)  # takes them apart, and runs nothing


def test_a_shell_takes_every_line():
    script = "\n".join(blocks("sh"))

    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)

    assert script
    assert done.stderr == ""
