"""What an address asks for: what to search, which targets to show, in what order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlencode

from pgbreaker.web.page.targets import Row

SHOWS: Final = ("", "trouble", "down", "degraded", "warned", "override", "maintenance")
SORTS: Final = ("health", "name", "latency", "changed")


@dataclass(frozen=True, slots=True)
class Asked:
    """How the list of targets is wanted; the script does the same in the browser.

    Attributes:
        q: Words that a row has to hold. Empty: any.
        show: One of `SHOWS`.
        sort: One of `SORTS`.
        group: Whether rows stand below their label.
    """

    q: str = ""
    show: str = ""
    sort: str = "health"
    group: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read an address; what it has no word for is as usual."""
        show, sort = query.get("show", ""), query.get("sort", "")
        return cls(
            q=query.get("q", "")[:200],
            show=show if show in SHOWS else "",
            sort=sort if sort in SORTS else "health",
            group=query.get("group") == "1",
        )

    def address(self, *, show: str) -> str:
        """The query of an address that shows *show*, else the same."""
        said = {"q": self.q, "show": show, "sort": self.sort}
        if self.group:
            said["group"] = "1"
        said = {k: v for k, v in said.items() if v and v != "health"}
        return f"?{urlencode(said)}" if said else "?"

    def wants(self, row: Row) -> bool:
        """Whether *row* is wanted."""
        if self.show and self.show not in row.tags:
            return False
        return all(word in row.words for word in self.q.lower().split())

    def arrange(self, rows: Iterable[Row]) -> list[tuple[str | None, list[Row]]]:
        """The rows that are wanted, in order, below their headings; None is none."""
        keys = {
            "health": lambda row: (row.rank, row.name),
            "name": lambda row: row.name,
            "latency": lambda row: (-(row.line.last or -1.0), row.name),
            "changed": lambda row: (-row.changed, row.name),
        }
        wanted = sorted(filter(self.wants, rows), key=keys[self.sort])
        if not self.group:
            return [(None, wanted)]
        groups: dict[str, list[Row]] = {}
        for row in wanted:
            groups.setdefault(row.group, []).append(row)
        return list(groups.items())
