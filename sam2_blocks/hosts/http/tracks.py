"""Routes of sessions that follow objects through videos."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request, Response

from sam2_blocks.hosts.http import docs
from sam2_blocks.hosts.http.answering import Answerer
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.tracks import TrackSessions
from sam2_blocks.track_requests import (
    TrackFramesRequest,
    TrackRequest,
    TrackResponse,
    TrackSessionResponse,
)

OF_A_SESSION = (401, 404)


def add_track_routes(app: FastAPI, tracks: TrackSessions, answerer: Answerer) -> None:
    """Let clients begin, feed, look at and end sessions.

    Args:
        app: what they call.
        tracks: the sessions.
        answerer: lets requests in.
    """

    @app.post(
        "/track",
        summary="Begin to follow objects through a video",
        responses={**docs.error_answers(), 200: {"model": TrackResponse}},
        openapi_extra=docs.body_of(TrackRequest, "track"),
    )
    async def begin(request: Request) -> Response:
        return await answerer(request, TrackRequest, tracks.begin)

    @app.post(
        "/track/{session_id}/frames",
        summary="Take the next frames of a session",
        responses={**docs.error_answers(), 200: {"model": TrackResponse}},
        openapi_extra=docs.body_of(TrackFramesRequest, "frames"),
    )
    async def take(session_id: str, request: Request) -> Response:
        async def answer(given: TrackFramesRequest, caller: Caller) -> TrackResponse:
            return await tracks.take(session_id, given, caller)

        return await answerer(request, TrackFramesRequest, answer)

    @app.get(
        "/track/{session_id}",
        summary="Show a session",
        responses=docs.error_answers(*OF_A_SESSION),
    )
    async def show(session_id: str, request: Request) -> TrackSessionResponse:
        return tracks.show(session_id, answerer.keys.check(request))

    @app.delete(
        "/track/{session_id}",
        summary="End a session",
        responses=docs.error_answers(*OF_A_SESSION),
    )
    async def end(session_id: str, request: Request) -> TrackSessionResponse:
        return await tracks.end(session_id, answerer.keys.check(request))


@asynccontextmanager
async def sweeping(tracks: TrackSessions) -> AsyncIterator[None]:
    """End sessions that are left alone as long as the block lasts, and all others after it."""
    sweeper = asyncio.create_task(tracks.sweep_for_ever())
    try:
        yield
    finally:
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        tracks.close()
