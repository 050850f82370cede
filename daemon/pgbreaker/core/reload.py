"""What came of reading the configuration anew."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A configuration that was taken.

    Attributes:
        changes: What is another than before, a line each, such as
            ``targets.primary.interval: 1s -> 2s``; empty when nothing is. Never holds
            a secret.
        later: Of those, what takes effect with the next start only.
    """

    changes: tuple[str, ...]
    later: tuple[str, ...] = ()
