"""How panels look: one function a kind, and what they all must say.

Each takes its title, what it shows (what is good, what to do when it is not), and the
text for when there is nothing to show.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import (
    DashboardLink,
    FieldColor,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from .limits import Limit
from .queries import CONDITIONS, STATES

SOURCE: Final = look.DataSourceRef(type_val="prometheus", uid="${datasource}")

GOOD: Final = "green"
Steps: TypeAlias = Sequence[tuple[float | None, str]]
Query: TypeAlias = tuple[str, str]
"""An expression, and the legend of what it gives."""

_REFS: Final = "ABCDEFGHIJ"
_STATE_COLORS: Final = ("green", "blue", "purple", "yellow", "dark-orange", "red")
_CONDITION_COLORS: Final = ("green", "yellow", "orange", "red")


class Panel(Protocol):
    """What every kind of panel has; the SDK gives them no common type."""

    def build(self) -> model.Panel: ...
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def datasource(self, datasource: look.DataSourceRef) -> Self: ...
    def with_target(self, target: Builder[Any]) -> Self: ...


P = TypeVar("P", bound=Panel)


def number(
    title: str,
    says: str,
    query: str,
    *,
    none: str,
    unit: str = "none",
    steps: Steps = ((None, GOOD),),
    words: Sequence[model.ValueMapping] = (),
    decimals: int | None = None,
    path: str | None = None,
    spark: bool = False,
) -> stat.Panel:
    """One number, whose colour is the answer.

    Args:
        words: What to write in the place of some numbers.
        path: Where a click leads, as `links.to` writes it.
        spark: Whether its course is drawn behind it.
    """
    graph = look.BigValueGraphMode.AREA if spark else look.BigValueGraphMode.NONE
    panel = (
        _described(stat.Panel(), title, says, unit, none)
        .thresholds(_thresholds(steps))
        .mappings(list(words))
        .color_mode(look.BigValueColorMode.BACKGROUND)
        .graph_mode(graph)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(query, "", instant=not spark))
    )
    if len(steps) == 1 and not words:
        panel.color_scheme(_one_color(steps[0][1]))
    if decimals is not None:
        panel.decimals(decimals)
    return panel if path is None else panel.data_links([_link(title, path)])


def shares(
    title: str, says: str, query: str, legend: str, *, none: str, steps: Steps
) -> stat.Panel:
    """A share a thing, one beside the other."""
    return (
        _described(stat.Panel(), title, says, "percentunit", none)
        .decimals(0)
        .thresholds(_thresholds(steps))
        .color_mode(look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.NONE)
        .text_mode(look.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(query, legend, instant=True))
    )


def fact(title: str, says: str, query: str, legend: str, *, none: str) -> stat.Panel:
    """What labels say, and not a number: a version, a role."""
    return (
        _described(stat.Panel(), title, says, "none", none)
        .thresholds(_thresholds(((None, "blue"),)))
        .color_scheme(_one_color("blue"))
        .color_mode(look.BigValueColorMode.NONE)
        .graph_mode(look.BigValueGraphMode.NONE)
        .text_mode(look.BigValueTextMode.NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(query, legend, instant=True))
    )


def graph(
    title: str,
    says: str,
    *queries: Query,
    none: str,
    unit: str,
    limits: Sequence[Limit] = (),
    least: float | None = 0,
    most: float | None = None,
    colors: Mapping[str, str] | None = None,
    dashed: str | None = None,
    stacked: bool = False,
    bars: bool = False,
    points: bool = False,
    band: tuple[str, str] | None = None,
    path: str | None = None,
) -> timeseries.Panel:
    """Numbers over time.

    Args:
        limits: Where alerts begin: a dashed line each, always in sight.
        least: Where the axis begins. None: where the numbers do.
        most: Where it ends.
        colors: Name in the legend -> its colour.
        dashed: Which names in the legend are limits themselves, as a pattern.
        bars: Whether each point stands for what happened about then.
        points: Whether single ones, with nothing beside them, are to be seen.
        band: Names in the legend of two that are the lower and the upper end of one band.
    """
    panel = (
        _described(timeseries.Panel(), title, says, unit, none)
        .line_width(1)
        .fill_opacity(0)
        .show_points(look.VisibilityMode(("never", "auto")[points]))
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode.LIST)
            .placement(look.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(look.TooltipDisplayMode.MULTI)
            .sort(look.SortOrder.DESCENDING)
        )
    )
    for place, (expr, legend) in enumerate(queries):
        panel.with_target(_query(expr, legend, ref=_REFS[place]))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if stacked:
        group = common.StackingConfig().mode(look.StackingMode.NORMAL).group("A")
        panel.stacking(group).fill_opacity(50).line_width(0)
    if bars:
        panel.draw_style(look.GraphDrawStyle.BARS).fill_opacity(80)
        panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL))
    if limits:
        style = common.GraphThresholdsStyleConfig()
        panel.thresholds_style(style.mode(look.GraphThresholdsStyleMode.DASHED))
        panel.thresholds(_thresholds(above(*limits, fine="transparent")))
        if most is None:
            panel.axis_soft_max(1.1 * max(limit.value for limit in limits))
    for name, how in _lines(colors or {}, band):
        panel.override_by_name(name, how)
    if dashed is not None:
        panel.override_by_regexp(dashed, _as_limit())
    return panel if path is None else panel.data_links([_link(title, path)])


def bars(
    title: str,
    says: str,
    *queries: Query,
    none: str,
    unit: str,
    steps: Steps,
    most: float | None = None,
    path: str | None = None,
) -> bargauge.Panel:
    """One bar a thing, as long as it is full."""
    panel = (
        _described(bargauge.Panel(), title, says, unit, none)
        .min(0)
        .thresholds(_thresholds(steps))
        .orientation(look.VizOrientation.HORIZONTAL)
        .display_mode(look.BarGaugeDisplayMode.BASIC)
        .value_mode(look.BarGaugeValueMode.TEXT)
        .text(common.VizTextDisplayOptions().title_size(14).value_size(20))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for place, (expr, legend) in enumerate(queries):
        panel.with_target(_query(expr, legend, ref=_REFS[place], instant=True))
    if most is not None:
        panel.max(most)
    return panel if path is None else panel.data_links([_link(title, path)])


def timeline(
    title: str,
    says: str,
    query: Query,
    *,
    none: str,
    words: Sequence[model.ValueMapping],
    path: str | None = None,
) -> statetimeline.Panel:
    """One row a thing, coloured by its state."""
    panel = (
        _described(statetimeline.Panel(), title, says, "none", none)
        .mappings(list(words))
        .thresholds(_thresholds(((None, "text"),)))
        .color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .line_width(0)
        .fill_opacity(80)
        .row_height(0.8)
        .merge_values(True)
        .show_value(look.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode.LIST)
            .placement(look.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .with_target(_query(*query))
    )
    return panel if path is None else panel.data_links([_link(title, path)])


def spread(
    title: str, says: str, histogram: str, *, none: str, unit: str = "s"
) -> heatmap.Panel:
    """How many took how long, over time.

    Args:
        histogram: What gives its buckets, by ``le``.
    """
    return (
        _described(heatmap.Panel(), title, says, unit, none)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .tooltip(heatmap.HeatmapTooltip().mode(look.TooltipDisplayMode.SINGLE))
        .color(heatmap.HeatmapColorOptions().scheme("Turbo").steps(64).exponent(0.5))
        .with_target(_query(histogram, "{{le}}", format_=PromQueryFormat.HEATMAP))
    )


class Column:
    """A column of a table: a query of one number for each row, and how it looks.

    Args:
        title: What stands above it. None: it is asked for its labels, and not shown.
        steps: Colours of its cells. None: they have none.
        words: What to write in the place of some numbers.
    """

    def __init__(
        self,
        title: str | None,
        expr: str,
        *,
        unit: str = "none",
        steps: Steps | None = None,
        words: Sequence[model.ValueMapping] = (),
        decimals: int | None = None,
    ) -> None:
        self.title = title
        self.expr = expr
        self._unit = unit
        self._steps = steps
        self._words = words
        self._decimals = decimals

    def properties(self) -> list[model.DynamicConfigValue]:
        """How its cells differ from those of the others."""
        made = [_property("unit", self._unit)]
        if self._decimals is not None:
            made.append(_property("decimals", self._decimals))
        if self._words:
            made.append(_property("mappings", list(self._words)))
        if self._steps is not None:
            steps = _thresholds(self._steps).build()
            made += [_property("thresholds", steps), _COLORED]
        elif self._words:
            made.append(_COLORED)
        return made


def table_of(
    title: str,
    says: str,
    columns: Sequence[Column],
    *,
    none: str,
    labels: Mapping[str, str],
    first: str,
    descending: bool = True,
    paths: Mapping[str, str] | None = None,
    rewritten: Mapping[str, tuple[str, str]] | None = None,
    widths: Mapping[str, int] | None = None,
) -> table.Panel:
    """One row a thing, one column a query.

    Args:
        labels: Label -> title of its column, in order. Lines of several queries are one
            where the labels that all queries keep are the same.
        first: The column that it is sorted by, largest first unless *descending* is
            False.
        paths: Title of a column -> where a click in it leads.
        rewritten: Title of a column -> a pattern, and what is shown where it matches.
        widths: Title of a column -> its width in pixels. The others share the rest.
    """
    # With a unit of numbers, version 16.10 would be shown as 16.1.
    panel = (
        _described(table.Panel(), title, says, "string", none)
        .sort_by([common.TableSortByFieldState().display_name(first).desc(descending)])
        .min_width(60)
        .override_by_regexp(".*", [_property("noValue", "-")])
    )
    for ref, column in zip(_REFS, columns, strict=False):
        query = _query(column.expr, "", ref=ref, instant=True, format_=_TABLE)
        panel.with_target(query)
        if column.title is not None:
            panel.override_by_name(column.title, column.properties())
    for name, path in (paths or {}).items():
        panel.override_by_name(name, [_property("links", [_link(name, path).build()])])
    for name, (pattern, shown) in (rewritten or {}).items():
        result = model.ValueMappingResult(text=shown, index=0)
        options = model.DashboardRegexMapOptions(pattern=pattern, result=result)
        mapping = model.RegexMap(options=options)
        panel.override_by_name(name, [_property("mappings", [mapping])])
    for name, width in (widths or {}).items():
        panel.override_by_name(name, [_property("custom.width", width)])
    titles = [column.title for column in columns]
    return panel.transformations(_merged(labels, titles))


def note(title: str, content: str) -> text.Panel:
    """Words, where numbers do not help."""
    return (
        text.Panel()
        .title(title)
        .description("What this page shows, and where to go from it.")
        .mode(TextMode.MARKDOWN)
        .content(content)
    )


def above(*limits: Limit, fine: str = GOOD) -> Steps:
    """Colours from where each alert begins; *fine* before."""
    marks = sorted({(limit.value, limit.color) for limit in limits})
    return ((None, fine), *marks)


def below(*limits: Limit) -> Steps:
    """The same, for what is good while it is large."""
    marks = sorted((limit.value, limit.color) for limit in limits)
    colors = [color for _, color in marks] + [GOOD]
    bounds = [None, *(value for value, _ in marks)]
    return tuple(zip(bounds, colors, strict=True))


def from_one(color: str) -> Steps:
    """Good at none, *color* from the first on."""
    return ((None, GOOD), (1, color))


def words(texts: Mapping[float, tuple[str, str]]) -> list[model.ValueMapping]:
    """What to write, and in which colour, in the place of a number."""
    results = {
        f"{value:g}": model.ValueMappingResult(text=text, color=color, index=place)
        for place, (value, (text, color)) in enumerate(texts.items())
    }
    return [model.ValueMap(options=results)]


def _named(names: Sequence[str], colors: Sequence[str]) -> list[model.ValueMapping]:
    pairs = zip((name.upper() for name in names), colors, strict=True)
    return words(dict(enumerate(pairs)))


STATE_WORDS: Final = _named(STATES, _STATE_COLORS)
CONDITION_WORDS: Final = _named(CONDITIONS, _CONDITION_COLORS)

_TABLE: Final = PromQueryFormat.TABLE


def _described(panel: P, title: str, says: str, unit: str, none: str) -> P:
    return (
        panel.title(title)
        .description(says)
        .unit(unit)
        .no_value(none)
        .datasource(SOURCE)
    )


def _query(
    expr: str,
    legend: str,
    *,
    ref: str = "A",
    instant: bool = False,
    format_: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> Dataquery:
    query = Dataquery().expr(expr).ref_id(ref).datasource(SOURCE).format(format_)
    query.legend_format(legend) if legend else None
    return query.instant() if instant else query.range()


def _thresholds(steps: Steps) -> ThresholdsConfig:
    made = [model.Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _one_color(name: str) -> FieldColor:
    return FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(name)


def _link(title: str, path: str) -> DashboardLink:
    return DashboardLink(title).url(path)


def _property(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


_COLORED: Final = _property("custom.cellOptions", {"type": "color-text"})


def _fixed(color: str) -> model.DynamicConfigValue:
    return _property("color", {"mode": "fixed", "fixedColor": color})


def _as_limit() -> list[model.DynamicConfigValue]:
    """A line that is a limit, and not a course."""
    return [
        _fixed("orange"),
        _property("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
        _property("custom.fillOpacity", 0),
        _property("custom.stacking", {"mode": "none", "group": "B"}),
        _property("custom.lineWidth", 1),
    ]


def _lines(
    colors: Mapping[str, str], band: tuple[str, str] | None
) -> Iterator[tuple[str, list[model.DynamicConfigValue]]]:
    """How lines look that are not like the others, by their names in the legend."""
    for name, color in colors.items():
        yield name, [_fixed(color)]
    if band is not None:
        lower, upper = band
        dotted = _property("custom.lineStyle", {"fill": "dash", "dash": [2, 4]})
        edge = [_fixed("semi-dark-blue"), dotted]
        down = _property("custom.fillBelowTo", lower)
        yield lower, edge
        yield upper, [*edge, down, _property("custom.fillOpacity", 20)]


def _merged(
    labels: Mapping[str, str], titles: Sequence[str | None]
) -> list[model.DataTransformerConfig]:
    """One table of what the queries gave, its columns in the order given."""
    values = zip(_REFS, titles, strict=False)
    names = {**labels, **{f"Value #{ref}": title for ref, title in values if title}}
    keep = {"pattern": f"^({'|'.join(names)})$"}
    order = {name: place for place, name in enumerate(names)}
    steps = {
        "merge": {},
        "filterFieldsByName": {"include": keep},
        "organize": {"indexByName": order, "renameByName": names},
    }
    return [
        model.DataTransformerConfig(id_val=name, options=options)
        for name, options in steps.items()
    ]
