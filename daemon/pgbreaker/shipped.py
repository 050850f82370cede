"""What is shipped beside the code: alerts with their runbooks, dashboards, the unit, the
manifests."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from pgbreaker.errors import PgbreakerError

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "alerts": (".yml", ".tmpl", ".md"),
    "dashboards": (".json",),
    "kubernetes": (".yaml",),
    "role": (".sql",),
    "systemd": (".service",),
}
"""What there is, and by which ends its files are told from what makes them."""


_STAND: Final[Mapping[str, str]] = {
    "kubernetes": "../../config/kubernetes",
    "role": "../../config",
    "systemd": "..",
}
"""Where those of a work tree stand, seen from the package, that do not stand at its
top."""


def shipped(kind: str) -> Iterator[tuple[str, str]]:
    """Path below the folder, and text, of each file of *kind* but its README, in order
    of the paths.

    Raises:
        PgbreakerError: This installation came without them.
    """
    package = files("pgbreaker")
    # In a wheel they are within; in a work tree they stand where everybody looks.
    stand = _STAND.get(kind, f"../../{kind}")
    for home in (package / "share" / kind, package.joinpath(*stand.split("/"))):
        if home.is_dir():
            for path, file in _below(home):
                if path.endswith(KINDS[kind]) and path != "README.md":
                    yield path, file.read_text("utf-8")
            return
    raise PgbreakerError(f"this installation came without {kind}")


def _below(home: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(home.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        else:
            yield path + entry.name, entry
