"""Which files a configuration is made of, and what is read of them.

The main file names the others: ``include: [conf.d/*.yaml]``. A directory that is read
without being named would be shorter, but PostgreSQL (`include_dir`), PgBouncer, nginx
and Prometheus (`scrape_config_files`, `rule_files`) all have it said in the file; and so
nothing that an editor or a package leaves in a directory becomes a target unseen.
"""

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from pgbreaker.config.document import MAX_BYTES, Document, read
from pgbreaker.config.dsn import has_password

MOST_FILES: Final = 1000
_LONGEST_PASSWORD: Final = 64 * 1024
_WILD: Final = frozenset("*?[")


class CannotReadError(Exception):
    """A file cannot be read; the message says why."""


def content(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a file, up to a byte more than *most*.

    Raises:
        CannotReadError: It is not there, is none, or may not be read.
    """
    try:
        # Opening a pipe would else wait for somebody to write into it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            kind = os.fstat(file.fileno()).st_mode
            if stat.S_ISDIR(kind):
                raise CannotReadError("is a directory")
            return file.read(most + 1) or b""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CannotReadError(reason) from None
    except ValueError:  # a zero byte in the path
        raise CannotReadError("not a path") from None


def beside(folder: Path, path: Path) -> Path:
    """*path*, which begins in *folder* when it is relative."""
    return Path(os.path.normpath(folder / path))


def password_size(path: Path) -> int:
    """How many bytes of password *path* holds, white space apart.

    Raises:
        CannotReadError: It cannot be read, or not a second time.
    """
    found = len(content(path, _LONGEST_PASSWORD).strip())
    if found and not path.is_file():
        raise CannotReadError("is no file; it is read at each connect")
    return found


def credential(name: str, dsn: str, env: Mapping[str, str]) -> Path | None:
    """The file that the service manager put the password of target *name* in.

    None: there is none, or *dsn* says the password itself.
    """
    folder = env.get("CREDENTIALS_DIRECTORY")
    if not folder or has_password(dsn):
        return None
    path = Path(folder) / name
    try:
        return path if path.is_file() else None
    except OSError:
        return path  # whoever reads it says what is wrong


def names_included(document: Document) -> Iterator[tuple[int, str]]:
    """Each text in a document's ``include``, with its place there."""
    named = document.data.get("include")
    if isinstance(named, list):
        for index, name in enumerate(named):
            if isinstance(name, str):
                yield index, name


def included(folder: Path, name: str) -> list[Path] | None:
    """The files that *name* stands for, in the order of their names.

    None: it stands for one, which is not there; of a pattern there may be none.
    """
    place, _, last = name.rpartition("/")
    if not _WILD & set(last):
        path = folder / name
        return [path] if path.is_file() else None
    where = folder / place if place or not name.startswith("/") else Path("/")
    try:
        with os.scandir(where) as entries:
            # What begins with a dot is an editor's, or a half that Kubernetes swaps.
            found = sorted(
                entry.name
                for entry in entries
                if fnmatch.fnmatchcase(entry.name, last)
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError:
        return []
    return [where / one for one in found]


def sources(path: Path, env: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Every file that the configuration in *path* is made of, itself first.

    Files with passwords are none of them. Of a file that cannot be read, or is not
    YAML, nothing more is known than that it is one.
    """
    try:
        raw = content(path)
    except CannotReadError:
        return (path,)
    named = _named(raw, tuple(sorted(env.items())) if b"${" in raw else ())
    others = [one for name in named for one in included(path.parent, name) or []]
    return tuple(dict.fromkeys((path, *others[:MOST_FILES])))


@lru_cache(maxsize=2)
def _named(raw: bytes, env: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """What a file includes; kept, for it is asked again every few seconds."""
    return tuple(name for _, name in names_included(read(raw, dict(env))))


def fingerprint(path: Path, env: Mapping[str, str] = os.environ) -> str:
    """What tells this state of the configuration from every other.

    Of names and contents, not of times: a ConfigMap swaps links, and an editor writes
    what was there before. Never raises; that a file is gone is a state, too.
    """
    digest = hashlib.sha256()
    for part in _parts(sources(path, env)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _parts(paths: tuple[Path, ...]) -> Iterator[bytes]:
    for path in paths:
        yield os.fsencode(path)
        try:
            yield content(path)
        except CannotReadError as error:
            yield f"cannot be read: {error}".encode()
