"""Who it is: passwords, tokens, certificates, and the user of a Unix socket."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import pwd
import socket
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import geteuid
from typing import Final

from aiohttp import hdrs, web

from pgbreaker.core.units import Seconds
from pgbreaker.web.doors.limits import MOST_KEYS, Counts, neighbourhood, retry_after
from pgbreaker.web.doors.passwords import matches
from pgbreaker.web.doors.plan import WebPlan
from pgbreaker.web.doors.refusal import TurnedAwayError
from pgbreaker.web.doors.tls import certified_name
from pgbreaker.web.route import Role, Who

_FAILURES: Final = 5
_WITHIN: Final[Seconds] = 60.0
_AT_ONCE: Final = 2  # passwords in work; each takes a core for a tenth of a second
_WAITING: Final = 32
_KNOWN: Final = 1024  # passwords that are remembered as right
_PEER: Final = struct.Struct("3i")
ANYBODY: Final = Who(None, Role.NOBODY)


class Logins:
    """Finds out who asks.

    Of failures, five a minute are taken from an address, and then none; with one
    exception. Behind a proxy all have one address, and a program with an old password
    must not lock out everybody: who has logged in before is let in, as long as nobody
    has failed by that name from there. So an address has five guesses a minute, and one
    more for each user that there is.
    """

    def __init__(
        self, seal: bytes, now: Callable[[], Seconds], most: int = MOST_KEYS
    ) -> None:
        self._seal = seal
        self._failed = Counts(_WITHIN, now, most)
        # Right ones, by a hash that is worth nothing outside this process.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._working: dict[bytes, asyncio.Task[bool]] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, "pgbreaker-doors")
        self._names: dict[int, str] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Logins"]:
        """Have threads for the time of the block."""
        try:
            yield self
        finally:
            for task in self._working.values():
                task.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def who(self, request: web.Request, plan: WebPlan) -> Who:
        """Say who asks; `ANYBODY` when nobody has logged in.

        Raises:
            TurnedAwayError: They tried to, in vain.
        """
        given = request.headers.get(hdrs.AUTHORIZATION)
        if given is not None and (plan.users or plan.tokens):
            kind, _, rest = given.partition(" ")
            name = None
            if kind.lower() == "bearer":
                name = self._by_token(request, plan, rest.strip())
            elif kind.lower() == "basic" and plan.users:
                name = await self._by_password(request, plan, rest.strip())
            if name is None:
                raise unknown(plan, "the name, the password or the token is wrong")
            return Who(name, plan.role_of(name))
        if plan.takes_certificates:
            # As exporters do: where there are users, a certificate opens the
            # connection and a password the doors; but whom a role is given to by the
            # name in the certificate needs no other.
            name = certified_name(request.transport)
            if name is not None and (name in plan.roles or not plan.users):
                return Who(name, plan.role_of(name))
        return ANYBODY

    async def peer(self, request: web.Request) -> tuple[str, bool]:
        """Name the user on the other side of a Unix socket.

        Returns:
            The name, and whether it is our own user, or root.
        """
        assert request.transport is not None
        of = request.transport.get_extra_info("socket")
        raw = of.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _pid, uid, _gid = _PEER.unpack(raw)
        if uid not in self._names:
            # A directory service may be asked, which may not answer.
            self._names[uid] = await asyncio.to_thread(_name_of, uid)
        return self._names[uid], uid in (0, geteuid())

    def _by_token(self, request: web.Request, plan: WebPlan, token: str) -> str | None:
        found, hashed = None, hashlib.sha256(token.encode("utf-8", "replace"))
        for name, right in plan.tokens.items():  # all of them: which one takes no time
            if hmac.compare_digest(right, hashed.hexdigest()):
                found = name
        if found is None:
            # A right one passes always: nobody can guess it.
            where = neighbourhood(request.remote)
            self._refuse_after(_FAILURES, where, where)
            self._failed.add(where)
        return found

    async def _by_password(
        self, request: web.Request, plan: WebPlan, text: str
    ) -> str | None:
        where = neighbourhood(request.remote)
        attempt = self._attempt(*_basic(text), where, plan.users)
        if self._failed.count(where) >= _FAILURES:
            self._refuse_after(1, attempt.by_name, where)
            if attempt.key not in self._known:
                self._note(attempt)
                self._refuse_after(0, where, where)
        if attempt.key in self._known:
            self._known.move_to_end(attempt.key)
            return attempt.name
        return attempt.name if await self._checked(attempt) else None

    async def _checked(self, attempt: "_Attempt") -> bool:
        """Check a password in a thread; the same one only once at a time."""
        task = self._working.get(attempt.key)
        if task is None:
            if len(self._working) >= _WAITING:
                raise TurnedAwayError(
                    503, "busy", "too many are logging in", **{"Retry-After": "1"}
                )
            # Counted before it is known, or a hundred at once would all be let through.
            self._failed.add(attempt.where)
            self._note(attempt)
            task = asyncio.create_task(self._check(attempt))
            self._working[attempt.key] = task
            task.add_done_callback(lambda _: self._working.pop(attempt.key))
        # Who hangs up meanwhile does not take it from those who wait for the same.
        return await asyncio.shield(task)

    async def _check(self, attempt: "_Attempt") -> bool:
        is_right = await asyncio.get_running_loop().run_in_executor(
            self._threads, matches, attempt.hashed, attempt.password
        )
        if not is_right or not attempt.is_known:
            return False
        self._failed.take_back(attempt.where)
        self._failed.take_back(attempt.by_name)
        self._known[attempt.key] = None
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return True

    def _note(self, attempt: "_Attempt") -> None:
        # Of nobody else: names that are made up would push out those that count.
        if attempt.is_known:
            self._failed.add(attempt.by_name)

    def _refuse_after(self, most: int, key: object, where: str) -> None:
        if self._failed.count(key) >= most:
            seconds = max(self._failed.wait(key), self._failed.wait(where))
            raise TurnedAwayError(
                429,
                "too many failed logins",
                "five a minute are taken from an address; try again later",
                **{"Retry-After": retry_after(seconds)},
            )

    def _attempt(
        self, name: str, password: str, where: str, users: Mapping[str, str]
    ) -> "_Attempt":
        """Say what is to be checked.

        For a user that there is not, that is the hash of another: so the answer takes
        as long, and nobody learns from it which users there are. It is always the same
        other one, for whoever asks twice.
        """
        is_known = name in users
        drawn = hmac.digest(self._seal, name.encode("utf-8", "replace"), "sha256")
        others = sorted(users.values())
        other = others[int.from_bytes(drawn[:8]) % len(others)]
        hashed = users[name] if is_known else other
        said = "\0".join((name, hashed, password)).encode("utf-8", "surrogateescape")
        key = hmac.digest(self._seal, said, "sha256")
        return _Attempt(where, name, password, hashed, key, is_known)


@dataclass(frozen=True, slots=True, repr=False)
class _Attempt:
    """One attempt to log in by a password.

    Attributes:
        where: The address that it comes from.
        hashed: What the password has to match.
        key: All of it, worth nothing outside this process.
        is_known: Whether there is a user of this name.
    """

    where: str
    name: str
    password: str
    hashed: str
    key: bytes
    is_known: bool

    @property
    def by_name(self) -> tuple[str, str]:
        """What counts the failures of a user from an address."""
        return self.where, self.name


def unknown(plan: WebPlan, detail: str) -> TurnedAwayError:
    """Ask to log in, by each of the ways there are."""
    if not plan.users and not plan.tokens:
        return TurnedAwayError(403, "not allowed", "it needs a client's certificate")
    ways = []
    if plan.users:
        ways.append('Basic realm="pgbreaker", charset="UTF-8"')
    if plan.tokens:
        ways.append('Bearer realm="pgbreaker"')
    return TurnedAwayError(
        401, "not logged in", detail, **{"WWW-Authenticate": ", ".join(ways)}
    )


def _basic(text: str) -> tuple[str, str]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "", ""
    name, _, password = raw.decode("utf-8", "surrogateescape").partition(":")
    return name, password


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
