"""Who is let in: so many requests at once, with so many bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sam2_blocks.service.errors import BusyError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as it is known.

    Attributes:
        client: the API key he came with; what he names by ``image_id`` is his alone. Empty where no
            key is asked for.
        held: what he holds of the service; closed once his answer is sent.
    """

    client: str = ""
    held: AsyncExitStack = field(default_factory=AsyncExitStack)


class Ticket:
    """A place in the queue, and the bytes that its request has so far."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.nbytes = 0

    def take(self, nbytes: int) -> None:
        """Count more bytes of the request.

        Raises:
            BusyError: if all requests together had too many.
        """
        self._queue.take(self, nbytes)


class Queue:
    """The requests that are read, wait or are answered; lives in one event loop.

    Args:
        max_requests: most at a time.
        max_bytes: most bytes of all of them.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._tickets: dict[Ticket, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def admitted(self) -> Iterator[Ticket]:
        """Hold a place in the queue inside this scope, and give it back with all its bytes.

        Raises:
            BusyError: if there is none.
        """
        self._make_room()
        ticket = Ticket(self)
        self._tickets[ticket] = None
        try:
            yield ticket
        finally:
            del self._tickets[ticket]
            self._nbytes -= ticket.nbytes

    def take(self, ticket: Ticket, nbytes: int) -> None:
        """See `Ticket.take`."""
        if self._nbytes + nbytes > self._max_bytes and len(self) > 1:
            raise BusyError(f"requests of {self._nbytes} bytes are waiting. Try again later.")
        ticket.nbytes += nbytes
        self._nbytes += nbytes

    def _make_room(self) -> None:
        if len(self) >= self._max_requests:
            raise BusyError(f"{len(self)} requests are waiting already. Try again later.")


class Strangers(Queue):
    """Requests whose key comes last, in the body: a few at a time may show it.

    Where there are too many, the one that has been at it longest has to go: who has a key is quick,
    and so is never kept waiting by those who never end.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        super().__init__(max_requests, max_bytes)
        self._reading: dict[Ticket, asyncio.Task[Any]] = {}

    async def read(self, ticket: Ticket, body: Coroutine[Any, Any, Result]) -> Result:
        """Read the body of a request, unless newer requests push it out.

        Args:
            ticket: the place of the request.
            body: reads it.

        Returns:
            What ``body`` returned.

        Raises:
            BusyError: if it was pushed out.
        """
        self._reading[ticket] = task = asyncio.ensure_future(body)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise BusyError(
                    "too many requests that have not shown a key yet. Send it as "
                    "'Authorization: Bearer KEY', which is read first."
                )
            return task.result()
        finally:
            self._reading.pop(ticket, None)
            task.cancel()

    def take(self, ticket: Ticket, nbytes: int) -> None:
        """See `Ticket.take`; the oldest other one goes if there are too many bytes."""
        while self._nbytes + nbytes > self._max_bytes and self._evict_oldest(ticket):
            pass
        super().take(ticket, nbytes)

    def _make_room(self) -> None:
        if len(self) >= self._max_requests:
            self._evict_oldest(None)

    def _evict_oldest(self, but: Ticket | None) -> bool:
        """End the oldest one; its bytes are free at once, its place as soon as it notices."""
        for ticket, task in self._reading.items():
            if ticket is not but:
                del self._reading[ticket]
                task.cancel()
                self._nbytes -= ticket.nbytes
                ticket.nbytes = 0
                return True
        return False
