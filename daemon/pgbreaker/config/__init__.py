"""The configuration: a YAML file, or a DSN, into what the daemon runs by.

Floor 4; the only place that imports pydantic and PyYAML. What comes out, `Config`, is
made of plain objects.
"""

from pgbreaker.config.load import for_alertmanager, for_dsn, load, parse
from pgbreaker.config.reference import reference

__all__ = ["for_alertmanager", "for_dsn", "load", "parse", "reference"]
