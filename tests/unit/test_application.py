"""What an application on Kubernetes does with the daemon's /health: as it is written."""

import asyncio
import sys
from pathlib import Path

import pytest

from pgbreaker.core.states import Override, State
from support.kubernetes import fits, parsed, unrestricted
from support.process import free_port
from support.site import serving

EXAMPLE = Path(__file__).parents[2] / "config/application/kubernetes.yaml"


@pytest.fixture(scope="module")
def manifest():
    (manifest,) = parsed(EXAMPLE.read_text("utf-8"))
    return manifest


@pytest.fixture(scope="module")
def pod(manifest):
    return manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_it_fits_the_schemas_and_the_strictest_standard(manifest, version):
    fits(manifest, version)

    assert unrestricted(manifest["spec"]["template"]) == []


async def ended(command: list[str], url: str, seconds: str = "60") -> int | None:
    """Run a command of the pod's. Returns its status."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *command[1:],
        env={"HEALTH_URL": url, "MOST_SECONDS": seconds},
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20.0):
        return await running.wait()


async def test_a_pod_is_unready_by_the_daemons_no_alone(pod):
    """
    An end of the daemon, or a word mistyped, must not take every pod away at once.
    """
    probe = pod["containers"][0]["readinessProbe"]["exec"]["command"]
    async with serving() as served:
        health = f"http://127.0.0.1:{served.port}/health/main"
        good = await ended(probe, f"{health}/write")
        breaker = served.scene.board.targets["main"].breakers["write"]
        breaker.force(Override(State.FORCED_OPEN, "a test", "ana", 700.0), 100.0)
        bad = await ended(probe, f"{health}/write")
        mistyped = await ended(probe, f"{health}/wriet")
    gone = await ended(probe, f"http://127.0.0.1:{free_port()}/health/main/write")

    assert (good, bad, mistyped, gone) == (0, 1, 0, 0)


async def test_a_pod_waits_for_a_closed_breaker_and_not_for_ever(pod):
    wait = pod["initContainers"][0]["command"]
    async with serving() as served:
        url = f"http://127.0.0.1:{served.port}/health/main/write"
        breaker = served.scene.board.targets["main"].breakers["write"]
        breaker.force(Override(State.FORCED_OPEN, "a test", "ana", 700.0), 100.0)

        assert await ended(wait, url, "1") == 0
        waits = asyncio.create_task(ended(wait, url))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.shield(waits)
        breaker.resume(served.scene.time.now, "handed back")
        assert await waits == 0
