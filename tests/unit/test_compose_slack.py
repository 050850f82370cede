"""The page that shows what Slack would: it takes what Slack takes, and nothing breaks out."""

import importlib.util
import json
import re
import sys
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "config/compose/slack.py"
ALERT = {
    "channel": "#db-critical",
    "username": "pgbreaker",
    "attachments": [
        {
            "color": "danger",
            "title": ":red_circle: CRITICAL breaker &lt;primary/read&gt; is open",
            "title_link": "http://grafana.test/d/x?a=1&b=2",
            "text": "*Firing (2)*\n• <http://a.test/?a=1&amp;b=2|one_of_them> _since 2 Jan_",
            "footer": "PgbreakerBreakerOpen · pgbreaker",
            "fields": [{"title": "env", "value": "prod", "short": True}],
            "actions": [
                {"type": "button", "text": "Runbook", "url": "http://r.test/x.md"},
                {"type": "button", "text": "Query", "url": ""},
            ],
        }
    ],
}


def loaded():
    """It as a module; in the stack it is a program."""
    spec = importlib.util.spec_from_file_location("compose_slack", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compose_slack"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


slack = loaded()


@pytest.fixture
def url():
    handler = partial(slack.Handler, slack.Channels())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Ask, and give status and words, whichever they are."""
    kind = {"Content-Type": "application/json"} | headers
    asked = urllib.request.Request(url, data=body, headers=kind)
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def post(url: str, payload: object) -> tuple[int, str]:
    return ask(f"{url}/services/x", json.dumps(payload).encode())


def test_a_message_is_taken_shown_and_told_to_programs(url):
    assert post(url, ALERT) == (200, "ok")

    (held,) = json.loads(ask(f"{url}/messages.json")[1])
    page = ask(url)[1]
    assert held["payload"] == ALERT
    assert "🔴 CRITICAL breaker &lt;primary/read&gt; is open" in page
    assert 'href="http://grafana.test/d/x?a=1&amp;b=2"' in page
    assert "<b>Firing (2)</b><br>" in page
    assert 'href="http://a.test/?a=1&amp;b=2"' in page
    assert ">one_of_them</a>" in page
    assert "<i>since 2 Jan</i>" in page
    assert 'fill="#e01e5a"' in page
    assert ">Runbook</a>" in page
    assert "Query" not in page, "Slack shows no button without an address"
    assert "?channel=db-critical" in page


def test_one_channel_is_shown_alone(url):
    post(url, {"channel": "#one", "text": "first"})
    post(url, {"channel": "#two", "text": "second"})

    page = ask(f"{url}/?channel=two")[1]

    assert "second" in page
    assert "first" not in page


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "invalid_payload"),
        (b"[]", "invalid_payload"),
        (b"\xff", "invalid_payload"),
        (b"[" * 100_000, "invalid_payload"),
        (b'{"text": ""}', "no_text"),
        (b'{"attachments": [{}]}', "no_text"),
        (b'{"attachments": ["x"]}', "invalid_attachments"),
        (json.dumps({"attachments": [{"text": "x"}] * 101}), "too_many_attachments"),
        (json.dumps({"text": "x" * 40_001}), "msg_too_long"),
    ],
)
def test_what_slack_refuses_is_refused_with_its_word(url, body, word):
    body = body if isinstance(body, bytes) else body.encode()

    assert ask(f"{url}/services/x", body) == (400, word)
    assert json.loads(ask(f"{url}/messages.json")[1]) == []


def test_more_than_slack_takes_at_once_is_refused_for_a_second(url):
    answers = [post(url, {"text": "x"}) for _ in range(slack.AT_ONCE + 2)]

    assert answers[-1] == (429, "rate_limited")
    assert answers[: slack.AT_ONCE] == [(200, "ok")] * slack.AT_ONCE


def test_the_last_two_hundred_are_kept():
    channels = slack.Channels()
    for number in range(slack.KEPT + 5):
        channels._room = slack.AT_ONCE
        channels.take(json.dumps({"text": str(number)}).encode(), "application/json")

    kept = channels.all()

    assert len(kept) == slack.KEPT
    assert kept[0].payload["text"] == "5"


EVIL = (
    "<script>alert(1)</script> \"'><img src=x onerror=alert(1)> <javascript:alert(1)|x>"
)


def test_nothing_that_is_posted_becomes_markup_of_its_own(url):
    """In whatever field it is, and whatever it is: text stays text."""
    attachment = dict.fromkeys(
        ("color", "title", "title_link", "text", "pretext", "fallback", "footer"), EVIL
    )
    attachment["fields"] = [{"title": EVIL, "value": EVIL}, 3, None]
    attachment["actions"] = [
        {"type": "button", "text": EVIL, "url": f"http://x/{EVIL}"}
    ]
    post(
        url,
        {"channel": EVIL, "username": EVIL, "text": EVIL, "attachments": [attachment]},
    )

    page = ask(url)[1]

    assert len(re.findall("<script>", page)) == 1, "our own"
    assert "<img" not in page
    assert not re.search(r'href="(?!https?://|/)', page)
    assert not re.search(r"<[^>]*\son\w+=", page)


def test_a_web_site_cannot_have_a_browser_read_the_messages(url):
    """By a name of its own that leads here, it would be of the same origin."""
    assert ask(f"{url}/messages.json", Host="evil.test")[0] == 421
    assert ask(f"{url}/messages.json", Host="localhost:9095")[0] == 200
