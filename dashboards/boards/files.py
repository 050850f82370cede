"""Dashboards as the text of files: classic JSON, which Grafana 11 to 13 read."""

import json
from collections.abc import Callable
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from . import breakers, daemon, overview, pools, slo, target

BOARDS: Final[tuple[Callable[[], Dashboard], ...]] = (
    overview.board,
    target.board,
    breakers.board,
    pools.board,
    slo.board,
    daemon.board,
)
"""All of them. To add one: write its file, and add it here."""

# Where the SDK puts links and annotations unasked: out of sight, in a menu.
_OUT_OF_SIGHT: Final = "inControlsMenu"


def written() -> dict[str, str]:
    """File name -> text of every dashboard."""
    texts = {}
    for board in BOARDS:
        made = json.loads(JSONEncoder().encode(board()))
        name = made["uid"].removeprefix("pgbreaker-")
        texts[f"{name}.json"] = json.dumps(_known(made), indent=1) + "\n"
    return texts


def _known(part: Any) -> Any:  # noqa: ANN401 - any JSON
    """*part* without what the SDK writes and Grafana does not know, or we do not want.

    The footer of tables went with Grafana 13; which way a panel repeats says nothing of
    one that does not.
    """
    if isinstance(part, list):
        return [_known(one) for one in part]
    if not isinstance(part, dict):
        return part
    unwanted = {"footer"}
    if part.get("placement") == _OUT_OF_SIGHT:
        unwanted.add("placement")
    if "repeat" not in part:
        unwanted.add("repeatDirection")
    return {key: _known(one) for key, one in part.items() if key not in unwanted}
