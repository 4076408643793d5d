from __future__ import annotations

import asyncio

import pytest

from sam2_blocks.service.room import Room


async def hold(room, units, gate, order=None, name=""):
    async with room.held(units):
        if order is not None:
            order.append(name)
        await gate.wait()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_who_need_much_wait_their_turn_and_those_who_need_few_pass():
    async def run():
        room, gates, order = Room(32), [asyncio.Event() for _ in range(4)], []
        units = (20, 20, 10, 2)
        tasks = [
            asyncio.create_task(hold(room, count, gate, order, name))
            for count, gate, name in zip(units, gates, "abcd", strict=True)
        ]
        await settle()
        assert (order, room.free, room.waiting) == (["a", "d"], 10, 2)
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        return order, room.free, room.waiting

    assert asyncio.run(run()) == (["a", "d", "b", "c"], 32, 0)


def test_who_goes_away_leaves_nothing_behind():
    async def run():
        room, gate = Room(10), asyncio.Event()
        first = asyncio.create_task(hold(room, 8, gate))
        await settle()
        waiting = [asyncio.create_task(hold(room, units, gate)) for units in (10, 2)]
        await settle()
        assert room.waiting == 2
        waiting[0].cancel()
        await settle()
        assert (room.waiting, room.free) == (0, 0)  # the second has its two by now
        gate.set()
        first.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return room.free

    assert asyncio.run(run()) == 10


def test_who_is_cancelled_as_his_turn_comes_gives_it_back():
    async def run():
        room, gate = Room(10), asyncio.Event()
        first = asyncio.create_task(hold(room, 10, gate))
        await settle()
        second = asyncio.create_task(hold(room, 10, gate))
        await settle()
        gate.set()
        while room.waiting:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        return room.free

    assert asyncio.run(run()) == 10


def test_who_is_cancelled_as_room_comes_is_passed_over():
    async def run():
        room, gate = Room(10), asyncio.Event()
        first = asyncio.create_task(hold(room, 10, gate))
        await settle()
        second = asyncio.create_task(hold(room, 10, gate))
        await settle()
        gate.set()
        second.cancel()
        results = await asyncio.gather(first, second, return_exceptions=True)
        return [type(result).__name__ for result in results], room.free, room.waiting

    assert asyncio.run(run()) == (["NoneType", "CancelledError"], 10, 0)


def test_more_than_there_is_can_never_be_held():
    async def run():
        async with Room(3).held(4):
            pass

    with pytest.raises(ValueError, match="4 units are more than the 3 there are"):
        asyncio.run(run())
