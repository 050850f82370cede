"""Whether the API answers as its own description says."""

import copy
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_URI = "urn:openapi"


class Described:
    """A description, to which answers are held."""

    def __init__(self, document: dict) -> None:
        self.document = copy.deepcopy(document)
        # Programs are to take more than is listed; our tests want all of it listed.
        _close(self.document)
        resource = Resource(contents=self.document, specification=DRAFT202012)
        self._registry = Registry().with_resource(_URI, resource)

    def check(self, method: str, path: str, status: int, kind: str, body) -> None:
        """Hold an answer to the description.

        Raises:
            AssertionError: It is not as it is described.
        """
        pattern, operation = self._operation(method.lower(), urlsplit(path).path)
        answers = operation["responses"]
        assert str(status) in answers, f"{method} {pattern}: {status} is not described"
        content = answers[str(status)].get("content")
        if content is None:
            assert not body
            return
        assert kind in content, f"{method} {pattern}: {status} as {kind}"
        place = "/".join(
            part.replace("~", "~0").replace("/", "~1")
            for part in (
                *("#", "paths", pattern, method.lower(), "responses"),
                *(str(status), "content", kind, "schema"),
            )
        )
        validator = Draft202012Validator(
            {"$ref": _URI + place.replace("{", "%7B").replace("}", "%7D")},
            registry=self._registry,
            format_checker=FormatChecker(),
        )
        wrong = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(body)]
        assert wrong == []

    def _operation(self, method: str, path: str) -> tuple[str, dict]:
        parts = path.split("/")
        for pattern, operations in self.document["paths"].items():
            wanted = pattern.split("/")
            is_it = len(wanted) == len(parts) and all(
                want.startswith("{") or want == part
                for want, part in zip(wanted, parts, strict=True)
            )
            if is_it and method in operations:
                return pattern, operations[method]
        raise AssertionError(f"{method} {path} is not described")


def _close(node) -> None:
    if isinstance(node, list):
        for one in node:
            _close(one)
    elif isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        for one in node.values():
            _close(one)
