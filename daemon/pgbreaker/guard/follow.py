"""Following a daemon: its advice comes by server-sent events, or by a file beside it.

In the background, by a thread of its own, for a loop may be held up exactly when advice
matters. No call ever waits for it: breakers read what it has left in memory. A daemon
that dies, hangs, lies or comes back opens nothing for good and closes nothing: what it
said ends with its lease, and every breaker goes on by itself. Where there are several,
another is heard before that.
"""

import json
import logging
import os
import random
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import (
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    IncompleteRead,
    RemoteDisconnected,
)
from pathlib import Path
from typing import Final

from pgbreaker.clock import Clock, boot_id
from pgbreaker.core.advised import EVERY
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.guard.advisor import Advisor
from pgbreaker.guard.living import join, living
from pgbreaker.guard.report import Reporter
from pgbreaker.guard.ways import Address, Connection

log = logging.getLogger("pgbreaker")

STREAM: Final = "/api/v1/advice/stream"

_FIRST_WAIT: Final[Seconds] = 0.25  # before coming back; doubled each time
_LONGEST_WAIT: Final[Seconds] = 15.0
_SPEAKS_WITHIN: Final[Seconds] = 10.0  # all of it, from when it is asked
_HURRIES: Final[Seconds] = 2.5  # the same, where there is another; doubled each round
_FEW: Final[Seconds] = 1.0  # what a daemon says that as many follow as come in a second
_AT_LEAST: Final[Seconds] = 0.3  # that each is tried, however little of a lease is left
_MOST_UNHEARD: Final = 8 * 1024 * 1024  # bytes with nothing in them
_AT_ONCE: Final = 64 * 1024  # bytes that are read
_LOOKS_EVERY: Final[Seconds] = 0.1  # at a file, whether it is another

# The share of a lease after which a daemon that says nothing is left: soon where there is
# another, and else only just in time to ask it again. Not by all who follow at once.
_PATIENCE: Final = {True: (0.5, 0.6), False: (0.8, 0.85)}


class LostError(Exception):
    """The daemon is not heard any more; the text says why."""


def follow(
    url: str | Sequence[str],
    *,
    token: str | None = None,
    breakers: Mapping[str, str] | None = None,
    every: Seconds | str = EVERY,
    spread: Seconds | str | None = None,
    report: bool | str = False,
) -> "Follower":
    """Take the advice of a daemon from now on, in the background.

    It does not wait for the daemon, and does not fail without it.

    Args:
        url: ``http://HOST:PORT`` or ``https://...``; ``unix:///PATH`` of its socket;
            ``file:///PATH`` of the file that it writes (``advice.file`` in its
            configuration). A name and a password in it are those of its logins. Several,
            for daemons that know the same: one at a time is heard, and when it is lost
            the next at once, before what the last one said ends.
        token: One of the daemon's tokens, where it wants one.
        breakers: Name of a breaker here -> that of the daemon's whose advice it takes,
            where they differ: ``{"orders": "primary/write"}``. A breaker has the advice
            of the one that has its name; ``TARGET/ANYTHING`` that of ``TARGET/read``.
        every: Seconds, or a text like ``500ms``, between two calls that find out how the
            server is while advice alone refuses them.
        spread: Seconds over which the breakers of all processes come back when the
            server does. None: as the daemon says, who knows how many follow.
        report: Whether to tell the daemon now and then how the breakers of this process
            are, so that it shows in how many they are open. A text: the same, by the
            name of the application.

    Raises:
        ValueError: An address is none, or there is none; or a report by a file is asked
            for.
    """
    follower = Follower(
        url,
        token=token,
        breakers=breakers or {},
        every=seconds_of(every, "every"),
        spread=None if spread is None else seconds_of(spread, "spread"),
        report=report,
    )
    follower.start()
    return follower


class Follower:
    """Follows one daemon at a time; `follow` makes it.

    Attributes:
        where: Address of the daemon that is heard, or was last, without secrets.
        is_connected: Whether a daemon is heard right now.
        why: Why none is, in one line; empty while one is.
        reconnects: Times that one was heard anew, since the beginning.
        reporter: Reports to it. None: nobody does.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        token: str | None = None,
        breakers: Mapping[str, str] = {},
        every: Seconds = EVERY,
        spread: Seconds | None = None,
        report: bool | str = False,
        clock: Clock | None = None,
    ) -> None:
        """
        Raises:
            ValueError: An address is none, or there is none; or a report by a file is
                asked for.
        """
        given = [url] if isinstance(url, str) else list(url)
        all_ = {one.where: one for one in (Address(each, token) for each in given)}
        if not all_:
            raise ValueError("there is no address of a daemon")
        # In an order of its own: else a whole fleet would be with the first of them, and
        # go to the second together.
        self._ways = random.sample(list(all_.values()), len(all_))
        self._place = 0
        self.where = self._ways[0].where
        self._clock = clock or Clock()
        self._advisor = Advisor(self._clock, breakers, every, spread)
        self.reporter = self._reporting(report)
        self.is_connected = False
        self.why = "it has not been heard yet"
        self.reconnects = 0
        self._said: dict[str, str] = {}  # address -> why it is not heard, as was logged
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._is_to_start = False
        join(self)

    def __repr__(self) -> str:
        how = "connected" if self.is_connected else self.why
        return f"<Follower {self.where} {how}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All there are, in the order in which they are tried."""
        return tuple(way.where for way in self._ways)

    @property
    def advisor(self) -> Advisor:
        """What was said."""
        return self._advisor

    @property
    def lease(self) -> Seconds:
        """Seconds for which what was said still holds; 0: every breaker goes by itself."""
        return max(0.0, self._advisor.until - self._clock.now())

    def now(self) -> Seconds:
        """The moment, by its clock."""
        return self._clock.now()

    def _reporting(self, report: bool | str) -> Reporter | None:
        if report is False:
            return None
        files = [way.where for way in self._ways if way.file is not None]
        if files:
            raise ValueError(
                f"nobody reads reports by {files[0]!r}; report must be False"
            )
        application = None if report is True else report
        return Reporter(self._advisor.follows, application, self._clock.now)

    # Beginning and ending.

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(
            target=self._run, name=f"pgbreaker-follow {self.where}", daemon=True
        )
        self._thread.start()
        if self.reporter is not None:
            self.reporter.start()

    def stop(self, within: Seconds = 1.0) -> None:
        """Follow no longer; what was said ends with its lease.

        Args:
            within: Seconds that the thread is waited for.
        """
        self._stopped.set()
        if self.reporter is not None:
            self.reporter.stop()
        thread, connection = self._thread, self._connection
        if connection is not None:
            connection.hang_up()
        if thread is not None and thread is not threading.current_thread():
            thread.join(within)

    def disown(self) -> None:
        """Begin anew in a forked process: the thread is the parent's."""
        self._is_to_start = self._thread is not None and not self._stopped.is_set()
        self._stopped = threading.Event()
        self.is_connected = False
        if self._connection is not None:
            self._connection.drop()
            self._connection = None
        if self.reporter is not None:
            self.reporter.disown()
        self._advisor.forget()  # it may have been in the middle of taking what came

    def follow_on(self) -> None:
        """Follow in a forked process as in its parent, once all else has begun anew."""
        if self._is_to_start:
            self._is_to_start = False
            self.start()

    # The thread.

    def _run(self) -> None:
        stopped, failures = self._stopped, 0
        while not stopped.is_set():
            begun, way = self._clock.now(), self._ways[self._place]
            self._advisor.listen(way.where)
            why = self._hear(way, stopped, self._budget(failures))
            # One that hangs up on whom it has just greeted is left alone for longer.
            enough = _LONGEST_WAIT if len(self._ways) == 1 else self._advisor.told_lease
            if self.is_connected and self._clock.now() - begun >= enough:
                failures = 0
            self.is_connected = False
            if self.reporter is not None:
                self.reporter.turn_to(None)
            if stopped.is_set():
                break
            self._lose(way, why)
            failures = min(failures + 1, 16 * len(self._ways))
            self._place = (self._place + 1) % len(self._ways)
            rounds, tried = divmod(failures, len(self._ways))
            wait = self._crowd if tried else _wait_after(rounds)
            if wait:
                self._rest(stopped, random.random() * wait)
            else:
                self.lapse()  # and on to the next at once
        self.is_connected, self.why = False, "it was stopped"

    @property
    def _crowd(self) -> Seconds:
        """Seconds over which those go to the next who are lost with one daemon: it takes
        some hundreds in a second, and what they know holds a while yet."""
        beyond = self._advisor.told_spread - _FEW
        return max(0.0, min(beyond, self.lease / 3))

    def _budget(self, failures: int) -> Seconds:
        """How long the next may take until it says something."""
        rounds, tried = divmod(failures, len(self._ways))
        if len(self._ways) == 1:
            return _SPEAKS_WITHIN
        most = min(_SPEAKS_WITHIN, _HURRIES * 2.0 ** min(rounds, 16))
        share = self.lease / (len(self._ways) - tried)
        return max(_AT_LEAST, min(most, share)) if share else most

    def _hear(self, way: Address, stopped: threading.Event, budget: Seconds) -> str:
        """Hear a daemon until it is lost. Returns why it was."""
        try:
            if way.file is not None:
                self._watch(way, way.file, stopped)
            else:
                self._listen(way, stopped, budget)
        except LostError as error:
            return str(error)
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            return _why(error)
        except Exception:
            # Whatever it is, a process that follows no longer for it would be worse.
            log.exception("following %s has failed", way.where)
            return "an error of ours; see the log"
        return "it was stopped"

    def _rest(self, stopped: threading.Event, wait: Seconds) -> None:
        """Wait to come back; a lease that ends meanwhile ends in time."""
        self.lapse()
        until = self._clock.now() + wait
        while not stopped.is_set() and (left := until - self._clock.now()) > 0:
            ends_in = self._advisor.left
            stopped.wait(min(left, ends_in) if ends_in else left)
            self.lapse()

    def _lose(self, way: Address, why: str) -> None:
        self.why = why if len(self._ways) == 1 else f"{way.where}: {why}"
        if why != self._said.get(way.where):  # once, not every few seconds for a night
            log.warning("advice of %s is not heard: %s", way.where, why)
            self._said[way.where] = why

    def lapse(self) -> None:
        """Have breakers go by themselves once the lease is over."""
        if self._advisor.lapse():
            log.warning(
                "advice of %s has ended; every breaker goes by itself", self.where
            )

    def _meanwhile(self) -> Seconds:
        """Have a lease end in time. Returns after how many seconds to look again."""
        self.lapse()
        return self._advisor.left

    def hear(self, kind: str, text: str) -> None:
        """Take a message of the daemon.

        Raises:
            LostError: Something was missed, or cannot be read.
        """
        advisor = self._advisor
        heard, unread = advisor.heard, advisor.unread
        if advisor.take(kind, text):
            advisor.forget()
            raise LostError("something was missed; all is asked for anew")
        if advisor.unread != unread:
            advisor.forget()
            raise LostError(
                "what it says is no advice, or is older than what it has said"
            )
        if advisor.heard != heard and not self.is_connected:
            self._find(self._ways[self._place])

    def _find(self, way: Address) -> None:
        before, self.where = self.where, way.where
        self.is_connected, self.why = True, ""
        self.reconnects += 1
        if self.reporter is not None:
            self.reporter.turn_to(way)
        was_lost = self._said.pop(way.where, None) is not None
        if before != way.where:
            log.warning("advice is heard of %s, and no longer of %s", way.where, before)
        elif was_lost:
            log.warning("advice of %s is heard again", way.where)

    # Listening.

    def _listen(self, way: Address, stopped: threading.Event, budget: Seconds) -> None:
        way.forget_trust()
        headers = {"Accept": "text/event-stream"}
        if self._advisor.seen:
            headers["Last-Event-ID"] = self._advisor.seen
        now, meanwhile = self._clock.now, self._meanwhile
        patience = random.uniform(*_PATIENCE[len(self._ways) > 1])
        with Connection(way, now, budget, meanwhile=meanwhile) as connection:
            self._connection = connection
            try:
                response = connection.ask("GET", STREAM, headers)
                _check(response)
                response.headers = response.msg = HTTPMessage()  # kilobytes, for days
                stream = _Stream(response, stopped)
                for kind, data in stream:
                    heard = self._advisor.heard
                    self.hear(kind, data)
                    if self._advisor.heard != heard:
                        stream.unheard = 0
                        connection.until = now() + patience * self._advisor.told_lease
            finally:
                self._connection = None

    def _watch(self, way: Address, path: Path, stopped: threading.Event) -> None:
        """Look at a file on this machine until it says nothing new for too long."""
        last: tuple[int, int] | None = None
        patience = random.uniform(*_PATIENCE[True]) if len(self._ways) > 1 else 1.0
        while not stopped.is_set():
            seen = path.stat()
            if (seen.st_ino, seen.st_mtime_ns) != last:
                last = seen.st_ino, seen.st_mtime_ns
                if not stat.S_ISREG(
                    seen.st_mode
                ):  # a pipe would be waited for for ever
                    raise LostError("it is no file")
                if seen.st_size > _MOST_UNHEARD:
                    raise LostError(f"it is {seen.st_size} bytes long")
                # Whoever wrote last is who is heard; there is no older connection.
                self._advisor.listen(way.where)
                self._take_file(path.read_text("utf-8"))
            elif self.lease <= (1 - patience) * self._advisor.told_lease:
                raise LostError("nobody writes it any more")
            stopped.wait(_LOOKS_EVERY)

    def _take_file(self, text: str) -> None:
        said = json.loads(text)
        if not isinstance(said, dict):
            raise LostError("it is none of a daemon's")
        if said.get("boot") != boot_id():
            raise LostError("it was written before the machine started, or on another")
        # Of one machine, all processes have the same monotonic clock.
        try:
            age = time.monotonic() - float(said["written_monotonic"])
            lease = float(said["lease_seconds"]) - age
        except (KeyError, TypeError, OverflowError):
            raise LostError("it is none of a daemon's") from None
        if not (age > -1.0 and lease > 0):
            raise LostError("nobody writes it any more")
        self.hear("advice", json.dumps({**said, "lease_seconds": lease}))


def _wait_after(rounds: int) -> Seconds:
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**rounds)


def _why(error: Exception) -> str:
    """Why a daemon is not heard that has answered so, or has not."""
    if isinstance(error, IncompleteRead | RemoteDisconnected):
        return "it has hung up"
    if isinstance(error, TimeoutError):
        return "it says nothing"
    if isinstance(error, HTTPException):
        return "what it answers is no HTTP"
    if isinstance(error, UnicodeDecodeError):
        return "what it says is no text"
    return words_of(error)


def _check(response: HTTPResponse) -> None:
    """See whether an answer is a stream of events.

    Raises:
        LostError: It is not.
    """
    if response.status != 200:
        raise LostError(tidy(f"it answers {response.status} {response.reason}"))
    kind = response.headers.get_content_type()
    if kind != "text/event-stream":
        raise LostError(tidy(f"it answers with {kind}, and not with a stream"))
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise LostError(tidy(f"it answers in {encoding}, which was not asked for"))


class _Stream:
    """The events that come by an answer.

    Attributes:
        unheard: Bytes that have come since something in them was taken.
    """

    def __init__(self, response: HTTPResponse, stopped: threading.Event) -> None:
        self.unheard = 0
        self._response = response
        self._stopped = stopped

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each event: its kind, and its data."""
        kind, data = "message", ""
        for line in self._lines():
            name, _, value = line.decode("utf-8").rstrip("\r").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not name and not value:
                if data:
                    yield kind, data
                kind, data = "message", ""

    def _lines(self) -> Iterator[bytes]:
        coming = bytearray()
        while not self._stopped.is_set():
            came = self._response.read1(_AT_ONCE)
            if not came:
                raise LostError("it has hung up")
            self.unheard += len(came)
            if self.unheard > _MOST_UNHEARD:
                raise LostError("it babbles")
            *lines, rest = came.split(b"\n")
            for line in lines:
                yield bytes(coming) + line
                coming.clear()
            coming += rest


def followers() -> list[Follower]:
    """Every follower of the process, by where it listens."""
    there = [one for one in living() if isinstance(one, Follower)]
    return sorted(there, key=lambda follower: follower.where)


def _follow_on() -> None:
    for follower in followers():
        follower.follow_on()


# After `living` has had all begin anew, which is registered before: a breaker's lock could
# be that of a thread of the parent yet.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_follow_on)
