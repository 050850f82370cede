"""Answers HAProxy's `agent-check`: one line in, one line out, from memory.

HAProxy connects, sends what `agent-send` says, here ``primary/write``, and reads a line.
It hears two words of us, and has no others to hear:

``up``      work may be sent, as far as we know; HAProxy's own check still has its say.
``down``    the breaker is not closed.

Never ``ready``, which would end a ``maint`` or ``drain`` that a person set by hand; and so
neither of these two, nor a weight, which ``up`` alone does not take back. A line of nothing
but a remark changes nothing: that is for what we do not know. Nor does our silence: the last
word holds until there is another.

https://docs.haproxy.org/2.6/configuration.html#5.2-agent-check
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pgbreaker.core.advice import Opinion
from pgbreaker.core.judge import PING
from pgbreaker.core.plan import HaproxyPlan
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds, counted
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board, TargetBoard

log = logging.getLogger(__name__)

LINE: Final = 256
"""Bytes that a question may have: a target's and an operation's name, and to spare."""

WITHIN: Final[Seconds] = 2.0
"""How long a question may take to arrive."""

MOST: Final = 256
"""Connections at a time; each check is one, for some milliseconds."""

_TELL_EVERY: Final[Seconds] = 60.0

Answer = Callable[[str], str]
"""What is answered to the name of a breaker, in one line."""


class Agent:
    """Knows what to say of each breaker, and says in the log who asks for none of them."""

    def __init__(self, board: Board, now: Callable[[], Seconds]) -> None:
        self._board = board
        self._now = now
        self._told_at: Seconds | None = None
        self._untold = 0

    def answer(self, name: str) -> str:
        """Say whether work may be sent. Without the reason: nobody logs in here."""
        breaker = self._board.breaker(name)
        if breaker is None:
            self._tell(name)
            return (
                f"# no breaker is called {tidy(name)}: agent-send 'target/operation\\n'"
            )
        if not breaker.passes:
            return f"down # {breaker.name} is {breaker.state.value}"
        target, operation = self._board.home(name)
        if not self._is_known(self._board.targets[target], operation):
            # A daemon that has just started knows no better than who asks it.
            return f"# {target} was not asked yet"
        return "up"

    @staticmethod
    def _is_known(target: TargetBoard, operation: str) -> bool:
        """Whether somebody has looked: this daemon, or one that watches in its place."""
        ballot = None if target.elsewhere is None else target.ballot(operation)
        is_told = ballot is not None and ballot.opinion is Opinion.HEALTHY
        return is_told or PING in target.readings

    def _tell(self, name: str) -> None:
        """Say it once a minute: HAProxy asks each second, for as long as it runs."""
        now = self._now()
        if self._told_at is not None and now < self._told_at + _TELL_EVERY:
            self._untold += 1
            return
        more = (
            f", after {counted(self._untold, 'such question')}" if self._untold else ""
        )
        log.warning(
            "an agent check asks for %r, which is no breaker%s", tidy(name), more
        )
        self._told_at, self._untold = now, 0


class Check(asyncio.Protocol):
    """One connection: reads a line, answers it, hangs up."""

    def __init__(self, open_: "set[Check]", answer: Answer, within: Seconds) -> None:
        self._open = open_
        self._answer = answer
        self._within = within
        self._read = b""
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the line, unless too many do."""
        assert isinstance(transport, asyncio.Transport)
        if len(self._open) >= MOST:
            transport.abort()
            return
        self._open.add(self)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._late = loop.call_later(self._within, self._end, "# nothing was asked")

    def data_received(self, data: bytes) -> None:
        """Answer a line once it is whole."""
        if self._transport is None or self._transport.is_closing():
            return
        self._read += data
        line, ended, _ = self._read.partition(b"\n")
        if len(line) > LINE:
            self.abort()
        elif ended:
            self._end(self._answer(line.decode("utf-8", errors="replace").strip()))

    def eof_received(self) -> bool:
        """Answer what came, too, when nothing follows: a person's ``printf | nc``."""
        if self._read and self._transport is not None:
            self.data_received(b"\n")
        return False

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self, answer: str) -> None:
        assert self._transport is not None
        self._transport.write(f"{answer}\n".encode())
        self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Make room."""
        self._open.discard(self)
        if self._late is not None:
            self._late.cancel()


@asynccontextmanager
async def answering(
    plan: HaproxyPlan,
    board: Board,
    now: Callable[[], Seconds],
    within: Seconds = WITHIN,
) -> AsyncIterator[tuple[str, int]]:
    """Answer agent checks for the time of the block.

    Yields:
        Host and port that were really taken; port 0 takes a free one.

    Raises:
        PgbreakerError: They cannot be listened on.
    """
    host, port = plan.listen
    agent, open_ = Agent(board, now), set[Check]()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: Check(open_, agent.answer, within), host, port, reuse_address=True
        )
    except OSError as error:
        raise PgbreakerError(
            f"cannot listen on {host}:{port}: {words_of(error)} (haproxy.listen says where)"
        ) from None
    try:
        taken: int = server.sockets[0].getsockname()[1]
        log.info("answering HAProxy's agent checks on %s:%d", host, taken)
        yield host, taken
    finally:
        server.close()
        for check in tuple(open_):
            check.abort()
