"""Wheel and sdist. Whoever builds the same tree, anywhere and at any time, gets the same
bytes: dates are fixed, modes too, and files are in order."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata

from pgbreaker.shipped import KINDS, shipped
from release.tree import ROOT, ReleaseError, version


@dataclass(frozen=True, slots=True)
class Built:
    """What was built of one tree."""

    wheel: Path
    sdist: Path

    def __iter__(self) -> Iterator[Path]:
        return iter((self.wheel, self.sdist))


def build(tree: Path, into: Path) -> Built:
    """Build wheel and sdist of *tree*.

    Raises:
        ReleaseError: They cannot be built.
    """
    # A date of the builder's own would be one more thing to know for the same bytes.
    env = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(into.absolute())],
        cwd=tree,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ReleaseError(f"{tree} cannot be built:\n{done.stderr}")
    name = f"pgbreaker-{version(tree)}"
    return Built(into / f"{name}-py3-none-any.whl", into / f"{name}.tar.gz")


def unpack(sdist: Path, into: Path) -> Path:
    """Unpack *sdist*, as whoever packages it would; gives the tree."""
    with tarfile.open(sdist) as tar:
        tar.extractall(into, filter="data")
    return into / sdist.name.removesuffix(".tar.gz")


def astray(built: Built, tree: Path) -> list[str]:
    """What is in the packages and should not be, and what is missing; a line each."""
    return [
        *_differences("the wheel", _in_wheel(built.wheel), _for_wheel(tree)),
        *_differences("the sdist", _in_sdist(built.sdist), _for_sdist(tree)),
    ]


def _differences(where: str, there: set[str], wanted: set[str]) -> list[str]:
    return [
        *(f"{path} is in {where} for nothing" for path in sorted(there - wanted)),
        *(f"{path} is not in {where}" for path in sorted(wanted - there)),
    ]


def _in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _for_wheel(tree: Path) -> set[str]:
    """The package, what `pgbreaker export` hands out, and what installers read."""
    about = f"pgbreaker-{version(tree)}.dist-info"
    installers = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    return {
        *(f"pgbreaker/{path}" for path in _files(tree / "daemon/pgbreaker")),
        *(f"pgbreaker/share/{k}/{path}" for k in KINDS for path, _ in shipped(k)),
        *(f"{about}/{name}" for name in installers),
    }


def _in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as tar:
        names = (PurePosixPath(member.name) for member in tar if member.isfile())
        return {str(PurePosixPath(*name.parts[1:])) for name in names}


def _for_sdist(tree: Path) -> set[str]:
    """All of the tree: whoever packages it runs its tests."""
    return {*_files(tree), "PKG-INFO"}


def _files(folder: Path) -> Iterable[str]:
    return (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def metadata(wheel: Path) -> Metadata:
    """What *wheel* says of itself.

    Raises:
        ReleaseError: It is not fit for an index.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        said = archive.read(name)
    try:
        return Metadata.from_email(said, validate=True)
    except ExceptionGroup as wrong:
        lines = "\n".join(str(one) for one in wrong.exceptions)
        raise ReleaseError(f"no index takes these metadata:\n{lines}") from None


def pretty(path: Path) -> str:
    """A path as people type it from the top of the tree."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
