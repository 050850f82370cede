"""How a target is, in one word."""

from enum import StrEnum


class Condition(StrEnum):
    """How a target is, in one word; the label ``state`` of its state metric."""

    UP = "up"
    DEGRADED = "degraded"  # it answers, but some work on it fails
    DOWN = "down"
    UNKNOWN = "unknown"  # nothing seen yet, or not let in to look
