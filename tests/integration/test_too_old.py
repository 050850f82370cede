"""A server of a version that is not asked anything.

No package brings PostgreSQL 13 any more; so a real server's words pass through a
proxy that puts another version into its greeting, of the same length.
"""

from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.demo.proxy import Proxy
from pgbreaker.monitor.examine import examine
from pgbreaker.sinks.board import Condition
from support.servers import psql
from support.watching import Watching


class Greeting(Proxy):
    """Forwards to *server*, and says that it were of *major*."""

    def __init__(self, major: int, server) -> None:
        super().__init__("127.0.0.1", server.port)
        self.real = psql(server, "SHOW server_version").encode()
        self.said = str(major).encode() + self.real[2:]

    async def _pump(self, reader, writer) -> None:
        await super()._pump(Words(reader, self.real, self.said), writer)


class Words:
    """Reads what *reader* does, with *real* replaced by *said*."""

    def __init__(self, reader, real: bytes, said: bytes) -> None:
        self.reader, self.real, self.said = reader, real, said

    async def read(self, size: int) -> bytes:
        return (await self.reader.read(size)).replace(self.real, self.said)


async def test_thirteen_is_refused_with_a_word_and_moves_no_breaker(server):
    async with Greeting(13, server) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        async with Watching(dsn) as watching:
            await watching.until(lambda: watching.notices, within=5.0)

            (notice,) = watching.notices
            assert notice.code == "too_old"
            assert "PostgreSQL 13 is not watched: 14 is the oldest" in notice.text
            assert watching.board.condition is Condition.UNKNOWN
            assert watching.moves == []
            assert watching.board.connections == 0
            assert len(watching.readings("ping")) == 1  # the next try is seconds away


async def test_fourteen_is_watched(server):
    async with (
        Greeting(14, server) as proxy,
        Watching(server.dsn(user="pgbreaker", port=proxy.port)) as watching,
    ):
        await watching.until(lambda: watching.answers("ping"), within=5.0)


async def test_a_probe_by_hand_says_the_same(server):
    async with Greeting(13, server) as proxy:
        dsn = Secret(server.dsn(user="pgbreaker", port=proxy.port))

        report = await examine(TargetPlan(name="main", dsn=dsn, probes=USUAL))

    assert not report.is_good
    assert report.steps[-1].finding is Finding.ABSENT
    assert "PostgreSQL 13 is not watched" in report.line
