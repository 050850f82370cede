"""The configuration: a YAML file, or a DSN, into what the daemon runs by.

Floor 4; the only place that imports pydantic and PyYAML. What comes out, `Config`, is
made of plain objects.
"""

from pgbreaker.config.cautions import cautions
from pgbreaker.config.diff import LATER, diff, later
from pgbreaker.config.files import fingerprint, sources
from pgbreaker.config.load import for_alertmanager, for_dsn, listening, load, parse
from pgbreaker.config.reference import reference
from pgbreaker.config.schema import schema
from pgbreaker.config.show import shown, written
from pgbreaker.config.starter import starter

__all__ = [
    "LATER",
    "cautions",
    "diff",
    "fingerprint",
    "for_alertmanager",
    "for_dsn",
    "later",
    "listening",
    "load",
    "parse",
    "reference",
    "schema",
    "shown",
    "sources",
    "starter",
    "written",
]
