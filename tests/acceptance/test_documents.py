"""Every block of the documents: run as it stands, or held to its kind."""

import pytest

from support.documents import PAGES, ROOT, SHOWN, blocks
from support.pooler import USER, running_pooler
from support.reader import Reader
from support.servers import running_server


@pytest.fixture(scope="module")
def server():
    """The server that the documents call db1."""
    with running_server(15) as server:
        yield server


@pytest.fixture(scope="module")
def pooler(server):
    with running_pooler(server, stats_users=USER) as pooler:
        yield pooler


# What is only looked at is looked at by unit/test_documents.py.
DONE = [page for page in PAGES if any(b.kind not in SHOWN for b in blocks(page))]


@pytest.mark.parametrize("page", DONE, ids=[str(p.relative_to(ROOT)) for p in DONE])
def test_every_block_of_a_page_does_what_it_says(page, server, pooler):
    with Reader(page, blocks(page), server, pooler) as reader:
        reader.follow()
