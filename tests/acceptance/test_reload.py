"""A running daemon is given another configuration."""

import json
import signal
import urllib.error
import urllib.request

import pytest

from support.manager import managing

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/app"


def reload(running) -> tuple[int, dict]:
    """Ask for it. Returns the status, and what was answered."""
    request = urllib.request.Request(running.url + "/-/reload", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def page(running, path: str = "/") -> str:
    with urllib.request.urlopen(running.url + path, timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture
def watching(daemon, config):
    path = config(("gone", NOWHERE))
    running = daemon("--config", str(path))
    running.until(lambda s: s["targets"][0]["state"] == "down")
    return running, path


def test_a_bad_file_is_refused_and_seen_everywhere_until_a_good_one_comes(watching):
    running, path = watching
    good = path.read_text("utf-8")
    succeeded = "pgbreaker_config_last_reload_successful"

    path.write_text(f"{good}    intervall: 2s\n", "utf-8")
    refused, problem = reload(running)
    line = running.read_until("configuration refused")
    metrics, shown = page(running, "/metrics"), page(running)
    status = running.get("/api/v1/status")
    path.write_text(f"{good}    interval: 2s\n", "utf-8")
    running.until(lambda s: s["reload"]["ok"], within=10.0)  # it is looked for
    mended, mended_page = page(running, "/metrics"), page(running)
    told = running.get("/api/v1/events?kind=reload")["events"]

    place = f"{path}:5:5"
    assert refused == 422
    assert place in problem["errors"][0]["field"]
    assert line["level"] == "ERROR"
    assert f"{place}: " in line["message"]
    assert f"\n{succeeded} 0\n" in metrics
    assert place in status["reload"]["problem"]
    assert 'id="banner-reload"' in shown
    assert f"\n{succeeded} 1\n" in mended
    assert 'id="banner-reload"' not in mended_page
    assert [entry["details"]["ok"] for entry in told] == [False, True]
    assert told[1]["details"]["changes"] == ["targets.gone.interval: 1s -> 2s"]


def test_who_asks_is_told_what_changed(watching):
    running, path = watching
    text = path.read_text("utf-8")
    path.write_text(f"{text}    interval: 2s\nlog: {{level: DEBUG}}\n", "utf-8")

    first = reload(running)
    second = reload(running)

    changes = ["targets.gone.interval: 1s -> 2s", "log.level: INFO -> DEBUG"]
    assert first == (200, {"changes": changes, "later": []})
    assert second == (200, {"changes": [], "later": []})
    assert running.read_until("probe ping of gone")["level"] == "DEBUG"


def test_sighup_reads_it_anew_and_the_service_manager_is_told(daemon, config, tmp_path):
    path = config(("gone", NOWHERE))
    with managing(tmp_path) as manager:
        running = daemon("--config", str(path), NOTIFY_SOCKET=manager.path)
        manager.until("READY=1")
        since = len(manager.heard)
        text = path.read_text("utf-8")
        path.write_text(f"{text}    interval: 2s\n", "utf-8")

        running.process.send_signal(signal.SIGHUP)
        running.read_until("targets.gone.interval: 1s -> 2s")
        manager.until("READY=1", since=since)
        lines = manager.lines(since)
        path.write_text("nothing\n", "utf-8")
        since = len(manager.heard)
        running.process.send_signal(signal.SIGHUP)
        running.read_until("configuration refused")
        manager.until("READY=1", since=since)

    begun = lines.index("RELOADING=1")
    assert lines[begun + 1].startswith("MONOTONIC_USEC=")
    assert lines.index("READY=1") > begun
    assert running.get("/-/healthy") == {"status": "ok"}


def test_a_daemon_that_was_given_no_file_has_nothing_to_read(daemon):
    running = daemon("--dsn", NOWHERE)

    running.process.send_signal(signal.SIGHUP)
    line = running.read_until("given no file")
    status, _ = reload(running)

    assert line["level"] == "WARNING"
    assert status == 409
    assert running.stop()[0] == 0
