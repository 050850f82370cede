"""The stack of docker-compose.yml, for real: up, broken, mended, and gone.

The tests go on from each other: a stack takes a quarter of a minute to come up.
"""

import base64
import json
import re
import time
import urllib.error
import urllib.request

import pytest

from support.compose import Stack, services, stack

RUN = tuple(
    name
    for name, service in services().items()
    if name not in ("grafana", "prepare") and "profiles" not in service
)
ENDS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE query = 'SELECT pg_sleep(60)'"
)
SOON = 60.0  # what is promised, from `up` and from `break` to the message


class Timed:
    """A stack, and when it was what.

    Attributes:
        stack: It.
        up: `time.time()` when `make up` began.
        said: What that printed.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.up = time.time()
        self.said = stack.make("up")


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with stack(tmp_path_factory.mktemp("stack")) as one:
        yield Timed(one)


def test_from_up_to_the_message_of_a_stopped_database_it_takes_less_than_a_minute(up):
    """
    All of it as it is shipped: `make up`, `make break`, and the page that shows what
    Slack would. The daemon says so itself; no scrape and no rule is waited for.
    """
    one = up.stack
    one.until(lambda: one.states() == {"closed"}, 40)
    one.until(lambda: one.get("SHOP", "/orders/7")["from"] == "call", 30)
    broken = time.time()
    one.make("break")

    (message, *_) = one.until(lambda: one.told("primary", after=broken), SOON)

    assert message["arrived"] - up.up < SOON
    (attachment,) = message["payload"]["attachments"]
    assert attachment["color"] == "danger"
    assert "open" in one.states()
    assert "open" in one.get("PGBREAKER", "/")


def test_while_it_is_away_customers_of_the_shop_see_what_they_saw_before(up):
    """What can be shown from before is; purchases are refused, and at once."""
    one = up.stack

    seen = one.until(lambda: one.get("SHOP", "/orders/7"), 10)

    assert seen["from"] == "stale"
    assert seen["amount"] > 0
    one.until(lambda: "refused" in one.log("workload"), 15)


def test_that_it_is_mended_is_told_too(up):
    """The second way: Prometheus scrapes, its rule fires, and is resolved."""
    one = up.stack
    one.hurry()
    one.until(lambda: one.told("CRITICAL", "PgbreakerTargetDown"), 30)
    one.make("mend")

    one.until(lambda: one.states() == {"closed"}, 30)
    one.until(lambda: one.get("SHOP", "/orders/7")["from"] == "call", 20)
    message = one.until(lambda: one.told("RESOLVED", "PgbreakerTargetDown"), 30)[0]

    assert message["payload"]["attachments"][0]["color"] == "good"


def test_a_server_that_is_filled_lets_nobody_in_and_serves_who_is(up):
    """One of the faults that are run by hand; `read` and `write` go on."""
    one = up.stack
    one.start("fill")

    one.until(lambda: "open" in one.states(), 60)

    states = {
        breaker["operation"]: breaker["state"]
        for breaker in one.get("PGBREAKER", "/api/v1/breakers")
    }
    assert states == {"connect": "open", "read": "closed", "write": "closed"}
    one.until(lambda: not filling(one), 20)
    one.until(lambda: one.states() == {"closed"}, 20)


def filling(one: Stack) -> bool:
    """End whoever fills the server. Is there still somebody?

    Who came too late to get in does when there is room; and as long as there is none,
    those who try may be in our own way.
    """
    ends = ("psql", "-U", "postgres", "-d", "app", "-c", ENDS)
    one.exec("postgres", *ends, fails=True)
    return bool(one.running("fill"))


def test_every_service_is_healthy_and_prometheus_sees_each(up):
    one = up.stack
    for service in RUN:
        one.until(lambda service=service: not one.health(service), 30)
        assert not one.inspect(service)["RestartCount"], one.log(service)

    one.until(lambda: len(one.series("up == 1")) == 3, 30)
    groups = one.get("PROMETHEUS", "/api/v1/rules")["data"]["groups"]
    names = {rule["name"] for group in groups for rule in group["rules"]}
    assert {"PgbreakerTargetDown", "PgbreakerBreakerOpen"} <= names
    assert one.series('pgbreaker_calls_total{breaker="orders", outcome="stale"} > 0')
    assert one.series('pgbreaker_pool_connections{breaker="shop"}')


def test_traces_of_the_outage_have_come(up):
    one = up.stack
    asked = "import urllib.request as u; print(u.urlopen('http://tempo:3200/spans').read().decode())"

    spans = json.loads(one.exec("pgbreaker", "python3", "-c", asked))

    assert any("probe" in name for name in spans), spans


def test_the_daemon_is_nobody_and_can_write_to_its_volume_alone(up):
    seen = up.stack.inspect("pgbreaker")

    assert seen["Config"]["User"] == "65532:65532"
    assert seen["HostConfig"]["ReadonlyRootfs"] is True
    assert seen["EffectiveCaps"] in (None, [])
    assert not seen["HostConfig"]["Privileged"]
    assert up.stack.exec("pgbreaker", "id", "-u").strip() == "65532"


@pytest.mark.parametrize("service", RUN)
def test_what_is_served_is_served_on_loopback_alone(up, service):
    ports = up.stack.inspect(service)["NetworkSettings"]["Ports"] or {}

    assert {one["HostIp"] for at in ports.values() for one in at or ()} <= {"127.0.0.1"}


def test_who_knows_the_password_changes_things_and_nobody_else(up):
    """It was drawn at the first `up`, and stands in what that printed."""
    one = up.stack
    found = re.search(r"demo, password ([\w-]+)", up.said)
    assert found
    word = found[1]

    assert overridden(one, None) == 401
    assert overridden(one, f"demo:{word[:-1]}") == 401
    assert overridden(one, f"demo:{word}") == 200
    said = one.exec(
        "pgbreaker", "pgbreaker", "auto", "primary/write", "--reason=seen it"
    )
    assert "primary/write" in said


def overridden(one: Stack, login: str | None) -> int:
    """Open a breaker, over HTTP. Returns the status."""
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    asked = urllib.request.Request(
        f"{one.urls['PGBREAKER']}/api/v1/breakers/primary/write/override",
        data=json.dumps({"state": "open", "reason": "a try", "for": "1m"}).encode(),
        headers=headers,
        method="PUT",
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_lock_that_all_wait_for_does_not_end_the_shop(up):
    """The server answers, so nothing of the daemon's opens; the shop's own breakers do."""
    one = up.stack
    one.start("lock")

    one.until(lambda: one.get("SHOP", "/orders/7")["from"] == "stale", 40)
    one.until(lambda: "refused" in one.log("workload"), 20)

    assert one.states() <= {"closed", "forced_open"}
    assert not one.inspect("workload")["RestartCount"], one.log("workload")


def test_down_leaves_nothing(up):
    """Not even a fault that still runs."""
    one = up.stack
    assert one.running("lock")

    one.make("down")

    assert one.left() == ""
