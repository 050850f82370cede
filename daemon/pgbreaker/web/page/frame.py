"""What stands around each page, and who looks at it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from markupsafe import Markup

from pgbreaker.core.units import Seconds
from pgbreaker.web.doors import csrf_token
from pgbreaker.web.inside import Inside
from pgbreaker.web.page import press
from pgbreaker.web.page.orders import UNDO_WITHIN, Done, Lately
from pgbreaker.web.page.sheet import Sheet
from pgbreaker.web.route import WHO, Role

MARK: Final = "Pgbreaker-Mark"
"""Header: edition and version of the page that was sent."""

NOW: Final = "Pgbreaker-Now"
"""Header: the daemon's wall time, in milliseconds since the epoch."""

HEARD: Final = "Pgbreaker-Heard"
"""Header: when the last reading ended, likewise; missing before the first."""

_THEMES: Final = ("dark", "light")
_SMALL: Final = 4096  # bytes that are not worth packing


class Frame:
    """Puts pages into their frame.

    Attributes:
        lately: What was done a moment ago.
    """

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self.lately = Lately()

    # Who looks, and from where.

    def root(self, request: web.Request) -> str:
        """The way from the page that is asked for to the root: a proxy may have put
        us anywhere."""
        return "../" * (request.rel_url.raw_path.count("/") - 1)

    def may_act(self, request: web.Request) -> bool:
        """Whether they may take breakers over."""
        return request[WHO].role >= Role.OPERATOR

    @property
    def last_entry(self) -> int:
        """Id of the newest entry, 0 when there is none."""
        kept = self.inside.history.entries
        return kept[-1].id if kept else 0

    # What is sent.

    def page(
        self,
        request: web.Request,
        template: str,
        *,
        title: str,
        sheet: Sheet | None = None,
        status: int = 200,
        **facts: Any,  # noqa: ANN401 - whatever the template shows
    ) -> web.Response:
        """A whole page; with a *sheet* it goes on living."""
        pieces = sheet.pieces if sheet else {}
        usual = {"here": None, "tone": "good", "done": "", "pieces": pieces}
        given = self.common(request) | usual | facts
        text = press.write(
            template,
            **given,
            title=title,
            mark=sheet.mark if sheet else "",
            pace=1000 if sheet else 0,
            last=self.last_entry,
            usual=self._usual,
            foot=self._foot(given),
            theme=_theme(request),
        )
        response = web.Response(
            text=text, content_type="text/html", status=status, headers=press.HEADERS
        )
        self._date(response)
        return _packed(request, response)

    def changes(self, request: web.Request, sheet: Sheet, since: int) -> web.Response:
        """What changed on *sheet* since a version of it."""
        pieces = list(sheet.since(since))
        response = web.Response(
            text="\n".join(pieces),
            content_type="text/html",
            status=200 if pieces else 204,
            headers=press.HEADERS | {MARK: sheet.mark},
        )
        self._date(response)
        return _packed(request, response)

    def part(self, markup: Markup, *, status: int = 200) -> web.Response:
        """A piece that was asked for by itself: a dialog, a word on what was done."""
        return web.Response(
            text=markup,
            content_type="text/html",
            status=status,
            headers=press.HEADERS,
        )

    def toast(self, request: web.Request, done: Done) -> Markup:
        """A word on what was done, and what takes it back."""
        given = self.common(request) | {
            "done": done,
            "undo_within": int(UNDO_WITHIN),
            "csrf": csrf_token(request),
        }
        return press.write("_done.html", **given)

    def common(self, request: web.Request) -> dict[str, Any]:
        """What every template is given."""
        inside = self.inside
        age = inside.recent.age(inside.clock.now())
        now = inside.clock.wall()
        return {
            "root": self.root(request),
            "can": self.may_act(request),
            "who": request[WHO].name,
            "now": now,
            "wall": now - inside.clock.now(),
            "heard": None if age is None else now - age,
        }

    def _date(self, response: web.Response) -> None:
        """Say what time it is here, and how old the newest data are."""
        clock = self.inside.clock
        wall, age = clock.wall(), self.inside.recent.age(clock.now())
        response.headers[NOW] = str(int(wall * 1000))
        if age is not None:
            response.headers[HEARD] = str(int((wall - age) * 1000))

    @property
    def _usual(self) -> Seconds:
        """Seconds between two readings, of whichever target, when all is well."""
        return min(
            (
                probe.interval
                for target in self.inside.board.targets.values()
                for probe in target.plan.probes.values()
            ),
            default=0.0,
        )

    def _foot(self, given: Mapping[str, Any]) -> Markup:
        inside = self.inside
        return press.write(
            "_foot.html",
            root=given["root"],
            can=given["can"],
            who=given["who"],
            version=inside.version,
            targets=len(inside.board.targets),
            config_hash=self._config_hash(),
            store=self._store(),
            health=inside.health(),
        )

    @property
    def forgets(self) -> bool:
        """Whether what is decided here ends with the process."""
        return self.inside.views.stored() is None

    def _config_hash(self) -> str | None:
        """A word that is another when the configuration is; None: it is not shown."""
        if self.inside.config is None:
            return None
        text = json.dumps(self.inside.config(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _store(self) -> str:
        stored = self.inside.views.stored()
        if stored is None:
            return "no store: what is decided here ends with the process"
        size = f"store {stored.size / 1_000_000:.1f} MB"
        return size if stored.degraded is None else f"{size}, cannot be written to"


def _theme(request: web.Request) -> str | None:
    theme = request.cookies.get("pgbreaker-theme")
    return theme if theme in _THEMES else None


def _packed(request: web.Request, response: web.Response) -> web.Response:
    """Have what is large packed on its way."""
    body = response.body
    if isinstance(body, bytes) and len(body) > _SMALL:
        response.enable_compression()
    return response
