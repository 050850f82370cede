"""The engine that daemons share: Redis from version 6, or Valkey.

What an operator permits it::

    ACL SETUSER pgbreaker on >PASSWORD resetkeys ~{pgbreaker}:* resetchannels
      &{pgbreaker}:* -@all +client|setname +info +select +ping +subscribe +evalsha +eval
      +time +get +set +pttl +pexpire +hget +hgetall +hset +hdel +hincrby +hscan
      +zadd +zrange +zrangebyscore +zrem +xadd +xrange +xrevrange +publish

in one line; ``{pgbreaker}`` is the prefix, and ``+select`` is for a database other than 0.
It must evict nothing (``maxmemory-policy noeviction``, as it is unless told otherwise).

Every key begins with ``{PREFIX}:``, whose braces keep all in one slot of a cluster:

    fleet           when it was born, its numbers, the engine's clock
    leases          daemon -> token, end, digest of its targets
    seen            daemons, by when they were seen last
    said            the last messages, by their numbers
    views:DAEMON    what it thinks, by what it is about
    words           of operators, by what they are about
    entries         daemon -> the last entry of its history
    targets:DAEMON  those that it can watch

A daemon has three connections at most: one for its lease, so that nothing large keeps
that waiting, one for all else, one for what is published.
"""

import importlib
import json
import re
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from pgbreaker.core.plan import EnginePlan
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.peers import scripts
from pgbreaker.sinks.peers.talk import (
    Beat,
    EngineLostError,
    FencedError,
    Heard,
    Message,
    MissedError,
    Peer,
    Standing,
)

if TYPE_CHECKING:
    from pgbreaker.sinks.peers.line import Line

__all__ = [
    "KEPT",
    "LONGEST",
    "MOST",
    "Beat",
    "Engine",
    "EngineLostError",
    "FencedError",
    "Heard",
    "Message",
    "MissedError",
    "Peer",
    "Standing",
]

KEPT: Final = 10_000
"""Messages that can be heard again, and a few more."""

MOST: Final = 1_000
"""Messages that can be said at once: the engine does nothing else in the meantime."""

LONGEST: Final = 65_536
"""Characters of a message's key and body together."""

_CHUNK: Final = 500  # fields of a hash that are read at once
_KINDS: Final = frozenset(("view", "gone", "word", "entry"))
_LARGEST: Final = 2**53  # numbers of Lua are floating
_FIELDS: Final = ("daemon", "token", "kind", "key", "body")


class Engine:
    """What a daemon and its peers share.

    A call takes no longer than the plan's timeout, whatever the engine does; but for
    `standing` and `targets_of`, which are many commands, each within it. After one that
    failed the next connects anew.
    """

    def __init__(self, plan: EnginePlan, name: str) -> None:
        """Make it; it connects when it is used first.

        Args:
            name: This daemon's; no two that share an engine have the same.

        Raises:
            PgbreakerError: The extra ``redis`` is not installed.
            ValueError: The URL is none, or a name is one that Redis does not take.
        """
        try:
            line = importlib.import_module("pgbreaker.sinks.peers.line")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "redis":
                raise
            raise PgbreakerError(
                "peers are configured, but redis is not installed:"
                " pip install 'pgbreaker[redis]'"
            ) from None
        for what, text in (("name", name), ("prefix", plan.prefix)):
            if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", text):
                raise ValueError(
                    f"the {what} of a daemon on an engine is of letters, digits and"
                    f" _.:-, got {text!r}"
                )
        self._published = line.published
        self._lines = line.Lines(plan, name)
        self._beats: Line = line.Line(self._lines)
        self._work: Line = line.Line(self._lines)
        self._plan = plan
        self._name = name
        self._who = secrets.token_hex(8)  # which process of that name

    def _key(self, *words: str) -> str:
        return ":".join(("{" + self._plan.prefix + "}", *words))

    def _keys(self, *words: str) -> list[str]:
        of_ours = ("views", "targets")
        return [
            self._key(word, self._name) if word in of_ours else self._key(word)
            for word in ("fleet", "leases", *words)
        ]

    def _us(self, token: int | None) -> list[str | int]:
        lease = round(self._plan.lease * 1000)
        return [self._name, self._who, "" if token is None else token, lease]

    async def beat(self, token: int | None, targets: str = "") -> Beat:
        """Give a sign of life: take the lease, or renew it.

        Args:
            token: Number of our lease. None: we have none. When it has ended we get
                another one.
            targets: Digest of the targets that we can watch.

        Raises:
            EngineLostError: There is no answer, or another process has our name.
        """
        keys = self._keys("seen", "said", "entries", "words", "views", "targets")
        born = secrets.token_hex(8)
        args = (*self._us(token), born, targets, scripts.DAY, scripts.LONG)
        verdict, *rest = await self._beats.run(scripts.BEAT, keys, args)
        if verdict == "held":
            raise EngineLostError(f"another daemon is called {self._name!r}")
        if verdict != "ok":
            raise EngineLostError("a later sign of life of ours went before this one")
        taken, now, last, born, *peers = rest
        named = (peers[i : i + 4] for i in range(0, len(peers), 4))
        return Beat(
            token=int(taken),
            now=int(now) / 1000,
            peers={
                name: Peer(name, int(its), int(left) / 1000, digest)
                for name, its, left, digest in named
            },
            last=int(last),
            born=born,
        )

    async def say(self, token: int, messages: Sequence[Message]) -> int:
        """Say *messages*, all or none; what was said before is not said again.

        Returns:
            Number of the last message of the fleet.

        Raises:
            EngineLostError: There is no answer; whether they were said is not known.
            FencedError: The lease *token* does not hold, or the engine was started anew
                since the last beat.
            ValueError: A message is none, is longer than `LONGEST`, or there are more
                than `MOST`.
        """
        if len(messages) > MOST:
            raise ValueError(f"{MOST} messages at once, got {len(messages)}")
        for message in messages:
            _check(message)
        keys = self._keys("said", "entries", "words", "views")
        args = [*self._us(token), KEPT, scripts.DAY, self._key("said")]
        for message in messages:
            args += (message.kind, message.key, message.body)
        (last,) = self._passed(await self._work.run(scripts.SAY, keys, args))
        return int(last)

    async def announce(self, token: int, targets: str) -> None:
        """Tell which targets this daemon can watch.

        Raises:
            EngineLostError: There is no answer; whether it was told is not known.
            FencedError: As for `say`.
        """
        keys = self._keys("targets")
        args = (*self._us(token), targets, scripts.DAY)
        self._passed(await self._work.run(scripts.ANNOUNCE, keys, args))

    def _passed(self, answer: list[Any]) -> list[Any]:
        verdict, *rest = answer
        if verdict == "fenced":
            raise FencedError(f"the lease of {self._name!r} does not hold any more")
        return rest

    async def heard(self, after: int, limit: int = 500) -> list[Heard]:
        """Messages after number *after*, in order; none when there are none.

        Raises:
            EngineLostError: There is no answer.
            MissedError: The next one is not kept any more, or never was.
        """
        last, found = await self._work.ask(
            ("HGET", self._key("fleet"), "last"),
            ("XRANGE", self._key("said"), f"{after + 1}-0", "+", "COUNT", limit),
        )
        heard: list[Heard] = []
        for number, fields in found:
            message = _heard(number, fields)
            if message.number != after + len(heard) + 1:
                break
            heard.append(message)
        if not heard and (found or int(last or 0) != after):
            raise MissedError(
                f"message {after + 1} is not kept: the last one is {last or 0}"
            )
        return heard

    async def kept(self, after: int) -> AsyncGenerator[Heard]:
        """All messages after number *after* that can still be heard, in order.

        Each part takes no longer than the timeout.

        Raises:
            EngineLostError: There is no answer.
        """
        while True:
            (found,) = await self._work.ask(
                ("XRANGE", self._key("said"), f"{after + 1}-0", "+", "COUNT", _CHUNK)
            )
            for number, fields in found:
                message = _heard(number, fields)
                after = message.number
                yield message
            if len(found) < _CHUNK:
                return

    async def standing(self) -> Standing:
        """What stands, in parts: the engine does other things in between.

        Raises:
            EngineLostError: There is no answer.
        """
        last, entries, names = await self._work.ask(
            ("HGET", self._key("fleet"), "last"),
            ("HGETALL", self._key("entries")),
            ("ZRANGE", self._key("seen"), 0, -1),
        )
        words = await self._hash("words")
        views: dict[str, dict[str, str]] = {}
        for name in names:
            if thought := await self._hash("views", name):
                views[name] = thought
        said = {name: int(key) for name, key in _pairs(entries)}
        return Standing(int(last or 0), views, words, said)

    async def targets_of(self, names: Iterable[str]) -> dict[str, str]:
        """The targets that daemons can watch, of those that told them.

        Raises:
            EngineLostError: There is no answer.
        """
        found = {}
        for name in names:  # one by one: a list can be long
            (told,) = await self._work.ask(("GET", self._key("targets", name)))
            if told is not None:
                found[name] = told
        return found

    async def _hash(self, *words: str) -> dict[str, str]:
        found: dict[str, str] = {}
        cursor = "0"
        while True:
            ((cursor, part),) = await self._work.ask(
                ("HSCAN", self._key(*words), cursor, "COUNT", _CHUNK)
            )
            found.update(_pairs(part))
            if cursor == "0":
                return found

    async def hints(self) -> AsyncGenerator[int]:
        """Numbers as they are said; at first that of the last one, once whatever comes
        is sure to be hinted at.

        Raises:
            EngineLostError: The subscription was lost, or the engine is silent.
        """
        async with aclosing(self._published(self._lines, self._key("said"))) as heard:
            async for text in heard:
                if text:
                    if _is_number(text):
                        yield int(text)
                    continue
                (last,) = await self._work.ask(("HGET", self._key("fleet"), "last"))
                yield int(last or 0)

    async def leave(self, token: int) -> None:
        """Give the lease back; what we said stays. Nothing happens when it is not ours.

        Raises:
            EngineLostError: There is no answer.
        """
        await self._beats.run(scripts.LEAVE, self._keys(), self._us(token))

    async def close(self) -> None:
        """End every connection, at once; nothing can be asked afterwards."""
        await self._lines.close()


def _check(message: Message) -> None:
    """Refuse what the engine would not understand, before any of it is said."""
    if message.kind not in _KINDS:
        raise ValueError(f"no kind of message is called {message.kind!r}")
    if len(message.key) + len(message.body) > LONGEST:
        raise ValueError(f"a message has {LONGEST} characters at most")
    if message.kind == "entry":
        key = message.key
        if not (key.isascii() and key.isdigit() and int(key) < _LARGEST):
            raise ValueError(f"the key of an entry is its number, got {key!r}")
    if message.kind == "word":
        _check_version(message.body)


def _check_version(body: str) -> None:
    try:
        match json.loads(body):
            case {"version": [int(at), str()]} if 0 <= at < _LARGEST:
                return
    except ValueError:
        pass
    raise ValueError(
        'a word is JSON with "version", a pair of milliseconds and a daemon\'s name'
    )


def _heard(number: str, fields: Sequence[str]) -> Heard:
    known = dict(_pairs(fields))
    daemon, token, kind, key, body = (known.get(field, "") for field in _FIELDS)
    lease = int(token) if _is_number(token) else 0
    return Heard(int(number.partition("-")[0]), daemon, lease, kind, key, body)


def _is_number(text: str) -> bool:
    """Whether it is one of ours: anybody can publish on a channel."""
    return text.isascii() and text.isdigit() and len(text) < 17


def _pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
