"""What is warned of, by the table that everything goes by."""

from pgbreaker.core.forecast.warning import KINDS
from pgbreaker.core.units import roughly


def kinds() -> str:
    """A Markdown table: what is warned of, how long before, and what that takes."""
    lines = [
        f"| `{kind.of}` | {kind.says} | {roughly(kind.within)} | {kind.needs} |"
        f" {'yes' if kind.is_scored else '-'} |"
        for kind in KINDS.values()
    ]
    head = "| kind | what runs out, or happens | within | takes | counted |"
    return "\n".join([head, "|---|---|---|---|---|", *lines]) + "\n"
