"""What importing the library costs an application."""

import json
import subprocess
import sys

HEAVY = (
    *("aiohttp", "apscheduler", "prometheus_client", "opentelemetry", "pydantic"),
    *("asyncpg", "yaml", "click", "sqlalchemy", "psycopg"),
)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_library_loads_none_of_what_the_daemon_needs():
    loaded = {name.partition(".")[0] for name in modules_after("import pgbreaker")}

    assert loaded.isdisjoint(HEAVY)


def test_the_library_adds_few_modules_to_asyncio():
    """Modules and not milliseconds: a loaded machine does not change their number."""
    base = modules_after("import asyncio, dataclasses, random, json")
    added = modules_after("import asyncio, dataclasses, random, json, pgbreaker") - base

    assert {m for m in added if not m.startswith("pgbreaker")} <= {"array"}
    assert len(added) <= 40


def test_the_command_line_answers_without_loading_the_daemon():
    loaded = {n.partition(".")[0] for n in modules_after("import pgbreaker.cli")}

    assert loaded.isdisjoint(set(HEAVY) - {"click"})
