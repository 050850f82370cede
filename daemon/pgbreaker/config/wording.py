"""What pydantic found wrong, in our words and at its place; and what is left.

What is wrong is taken out and the rest is looked at again, so that whatever is checked
afterwards, of one value against another, is checked in the same go.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from pgbreaker.config import shape
from pgbreaker.config.document import (
    Data,
    Document,
    Path,
    closest,
    did_you_mean,
    word,
)
from pgbreaker.config.hints import hint
from pgbreaker.config.units import quoted

# A value of every required key, which takes the place of one that is missing or wrong.
_STAND_INS: Final[Mapping[str, Data]] = {
    "version": 1,
    "name": "stand_in",
    "dsn": "postgresql://stand-in.invalid/x",
    "query": "SELECT 1",
    "url": "http://stand-in.invalid",
    "endpoint": "http://stand-in.invalid",
    "urls": ["http://stand-in.invalid"],
    "path": "/",
    "database": "stand_in",
    "listen": "127.0.0.1:9433",
    "targets": [],
}
# What the second look finds was hidden by what the first one did, and there is little.
_LOOKS: Final = 8

_Shape = TypeVar("_Shape", bound=shape.Model)


def shaped(document: Document, model: type[_Shape]) -> _Shape | None:
    """Read *document* by its shape; what is wrong is noted, and left out or stood in for.

    None: nothing is left of it, or far too much is wrong with it.
    """
    data = document.data
    for look in range(_LOOKS):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
        # Unknown keys first: one of them may be what a missing one was called.
        found.sort(key=lambda details: details["type"] != "extra_forbidden")
        data = copy.deepcopy(data) if look == 0 else data
        for details in found:
            if document.is_full:
                return None  # of nothing further would anything be shown
            path = _explained(document, model, details)
            _mend(model, data, path)
    return None


def _explained(
    document: Document, model: type[shape.Model], details: Mapping[str, Any]
) -> Path:
    """Say one of pydantic's errors in our words, and where the bad value is."""
    path: Path = tuple(details["loc"])
    if details["type"] == "extra_forbidden":
        _explain_key(document, model, path)
        return path
    is_key = path[-1:] == ("[key]",) and not _is_there(document.data, path)
    path = path[:-1] if is_key else path
    if details["type"] == "missing":
        if not document.is_lost(path):
            document.complain(path[:-1], f"{path[-1]} is missing", spoils=path)
        return path
    if document.is_lost(path):
        return path  # what it complains of is the echo of that
    is_ours = details["type"] == "value_error"
    text = str(details["ctx"]["error"]) if is_ours else "not keys and values"
    document.complain(path, _unexpanded(document, path, text), at_key=is_key)
    return path


def _unexpanded(document: Document, path: Path, text: str) -> str:
    """*text* with a value as the file writes it, not as a variable has it."""
    raw, value = document.raw.get(path), at(document.data, path)
    if raw is None or not isinstance(value, str):
        return text
    return text.replace(quoted(value), quoted(raw))


def _explain_key(document: Document, model: type[shape.Model], path: Path) -> None:
    key, words = str(path[-1]), _keys_at(model, path[:-1])
    meant = closest(key, words)
    place = next((str(p) for p in reversed(path[:-1]) if isinstance(p, str)), "")
    is_probe = path[-2:-1] == ("probes",)
    better = None if is_probe else hint(place, key)
    if key == "<<":
        text = "merge keys are not supported; write the keys out"
    elif better is not None:
        text = f"no such key; {better}"
    elif is_probe:
        text = f"no probe is called {word(key)!r}; {_probes_like(meant, words)}"
    elif model is shape.IncludedShape and len(path) == 1 and key in _keys_of_file():
        text = "an included file holds targets alone; write this into the main one"
    else:
        text = f"no such key; {did_you_mean(key, words)}"
    document.complain(path, text, at_key=True)
    # What was meant is there, in a way: that it is missing would be an echo.
    named = re.findall(r"[a-z_]+", better) if better else [meant]
    parent = at(document.data, path[:-1])
    for one in named:
        if one in words and isinstance(parent, dict) and one not in parent:
            document.spoil((*path[:-1], one))


def _probes_like(meant: str | None, words: Iterable[str]) -> str:
    listed = f"there are {', '.join(words)}"
    return listed if meant is None else f"did you mean {meant!r}? {listed}"


def _keys_of_file() -> Iterable[str]:
    return shape.FileShape.model_fields


def _model_at(model: type[shape.Model], path: Path) -> type[shape.Model]:
    """The shape of the mapping at *path*."""
    for part in path:
        if isinstance(part, str):
            model = shape.inner(model, part) or model
    return model


def _keys_at(model: type[shape.Model], path: Path) -> tuple[str, ...]:
    """The keys that there are in the mapping at *path*."""
    return tuple(_model_at(model, path).model_fields)


# -- Taking out what is wrong ------------------------------------------------------


def at(data: Data, path: Path) -> Data:
    """What stands at *path*; None where nothing does."""
    for part in path:
        if isinstance(data, dict) and isinstance(part, str):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _is_there(data: Data, path: Path) -> bool:
    parent = at(data, path[:-1])
    return isinstance(parent, dict) and path[-1] in parent


def _mend(model: type[shape.Model], data: dict[str, Data], path: Path) -> None:
    """Take what stands at *path* out of *data*, or put something in its place."""
    *above, key = path if path else ("",)
    parent = at(data, tuple(above))
    inside = _model_at(model, path)
    if isinstance(key, int):
        if not isinstance(parent, list) or key >= len(parent):
            return
        if _has_shape(model, tuple(above)):
            parent[key] = _stand_in(inside)
        else:  # of words: the list as a whole is not to be relied on
            _mend(model, data, tuple(above))
        return
    if not isinstance(parent, dict):
        return
    fields = _model_at(model, tuple(above)).model_fields
    field = fields.get(key) if _has_shape(model, tuple(above)) else None
    if field is not None and field.is_required():
        parent[key] = _stand_in_of(_model_at(model, tuple(above)), key)
    else:
        parent.pop(key, None)


def _has_shape(model: type[shape.Model], path: Path) -> bool:
    """Whether there is a shape of what stands at *path*; labels and words have none."""
    for part in path:
        if isinstance(part, str):
            inside = shape.inner(model, part)
            if inside is None:
                return False
            model = inside
    return True


def _stand_in_of(model: type[shape.Model], key: str) -> Data:
    if model is shape.PeersShape:
        return "redis://stand-in.invalid"
    return copy.deepcopy(_STAND_INS[key])


def _stand_in(model: type[shape.Model]) -> Data:
    return {
        name: _stand_in_of(model, name)
        for name, field in model.model_fields.items()
        if field.is_required()
    }
