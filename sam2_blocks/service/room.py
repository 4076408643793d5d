"""Room for so many bytes or images at once: a request that finds too little waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

FEW = 16
"""A request for at most this fraction of all units, 1 / `FEW`, does not queue."""


class Room:
    """A number of units that may be held at once; lives in one event loop.

    All units of a request are taken together: two that hold some and wait for more would wait for
    ever. A request for few units does not queue behind those for many.

    Args:
        size: units there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self._free

    @property
    def waiting(self) -> int:
        """Those who wait for units."""
        return len(self._waiting)

    @asynccontextmanager
    async def held(self, units: int) -> AsyncIterator[None]:
        """Hold units inside this scope; wait until they are free.

        Args:
            units: how many.

        Raises:
            ValueError: if it is more than there are at all.
        """
        if units > self.size:
            raise ValueError(f"{units} units are more than the {self.size} there are")
        is_few = units <= self.size // FEW
        if units > self._free or (self._waiting and not is_few):
            await self._wait(units)
        else:
            self._free -= units
        try:
            yield
        finally:
            self._give_back(units)

    async def _wait(self, units: int) -> None:
        place = asyncio.get_running_loop().create_future()
        entry = (units, place)
        self._waiting.append(entry)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was this one's turn
                self._give_back(units)
            else:
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(entry)
                self._give_back(0)  # those behind may need less
            raise

    def _give_back(self, units: int) -> None:
        self._free += units
        while self._waiting and self._waiting[0][0] <= self._free:
            taken, place = self._waiting.popleft()
            self._free -= taken
            if place.cancelled():
                self._free += taken
            else:
                place.set_result(None)
