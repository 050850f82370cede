"""The JSON Schema of the file, for editors: draft 2020-12, made from the shape itself.

It says less than the loader does: what of one value depends on another, on a variable or
on the machine is the loader's.
"""

from typing import Any, Final

from pgbreaker.config import shape
from pgbreaker.config.document import resolved
from pgbreaker.config.nodes import Map, Node, Sequence, Text, compose
from pgbreaker.config.reference import default_of

Json = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# Lists that are not empty where they are given.
_SOME: Final = frozenset(("targets", "operations", "urls"))
_LISTS: Final = {"targets": "targets[]", "custom": "custom[]"}


def schema() -> Json:
    """The schema, as JSON takes it."""
    made = shape.FileShape.model_json_schema(by_alias=False)
    definitions: Json = made.pop("$defs")
    file = _inlined(made, definitions)
    _fill(shape.FileShape, file, "")
    # Somebody is to be watched, be it in another file.
    return {
        "$schema": _DIALECT,
        "title": "Configuration of pgbreaker",
        **file,
        "anyOf": [{"required": ["targets"]}, {"required": ["include"]}],
    }


def _inlined(part: Any, definitions: Json) -> Any:  # noqa: ANN401 - any JSON
    """*part* with every reference replaced by what it leads to.

    The same shape has other defaults in other places.
    """
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    found = dict(part)
    reference = found.pop("$ref", None)
    if reference is not None:
        found = {**definitions[reference.rpartition("/")[2]], **found}
    return {
        key: _inlined(value, definitions)
        for key, value in found.items()
        # Titles repeat the key; pydantic's defaults are the shape's, not ours.
        if not (key == "title" and isinstance(value, str)) and key != "default"
    }


def _fill(model: type[shape.Model], part: Json, prefix: str) -> None:
    """Put in the defaults, allow what the loader allows besides."""
    for name, said in part["properties"].items():
        key = prefix + _LISTS.get(name, name)
        _simplify(said, may_be_off=shape.can_be_off(model, name))
        written = default_of(prefix + name, model.model_fields[name])
        # A target's rules come from `defaults` first.
        if written is not None and prefix != "targets[].breaker.":
            said["default"] = _plain(compose(written, depth=4, most=100))
        if name in _SOME:
            said["minItems"] = 1
        inside = shape.inner(model, name)
        if inside is not None:
            _fill(inside, _mapping_in(said), key + ".")


def _simplify(said: Json, *, may_be_off: bool) -> None:
    """Of what may be null say the rest: to leave a key out is how it is not given."""
    kinds = [one for one in said.get("anyOf", ()) if one.get("type") != "null"]
    if "anyOf" in said and len(kinds) < len(said["anyOf"]):
        del said["anyOf"]
        said |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if may_be_off:
        whole = {k: said.pop(k) for k in tuple(said) if k != "description"}
        said["anyOf"] = [whole, {"type": ["boolean", "null"]}]


def _mapping_in(said: Json) -> Json:
    """The part that says which keys there are."""
    if "properties" in said:
        return said
    if "items" in said:
        return _mapping_in(said["items"])
    return next(_mapping_in(one) for one in said["anyOf"] if "properties" in one)


def _plain(node: Node | None) -> Any:  # noqa: ANN401 - any default
    match node:
        case Text(text=text):
            return resolved(text)
        case Sequence(items=items):
            return [_plain(one) for one in items]
        case Map(pairs=pairs):
            return {_plain(key): _plain(value) for key, value in pairs}
    raise AssertionError(node)
