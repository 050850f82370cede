"""The API under schemathesis: what it says of itself holds, whatever it is asked."""

import pytest

from support.figures import tell
from support.fuzzing import cases, fuzz, fuzzed

EXAMPLES = 20


@pytest.mark.slow
async def test_the_api_does_what_it_says_and_nothing_else(tmp_path):
    async with fuzzed() as (url, _served):
        said = await fuzz(url, tmp_path, examples=EXAMPLES, seed=20261127)

    tell("cases that schemathesis made of the API", f"{cases(said)}", "none fails")
