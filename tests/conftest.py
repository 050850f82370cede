"""Fixtures: servers of two majors, shared where nothing breaks them."""

import gc
import signal

import pytest

from support.servers import psql, running_server

MAJORS = {"pg15": 15, "pg17": 17}


def pytest_configure():
    """A shell that runs the suite in the background has interrupts ignored, and so would
    be those that tests start and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Thousands of tests and what they import stay to the end: no collection of garbage,
    ours or theirs, is to look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", params=MAJORS.values(), ids=MAJORS.keys())
def server(request):
    """A running server that the test leaves as it was, of each major in turn."""
    with running_server(request.param) as server:
        yield server


@pytest.fixture(scope="session", params=MAJORS.values(), ids=MAJORS.keys())
def breakable_server(request):
    with running_server(request.param) as server:
        yield server


@pytest.fixture
def fresh_server(breakable_server):
    """A running server that the test may break; it is mended afterwards."""
    yield breakable_server
    breakable_server.thaw()
    breakable_server.start()
    psql(breakable_server, "ALTER SYSTEM RESET ALL")
    psql(breakable_server, "SELECT pg_reload_conf()")
