"""Reports of applications by HTTP: taken, shown, and without a say in anything."""

import json
import re

import pytest

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.report import MOST
from pgbreaker.web.doors import hash_token
from support.described import Described
from support.doors import basic, doors, scrypt_of, write
from support.site import Served, serving

REPORTS = "/api/v1/reports"
BREAKER = "/api/v1/breakers/main/read"


@pytest.fixture
async def served():
    async with serving() as served:
        served.scene.also(served.metrics, served.history, served.inside.recent)
        served.scene.read()
        yield served


def told(state: str = "open", by: str | None = "calls", **more) -> dict:
    """What is told of a breaker."""
    return {
        "name": "orders",
        "follows": "main/read",
        "state": state,
        "computed_state": state,
        "by": by,
        "reason": "12 of 20 calls failed",
        "calls": {"success": 8, "failure": 12},
    } | more


def report(instance: str, *breakers: dict, **more) -> dict:
    """What a process sends."""
    return {"instance": instance, "application": "shop", "breakers": breakers} | more


async def post(served: Served, body, **more):
    """Send a report: the answer, and what it says."""
    async with served.client.post(REPORTS, json=body, **more) as answer:
        return answer, await answer.json()


async def forty(served: Served, own: int = 3) -> None:
    """Have forty processes report, of which so many have it open by their own calls."""
    for number in range(40):
        state = told() if number < own else told("closed", None)
        answer, said = await post(served, report(f"web-{number}", state))
        assert answer.status == 200, said


async def test_a_report_is_taken_and_it_is_said_when_to_report_again(served):
    answer, said = await post(served, report("web-1", told()))

    assert answer.status == 200
    assert said == {"every_seconds": 5.0}


async def test_how_many_have_it_open_is_shown_with_the_breaker(served):
    _, before = await served.get(BREAKER)
    await forty(served)
    await post(served, report("web-40", told("open", "advice")))
    _, body = await served.get(BREAKER)
    _, status = await served.get("/api/v1/status")

    assert before["applications"] is None
    assert body["state"] == "closed"
    assert body["applications"] == {
        "processes": 41,
        "open": 4,
        "by_calls": 3,
        "by_advice": 1,
        "by_operator": 0,
        "text": "4 of 41 processes have it open, 3 by their own calls, 1 by advice:"
        " 12 of 20 calls failed",
    }
    found = {
        b["operation"]: b["applications"] for b in status["targets"][0]["breakers"]
    }
    assert found == {"connect": None, "read": body["applications"], "write": None}

    served.scene.time.now += 15.0
    _, after = await served.get(BREAKER)
    assert after["applications"] is None


async def test_all_that_is_reported_can_be_asked_for_and_is_as_described(served):
    described = Described((await served.get("/openapi.json"))[1])
    await forty(served)
    await post(served, report("job-1", told(follows=None), application=None))

    for path in (REPORTS, f"{REPORTS}?breaker=main/read&limit=5", BREAKER):
        answer, body = await served.get(path)
        described.check("GET", path, answer.status, answer.content_type, body)
    _, body = await served.get(REPORTS)
    _, few = await served.get(f"{REPORTS}?breaker=main/read&limit=5")

    assert body["processes"] == 41
    (read,) = body["breakers"]
    assert (read["breaker"], read["processes"], read["open"]) == ("main/read", 40, 3)
    assert read["voices"][0] == {
        "instance": "web-2",
        "application": "shop",
        "breaker": "orders",
        "by": "calls",
        "reason": "12 of 20 calls failed",
    }
    assert len(body["instances"]) == 41
    assert [one["instance"] for one in few["instances"]] == [
        *("web-2", "web-1", "web-0", "web-39", "web-38")
    ]
    assert few["instances"][0]["breakers"] == [told()]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?breaker=main/raed", 404),
        ("?limit=0", 422),
        ("?limit=201", 422),
        ("?x=1", 422),
    ],
)
async def test_a_question_that_is_wrong_is_a_problem(served, query, status):
    answer, body = await served.get(f"{REPORTS}{query}")

    assert (answer.status, body["status"]) == (status, status)


@pytest.mark.parametrize(
    ("sent", "status", "field"),
    [
        (b"", 400, "body"),
        (b"{", 400, "body"),
        (b"[" * 20_000, 400, "body"),
        (b"[]", 422, "body"),
        (b'{"instance": NaN}', 400, "body"),
        (b"{}", 422, "instance"),
        (b'{"instance": "a", "breakers": [1]}', 422, "breakers[0]"),
        (json.dumps(report("a", *[{}] * (MOST + 1))).encode(), 422, "breakers"),
        (b" " * 65_537, 413, None),
    ],
    ids=range(9),
)
async def test_what_is_no_report_is_a_problem_that_says_why(
    served, sent, status, field
):
    described = Described((await served.get("/openapi.json"))[1])
    headers = {"Content-Type": "application/json"}
    async with served.client.post(REPORTS, data=sent, headers=headers) as answer:
        body = await answer.json()

    assert answer.status == status
    if field is not None:
        described.check("POST", REPORTS, status, answer.content_type, body)
        assert body["errors"][0]["field"] == field
        assert served.scene.board.reports.refused == 1
    assert (await served.get(REPORTS))[1]["processes"] == 0


async def test_there_are_as_many_reporters_as_may_be(served):
    served.scene.board.reports.most = 2
    for number in range(2):
        await post(served, report(f"web-{number}", told()))

    answer, body = await post(served, report("web-2", told()))

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert body["detail"] == "2 processes report, and no more may"
    assert (await post(served, report("web-1", told())))[0].status == 200


async def test_a_viewer_reports_and_speaks_for_nobody_else(tmp_path):
    robots = {"shop": "viewer", "billing": "viewer"}
    config = write(
        tmp_path / "web.yml",
        basic_auth_users={"ana": scrypt_of("ana")},
        pgbreaker={
            "roles": robots | {"ana": "admin"},
            "tokens": {name: hash_token(name) for name in robots},
        },
    )
    async with doors(HttpPlan(listen=("127.0.0.1", 0), web_config=config)) as served:
        said = []
        for name in (None, "nobody", "shop", "billing"):
            headers = {} if name is None else {"Authorization": f"Bearer {name}"}
            state = told("closed", None) if name == "billing" else told()
            answer, _ = await post(served, report("web-1", state), headers=headers)
            said.append(answer.status)
        _, body = await served.get(BREAKER, headers=basic("ana"))

    assert said == [401, 401, 200, 200]
    assert body["applications"]["text"].startswith("1 of 2 processes has it open")


async def test_no_page_of_another_site_reports(served):
    answer, _ = await post(
        served, report("web-1", told()), headers={"Origin": "https://evil.test"}
    )
    async with served.client.post(REPORTS, data={"instance": "web-1"}) as form:
        kind = form.status

    assert (answer.status, kind) == (403, 415)


@pytest.mark.parametrize("state", ["closed", "open", "forced_open", "disabled"])
async def test_nothing_that_is_reported_moves_a_breaker_of_the_daemon(served, state):
    """Not its state, its counts, its advice, its history, what load balancers are told."""
    served.scene.open("write")
    board = served.scene.board

    async def seen() -> list:
        found = [(await served.get("/api/v1/advice"))[1]["advice"]]
        for breaker in ("main/read", "main/write"):
            body = (await served.get(f"/api/v1/breakers/{breaker}"))[1]
            body.pop("applications")
            health = await served.get(f"/health/{breaker}")
            found += [body, health[0].status, health[1]]
        target = board.targets["main"]
        found += [target.condition, target.reason]
        return [*found, len(served.history.entries), served.inside.advising.version]

    before = await seen()
    for number in range(50):
        for by in ("calls", "advice", "operator"):
            breakers = [
                told(state, by, name=f"b{n}", follows=follows)
                for n, follows in enumerate(("main/read", "main/write"))
            ]
            await post(served, report(f"web-{number}-{by}", *breakers))
    assert board.reports.count(served.scene.time.now) == 150

    assert await seen() == before


# What people are shown.


@pytest.mark.parametrize("path", ["/", "/targets/main", "/breakers/main/read"])
async def test_a_page_says_how_many_have_it_open_though_the_daemon_does_not(
    served, path
):
    _, before = await served.get(path)
    await forty(served, own=12)
    served.scene.time.now += 0.5
    _, text = await served.get(path)

    assert "12 of 40 processes" not in before
    assert "12 of 40 processes" in text
    assert "12 of 20 calls failed" in text
    assert 'class="felt"' in text


async def test_what_is_told_by_few_is_shown_with_the_breaker_and_alarms_nobody(served):
    await forty(served, own=3)
    served.scene.time.now += 0.5
    _, text = await served.get("/")

    assert "read open in 3 of 40 processes" in text
    assert re.search(r'<section class="attention" id="attention" hidden', text)
    assert "1 target, healthy" in text


async def test_a_browser_that_has_the_page_is_sent_what_is_reported_since(served):
    _, page = await served.get("/breakers/main/read")
    mark = re.search(r'data-mark="([^"]+)"', page)[1]
    await forty(served)
    served.scene.time.now += 0.5

    _, news = await served.get(f"/breakers/main/read?since={mark}")

    assert 'id="applications"' in news
    assert "3 of 40 processes have it open, by their own calls." in news
    assert 'id="explanation"' not in news


async def test_what_a_reporter_writes_is_shown_as_text(served):
    nasty = '<img src=x onerror="alert(1)">'
    await post(
        served,
        report(nasty, told(name=nasty, reason=nasty), application=nasty),
    )
    served.scene.time.now += 0.5

    for path in ("/", "/targets/main", "/breakers/main/read"):
        _, text = await served.get(path)
        assert "<img" not in text, path
        assert "&lt;img src=x" in text, path
