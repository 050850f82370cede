"""The configuration, read anew: by its content, all of it or nothing."""

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pgbreaker.app.renewal import Renewal, Source
from pgbreaker.core.entry import Kind
from pgbreaker.core.plan import Config
from pgbreaker.errors import ConfigError
from pgbreaker.sinks.history import History, NotKeptError
from support.boards import Scene
from support.storing import until

POLL = 0.02


def text(interval: str = "1s", more: str = "") -> str:
    return (
        "version: 1\ntargets:\n  - name: main\n    dsn: postgresql://me@db/app\n"
        f"    interval: {interval}\n{more}"
    )


class Renewing:
    """A renewal of a file, and what it made true."""

    def __init__(self, path: Path, ledger=None) -> None:
        scene = Scene()
        self.path = path
        self.history = History(scene.board, scene.clock, ledger)
        self.taken: list[Config] = []
        source = Source(path)
        self.renewal = Renewal(
            source, source.read(), self.apply, self.history, scene.clock, poll=POLL
        )

    async def apply(self, config: Config) -> None:
        await asyncio.sleep(0)
        self.taken.append(config)

    @property
    def intervals(self) -> list[float]:
        """The intervals that became true, in order."""
        return [c.targets[0].probes["ping"].interval for c in self.taken]

    @property
    def told(self) -> list[tuple[str, str | None]]:
        return [(e.text, e.author) for e in self.history.entries]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(text(), "utf-8")
    return path


@asynccontextmanager
async def watching(renewing: Renewing):
    task = asyncio.create_task(renewing.renewal.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_change_is_made_true_and_said(path):
    renewing = Renewing(path)
    path.write_text(text("2s"), "utf-8")

    done = await renewing.renewal.reload("mia")

    assert done.changes == ("targets.main.interval: 1s -> 2s",)
    assert done.later == ()
    assert renewing.intervals == [2.0]
    assert renewing.told == [("configuration read anew: 1 change", "mia")]
    assert renewing.history.entries[0].kind is Kind.RELOAD


async def test_nothing_changed_is_no_error_and_touches_nothing(path):
    renewing = Renewing(path)

    done = await renewing.renewal.reload("mia")

    assert done.changes == ()
    assert renewing.taken == []
    assert renewing.told == [("configuration read anew: no change", "mia")]


async def test_what_only_the_next_start_takes_over_is_said(path):
    renewing = Renewing(path)
    path.write_text(text(more="http: {listen: 127.0.0.1:9999}\n"), "utf-8")

    done = await renewing.renewal.reload("mia")

    assert done.changes == done.later
    assert len(done.later) == 1
    assert renewing.renewal.config.http.listen[1] == 9999


async def test_one_that_cannot_be_used_changes_nothing_and_the_next_good_one_is_taken(
    path,
):
    renewing = Renewing(path)
    path.write_text(text("soon"), "utf-8")
    with pytest.raises(ConfigError) as refused:
        await renewing.renewal.reload("mia")
    problem = renewing.renewal.problem
    path.write_text(text("2s"), "utf-8")
    await renewing.renewal.reload("mia")

    assert f"{path}:5:15" in str(refused.value)
    assert problem == str(refused.value)
    assert renewing.renewal.problem is None
    assert renewing.intervals == [2.0]
    first, second = renewing.history.entries
    assert first.text.startswith(f"configuration refused: {path}:5:15")
    assert (first.details["ok"], second.details["ok"]) == (False, True)


async def test_that_a_refused_one_was_mended_is_told_though_nothing_changed(path):
    renewing = Renewing(path)
    async with watching(renewing):
        path.write_text(text("soon"), "utf-8")
        await until(lambda: renewing.renewal.problem is not None)
        path.write_text(text(), "utf-8")
        await until(lambda: renewing.renewal.problem is None)

    assert renewing.taken == []
    assert renewing.told[-1] == ("configuration read anew: no change", None)


# The files are looked at.


async def test_a_file_that_is_half_written_is_taken_when_it_is_whole(path):
    renewing = Renewing(path)
    whole = text("2s", "log: {level: DEBUG}\n")
    async with watching(renewing):
        path.write_text(whole[: whole.index("{")] + "{", "utf-8")
        await until(lambda: renewing.renewal.problem is not None)
        path.write_text(whole, "utf-8")
        await until(lambda: renewing.taken)

    assert renewing.intervals == [2.0]
    assert renewing.renewal.problem is None


async def test_links_that_are_exchanged_are_seen(tmp_path):
    """As Kubernetes changes a ConfigMap: the file is a link into a directory that is one."""
    for name, interval in (("..1", "1s"), ("..2", "2s")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pgbreaker.yaml").write_text(text(interval), "utf-8")
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "pgbreaker.yaml"
    path.symlink_to("..data/pgbreaker.yaml")
    renewing = Renewing(path)
    async with watching(renewing):
        (tmp_path / "..data_tmp").symlink_to("..2")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
        await until(lambda: renewing.taken)

    assert renewing.intervals == [2.0]


async def test_files_that_are_included_count(path):
    folder = path.parent / "conf.d"
    folder.mkdir()
    path.write_text(text(more='include: ["conf.d/*.yaml"]\n'), "utf-8")
    renewing = Renewing(path)
    async with watching(renewing):
        more = "targets:\n  - name: other\n    dsn: postgresql://me@other/app\n"
        (folder / "other.yaml").write_text(more, "utf-8")
        await until(lambda: renewing.taken)

    assert [plan.name for plan in renewing.taken[0].targets] == ["main", "other"]


async def test_a_file_that_is_only_touched_is_not_read(path):
    renewing = Renewing(path)
    async with watching(renewing):
        path.write_text(text(), "utf-8")
        os.utime(path)
        await asyncio.sleep(5 * POLL)

    assert renewing.renewal.at is None


async def test_what_changed_between_reading_and_watching_is_not_missed(path):
    source = Source(path)
    config = source.read()
    path.write_text(text("2s"), "utf-8")
    renewing = Renewing(path)
    renewing.renewal = Renewal(
        source, config, renewing.apply, renewing.history, Scene().clock, poll=POLL
    )
    async with watching(renewing):
        await until(lambda: renewing.taken)

    assert renewing.intervals == [2.0]


# Who asks, and who does not wait.


async def test_who_asks_may_go_away(path):
    renewing = Renewing(path)
    path.write_text(text("2s"), "utf-8")
    asking = asyncio.create_task(renewing.renewal.reload("mia"))
    await asyncio.sleep(0)

    asking.cancel()
    await asyncio.wait([asking])
    await renewing.renewal.close()

    assert asking.cancelled()
    assert renewing.intervals == [2.0]


async def test_reloads_come_one_after_the_other(path):
    renewing = Renewing(path)
    path.write_text(text("2s"), "utf-8")

    both = [renewing.renewal.reload(name) for name in ("mia", "ben")]
    first, second = await asyncio.gather(*both)

    assert (len(first.changes), second.changes) == (1, ())
    assert renewing.intervals == [2.0]


async def test_a_store_that_cannot_be_written_to_stops_no_reload(path, caplog):
    class Full:
        async def record(self, entries) -> None:
            raise NotKeptError("the disk is full")

    renewing = Renewing(path, Full())
    path.write_text(text("2s"), "utf-8")

    await renewing.renewal.reload("mia")

    assert renewing.intervals == [2.0]
    assert "the disk is full" in caplog.text


async def test_a_disk_that_hangs_is_told_and_the_next_reload_is_tried(path):
    renewing = Renewing(path)
    answers = threading.Event()
    source, read = renewing.renewal._source, renewing.renewal._source.read
    source.read = lambda: answers.wait(10) and read()
    renewing.renewal._within = 0.1
    path.write_text(text("2s"), "utf-8")

    with pytest.raises(ConfigError, match="the disk has not answered for 100 ms"):
        await renewing.renewal.reload("mia")
    answers.set()
    renewing.renewal._within = 5.0
    done = await renewing.renewal.reload("mia")

    assert len(done.changes) == 1
    assert renewing.intervals == [2.0]


async def test_nothing_is_read_anew_once_it_is_closed(path):
    renewing = Renewing(path)
    await renewing.renewal.close()
    path.write_text(text("2s"), "utf-8")

    with pytest.raises(ConfigError, match="the daemon stops"):
        await renewing.renewal.reload("mia")

    assert renewing.taken == []
