"""Every address, on a server that really listens."""

import asyncio
import re
import socket
import struct

import pytest

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Override, State
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.hub import Notice
from pgbreaker.web.server import serve
from support.boards import FULL
from support.site import serving


@pytest.fixture
async def served():
    async with serving() as served:
        yield served


async def test_the_runbook_of_an_alert_is_text_that_a_browser_shows(served):
    answer, body = await served.get("/runbooks/PgbreakerTargetDown.md")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "## Mitigation" in body


async def test_a_page_leads_to_every_runbook(served):
    answer, body = await served.get("/runbooks/")

    names = re.findall(r'<a href="(\w+\.md)">', body)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "PgbreakerTargetDown.md" in names
    for name in names:
        assert (await served.get(f"/runbooks/{name}"))[0].status == 200


@pytest.mark.parametrize("name", ["Nothing.md", "..%2fslack.tmpl", "slack.tmpl"])
async def test_nothing_else_that_is_shipped_is_a_runbook(served, name):
    answer, body = await served.get(f"/runbooks/{name}")

    assert answer.status == 404
    assert "no runbook is called" in body["detail"]


async def test_a_breaker_is_what_other_programs_expect(served):
    served.scene.open("connect")
    served.scene.time.now += 0.5

    answer, body = await served.get("/api/v1/breakers/main/connect")

    assert answer.status == 200
    beyond = {"window": body.pop("window"), "totals": body.pop("totals")}
    assert beyond["window"]["failed"] == 1
    assert body == {
        "name": "main/connect",
        "target": "main",
        "operation": "connect",
        "state": "open",
        "computed_state": "open",
        "since": "2027-01-15T08:01:40.000Z",
        "reason": "breaker 'main/connect' is open for 500 ms: 53300 sorry, too many"
        " clients already; next trial in 500 ms",
        "cause": {
            "code": "confirmed",
            "sqlstate": "53300",
            "probe": "login",
            "finding": "full",
        },
        "retry_after_seconds": 0.5,
        "override": None,
        "version": {"epoch": "e1", "seq": 4},
        "applications": None,
        "fleet": None,
    }


async def test_status_has_everything(served):
    served.scene.read()

    _, body = await served.get("/api/v1/status")

    (target,) = body["targets"]
    assert (target["name"], target["state"], target["up"]) == ("main", "up", True)
    assert [b["operation"] for b in target["breakers"]] == ["connect", "read", "write"]
    ping, login = target["probes"]
    assert (ping["last"]["outcome"], login["last"]) == ("ok", None)


async def test_lists_and_single_things_agree(served):
    _, targets = await served.get("/api/v1/targets")
    _, target = await served.get("/api/v1/targets/main")
    _, breakers = await served.get("/api/v1/breakers")

    assert targets == [target]
    assert breakers == target["breakers"]


async def test_a_load_balancer_is_told_in_status_codes(served):
    good, text = await served.get("/health/main/connect")
    served.scene.open("connect")
    bad, body = await served.get("/health/main/connect")
    other, _ = await served.get("/health/main/read")

    assert (good.status, text) == (200, "closed\n")
    assert bad.status == 503
    assert bad.headers["Retry-After"] == "1"
    assert bad.content_type == "application/problem+json"
    assert "too many clients" in body["detail"]
    assert other.status == 200


async def test_an_operators_word_goes_before_the_machines(served):
    breaker = served.scene.board.targets["main"].breakers["read"]
    breaker.force(Override(State.FORCED_OPEN, "failover", "ana", 700.0), 100.0)

    answer, _ = await served.get("/health/main/read")
    _, body = await served.get("/api/v1/breakers/main/read")

    assert answer.status == 503
    assert answer.headers["Retry-After"] == "600"
    assert (body["state"], body["computed_state"]) == ("forced_open", "closed")
    assert body["override"]["author"] == "ana"


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/health/nope/read", "no target is called 'nope'; there are main"),
        (
            "/health/main/nope",
            "no operation is called 'nope'; there are connect, read, write",
        ),
        ("/api/v1/targets/nope", "no target is called 'nope'; there are main"),
        ("/nowhere", "not found"),
    ],
)
async def test_a_name_that_is_not_there_is_a_problem_that_says_what_is(
    served, path, detail
):
    answer, body = await served.get(path)

    assert answer.status == 404
    assert answer.content_type == "application/problem+json"
    assert body["detail"] == detail


async def test_writing_is_not_offered(served):
    async with served.client.post("/api/v1/status") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"
        assert (await answer.json())["status"] == 405


async def test_the_daemons_own_health_is_not_its_targets(served):
    served.scene.read("ping", Finding.REFUSED, confirmed=True)
    well, _ = await served.get("/-/healthy")
    served.health = "the sentinel of main has been silent for 75.0 s"
    ill, body = await served.get("/-/healthy")
    served.ready = "no probe of main has come back yet"
    waiting, _ = await served.get("/-/ready")

    assert (well.status, ill.status, waiting.status) == (200, 503, 503)
    assert body["detail"] == "the sentinel of main has been silent for 75.0 s"


async def test_metrics_are_negotiated(served):
    answer, text = await served.get("/metrics", headers={"Accept-Encoding": "identity"})
    zipped, _ = await served.get("/metrics", headers={"Accept-Encoding": "gzip"})
    om, _ = await served.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["Server"] == "pgbreaker"
    assert answer.headers["Cache-Control"] == "no-store"
    assert 'pgbreaker_target_up{target="main"} 0' in text
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert om.headers["Content-Type"].startswith("application/openmetrics-text")


async def test_metrics_are_sent_while_they_are_written():
    async with serving(*(f"t{n}" for n in range(100))) as served:
        async with served.client.get("/metrics") as answer:
            parts = [len(part) async for part in answer.content.iter_any()]
        async with served.client.head("/metrics") as head:
            nothing = await head.read()

    assert "Content-Length" not in answer.headers
    assert len(parts) > 1
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Type"] == answer.headers["Content-Type"]


async def test_an_old_client_gets_metrics_to_the_end_of_the_connection(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")

    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.0 200 ")
    assert b"chunked" not in answer
    assert b'\npgbreaker_target_up{target="main"} 0\n' in answer


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_scraper_that_goes_away_meanwhile_is_not_news(encoding, caplog):
    ask = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n"
    linger = struct.pack("ii", 1, 0)  # so that closing resets the connection
    async with serving(*(f"t{n}" for n in range(500))) as served:
        for _ in range(3):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, ("127.0.0.1", served.port))
                await loop.sock_sendall(client, ask.encode())
                assert await loop.sock_recv(client, 10)
        well, _ = await served.get("/-/healthy")

    assert served.metrics.series == 0  # none was written to its end
    assert well.status == 200
    assert caplog.records == []


async def test_the_page_says_it_in_words_and_escapes_what_servers_say(served):
    evidence = FULL.__class__("full", "<script>alert(1)</script>", "53300", "login")
    breaker = served.scene.board.targets["main"].breakers["connect"]
    served.scene.read()
    from pgbreaker.core.states import Outcome

    for move in breaker.observe(
        Outcome.FAILURE, served.scene.time.now, confirmed=True, evidence=evidence
    ):
        served.scene.hub.publish(move)

    answer, text = await served.get("/")

    assert answer.status == 200
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert ">open</span>" in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_reading_changes_nothing(served):
    served.scene.open("read")
    breaker = served.scene.board.targets["main"].breakers["read"]
    served.scene.time.now += 3600  # long due for a trial
    before = breaker.snapshot(served.scene.time.now)

    for path in ("/", "/metrics", "/api/v1/status", "/health/main/read"):
        for _ in range(5):
            await served.get(path)

    assert breaker.snapshot(served.scene.time.now) == before


async def test_no_secret_is_anywhere(served):
    served.scene.open()
    served.scene.hub.publish(Notice("main", "restarted", "restarted", 100.0))

    for path in ("/", "/metrics", "/api/v1/status", "/api/v1/targets/main"):
        _, body = await served.get(path)
        assert "hunter2" not in str(body)


RUBBISH = [
    b"\x00\xff\x16\x03\x01 TLS to a plain port\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW /coffee HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("raw", RUBBISH, ids=range(len(RUBBISH)))
async def test_rubbish_is_refused_and_the_next_request_is_answered(served, raw, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(raw)
    writer.write_eof()

    first = await asyncio.wait_for(reader.read(64), 5)
    writer.close()

    assert first.startswith(b"HTTP/1.") or first == b""
    assert b" 500 " not in first
    assert (await served.get("/-/healthy"))[0].status == 200
    assert "Traceback" not in caplog.text


async def test_a_port_that_is_taken_is_one_clear_line():
    async with serving() as first:
        with pytest.raises(PgbreakerError) as caught:
            async with serve(HttpPlan(listen=("127.0.0.1", first.port)), first.inside):
                pass

    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{first.port}: address already in use"
        " (http.listen, or --listen, say where)"
    )
