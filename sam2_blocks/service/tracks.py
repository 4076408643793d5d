"""Videos over the wire: a session each, its frames taken one by one.

What a session remembers stays in its `TrackSession`; frames are forgotten once they are answered.
The model's thread takes one frame at a time, so that other requests have their turn between two. A
frame is checked, with all that is said about it, before anything is done: one that is refused
leaves the session as it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from sam2_blocks.errors import ModelError
from sam2_blocks.executors import Tracker
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.core import NOBODY, Service
from sam2_blocks.service.errors import (
    BusyError,
    RequestError,
    TooLargeError,
    UnknownTrackError,
)
from sam2_blocks.service.track_frames import (
    CheckedFrame,
    apply_frame,
    check_frame,
    to_tracked_rows,
)
from sam2_blocks.service.track_table import Track, TrackTable
from sam2_blocks.track_requests import (
    TrackFrame,
    TrackFrameError,
    TrackFrameResponse,
    TrackFramesRequest,
    TrackRequest,
    TrackResponse,
    TrackSessionResponse,
)
from sam2_blocks.values import ExecutorSpec, Image, Tracks

SWEEP_S = 5.0

Request = TrackRequest | TrackFramesRequest


class TrackSessions:
    """Follows objects through the videos of clients.

    Args:
        service: whose models and limits they get.
        clock: tells when sessions end; seconds, from any start.

    Attributes:
        table: the sessions there are.
        frames: taken, of all sessions there ever were.
    """

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._settings = service.settings
        self._object_bytes: dict[ExecutorSpec, int] = {}
        self._counting = threading.Lock()  # each model counts in its own thread
        self.table = TrackTable(service.settings, clock)
        self.frames = 0

    # --- the requests -------------------------------------------------------------------------

    async def begin(self, request: TrackRequest, caller: Caller = NOBODY) -> TrackResponse:
        """Begin a session, and take the frames that come with it.

        Args:
            request: the request.
            caller: whose session it will be.

        Raises:
            RequestError: if it cannot begin, or none of its frames can be taken; then there is no
                session.
        """
        started = time.perf_counter()
        await self.sweep()
        self._check_frames(request, 0)
        track = self._open(request, caller.client)
        try:
            return await self._answer(track, request, started)
        except BaseException:
            await self._end(track)
            raise

    async def take(
        self, session_id: str, request: TrackFramesRequest, caller: Caller = NOBODY
    ) -> TrackResponse:
        """Take the next frames of a session.

        Args:
            session_id: as `begin` gave it.
            request: the frames.
            caller: whose session it is.

        Returns:
            The objects on each frame. Of several, one that is refused has its error instead, and
            the session goes on with the next.

        Raises:
            UnknownTrackError: if the caller has no such session.
            TrackConflictError: if earlier frames are not answered yet.
            RequestError: if none of the frames can be taken; the session stays as it is.
        """
        started = time.perf_counter()
        track = self.table.find(session_id, caller.client)
        self._check_frames(request, track.frames)
        return await self._answer(track, request, started)

    def show(self, session_id: str, client: str = "") -> TrackSessionResponse:
        """Tell how a session stands: its frames, objects and memory.

        Args:
            session_id: as `begin` gave it.
            client: whose session it is.

        Raises:
            UnknownTrackError: if the client has no such session.
        """
        track = self.table.find(session_id, client)
        height, width = track.image_hw or (None, None)
        return TrackSessionResponse(
            session_id=track.session_id,
            model_id=track.lane.executor.spec.full_name,
            frames=track.frames,
            width=width,
            height=height,
            tracker_ids=list(track.session.tracker_ids),
            nbytes=track.session.nbytes,
            expires_in=self.table.expires_in(track),
        )

    async def end(self, session_id: str, client: str = "") -> TrackSessionResponse:
        """End a session; a request for frames that is under way is answered first.

        Args:
            session_id: as `begin` gave it.
            client: whose session it is.

        Returns:
            How it stood before it ended.

        Raises:
            UnknownTrackError: if the client has no such session.
        """
        shown = self.show(session_id, client)
        await self._end(self.table.find(session_id, client))
        return shown

    # --- coming and going ---------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """What all sessions remember."""
        return sum(track.session.nbytes for track in self.table)

    async def sweep(self) -> None:
        """End the sessions of which nothing has come for too long."""
        for track in self.table.remove_old():
            await self._close(track)

    async def sweep_for_ever(self) -> None:
        """Do so every few seconds."""
        while True:
            await asyncio.sleep(min(SWEEP_S, self._settings.track_idle_s))
            await self.sweep()

    def close(self) -> None:
        """Free all sessions, once nothing is in flight any more."""
        for track in self.table:
            self.table.remove(track)
            track.session.close()

    async def _end(self, track: Track) -> None:
        self.table.remove(track)
        if not track.is_used:
            await self._close(track)

    async def _close(self, track: Track) -> None:
        await self._service.in_thread(track.session.close)

    # --- frames -------------------------------------------------------------------------------

    def _open(self, request: TrackRequest, client: str) -> Track:
        """Begin a session; no frame of it is taken yet."""
        self.table.check_room(client)
        lane = self._service.lane_of(request)
        model = lane.executor
        if not isinstance(model, Tracker):
            raise RequestError(f"the model {model.spec.model!r} cannot track. Use another one.")
        try:
            session = model.track(request.to_settings())
        except (ValueError, ModelError) as error:
            raise RequestError(f"{str(error).rstrip('.')}.") from error
        track = Track(client, lane, request.without_frames(), session)
        self.table.add(track)
        return track

    def _check_frames(self, request: Request, taken: int) -> None:
        frames, settings = request.all_frames(), self._settings
        if len(frames) > settings.max_request_frames:
            raise TooLargeError(
                f"frames: there are {len(frames)}, the limit is {settings.max_request_frames}."
            )
        if taken + sum(frame.image is not None for frame in frames) > settings.max_track_frames:
            raise TooLargeError(
                f"the session has taken {taken} frames, the limit is "
                f"{settings.max_track_frames}. Begin another."
            )
        for frame in frames:
            self._service.check_prompts([*frame.prompts, *frame.corrections])

    async def _answer(self, track: Track, request: Request, started: float) -> TrackResponse:
        """Take the frames of a request while nobody else uses the session."""
        answers = []
        try:
            with self.table.using(track):
                for index, frame in enumerate(request.all_frames()):
                    field = "" if request.frames is None else f"frames[{index}]."
                    answers.append(await self._try_frame(track, request, frame, field))
        finally:
            if track.has_ended:
                await self._close(track)
        failed = [answer for answer in answers if isinstance(answer, RequestError)]
        if failed and len(failed) == len(answers):
            raise failed[0]
        return TrackResponse(
            inference_id=request.id,
            session_id=track.session_id,
            frames=[_refused(one) if isinstance(one, RequestError) else one for one in answers],
            time=time.perf_counter() - started,
        )

    async def _try_frame(
        self, track: Track, request: Request, frame: TrackFrame, field: str
    ) -> TrackFrameResponse | RequestError:
        """Answer one frame, or say what is wrong with it."""
        if track.has_ended:
            raise UnknownTrackError("the session was ended before all its frames were taken.")
        try:
            return await self._take_frame(track, request, frame, field)
        except BusyError:  # nothing is wrong with the frame
            raise
        except RequestError as error:
            return error

    async def _take_frame(
        self, track: Track, request: Request, frame: TrackFrame, field: str
    ) -> TrackFrameResponse:
        given = {} if frame.image is None else {f"{field}image": frame.image}
        async with self._service.images.opened(given) as opened:
            image = next(iter(opened.values()), None)
            wanted = await self._service.at_length(lambda: _check(track, frame, image, field))
            self._check_room(track, wanted, field)
            tracks = await self._on_device(track, wanted, field)
        return await self._service.at_length(lambda: _respond(track, request, tracks))

    async def _on_device(self, track: Track, wanted: CheckedFrame, field: str) -> Tracks:
        """Let the model take a frame to the end, whoever waits, and count it."""

        def work() -> Tracks:
            tracks = apply_frame(track.session, wanted)
            if wanted.image is not None:
                track.frames += 1
                track.image_hw = wanted.image.hw
                with self._counting:
                    self.frames += 1
            return tracks

        try:
            tracks = await track.lane.run(work)
        except ValueError as error:
            raise RequestError(f"{field}prompts: {error}.") from error
        if len(tracks):
            one = track.session.nbytes // len(tracks)
            self._object_bytes.setdefault(track.lane.executor.spec, one)
        return tracks

    def _check_room(self, track: Track, wanted: CheckedFrame, field: str) -> None:
        """Refuse new objects beyond what one session, or all together, may remember."""
        known = [one for one in track.session.tracker_ids if one not in wanted.removals]
        fresh, settings = wanted.count_new(known), self._settings
        count = len(known) + fresh
        if fresh and count > settings.max_track_objects:
            raise TooLargeError(
                f"{field}prompts: the session would have {count} objects, the limit is "
                f"{settings.max_track_objects}. Send fewer, or remove some."
            )
        nbytes = sum(self._most_bytes(one, len(one.session.tracker_ids)) for one in self.table)
        if fresh and nbytes + self._most_bytes(track, fresh) > settings.max_track_bytes:
            raise BusyError(
                f"{field}prompts: all sessions together hold as many objects as they may. End "
                "one, remove objects, or try again later."
            )

    def _most_bytes(self, track: Track, count: int) -> int:
        """What so many objects of a session will hold once their memory is full.

        The first object that a model follows tells how much one is after one frame.
        """
        one = self._object_bytes.get(track.lane.executor.spec, 0)
        return count * one * track.remembered_frames


def _check(track: Track, frame: TrackFrame, image: Image | None, field: str) -> CheckedFrame:
    known = track.session.tracker_ids
    return check_frame(frame, image, image_hw=track.image_hw, known=known, field=field)


def _respond(track: Track, request: Request, tracks: Tracks) -> TrackFrameResponse:
    """Answer in the form of the request, or else of the one that the session began with."""
    begun = track.begun
    tolerance = request.tolerance if request.tolerance is not None else begun.tolerance
    rows = to_tracked_rows(
        tracks,
        request.format or begun.format or "json",
        tolerance_px=tolerance or 0.0,
        form=request.polygon_form or begun.polygon_form or "centers",
    )
    return TrackFrameResponse(frame_index=track.frames - 1, predictions=rows)


def _refused(error: RequestError) -> TrackFrameResponse:
    said = TrackFrameError(status=error.status, message=str(error))
    return TrackFrameResponse(frame_index=None, error=said)
