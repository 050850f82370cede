"""What the API says of itself: all of it, and nothing else."""

import pytest
from jsonschema import Draft202012Validator

from pgbreaker.web.api.document import OPERATIONS, document
from pgbreaker.web.api.routes import Api
from pgbreaker.web.api.schemas import SCHEMAS
from pgbreaker.web.plain import Plain
from pgbreaker.web.route import Role
from support.site import Served

INSIDE = Served("main").inside
ROUTES = (*Plain(INSIDE, {}).routes(), *Api(INSIDE).routes())
DOCUMENT = document("1.2.3", ROUTES)


def references(node):
    """Every shape that is named below *node*."""
    if isinstance(node, list):
        for one in node:
            yield from references(one)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for one in node.values():
            yield from references(one)


def test_every_route_has_its_operation_and_every_operation_its_route():
    routes = [(route.method, route.path) for route in ROUTES]

    assert sorted(routes) == sorted(OPERATIONS)
    described = [
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    ]
    assert sorted(described) == sorted(routes)


def test_no_two_operations_have_the_same_name():
    names = [operation.name for operation in OPERATIONS.values()]

    assert len(set(names)) == len(names)


def test_every_shape_is_one_and_is_used():
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)

    # What is told on a stream no schema of OpenAPI can hold; its events are named there.
    assert set(references(DOCUMENT)) == set(SCHEMAS)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_an_operation_says_who_may(route):
    operation = DOCUMENT["paths"][route.path][route.method.lower()]

    assert operation["x-pgbreaker-role"] == route.role.name.lower()
    assert (operation["security"] == []) is (route.role is Role.NOBODY)
    assert ("429" in operation["responses"]) is (route.changes or route.tells)
