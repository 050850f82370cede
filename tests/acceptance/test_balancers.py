"""HAProxy and Envoy before a primary and its standby, by the configurations that ship.

What it is told, it does; and a daemon that dies or hangs takes nothing away from anybody.
"""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from support.balancer import Balancer, running_envoy, running_haproxy, until
from support.process import free_port
from support.servers import running_server
from support.standby import running_standby

# Longer than anything takes here: two cores may be busy.
SOON = 15.0

AGENT, HTTPCHK, ENVOY = "haproxy.cfg", "httpchk.cfg", "envoy.yaml"
"""The configurations: HAProxy's agent checks, its HTTP checks, Envoy's."""

CONFIG = """\
version: 1
defaults: {{interval: 100ms, timeout: 250ms, breaker: {{timeout: 200ms, max_timeout: 1s}}}}
targets:
  - name: db1
    dsn: {primary}
    probes: {{identity: {{interval: 200ms}}, commit: {{interval: 500ms}}}}
  - name: db2
    dsn: {standby}
    probes: {{identity: {{interval: 200ms}}, commit: {{interval: 500ms}}}}
haproxy: {{listen: 127.0.0.1:{agent}}}
"""


@pytest.fixture(scope="module")
def primary():
    with running_server(15) as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary):
    with running_standby(primary) as standby:
        yield standby


@dataclass(slots=True)
class Stage:
    """All of it.

    Attributes:
        balancer: HAProxy, or Envoy.
        daemon: Who advises it.
        start: Starts another, in the place of one that is gone.
        primary: The server that is db1.
        writes: Port for writes.
        reads: Port for reads.
    """

    balancer: Balancer
    daemon: object
    start: object
    primary: object
    writes: int
    reads: int

    def connect(self, port: int) -> psycopg.Connection:
        dsn = self.primary.dsn(user="app_user", database="app", port=port)
        return psycopg.connect(f"{dsn}?connect_timeout=3", autocommit=True)

    def serves(self, port: int) -> bool:
        """Whether a new session through *port* is served."""
        try:
            with self.connect(port) as session:
                session.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def is_up(self, backend: str, server: str) -> bool:
        return self.balancer.is_up(backend, server)

    def until(self, what, within: float = SOON) -> float:
        return until(self.balancer, what, within)

    def settle(self) -> None:
        """Wait until what is said of each server is what it is."""
        self.until(lambda: self.is_up("writes", "db1") and self.is_up("reads", "db2"))
        self.until(lambda: not self.is_up("writes", "db2"))


@contextmanager
def staged(shipped, primary, standby, daemon, tmp_path):
    ports = {name: free_port() for name in ("http", "agent", "writes", "reads")}
    path = tmp_path / "pgbreaker.yaml"
    dsns = {
        "primary": primary.dsn(user="pgbreaker", database="app"),
        "standby": standby.dsn(user="pgbreaker", database="app"),
    }
    path.write_text(CONFIG.format(agent=ports["agent"], **dsns), "utf-8")

    def start():
        # The same address each time: HAProxy is not told another.
        return daemon("--config", str(path), "--listen", f"127.0.0.1:{ports['http']}")

    def at(name):
        return f"127.0.0.1:{ports[name]}"

    one = start()
    if shipped == ENVOY:
        running = running_envoy(
            {
                "address: db1, port_value: 5432": f"address: 127.0.0.1, port_value: {primary.port}",
                "address: db2, port_value: 5432": f"address: 127.0.0.1, port_value: {standby.port}",
                "port_value: 5000": f"port_value: {ports['writes']}",
                "port_value: 5001": f"port_value: {ports['reads']}",
                "port_value: 9432": f"port_value: {ports['http']}",
            },
            tmp_path,
        )
    else:
        here = {
            "db1:5432": f"127.0.0.1:{primary.port}",
            "db2:5432": f"127.0.0.1:{standby.port}",
            "127.0.0.1:5000": at("writes"),
            "127.0.0.1:5001": at("reads"),
            "127.0.0.1:9432": at("http"),
        }
        if shipped == AGENT:
            here["agent-port 9433"] = f"agent-port {ports['agent']}"
        else:
            here["port 9432"] = f"port {ports['http']}"
        running = running_haproxy(here, tmp_path, shipped)
    with running as balancer:
        stage = Stage(balancer, one, start, primary, ports["writes"], ports["reads"])
        stage.settle()
        yield stage


@pytest.fixture
def stage(request, primary, standby, daemon, tmp_path):
    with staged(request.param, primary, standby, daemon, tmp_path) as stage:
        yield stage
    primary.thaw()


def by(*shipped: str):
    return pytest.mark.parametrize("stage", shipped, indirect=True)


GONE = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])


@by(AGENT, HTTPCHK, ENVOY)
def test_a_frozen_primary_gets_no_work_until_it_is_back(stage):
    """
    It takes connections all the while, so a check of the port alone would see nothing.
    """
    with stage.connect(stage.writes) as session:
        (is_standby,) = session.execute("SELECT pg_is_in_recovery()").fetchone()
    assert not is_standby

    stage.primary.freeze()
    out = stage.until(lambda: not stage.is_up("writes", "db1"))
    stage.until(lambda: not stage.is_up("reads", "db1"))
    reads = stage.serves(stage.reads)
    writes = stage.serves(stage.writes)
    stage.primary.thaw()
    back = stage.until(lambda: stage.serves(stage.writes))

    assert (reads, writes) == (True, False)
    assert out < 5.0
    assert back < 10.0
    assert stage.is_up("writes", "db1")


@by(AGENT, HTTPCHK)
@GONE
def test_a_daemon_that_is_gone_takes_nothing_away(stage, number):
    """
    New sessions are served at every moment, and old ones go on; and so it is while
    another daemon comes up.
    """
    stage.until(lambda: stage.is_up("daemon", "pgbreaker"))
    old = stage.connect(stage.writes)

    def serves_and(what):
        def look():
            assert stage.serves(stage.writes)
            assert stage.serves(stage.reads)
            return what()

        return look

    with old:
        pid = stage.daemon.process.pid
        os.kill(pid, number)
        stage.until(serves_and(lambda: not stage.is_up("daemon", "pgbreaker")))
        if stage.balancer.server("writes", "db1")["agent_status"] == "":
            # Its answer was the check: nobody is up but by HAProxy's own.
            stage.until(serves_and(lambda: not stage.is_up("writes", "db1")))
        assert stage.serves(stage.writes)
        if number is signal.SIGKILL:
            stage.start()
            stage.until(serves_and(lambda: stage.is_up("daemon", "pgbreaker")))
            stage.until(serves_and(lambda: stage.is_up("writes", "db1")))

        assert old.execute("SELECT 'goes on'").fetchone() == ("goes on",)


@by(ENVOY)
@GONE
def test_to_envoy_a_daemon_that_is_gone_takes_nothing_away(stage, number):
    """
    Only an answer takes a server out; checks without one may be as many as they like.
    """
    old = stage.connect(stage.writes)

    def still_serves():
        assert stage.serves(stage.writes)
        assert stage.serves(stage.reads)
        return stage.balancer.unanswered("writes", "db1") >= 2

    with old:
        os.kill(stage.daemon.process.pid, number)
        stage.until(still_serves)

        assert stage.is_up("writes", "db1")
        assert not stage.is_up("writes", "db2")
        assert old.execute("SELECT 'goes on'").fetchone() == ("goes on",)


@by(AGENT)
def test_the_last_word_of_a_daemon_that_died_does_not_outlive_the_fault(stage):
    """
    HAProxy holds a server down for ever that an agent has said is down, when the agent
    says no more.
    """
    stage.primary.freeze()
    stage.until(lambda: not stage.is_up("writes", "db1"))

    stage.daemon.process.kill()
    stage.primary.thaw()

    stage.until(lambda: stage.serves(stage.writes))
    assert stage.balancer.server("writes", "db1")["status"] == "DOWN (agent)"


@by(AGENT)
def test_what_a_person_set_by_hand_is_not_undone(stage):
    """
    ``ready`` would do that; the daemon answers ``up``.
    """

    def said() -> str:
        return stage.balancer.server("writes", "db1")["last_agt"]

    stage.balancer.tell("set server writes/db1 state maint")
    stage.primary.freeze()
    stage.until(lambda: "down" in said())
    stage.primary.thaw()
    stage.until(lambda: "up" in said())

    assert stage.balancer.server("writes", "db1")["status"] == "MAINT"
