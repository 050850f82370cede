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
from os import geteuid
from typing import Final

from aiohttp import hdrs, web

from pgbreaker.core.units import Seconds
from pgbreaker.web.doors.limits import Counts, neighbourhood, retry_after
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

    def __init__(self, seal: bytes, now: Callable[[], Seconds]) -> None:
        self._seal = seal
        self._failed = Counts(_WITHIN, now)
        # Right ones, by a hash that is worth nothing outside this process.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._working: dict[bytes, asyncio.Task[bool]] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, "pgbreaker-doors")
        self._names: dict[int, str] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have threads for the time of the block."""
        try:
            yield
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
        name, password = _basic(text)
        where = neighbourhood(request.remote)
        hashed = self._hash_for(name, plan.users)
        key = self._key(name, hashed, password)
        if self._failed.count(where) >= _FAILURES:
            self._refuse_after(1, (where, name), where)
            if key not in self._known:
                self._failed.add((where, name))
                self._refuse_after(0, where, where)
        if key in self._known:
            self._known.move_to_end(key)
            return name
        is_right = await self._checked(key, hashed, password, where, name, plan)
        return name if is_right else None

    async def _checked(
        self,
        key: bytes,
        hashed: str,
        password: str,
        where: str,
        name: str,
        plan: WebPlan,
    ) -> bool:
        """Check a password in a thread; the same one only once at a time."""
        task = self._working.get(key)
        if task is None:
            if len(self._working) >= _WAITING:
                raise TurnedAwayError(
                    503, "busy", "too many are logging in", **{"Retry-After": "1"}
                )
            # Counted before it is known, or a hundred at once would all be let through.
            self._failed.add(where)
            self._failed.add((where, name))

            async def check() -> bool:
                loop = asyncio.get_running_loop()
                run = loop.run_in_executor
                is_right = await run(self._threads, matches, hashed, password)
                if not is_right or name not in plan.users:
                    return False
                self._failed.take_back(where)
                self._failed.take_back((where, name))
                self._known[key] = None
                if len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
                return True

            task = self._working[key] = asyncio.create_task(check())
            task.add_done_callback(lambda _: self._working.pop(key))
        # Who hangs up meanwhile does not take it from those who wait for the same.
        return await asyncio.shield(task)

    def _refuse_after(self, most: int, key: object, where: str) -> None:
        if self._failed.count(key) >= most:
            seconds = max(self._failed.wait(key), self._failed.wait(where))
            raise TurnedAwayError(
                429,
                "too many failed logins",
                "five a minute are taken from an address; try again later",
                **{"Retry-After": retry_after(seconds)},
            )

    def _hash_for(self, name: str, users: Mapping[str, str]) -> str:
        """The user's hash; for one that there is not, that of another.

        So the answer takes as long, and nobody learns from it which users there are;
        it is always the same other one, for whoever asks twice.
        """
        if name in users or not users:
            return users.get(name, "")
        drawn = hmac.digest(self._seal, name.encode("utf-8", "replace"), "sha256")
        hashes = sorted(users.values())
        return hashes[int.from_bytes(drawn[:8]) % len(hashes)]

    def _key(self, name: str, hashed: str, password: str) -> bytes:
        said = "\0".join((name, hashed, password)).encode("utf-8", "surrogateescape")
        return hmac.digest(self._seal, said, "sha256")


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
