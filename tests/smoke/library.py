"""Smoke test of the library, by the Python that it alone is installed for:

VENV/bin/python -I tests/smoke/library.py
"""

import asyncio
import importlib.metadata
import sys

import pgbreaker
from pgbreaker import CircuitOpenError, PostgreSQLCircuitBreakerConfig, circuit_breaker

INSTALLERS = {"pip", "setuptools", "wheel"}
HASTY = PostgreSQLCircuitBreakerConfig(failure_threshold=2, max_retry_attempts=0)
ASKED: list[str] = []


@circuit_breaker("smoke", config=HASTY)
async def ask(answer: Exception | str) -> str:
    """Stands for a call to the database."""
    ASKED.append(str(answer))
    if isinstance(answer, Exception):
        raise answer
    return answer


async def guard() -> None:
    """A call goes through; after two that found no server the third is not made."""
    assert await ask("one") == "one"
    for _ in range(2):
        try:
            await ask(ConnectionRefusedError("nobody listens"))
        except ConnectionRefusedError:
            continue
        raise AssertionError("what the function raised did not come through")
    try:
        await ask("never")
        refused = None
    except CircuitOpenError as error:
        refused = error
    assert refused is not None, "a call went through that was to be refused"
    assert refused.retry_after is not None
    assert "smoke" in str(refused)
    assert ASKED == ["one", "nobody listens", "nobody listens"]


def main() -> None:
    """Fails unless it guards a call, and needs no other package."""
    found = {
        str(d.metadata["Name"]).lower() for d in importlib.metadata.distributions()
    }
    beside = found - INSTALLERS - {"pgbreaker"}
    assert not beside, f"installed beside it: {', '.join(sorted(beside))}"
    assert importlib.metadata.version("pgbreaker") == pgbreaker.__version__
    asyncio.run(guard())
    print(
        f"library {pgbreaker.__version__}, Python {sys.version.split()[0]}: it guards"
    )


if __name__ == "__main__":
    main()
