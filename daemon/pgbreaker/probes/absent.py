"""What a probe says when there is nothing to ask about."""

from pgbreaker.core.reading import Finding


class AbsentError(Exception):
    """What the probe asks about is not there; the message says what would help."""

    finding = Finding.ABSENT
