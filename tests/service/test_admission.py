from __future__ import annotations

import asyncio

import pytest

from sam2_blocks.service.admission import Queue, Strangers
from sam2_blocks.service.errors import BusyError


def test_bytes_are_given_back_with_the_place():
    queue = Queue(2, 100)
    with queue.admitted() as one, queue.admitted() as other:
        one.take(60)
        with pytest.raises(BusyError, match="requests of 60 bytes are waiting"):
            other.take(50)
        other.take(40)
    with queue.admitted() as one, queue.admitted() as other:
        other.take(100)
        assert len(queue) == 2
    assert len(queue) == 0


def test_a_request_alone_may_be_as_large_as_requests_may():
    with Queue(2, 100).admitted() as alone:
        alone.take(1000)


async def stranger(strangers, gate, nbytes=1):
    async def body():
        ticket.take(nbytes)
        await gate.wait()
        return nbytes

    with strangers.admitted() as ticket:
        return await strangers.read(ticket, body())


async def come(strangers, gate, sizes):
    """One after the other; then all bodies end."""
    tasks = []
    for nbytes in sizes:
        tasks.append(asyncio.create_task(stranger(strangers, gate, nbytes)))
        for _ in range(5):
            await asyncio.sleep(0)
    gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("max_requests", "max_bytes", "sizes", "read"),
    [
        (2, 1000, [1, 2, 3, 4], [3, 4]),  # too many: the oldest go
        (9, 100, [40, 40, 40, 20], [40, 40, 20]),
        (9, 100, [40, 40, 90], [90]),
    ],
)
def test_strangers_who_have_been_at_it_longest_make_room(max_requests, max_bytes, sizes, read):
    async def run():
        strangers = Strangers(max_requests, max_bytes)
        answers = await come(strangers, asyncio.Event(), sizes)
        assert len(strangers) == 0
        return answers

    answers = asyncio.run(run())
    assert [answer for answer in answers if isinstance(answer, int)] == read
    refused = [answer for answer in answers if not isinstance(answer, int)]
    assert all(isinstance(error, BusyError) for error in refused)
    assert all("not shown a key yet. Send it as 'Authorization" in str(e) for e in refused)


def test_an_error_of_a_body_is_that_of_who_reads_it():
    async def body():
        raise ValueError("no JSON")

    async def run():
        strangers = Strangers(2, 100)
        with strangers.admitted() as ticket:
            await strangers.read(ticket, body())

    with pytest.raises(ValueError, match="no JSON"):
        asyncio.run(run())
