"""Programs that tests need from the system's packages."""

import os
import shutil

import pytest


def need(program: str, package: str) -> str:
    """Give the path of *program*, or skip, saying which package has it.

    In CI, where everything has to be there, its absence is a failure.
    """
    found = shutil.which(program)
    if found is None:
        missing(f"{program} is missing: apt-get install {package}")
    assert found is not None
    return found


def missing(why: str) -> None:
    """Skip because of *why*; in CI, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
