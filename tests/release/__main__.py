"""`make release`, `audit`, `sbom`, `lock`; and, for a new version, `fixtures`."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from release.audit import Audit, audit
from release.bom import write_bom
from release.building import Built, astray, build, metadata, pretty, unpack
from release.fixtures import write_fixtures
from release.installing import PYTHONS, Clean, find_python, missing_python, try_out
from release.lock import check_lock, lock
from release.publishing import publish, refusal
from release.ready import is_tagged, obstacles
from release.sums import sign, write_sums
from release.tree import ROOT, ReleaseError, run, snapshot, version
from support.servers import running_server

DIST = ROOT / "dist"
OFFLINE = os.environ.get("AUDIT") == "offline"
KEY = os.environ.get("SIGNING_KEY")


class Release:
    """One release, or a try at it.

    Attributes:
        failed: What stands in the way, a line each.
    """

    def __init__(self, home: Path) -> None:
        self.failed: list[str] = []
        self.version = version()
        self._home = home
        self._tree = snapshot(home / "tree")

    def step(self, name: str, do: Callable[[], str]) -> None:
        """Do one part, and say what came of it."""
        begun = time.monotonic()
        print(f"{name:<10} ", end="", flush=True)
        try:
            said = do()
        except ReleaseError as error:
            said = f"FAILED: {error}"
            self.failed.append(f"{name}: {str(error).splitlines()[0]}")
        print(
            f"{said}  ({time.monotonic() - begun:.0f} s)".replace("\n", "\n" + " " * 11)
        )

    def build(self) -> Built:
        """Build in two places, and from the sdist; all have to give the same bytes.

        Raises:
            ReleaseError: They differ, or something is in them that should not be.
        """
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("*"):
            old.unlink()
        built = build(self._tree, DIST)
        elsewhere = snapshot(self._home / "a" / "longer path" / "tree", self._tree)
        again = build(elsewhere, self._home / "again")
        packaged = build(unpack(built.sdist, self._home), self._home / "packaged")
        for other in (again, packaged):
            for ours, theirs in zip(built, other, strict=True):
                if ours.read_bytes() != theirs.read_bytes():
                    raise ReleaseError(f"{ours.name} is another when it is built again")
        found = astray(built, self._tree)
        if found:
            raise ReleaseError("\n".join(found))
        metadata(built.wheel)
        run(sys.executable, "-m", "twine", "check", "--strict", *built)
        return built

    def try_out(self, package: Path) -> str:
        """Install *package* for each Python, and try it."""
        lines = []
        with running_server(17) as server:
            dsn = server.dsn(user="pgbreaker", database="app")
            for wanted in PYTHONS:
                interpreter = find_python(wanted)
                if interpreter is None:
                    raise ReleaseError(missing_python(wanted))
                home = self._home / f"{package.suffix}-{wanted}"
                lines += try_out(home, interpreter, package, dsn)
        return "\n".join(lines)

    def bom(self, wheel: Path) -> str:
        """Write the bill of materials, twice."""
        into = DIST / f"pgbreaker-{self.version}.cdx.json"
        again = self._home / into.name
        for number, file in enumerate((into, again)):
            python = _with_daemon(self._home / f"bom-{number}", wheel)
            count = write_bom(wheel, python, file)
        if into.read_bytes() != again.read_bytes():
            raise ReleaseError(f"{into.name} is another when it is made again")
        return f"{into.name}: pgbreaker and {count} packages"

    def audit(self) -> str:
        """Ask for known weaknesses, unless we were told that nobody can be asked."""
        into = DIST / f"pgbreaker-{self.version}.audit.json"
        if OFFLINE:
            return "not done (AUDIT=offline): nothing is known of weaknesses"
        return str(_passed(audit(into)))

    def sums(self) -> str:
        """Write checksums, and sign them where there is a key."""
        files = [path for path in DIST.iterdir() if not path.name.startswith("SHA")]
        sums = write_sums(files, DIST)
        if not KEY:
            return f"{sums.name} of {len(files)} files, not signed: SIGNING_KEY names no key"
        return (
            f"{sums.name} of {len(files)} files, signed: {sign(sums, Path(KEY)).name}"
        )

    def tell(self) -> None:
        """Say what would be published, and where."""
        print(f"\npgbreaker {self.version}, in {pretty(DIST)}/:")
        for path in sorted(DIST.iterdir()):
            print(f"  {path.stat().st_size:>9,} {path.name}")
        minor = self.version.rpartition(".")[0]
        print("to be published:")
        print("  wheel and sdist  with twine, to the index that it is configured for")
        print(f"  image            pgbreaker:{self.version}, pgbreaker:{minor}")
        tagged = "" if is_tagged() else f", to be made: git tag -s v{self.version}"
        print(f"  tag              v{self.version}{tagged}")
        print(
            "  all of dist/     beside the notes of the release, which are CHANGELOG.md's"
        )


def _with_daemon(home: Path, wheel: Path) -> Path:
    """Make a clean environment with the daemon in it; gives its Python."""
    clean = Clean(home, Path(sys.executable))
    clean.install_daemon(wheel)
    return clean.python


def _passed(found: Audit) -> Audit:
    if not found.passed:
        raise ReleaseError(str(found))
    return found


def release() -> int:
    """All of it; publishes nothing unless PUBLISH=yes says so."""
    with tempfile.TemporaryDirectory(prefix="pgbreaker-release-") as temporary:
        this = Release(Path(temporary))
        found = obstacles()
        print(f"pgbreaker {this.version}: " + ("\n  ".join(("", *found)) or "ready"))
        this.failed += found
        this.step("lock", lambda: check_lock() or "is what pyproject.toml asks for")
        built: list[Path] = []
        this.step("build", lambda: _named(built, this.build()))
        if built:
            wheel, sdist = built
            this.step("sbom", lambda: this.bom(wheel))
            this.step("audit", this.audit)
            this.step("wheel", lambda: this.try_out(wheel))
            this.step("sdist", lambda: this.try_out(sdist))
            this.step("sums", this.sums)
            this.tell()
    return _end(this.failed, built)


def _named(into: list[Path], built: Built) -> str:
    into += built
    return f"{built.wheel.name}, {built.sdist.name}: the same bytes each time"


def _end(failed: list[str], built: list[Path]) -> int:
    why = refusal(failed, os.environ, Path.home(), tagged=is_tagged())
    if why is None:
        return publish(built)
    print(f"\n{why}")
    return 1 if failed or os.environ.get("PUBLISH") == "yes" else 0


def just_audit() -> int:
    """`make audit`."""
    with tempfile.TemporaryDirectory() as temporary:
        found = audit(Path(temporary) / "audit.json")
    print(f"audit: {found}")
    return 0 if found.passed else 1


def just_bom() -> int:
    """`make sbom`."""
    with tempfile.TemporaryDirectory(prefix="pgbreaker-sbom-") as temporary:
        home = Path(temporary)
        built = build(snapshot(home / "tree"), home / "dist")
        DIST.mkdir(exist_ok=True)
        into = DIST / f"pgbreaker-{version()}.cdx.json"
        python = _with_daemon(home / "venv", built.wheel)
        count = write_bom(built.wheel, python, into)
    print(f"{pretty(into)}: pgbreaker and {count} packages")
    return 0


def just_lock() -> int:
    """`make lock`."""
    lock()
    return 0


COMMANDS: dict[str, Callable[[], int]] = {
    "all": release,
    "audit": just_audit,
    "fixtures": write_fixtures,
    "lock": just_lock,
    "sbom": just_bom,
}


def main() -> int:
    """Do what the one argument says."""
    (command,) = sys.argv[1:]
    try:
        return COMMANDS[command]()
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
