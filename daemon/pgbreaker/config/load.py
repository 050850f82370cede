"""From a file to what the daemon runs by; all that is wrong is said at once."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import ValidationError

from pgbreaker.config import shape
from pgbreaker.config.document import Budget, Document, read
from pgbreaker.config.document import Path as Where
from pgbreaker.config.dsn import wrong_with
from pgbreaker.config.files import (
    MOST_FILES,
    CannotReadError,
    beside,
    content,
    credential,
    included,
    names_included,
)
from pgbreaker.config.lists import MOST_TARGETS, check_lists
from pgbreaker.config.peers import peers_of
from pgbreaker.config.target import CROWD, FAST, POOL, USUAL, Around, Draft
from pgbreaker.config.wording import shaped
from pgbreaker.config.words import read_address
from pgbreaker.core.plan import (
    AdvicePlan,
    AlertmanagerPlan,
    Config,
    HaproxyPlan,
    HttpPlan,
    LogPlan,
    OtlpPlan,
    RecordPlan,
    StorePlan,
    TargetPlan,
)
from pgbreaker.core.secret import Secret
from pgbreaker.errors import ConfigError

__all__ = [
    "CROWD",
    "FAST",
    "POOL",
    "USUAL",
    "for_alertmanager",
    "for_dsn",
    "listening",
    "load",
    "name_of",
    "parse",
]

_NO_SHAPE: Final = shape.FileShape(version=1)
# The key and all that is indented below it.
_HTTP: Final = re.compile(rb"^http:.*?(?=^[^\s#]|\Z)", re.DOTALL | re.MULTILINE)
_SOMEBODY: Final = (
    b"version: 1\ntargets: [{name: somebody, dsn: 'postgresql://localhost/'}]\n"
)

_Fits: TypeAlias = Callable[[int], bool]
_Read: TypeAlias = tuple[Document, tuple[shape.TargetShape, ...]]


def load(
    path: Path, *, listen: str | None = None, env: Mapping[str, str] = os.environ
) -> Config:
    """Read the configuration in *path*, and in the files that it includes.

    Args:
        listen: ``host:port`` that goes before the file's.

    Raises:
        ConfigError: Something is wrong with it; all of it is in there.
    """
    try:
        raw = content(path)
    except CannotReadError as error:
        raise ConfigError((f"{path}: cannot be read: {error}",)) from None
    return _listening(parse(raw, str(path), env=env), listen)


def listening(path: Path, *, env: Mapping[str, str] = os.environ) -> HttpPlan:
    """Read where the daemon of the configuration in *path* listens, whatever else is
    wrong with it: a daemon goes on by what it read before its file was spoilt, and that
    is when people ask it.

    Raises:
        ConfigError: That cannot be told; all that is wrong with the file is in there.
    """
    try:
        return load(path, env=env).http
    except ConfigError as error:
        with suppress(CannotReadError, ConfigError):
            alone = _HTTP.search(content(path))
            if alone is not None:
                return parse(_SOMEBODY + alone[0], str(path), env=env).http
        raise error from None


def for_dsn(
    dsn: str,
    *,
    name: str | None = None,
    listen: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Config:
    """Make the configuration of a daemon that watches this one server.

    Args:
        name: What to call it. None: as its host is called.
        listen: ``host:port`` to serve on. None: the default.

    Raises:
        ConfigError: The DSN, or the address, is none.
    """
    wrong = wrong_with(dsn)
    if wrong is not None:
        raise ConfigError((f"--dsn: {wrong}",))
    known = name or name_of(dsn)
    plan = TargetPlan(
        name=known,
        dsn=Secret(dsn),
        password_file=credential(known, dsn, env),
        probes=USUAL,
    )
    return _listening(Config(targets=(plan,)), listen)


def name_of(dsn: str) -> str:
    """What to call the server that *dsn* leads to: as its host is called."""
    host = urlsplit(dsn).hostname or "local"
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in host
    )[:63]


def for_alertmanager(url: str) -> AlertmanagerPlan:
    """Make the plan of pushing alerts to this one Alertmanager.

    Raises:
        ConfigError: The address is none.
    """
    try:
        return AlertmanagerPlan(
            **shape.AlertmanagerShape.model_validate({"urls": [url]}).model_dump()
        )
    except ValidationError as error:
        (details,) = error.errors(include_input=False, include_url=False)
        raise ConfigError((f"--url: {details['ctx']['error']}",)) from None


def _listening(config: Config, listen: str | None) -> Config:
    if listen is None:
        return config
    try:
        address = read_address(listen)
        return replace(config, http=replace(config.http, listen=address))
    except ValueError as error:
        raise ConfigError((f"--listen: {error}",)) from None


def parse(raw: bytes, name: str, *, env: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration.

    Args:
        name: The file that its problems are said to be in; relative paths begin where
            it is.

    Raises:
        ConfigError: Something is wrong with it; all of it is in there.
    """
    reading = _Files(raw, name, env)
    config = reading.config()
    problems = [line for document in reading.documents for line in document.lines()]
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return config


@dataclass(slots=True)
class _Files:
    """The main file and those that it includes, on their way to a configuration.

    Attributes:
        documents: All of them, the main one first.
    """

    documents: list[Document]
    _env: Mapping[str, str]
    _budget: Budget
    _folder: Path

    def __init__(self, raw: bytes, name: str, env: Mapping[str, str]) -> None:
        self._env, self._budget = env, Budget()
        self._folder = Path(name).parent
        self.documents = [read(raw, env, name=name, budget=self._budget)]

    def config(self) -> Config:
        """What they come to; of no use where one of them has problems."""
        main = self.documents[0]
        file = self._shape_of(main)
        read_ = [(main, file.targets), *self._included()]
        count = sum(len(targets) for _, targets in read_)
        if not count and not any(document.problems for document in self.documents):
            main.complain((), "targets is missing; there is nobody to watch")
        if count > MOST_TARGETS:
            text = f"{count} targets; at most {MOST_TARGETS} are taken"
            main.complain(("targets",), text)
            read_ = []
        _check_names(read_)
        around = Around(main, file.defaults, count, self._folder, self._env)
        plans = [
            Draft(around, document, index, target).plan()
            for document, targets in read_
            for index, target in enumerate(targets)
            if not document.is_full
        ]
        return Config(
            targets=tuple(plans),
            http=self._http(file.http),
            haproxy=None
            if file.haproxy is None
            else HaproxyPlan(listen=file.haproxy.listen),
            advice=self._advice(file.advice),
            peers=None
            if file.peers is None
            else peers_of(file.peers, self.documents[0], self._folder),
            store=self._store(file.store),
            record=self._record(file.record, file.store),
            log=LogPlan(format=file.log.format, level=file.log.level),
            otlp=None
            if file.otlp is None
            else OtlpPlan(endpoint=file.otlp.endpoint, sample=file.otlp.sample),
            alertmanager=None
            if file.alertmanager is None
            else AlertmanagerPlan(**file.alertmanager.model_dump()),
        )

    def _shape_of(self, main: Document) -> shape.FileShape:
        if main.problems and not main.data:
            return _NO_SHAPE  # for want of a document
        check_lists(main)
        return shaped(main, shape.FileShape) or _NO_SHAPE

    def _included(self) -> Iterator[_Read]:
        main = self.documents[0]
        seen = {self._folder / Path(main.name).name}  # which a pattern may be of, too
        for index, name in names_included(main):
            if main.is_spoilt(("include", index)):
                continue
            paths = included(self._folder, name)
            if paths is None:
                main.complain(("include", index), "there is no such file")
            for path in paths or ():
                if path in seen:
                    continue
                seen.add(path)
                if len(seen) > MOST_FILES + 1:
                    text = f"more than {MOST_FILES} files"
                    main.complain(("include", index), text)
                    return
                yield self._read(path)

    def _read(self, path: Path) -> _Read:
        try:
            raw = content(path, max(0, self._budget.size))
        except CannotReadError as error:
            document = Document(str(path))
            document.complain((), f"cannot be read: {error}")
        else:
            document = read(raw, self._env, name=str(path), budget=self._budget)
        self.documents.append(document)
        if document.problems and not document.data:
            return document, ()
        check_lists(document)
        found = shaped(document, shape.IncludedShape)
        return document, () if found is None else found.targets

    # -- What stands beside the targets ------------------------------------------------

    def _http(self, http: shape.HttpShape) -> HttpPlan:
        web_config = http.web_config and beside(self._folder, http.web_config)
        if web_config is not None:
            self._check_there(("http", "web_config"), web_config)
        where = ("http", "socket")
        return HttpPlan(
            listen=http.listen,
            socket=http.socket
            and self._place(where, http.socket, stat.S_ISSOCK, "socket"),
            web_config=web_config,
            allowed_hosts=http.allowed_hosts,
        )

    def _advice(self, advice: shape.AdviceShape) -> AdvicePlan:
        file = advice.file and self._place(
            ("advice", "file"), advice.file, stat.S_ISREG, "file"
        )
        return AdvicePlan(followers=advice.followers, file=file)

    def _store(self, store: shape.StoreShape | None) -> StorePlan | None:
        if store is None:
            return None
        path = self._place(("store", "path"), store.path, stat.S_ISREG, "file")
        return StorePlan(path=path, max_size=store.max_size)

    def _record(
        self, record: shape.RecordShape | None, store: shape.StoreShape | None
    ) -> RecordPlan | None:
        if record is None:
            return None
        main, where = self.documents[0], ("record", "path")
        path = self._place(where, record.path, stat.S_ISREG, "file")
        if (
            store is not None
            and path == beside(self._folder, store.path)
            and not main.is_spoilt(where)
            and not main.is_spoilt(("store", "path"))
        ):
            main.complain(where, "the store is there already; it needs its own")
        return RecordPlan(path=path, max_size=record.max_size)

    def _place(self, where: Where, path: Path, fits: _Fits, kind: str) -> Path:
        """Where a file will be, of the kind that *fits*; what can never be is told."""
        main, place = self.documents[0], beside(self._folder, path)
        if not main.is_spoilt(where):
            wrong = _wrong_with_place(place, fits, kind)
            if wrong is not None:
                main.complain(where, wrong)
        return place

    def _check_there(self, where: Where, path: Path) -> None:
        main = self.documents[0]
        if main.is_spoilt(where):
            return
        try:
            content(path, 0)
        except CannotReadError as error:
            main.complain(where, f"{str(path)!r} cannot be read: {error}")


def _check_names(read_: list[_Read]) -> None:
    first: dict[str, tuple[Document, int]] = {}
    for document, targets in read_:
        for index, target in enumerate(targets):
            where: Where = ("targets", index, "name")
            if document.is_spoilt(where) or where not in document.places:
                continue
            line = document.places[where][0]
            if target.name in first:
                there, at = first[target.name]
                place = (
                    f"in line {at}" if there is document else f"in {there.name}:{at}"
                )
                text = f"another target is called {target.name!r}, {place}"
                document.complain(where, text)
            first.setdefault(target.name, (document, line))


def _wrong_with_place(path: Path, fits: _Fits, kind: str) -> str | None:
    """Say why there cannot be a *kind* at *path*, None when there can.

    Only what is certain: who will run there may do other things than who asks here.
    """
    try:
        if not fits(path.stat().st_mode):
            return f"{str(path)!r} is there already, and is no {kind}"
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"{str(path)!r}: {(error.strerror or str(error)).lower()}"
    if not path.parent.is_dir():
        return f"there is no directory {str(path.parent)!r}"
    return None
