"""Names are looked up in threads of their own."""

import asyncio
import socket
import threading

import pytest

from pgbreaker.app.lookups import Crew, Lookups

NAME = ("db1", 5432, 0, 1, 0, 0)


class Server:
    """A name server that answers when it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[tuple] = []

    def look_up(self, *name):
        self.asked.append(name)
        assert self.answers.wait(10)
        if name[0] == "nowhere":
            raise socket.gaierror(-2, "name or service not known")
        return [f"address of {name[0]}"]


def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile():
    server = Server()
    lookups = Lookups(server.look_up)

    both = [lookups.begin(NAME), lookups.begin(NAME)]
    server.answers.set()
    found = [future.result(5) for future in both]
    again = lookups.begin(NAME).result(5)

    assert found == [["address of db1"]] * 2
    assert again == ["address of db1"]
    assert server.asked == [NAME, NAME]


def test_what_goes_wrong_is_whose_who_asked():
    server = Server()
    server.answers.set()
    lookups = Lookups(server.look_up)

    with pytest.raises(socket.gaierror):
        lookups.begin(("nowhere",)).result(5)
    assert lookups.begin(NAME).result(5) == ["address of db1"]


def test_who_no_longer_waits_does_not_matter_to_others():
    server = Server()
    lookups = Lookups(server.look_up)
    gone, waits = lookups.begin(NAME), lookups.begin(NAME)

    gone.cancel()
    server.answers.set()

    assert waits.result(5) == ["address of db1"]


def test_there_are_so_many_threads_and_no_more():
    server = Server()
    lookups = Lookups(server.look_up, most=3)
    futures = [lookups.begin((f"db{n}",)) for n in range(10)]
    threads = lookups._threads

    server.answers.set()
    found = [future.result(5) for future in futures]

    assert threads == lookups._threads == 3
    assert found == [[f"address of db{n}"] for n in range(10)]


async def test_names_that_do_not_come_back_keep_no_other_work_waiting():
    server, crew = Server(), Crew()
    crew._lookups = Lookups(server.look_up)
    asyncio.get_running_loop().set_default_executor(crew)
    asking = [
        asyncio.create_task(asyncio.get_running_loop().getaddrinfo(f"db{n}", 5432))
        for n in range(50)
    ]
    async with asyncio.timeout(5):
        while len(server.asked) < 50:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)

        assert await asyncio.to_thread(lambda: "done") == "done"

    server.answers.set()
    found = await asyncio.gather(*asking)
    assert found[7] == ["address of db7"]
