"""The library's public names, read out of its source: nothing of it is imported.

Read, and not inspected: what is written is the same on every Python, and a door can be
read where its package is missing.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import pgbreaker

PACKAGE: Final = Path(pgbreaker.__file__).parent
# Door -> what an application takes from it.
DOORS: Final[Mapping[str, tuple[str, ...]]] = {
    "asyncpg": ("protect", "ProtectedPool"),
    "fastapi": ("install", "session"),
    "metrics": ("collector",),
    "opentelemetry": ("install",),
    "psycopg": ("AsyncConnectionPool", "ConnectionPool"),
    "sqlalchemy": ("protect", "Plugin"),
    "testing": ("ManualClock", "ScriptedServer", "Recorder", "force", "isolated"),
}
# Of a class, what is there for guards alone.
_GUARDS_ALONE: Final[Mapping[str, frozenset[str]]] = {
    "Bulkhead": frozenset(
        (
            *("disown", "give_back", "enter", "enter_blocking"),
            *("around", "around_limited", "around_blocking"),
        )
    ),
    "ProtectedPool": frozenset(("take", "release")),
    "Plugin": frozenset(("update_url", "engine_created")),
    "PostgreSQLCircuitBreakerConfig": frozenset(("policy",)),
}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

# The sections of a docstring that become lists.
_SECTIONS: Final = ("Args", "Attributes", "Keys", "Returns", "Yields", "Raises")
NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
_INHERITED: Final = frozenset(
    (
        *("name", "clock", "state", "left_closed"),
        *("config", "above", "target", "operation"),
    )
)


@dataclass(frozen=True, slots=True)
class Name:
    """A public name.

    Attributes:
        name: As it is imported.
        module: Where it is.
        node: Its source; None for a value.
        says: What stands beside a value.
        kind: The class of a value, where that is beside it, too.
    """

    name: str
    module: str
    node: ast.ClassDef | Function | None
    says: str = ""
    kind: ast.ClassDef | None = None


def names() -> list[Name]:
    """The public names of the package, and those of its doors with the door's."""
    listed = _listed(_tree("pgbreaker"))
    own = [_find("pgbreaker", name) for name in listed if name != "__version__"]
    return [*own, *(name for door in DOORS for name in names_of(door))]


def names_of(door: str) -> list[Name]:
    """The public names of a door."""
    found = [_find(f"pgbreaker.{door}", name) for name in DOORS[door]]
    return [replace(name, name=f"{door}.{name.name}") for name in found]


def _tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def _listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise LookupError("it says nowhere what is public")


def _find(module: str, name: str) -> Name:
    """Follow *name* to where it is made.

    Raises:
        LookupError: It is nowhere.
    """
    last: Name | None = None
    for node in ast.walk(_tree(module)):
        match node:
            case ast.ImportFrom(module=str(where), names=names):
                for alias in names:
                    if name == (alias.asname or alias.name):
                        found = _find(where, alias.name)
                        return replace(found, name=name)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.name == name:
                    last = Name(name, module, node)  # of overloads the last one
    if last is None:
        last = _value(module, name)
    return last


def _value(module: str, name: str) -> Name:
    body = _tree(module).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == name:
            match following:
                case ast.Expr(value=ast.Constant(value=str(says))):
                    made = node.value.func if isinstance(node.value, ast.Call) else None
                    kinds = [
                        other
                        for other in body
                        if isinstance(other, ast.ClassDef)
                        and isinstance(made, ast.Name)
                        and other.name == made.id
                    ]
                    return Name(name, module, None, says, *kinds)
    raise LookupError(f"{module} has no {name}")


# -- Markdown ----------------------------------------------------------------------


def library() -> str:
    """A Markdown section for each public name of the package."""
    return "\n".join(_section(name) for name in names() if "." not in name.name)


def doors() -> str:
    """A Markdown section for each door, and for each public name of it."""
    parts = []
    for door in DOORS:
        told = ast.get_docstring(_tree(f"pgbreaker.{door}")) or ""
        parts += [f"### `pgbreaker.{door}`\n\n{_prose(told)}\n"]
        parts += [_section(name) for name in names_of(door)]
    return "\n".join(parts)


def _section(name: Name) -> str:
    level = "####" if "." in name.name else "###"
    head = f"{level} `pgbreaker.{name.name}`\n"
    match name.node:
        case ast.ClassDef() as kind:
            return "\n".join([head, *_class(kind)])
        case None:
            return "\n".join([head, *_value_of(name)])
        case function:
            return "\n".join([head, *_function(function)])


def _value_of(name: Name) -> Iterator[str]:
    """A thing that there is one of, and what its class has."""
    yield f"{_prose(name.says)}\n"
    if name.kind is not None:
        yield from _told(name.kind)
        yield from _table(name.kind)


def _table(kind: ast.ClassDef) -> Iterator[str]:
    members = list(members_of(kind))
    if members:
        yield "| of it | what it does |\n|---|---|"
        yield "\n".join(f"| `{what}` | {says} |" for what, says in members) + "\n"


def _class(kind: ast.ClassDef) -> Iterator[str]:
    made_by = next((f for f in _methods(kind) if f.name == "__init__"), None)
    fields = fields_of(kind)
    if made_by is not None:
        yield f"`{kind.name}{signature(made_by)}`\n"
    elif fields:
        yield f"`{kind.name}({', '.join(fields)})`\n"
    if kind.bases and ast.unparse(kind.bases[0]) == "PgbreakerError":
        yield "A `PgbreakerError`.\n"
    yield from _told(kind, fields)
    if made_by is not None:
        yield from _told(made_by)
    yield from _table(kind)


def members_of(kind: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Methods, properties and the values of an enumeration; its first sentence each."""
    for node in kind.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=str(word))]) if _is_enum(kind):
                yield word, f"`{ast.literal_eval(node.value)}`"
    yield from _inherited(kind)
    for function in _methods(kind):
        told = _first(ast.get_docstring(function) or "")
        is_ours = function.name in _GUARDS_ALONE.get(kind.name, ())
        if not function.name.startswith("_") and told and not is_ours:
            yield _written(function), told


def takes_of(kind: ast.ClassDef) -> list[str]:
    """What it is made with: parameters, or fields."""
    made_by = next((f for f in _methods(kind) if f.name == "__init__"), None)
    if made_by is not None:
        return parameters(made_by)
    bare = [
        re.sub(r": [^=]*?( = |$)", "=", field) for field in fields_of(kind).values()
    ]
    told = [field.removesuffix("=") for field in bare]
    is_by_name = any("kw_only=True" in ast.unparse(m) for m in kind.decorator_list)
    return [f"*, {f}" for f in told] if is_by_name else _numbered(told)


def has_of(kind: ast.ClassDef) -> list[str]:
    """Its attributes, its methods with each thing that they take, its values."""
    told = _parted(ast.get_docstring(kind) or "")[1].get("Attributes", {})
    words = [word for word in told if word not in fields_of(kind)]
    words += [re.sub(r"\(.*", "", what) for what, _ in members_of(kind)]
    methods = {function.name: function for function in _methods(kind)}
    found = []
    for word in words:
        found.append(f".{word}")
        if method := methods.get(word.rpartition(" ")[2]):
            found += [f".{method.name}({p})" for p in parameters(method)]
    return found


def parameters(function: Function) -> list[str]:
    """Each parameter with its default: by its place, or with a star by its name."""
    taken = function.args
    positional = [*taken.posonlyargs, *taken.args]
    defaults = [None] * (len(positional) - len(taken.defaults)) + taken.defaults
    pairs = zip(positional, defaults, strict=True)
    told = [_parameter(a, d) for a, d in pairs if a.arg not in ("self", "cls")]
    only = zip(taken.kwonlyargs, taken.kw_defaults, strict=True)
    return [*_numbered(told), *(f"*, {_parameter(a, d)}" for a, d in only)]


def _numbered(words: list[str]) -> list[str]:
    return [f"{number}. {word}" for number, word in enumerate(words, 1)]


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    given = "" if default is None else f"={ast.unparse(default)}"
    return f"{argument.arg}{given}".replace("'", '"').replace("=_NOTHING", "=...")


def _inherited(kind: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """What an application uses of the class that guards are made of."""
    if not any(ast.unparse(base) == "Gate" for base in kind.bases):
        return
    gate = _find("pgbreaker.guard.gate", "Gate").node
    assert isinstance(gate, ast.ClassDef)
    told = _parted(ast.get_docstring(gate) or "")[1]["Attributes"]
    yield from ((word, says) for word, says in told.items() if word in _INHERITED)
    for function in _methods(gate):
        if function.name in _INHERITED:
            yield function.name, _first(ast.get_docstring(function) or "Its name.")


def _function(function: Function) -> Iterator[str]:
    yield f"`{_written(function, returns=True)}`\n"
    yield from _told(function)


def signature(function: Function) -> str:
    """The parameters of a function with their types, without ``self``."""
    arguments = function.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments = ast.arguments(
            posonlyargs=arguments.posonlyargs,
            args=arguments.args[1:],
            vararg=arguments.vararg,
            kwonlyargs=arguments.kwonlyargs,
            kw_defaults=arguments.kw_defaults,
            kwarg=arguments.kwarg,
            defaults=arguments.defaults,
        )
    returned = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    is_made = function.name == "__init__"
    told = f"({ast.unparse(arguments)}){'' if is_made else returned}"
    return told.replace("'", '"').replace("=_NOTHING", "=...")


def _methods(kind: ast.ClassDef) -> list[Function]:
    own = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in kind.body if isinstance(node, own)]


def fields_of(kind: ast.ClassDef) -> dict[str, str]:
    """The fields of a data class, each with its type and default."""
    if not any("dataclass" in ast.unparse(mark) for mark in kind.decorator_list):
        return {}
    return {
        node.target.id: ast.unparse(node).replace("'", '"')
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _is_enum(kind: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in kind.bases)


def _written(function: Function, *, returns: bool = False) -> str:
    marks = {ast.unparse(mark) for mark in function.decorator_list}
    if "property" in marks:
        return function.name
    kind = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    is_context = any("contextmanager" in mark for mark in marks)
    if is_context:
        kind = "async with " if kind else "with "
    told = signature(function)
    if is_context or not returns:
        told = re.sub(r" -> .*", "", told)
    told = told if returns else told.replace("|", "\\|")
    return f"{kind}{function.name}{told}"


def _told(
    node: ast.ClassDef | Function, fields: Mapping[str, str] = NO_FIELDS
) -> Iterator[str]:
    """A docstring as Markdown: its prose, then its sections as lists.

    Args:
        fields: What is to be written instead of a field's bare name.
    """
    prose, sections = _parted(ast.get_docstring(node) or "")
    if prose:
        yield f"{_prose(prose)}\n"
    for title, entries in sections.items():
        if not entries:
            continue
        yield f"{title}:\n"
        lines = [
            f"- `{fields.get(word, word)}`: {says}" if word else f"- {says}"
            for word, says in entries.items()
        ]
        yield "\n".join(lines) + "\n"


def _parted(docstring: str) -> tuple[str, Mapping[str, dict[str, str]]]:
    headings = "|".join(_SECTIONS)
    prose, *rest = re.split(rf"^({headings}):\n", docstring, flags=re.MULTILINE)
    sections: dict[str, dict[str, str]] = {}
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        entries = re.split(r"^ {4}(\*{0,2}\w+): ", body, flags=re.MULTILINE)
        if len(entries) < 2:
            sections[title] = {"": " ".join(body.split())}
            continue
        pairs = zip(entries[1::2], entries[2::2], strict=True)
        sections[title] = {word: " ".join(_prose(s).split()) for word, s in pairs}
    return prose.strip(), sections


def _prose(text: str) -> str:
    """reStructuredText's double backquotes as Markdown has them; indented code as such."""
    return text.replace("``", "`").replace("::\n", ":\n").strip()


def _first(docstring: str) -> str:
    first = " ".join(docstring.partition("\n\n")[0].split())
    return _prose(first).replace("|", "\\|")
