"""What is shipped beside the code: alerts with their runbooks, dashboards."""

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from pgbreaker.errors import PgbreakerError


def shipped(kind: str) -> Iterator[tuple[str, str]]:
    """Path below the folder, and text, of each file of *kind*, in order of the paths.

    Raises:
        PgbreakerError: This installation came without them.
    """
    package = files("pgbreaker")
    # In a wheel they are within; in a work tree they stand where everybody looks.
    for home in (package / "share" / kind, package / ".." / ".." / kind):
        if home.is_dir():
            yield from _below(home)
            return
    raise PgbreakerError(f"this installation came without {kind}")


def _below(home: Traversable, path: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(home.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        elif entry.name.endswith((".yml", ".tmpl", ".md", ".json")):
            yield path + entry.name, entry.read_text("utf-8")
