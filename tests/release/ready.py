"""What stands in the way of a release, as the tree and its history tell."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from release.fixtures import FIXTURES
from release.tree import ROOT, version

_NAMING = (
    "docker-compose.yml",
    "config/**/*.yaml",
    "config/**/*.yml",
    "daemon/Dockerfile",
)
_NAMED = re.compile(
    r"""\bpgbreaker:(\d+\.\d[\w.-]*)            # an image
      | ^ARG[ ]VERSION=(\S+)                   # what an image says of itself
      | (?:appVersion|newTag|app\.kubernetes\.io/version):[ ]*["']?(\d[\w.-]*)""",
    re.MULTILINE | re.VERBOSE,
)


def obstacles(root: Path = ROOT) -> list[str]:
    """What has to be done before the version of the tree can be published, a line each."""
    return [*_of_version(root), *_of_history(root)]


def _of_version(root: Path) -> Iterator[str]:
    wanted = version(root)
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## \[?{re.escape(wanted)}\b", changes, re.MULTILINE):
        yield f"CHANGELOG.md has no heading for {wanted} (## {wanted} - date)"
    for place, named in named_versions(root):
        if named != wanted:
            yield f"{place} names version {named}, and this is {wanted}"
    if not (root / FIXTURES / wanted).is_dir():
        yield (
            f"{FIXTURES}/{wanted} is not there, for later versions to be tried with:"
            " PYTHONPATH=tests .venv/bin/python -m release fixtures"
        )


def named_versions(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Place -> version, wherever our image or application is named with one."""
    for pattern in _NAMING:
        for path in sorted(root.glob(pattern)):
            for found in _NAMED.finditer(path.read_text("utf-8")):
                yield str(path.relative_to(root)), found[found.lastindex or 0]


def _of_history(root: Path) -> Iterator[str]:
    if not (root / ".git").exists():
        yield "this is no clone of the repository: there is no history to release"
        return
    dirty = _git(root, "status", "--porcelain").splitlines()
    if dirty:
        yield f"the tree has {len(dirty)} changes that are not committed ({dirty[0]})"
    tag = f"v{version(root)}"
    if not is_tagged(root):
        return
    if _git(root, "rev-list", "-n1", tag) != _git(root, "rev-parse", "HEAD"):
        yield f"tag {tag} is on another commit: this version is released already"


def is_tagged(root: Path = ROOT) -> bool:
    """Whether this version has a tag, wherever that is."""
    is_clone = (root / ".git").exists()
    return is_clone and bool(_git(root, "tag", "--list", f"v{version(root)}"))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", root, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
