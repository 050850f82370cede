"""What the addresses show and change: the daemon, as seen from outside."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pgbreaker.clock import Clock
from pgbreaker.core.reload import Reloaded
from pgbreaker.monitor.desk import Desk
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.history import History
from pgbreaker.sinks.metrics import Metrics
from pgbreaker.sinks.recent import Recent
from pgbreaker.sinks.store import Store
from pgbreaker.web.api.advising import Advising
from pgbreaker.web.api.stream import Stream
from pgbreaker.web.problems import UnknownError
from pgbreaker.web.views import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """All that an address may need.

    Attributes:
        health: What is wrong with the daemon itself, None when nothing is.
        ready: What it still waits for, None when for nothing.
        reload: Reads the configuration anew, for the author named; raises
            `ConfigError` where it cannot be used. None: there is none to read, or
            nobody may.
        advising: Tells applications what to think of servers.
        stream: Tells all who listen what happens, and knows when anything has moved.
        config: The configuration that is true now, without its secrets. None: it is not
            shown.
        recent: What probes saw lately.
        store: What outlives the process. None: nothing does.
        grafana_url: Base URL of the Grafana that has the dashboards. None: there is none.
    """

    board: Board
    views: Views
    metrics: Metrics
    history: History
    desk: Desk
    stream: Stream
    advising: Advising
    clock: Clock
    version: str
    health: Callable[[], str | None]
    ready: Callable[[], str | None]
    reload: Callable[[str | None], Awaitable[Reloaded]] | None = None
    config: Callable[[], Mapping[str, Any]] | None = None
    recent: Recent = field(default_factory=Recent)
    store: Store | None = None
    grafana_url: str | None = None

    def target_of(self, request: web.Request) -> TargetBoard:
        """The target that the address names.

        Raises:
            UnknownError: There is none of that name.
        """
        name = request.match_info["target"]
        if name not in self.board.targets:
            raise UnknownError("target", name, self.board.targets)
        return self.board.targets[name]

    def breaker_of(self, request: web.Request) -> tuple[TargetBoard, str]:
        """The target and the operation that the address names.

        Raises:
            UnknownError: There is none of that name.
        """
        target = self.target_of(request)
        operation = request.match_info["operation"]
        if operation not in target.breakers:
            raise UnknownError("operation", operation, target.breakers)
        return target, operation
