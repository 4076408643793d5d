"""One request: let in, read, answered in time, sent; each step with an end of its own."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from sam2_blocks.hosts.http.body import MAX_VALUES, read_body
from sam2_blocks.hosts.http.errors import MalformedError
from sam2_blocks.hosts.http.keys import ApiKeys
from sam2_blocks.hosts.http.metrics import CLIENT_GONE
from sam2_blocks.service import Service
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.errors import DeadlineError

PROCESSING_TIME = "X-Processing-Time"
"""Header with the seconds a request took, as on the public server."""
GZIP_FROM_BYTES = 1024
GZIP_LEVEL = 5

STRANGER_S = 10.0
"""How long a request that has not shown its key may take to."""
PIECE = 2**18

Entity = TypeVar("Entity", bound=BaseModel)
Result = TypeVar("Result")
Answer = Callable[[Entity, Caller], Awaitable[Any]]


class Answerer:
    """Answers the requests of one service.

    Args:
        service: what lets them in.
        max_values: most values in a request.

    Attributes:
        keys: whose requests are taken.
    """

    def __init__(self, service: Service, *, max_values: int = MAX_VALUES) -> None:
        self._service = service
        self._max_values = max_values
        self.keys = ApiKeys(service.settings.api_key)

    async def __call__(
        self, request: Request, model: type[Entity], answer: Answer[Entity]
    ) -> Response:
        """Read a request and answer it, before its deadline and while its client is there.

        Args:
            request: as it comes.
            model: what it is read as.
            answer: makes the answer.

        Returns:
            A response that gives back what the request holds once it is sent.

        Raises:
            Sam2BlocksError: if there is no answer.
        """
        deadline_s = self._service.settings.deadline_s
        started = time.monotonic()
        deadline = started + deadline_s
        async with AsyncExitStack() as held:
            try:
                fields, client = await self._read(request, held, deadline)
                caller = Caller(client, held)
                working = self._work(request, model, fields, lambda one: answer(one, caller))
                content, headers = await _unless_gone(request, working, deadline)
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            except asyncio.TimeoutError:
                raise DeadlineError(f"no answer within {deadline_s:g} s.") from None
            headers[PROCESSING_TIME] = f"{time.monotonic() - started:.6f}"
            return _Answered(content, headers, held.pop_all(), deadline_s)

    async def _read(
        self, request: Request, held: AsyncExitStack, deadline: float
    ) -> tuple[dict[str, Any], str]:
        """Read the body of who may be answered; he holds a place from then on."""
        service = self._service
        service.check_open()
        client = self.keys.check_head(request)
        if client is not None:
            take = held.enter_context(service.admitted()).take
            body = self._body(request, take)
            return await asyncio.wait_for(body, deadline - time.monotonic()), client
        with service.strangers.admitted() as ticket:
            body = self._body(request, ticket.take)
            reading = service.strangers.read(ticket, body)
            left = min(STRANGER_S, deadline - time.monotonic())
            fields = await asyncio.wait_for(reading, left)
            client, nbytes = self.keys.check(request, fields), ticket.nbytes
        held.enter_context(service.admitted()).take(nbytes)
        return fields, client

    def _body(
        self, request: Request, take: Callable[[int], None]
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        most = self._service.settings.max_body_bytes
        return read_body(request, max_bytes=most, max_values=self._max_values, take=take)

    async def _work(
        self,
        request: Request,
        model: type[Entity],
        fields: Mapping[str, Any],
        answer: Callable[[Entity], Awaitable[Any]],
    ) -> tuple[bytes, dict[str, str]]:
        """Make the content of an answer and its headers."""
        service = self._service
        entity = await service.in_thread(lambda: _validate(model, fields))
        result = await answer(entity)
        if isinstance(result, bytes):
            return result, {"Content-Type": "application/octet-stream"}
        packed = _takes_gzip(request)
        return await service.at_length(lambda: _to_json(result, packed=packed))


class _Answered(Response):
    """An answer that is sent piece by piece, as fast as its client takes it, but not for ever."""

    def __init__(
        self, content: bytes, headers: Mapping[str, str], held: AsyncExitStack, most_s: float
    ) -> None:
        super().__init__(content, headers=headers)
        self._held = held
        self._most_s = most_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            with suppress(asyncio.TimeoutError):  # an answer that stays incomplete
                await asyncio.wait_for(self._send(send), self._most_s)

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        content = memoryview(self.body)
        for start in range(0, max(1, len(content)), PIECE):
            is_last = start + PIECE >= len(content)
            piece = bytes(content[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


async def _unless_gone(request: Request, answer: Awaitable[Result], deadline: float) -> Result:
    """Wait for an answer; give it up when time is up or the client hangs up."""
    working = asyncio.ensure_future(answer)
    listening = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait(
            {working, listening},
            timeout=deadline - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if working.done():
            return working.result()
        if listening.done():
            raise ClientDisconnect
        raise asyncio.TimeoutError
    finally:
        working.cancel()
        listening.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _takes_gzip(request: Request) -> bool:
    """Whether the client reads packed answers; ``q=0`` says that it does not."""
    given = request.headers.get("accept-encoding", "").replace(" ", "").lower().split(",")
    codings = {name: quality for name, _, quality in (coding.partition(";") for coding in given)}
    return codings.get("gzip", codings.get("*", "q=0")).rstrip("0.") != "q="


def _to_json(result: Any, *, packed: bool) -> tuple[bytes, dict[str, str]]:
    content = to_json(result, inf_nan_mode="null")
    headers = {"Content-Type": "application/json", "Vary": "Accept-Encoding"}
    if not packed or len(content) < GZIP_FROM_BYTES:
        return content, headers
    return gzip.compress(content, GZIP_LEVEL), {**headers, "Content-Encoding": "gzip"}


def _validate(model: type[Entity], fields: Mapping[str, Any]) -> Entity:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise MalformedError(error) from error
