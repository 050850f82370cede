"""Giving it away, which happens when it is asked for, and when nothing stands in the way."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONFIGURED = ("TWINE_REPOSITORY_URL", "TWINE_REPOSITORY", "TWINE_USERNAME")


def refusal(
    failed: Sequence[str], env: Mapping[str, str], home: Path, *, tagged: bool
) -> str | None:
    """Why nothing is published; None: it can be.

    Args:
        failed: What stands in the way of this release.
        env: The environment, which says what is wanted.
        home: Of the user, who may have configured twine.
        tagged: Whether the version has its tag.
    """
    if failed:
        return "\n  ".join(("not to be published yet:", *failed))
    if env.get("PUBLISH") != "yes":
        return "nothing was published: PUBLISH=yes does it"
    if not tagged:
        return "nothing was published: the version has no tag"
    if not env.get("SIGNING_KEY"):
        return "nothing was published: what is published is signed (SIGNING_KEY=FILE)"
    if not (home / ".pypirc").exists() and not any(map(env.get, _CONFIGURED)):
        return (
            "nothing was published: no index is configured; twine wants ~/.pypirc, or"
            f" {_CONFIGURED[0]} with TWINE_USERNAME and TWINE_PASSWORD"
        )
    return None


def publish(packages: Sequence[Path]) -> int:
    """Hand *packages* to the index that twine is configured for; gives its status."""
    twine = [sys.executable, "-m", "twine", "upload", "--non-interactive"]
    return subprocess.run([*twine, *packages]).returncode
