"""Whether the server answers at all."""

from collections.abc import Mapping

from pgbreaker.core.reading import NOTHING, Value
from pgbreaker.postgres.target import Connection


async def ping(connection: Connection) -> Mapping[str, Value]:
    """Ask for nothing, by the simple protocol: one round trip, and no prepared
    statement for a pooler to stumble over."""
    await connection.execute("SELECT 1")
    return NOTHING
