"""The daemons of one engine, as this one is one of them: put together."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.circle import HOLDS, Circle, Duties
from pgbreaker.core.plan import PeersPlan
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.desk import Desk
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.metrics import (
    ENGINE_LOSSES,
    ENGINE_UP,
    PEER_MESSAGES_HEARD,
    PEER_MESSAGES_TOLD,
    PEER_MESSAGES_UNREAD,
    PEERS,
    WATCHED,
    Metrics,
)
from pgbreaker.sinks.peers.engine import Engine
from pgbreaker.sinks.peers.peers import Peers, Still
from pgbreaker.sinks.peers.sights import Sights
from pgbreaker.sinks.peers.words import FleetWord

Watch: TypeAlias = Callable[[Iterable[str], Iterable[str]], Awaitable[None]]


def peers_of(
    plan: PeersPlan,
    board: Board,
    history: History,
    hub: Hub,
    clock: Clock,
    desk: Desk,
    watch: Watch,
    overrides: Mapping[str, Mapping[str, Any]],
) -> Peers:
    """Be ready to keep in touch with the others.

    Args:
        watch: Begins to watch targets, and leaves others.
        overrides: What was decided before the process began, as it was written down.

    Raises:
        PgbreakerError: An extra is missing.
    """
    lease = plan.engine.lease
    circle = Circle(
        plan.name,
        clock.now(),
        watchers=plan.watchers,
        quorum=plan.quorum,
        takeover=lease,
        holds=max(HOLDS, 3 * lease),
    )
    board.share(circle)
    sights = Sights(circle, board, hub, clock)

    async def heed(duties: Duties) -> None:
        await watch(duties.take, duties.leave)

    async def obey(word: FleetWord, left: Seconds, still: Still) -> None:
        await desk.obey(
            word.breaker,
            word.state,
            reason=word.reason,
            author=word.author,
            daemon=word.daemon,
            lasting=left,
            still=still,
        )

    engine = Engine(plan.engine, plan.name)
    return Peers(
        *(engine, sights, circle, board, history, clock),
        watch=heed,
        obey=obey,
        overrides=overrides,
    )


def own_peers(metrics: Metrics, peers: Peers) -> None:
    """Have the metrics show how the daemons are."""
    metrics.own(ENGINE_UP, lambda: int(peers.is_joined))
    metrics.own(ENGINE_LOSSES, lambda: peers.losses)
    metrics.own(PEERS, lambda: len(peers.circle.live))
    metrics.own(WATCHED, lambda: len(peers.circle.watching))
    metrics.own(PEER_MESSAGES_TOLD, lambda: peers.told)
    metrics.own(PEER_MESSAGES_HEARD, lambda: peers.heard)
    metrics.own(PEER_MESSAGES_UNREAD, lambda: peers.unread)
