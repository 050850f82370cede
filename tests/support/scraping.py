"""What Prometheus would read of the library, by its own parser."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pgbreaker.metrics import collector

_PREFIX = "pgbreaker_pool_"


@dataclass(frozen=True)
class Pooled:
    """The series of a target's pools; None for each that is not there."""

    used: float | None = None
    idle: float | None = None
    max: float | None = None
    waiters: float | None = None


def pooled(target: str) -> Pooled:
    """What a scrape tells of the pools of *target*."""
    registry = CollectorRegistry()
    registry.register(collector())
    text = generate_latest(registry).decode()
    series = {
        sample.labels.get("state", sample.name.removeprefix(_PREFIX)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(_PREFIX) and sample.labels["breaker"] == target
    }
    return Pooled(
        used=series.pop("used", None),
        idle=series.pop("idle", None),
        max=series.pop("max_connections", None),
        waiters=series.pop("waiters", None),
        **series,  # a series that nobody knows is an error
    )
