"""Every block of the documents: run as it stands, or held to its kind."""

import pytest

from support.documents import PAGES, ROOT, SHOWN, Block, blocks
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


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("sh", "true\nfalse\ntrue\n", "it failed"),
        ("sh", "touch /usr/bin/pgbreaker-was-here\n", "it touches"),
        ("console", "$ echo one\ntwo\n", "it does not say"),
        ("yaml", "http: {lissten: 127.0.0.1:9432}\n", "did you mean 'listen'"),
        ("yaml", "scrape_configs: [{job: x}]\n", "job"),
        ("python", "print(undefined)\n", "x.md.*, line 7.*NameError"),
        ("sql", "SELECT nothing FROM nowhere;\n", "nowhere"),
        ("ini", "[Service]\nLoadCredentials=a:/b\n", "LoadCredentials"),
    ],
)
def test_a_block_that_does_not_hold_is_named(kind, text, why, server, pooler):
    page = ROOT / "x.md"
    block = Block(page, 7, kind, text)

    with (
        Reader(page, [block], server, pooler) as reader,
        pytest.raises(AssertionError, match=rf"(?s)^x\.md:7: .*{why}"),
    ):
        reader.follow()
