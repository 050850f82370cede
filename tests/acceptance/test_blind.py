"""The daemon as a process whose wall clock is set, as operators and NTP do it."""

import re
import time
import urllib.request

import pytest

from support.servers import one_server
from support.wall import wall_at

PROBES = ("ping", "login", "commit", "identity")  # of the sentinel, and of two rounds
CONFIG = """
version: 1
targets:
  - name: main
    dsn: {dsn}
    probes: {{login: {{interval: 1s}}, commit: {{interval: 1s}}, identity: {{interval: 1s}}}}
"""


@pytest.fixture
def wall(tmp_path):
    return wall_at(tmp_path / "wall")


def scraped(url: str) -> tuple[dict[str, float], str]:
    """Probe -> how often it was asked; and all that was said."""
    with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
        text = answer.read().decode()
    runs: dict[str, float] = {}
    sample = r'^pgbreaker_probes_total\{.*probe="([\w.]+)",outcome="\w+"\} (.+)$'
    for probe, count in re.findall(sample, text, re.MULTILINE):
        runs[probe] = runs.get(probe, 0.0) + float(count)
    return runs, text


def watch(url: str, seconds: float) -> tuple[dict[str, float], float]:
    """Scrape all the time. Returns the longest time without news of each probe, and
    the longest that a scrape took."""
    began = time.monotonic()
    last, longest = scraped(url)[0], dict.fromkeys(PROBES, 0.0)
    since = dict.fromkeys(PROBES, began)
    slowest = 0.0
    while (now := time.monotonic()) < began + seconds:
        runs, _ = scraped(url)
        slowest = max(slowest, time.monotonic() - now)
        for probe in PROBES:
            longest[probe] = max(longest[probe], now - since[probe])
            if runs[probe] > last[probe]:
                since[probe] = now
        last = runs
        time.sleep(0.05)
    return longest, slowest


@one_server
@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_jumps_an_hour_leaves_no_gap(
    daemon, server, wall, step, tmp_path
):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG.format(dsn=server.dsn(user="pgbreaker")), "utf-8")
    running = daemon("--config", str(path), **wall.env)
    running.until(lambda s: s["targets"][0]["state"] == "up")
    running.until(lambda _: min(scraped(running.url)[0][p] for p in PROBES) >= 2)

    wall.step(step)
    longest, slowest = watch(running.url, 6.0)

    # It is at most a look at the clocks and an interval; the rest is a slow machine.
    assert max(longest.values()) < 1.0 + 1.0 + 1.0, longest
    assert slowest < 3.0  # the loop is not frozen
    assert "pgbreaker_clock_steps_total 1\n" in scraped(running.url)[1]
    line = running.read_until("the wall clock jumped by")
    assert line["message"] == f"the wall clock jumped by {step:.1f} s"
    assert running.stop()[0] == 0
