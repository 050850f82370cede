"""The API described, by OpenAPI 3.1."""

from typing import Any


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "pgbreaker", "version": version},
        "paths": {},
    }
