"""How a page is put together: rows of panels, and what every page has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models import dashboard as model

from . import links, queries
from .panels import SOURCE, Panel

_COLUMNS: Final = 24  # of Grafana's grid
_ALL: Final = model.VariableOption(text="All", value="$__all")
_TAG: Final = "pgbreaker"


@dataclass(frozen=True)
class Line:
    """Panels beside each other.

    Attributes:
        height: In cells of Grafana's grid, of 30 pixels and 8 between.
        spans: Width of each in columns, 24 in all. None: all the same.
    """

    height: int
    panels: Sequence[Panel]
    spans: Sequence[int] | None = None


@dataclass(frozen=True)
class Section:
    """A row as Grafana calls it: a heading, and lines of panels below.

    Attributes:
        is_open: Whether it is when the page is; what is not costs no query.
    """

    title: str
    lines: Sequence[Line]
    is_open: bool = True


def page(
    uid: str,
    title: str,
    says: str,
    sections: Sequence[Section],
    variables: Sequence[QueryVariable],
    *,
    since: str = "now-3h",
) -> model.Dashboard:
    """Make a dashboard.

    Args:
        variables: Those after that of the data source.
        since: What is shown unless somebody asks for another time.
    """
    board = (
        Dashboard(f"pgbreaker / {title}")
        .uid(uid)
        .description(says)
        .tags([_TAG])
        .editable()
        .refresh("30s")
        .time(since, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(_source())
    )
    for variable in variables:
        board.with_variable(variable)
    for annotation in (_not_closed(), _restarted()):
        board.annotation(annotation)
    for link in (_pages(), _runbooks()):
        board.link(link)
    made = board.build()
    made.panels = list(_placed(sections))
    return made


def _placed(sections: Sequence[Section]) -> Iterator[model.Panel | model.RowPanel]:
    """The panels with their places: no gap, whatever was put where."""
    y, ident = 0, 0
    for section in sections:
        ident += 1
        row = Row(section.title).id(ident).collapsed(not section.is_open).build()
        row.grid_pos = model.GridPos(h=1, w=_COLUMNS, x=0, y=y)
        y += 1
        panels = []
        below = y
        for line in section.lines:
            x = 0
            for panel, span in zip(line.panels, _spans(line), strict=True):
                ident += 1
                built = panel.build()
                built.id_val = ident
                built.grid_pos = model.GridPos(h=line.height, w=span, x=x, y=below)
                panels.append(built)
                x += span
            below += line.height
        yield row
        if section.is_open:
            yield from panels
            y = below
        else:
            row.panels = panels


def _spans(line: Line) -> Sequence[int]:
    spans = line.spans or [_COLUMNS // len(line.panels)] * len(line.panels)
    if sum(spans) != _COLUMNS:
        raise ValueError(f"a line is {sum(spans)} columns wide, not {_COLUMNS}")
    return spans


# What can be chosen.


def _source() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def _choice(name: str, label: str, says: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .description(says)
        .datasource(SOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _several(variable: QueryVariable, all_value: str) -> QueryVariable:
    # Without a value of its own, All would be every name there is: addresses and
    # queries of kilobytes.
    return variable.multi(True).include_all(True).all_value(all_value).current(_ALL)


def jobs() -> QueryVariable:
    """Scrape jobs: the daemon's, and those of applications."""
    says = "Scrape jobs: the daemon's, and those of applications."
    query = "label_values(pgbreaker_breaker_state, job)"
    return _several(_choice("job", "Job", says, query), ".+")


def daemons() -> QueryVariable:
    """Scrape jobs of daemons alone."""
    says = "Scrape jobs of daemons."
    query = "label_values(pgbreaker_build_info, job)"
    return _choice("job", "Job", says, query).multi(True)


def targets() -> QueryVariable:
    """Servers, one or several."""
    # Not .+: an application's breakers have no target, and belong to All.
    return _several(target(), ".*")


def target() -> QueryVariable:
    """One server."""
    says = "Servers that the daemon watches."
    query = f"label_values({queries.pick('pgbreaker_target_up', _OF_JOB)}, target)"
    return _choice("target", "Target", says, query)


def operations() -> QueryVariable:
    """What the daemon has a breaker for on each server."""
    says = "Kinds of work that the daemon's breakers are for; applications have none."
    where = queries.TARGET
    query = f"label_values({queries.pick('pgbreaker_breaker_state', where)}, operation)"
    return _several(_choice("operation", "Operation", says, query), ".+")


def breakers(metric: str = "pgbreaker_breaker_state") -> QueryVariable:
    """Breakers of the servers chosen, of which there is *metric*."""
    says = "Breakers: the daemon's, and those of applications."
    query = f"label_values({queries.pick(metric, queries.BREAKER)}, breaker)"
    return _several(_choice("breaker", "Breaker", says, query), ".+")


_OF_JOB: Final = 'job=~"$job"'


# What is marked on every graph.


def _not_closed() -> AnnotationQuery:
    # One mark a server, whoever noticed: ten breakers would paint the graph over.
    is_out = queries.pick(
        "pgbreaker_breaker_state", queries.BREAKER, queries.NOT_CLOSED
    )
    server = f'label_replace({is_out} == 1, "server", "$1", "breaker", "([^/]+).*")'
    return (
        AnnotationQuery()
        .name("Breaker not closed")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("red")
        .expr(queries.by("server", server))
        .step("15s")
        .title_format("{{server}}: not every breaker is closed")
    )


def _restarted() -> AnnotationQuery:
    started = queries.pick("process_start_time_seconds", _OF_JOB)
    daemons = queries.pick("pgbreaker_build_info", _OF_JOB)
    return (
        AnnotationQuery()
        .name("Daemon restart")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("blue")
        .expr(f"(time() - {started} < 60) and on (job, instance) {daemons}")
        .step("15s")
        .title_format("The daemon started")
        .text_format("{{instance}}")
    )


# Where to go from every page.


def _pages() -> DashboardLink:
    return (
        DashboardLink("Dashboards")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _runbooks() -> DashboardLink:
    return (
        DashboardLink("Runbooks")
        .type(model.DashboardLinkType.LINK)
        .url(f"{links.RUNBOOKS}/")
        .target_blank(True)
    )
