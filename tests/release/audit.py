"""Known weaknesses of the packages that are locked.

pip-audit says "no known vulnerabilities found" also where it found no advisories at
all; here that is a failure.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgbreaker.core.units import counted
from release.tree import LOCK, ReleaseError


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of the packages.

    Attributes:
        clean: Packages of which no weakness is known.
        weak: A line for each weakness that is known.
        unknown: Package -> why nothing is known of it.
    """

    clean: tuple[str, ...]
    weak: tuple[str, ...]
    unknown: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether everything was looked at, and nothing found."""
        return bool(self.clean) and not self.weak and not self.unknown

    def __str__(self) -> str:
        if self.weak:
            return "\n".join(("known weaknesses:", *self.weak))
        if self.unknown:
            count = len(self.unknown)
            whole = counted(count + len(self.clean), "package")
            package, why = next(iter(self.unknown.items()))
            return (
                f"no advisories could be had for {count} of {whole}, so nothing is known"
                f" of them ({package}: {why})"
            )
        return f"{counted(len(self.clean), 'package')}, no known weakness"


def judge(report: Mapping[str, Any]) -> Audit:
    """Read the *report* of pip-audit."""
    clean, weak, unknown = [], [], {}
    for package in report["dependencies"]:
        name = package["name"]
        if "skip_reason" in package:
            unknown[name] = package["skip_reason"]
        elif package["vulns"]:
            weak += [_line(package, weakness) for weakness in package["vulns"]]
        else:
            clean.append(name)
    return Audit(tuple(clean), tuple(weak), unknown)


def _line(package: Mapping[str, Any], weakness: Mapping[str, Any]) -> str:
    mended = ", ".join(weakness["fix_versions"]) or "no version yet"
    names = ", ".join((weakness["id"], *weakness.get("aliases", ())))
    return f"{package['name']} {package['version']}: {names}; mended in {mended}"


def audit(into: Path) -> Audit:
    """Ask for advisories about what is locked; the report is written to *into*.

    Raises:
        ReleaseError: Nobody answers.
    """
    into.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "-r", LOCK, "-f", "json", "-o", into),
            *("--require-hashes", "--disable-pip", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
    )
    # It ends with 1 for a weakness, too.
    if done.returncode not in (0, 1) or not into.exists():
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ReleaseError(f"advisories cannot be asked for: {said[-1]}")
    return judge(json.loads(into.read_text("utf-8")))
