"""The sessions that follow objects through videos: whose they are, and when they end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sam2_blocks.executors import TrackSession
from sam2_blocks.service.errors import BusyError, TrackConflictError, UnknownTrackError
from sam2_blocks.service.lanes import Lane
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.track_requests import TrackRequest
from sam2_blocks.values import Hw

ID_BYTES = 24
MODEL_MEMORY = 7
"""Frames that the public checkpoints were trained to remember."""


def new_session_id() -> str:
    """Name a session so that nobody can guess it."""
    return secrets.token_urlsafe(ID_BYTES)


@dataclass(eq=False)
class Track:
    """One session and what the service knows of it.

    Attributes:
        client: the API key it belongs to.
        lane: where its model runs.
        begun: the request it began with.
        session: holds the memory.
        session_id: its name; whoever knows it and has the key may use it.
        frames: taken so far.
        image_hw: size of the last frame.
        used: when the last request came or was answered, by the table's clock.
        is_used: whether a request is being answered.
        has_ended: whether it is out of the table, so that whoever uses it has to close it.
    """

    client: str
    lane: Lane
    begun: TrackRequest
    session: TrackSession
    session_id: str = field(default_factory=new_session_id)
    frames: int = 0
    image_hw: Hw | None = None
    used: float = 0.0
    is_used: bool = False
    has_ended: bool = False

    @property
    def remembered_frames(self) -> int:
        """Of how many frames an object is remembered, once its memory is full."""
        return self.begun.max_prompt_frames + (self.begun.memory_frames or MODEL_MEMORY)


class TrackTable:
    """The sessions there are; lives in one event loop, and closes none: see what it returns.

    Args:
        settings: how many there may be, and for how long.
        clock: seconds, from any start.

    Attributes:
        expired: how many have ended because no request came.
    """

    def __init__(
        self, settings: ServiceSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._tracks: dict[str, Track] = {}
        self.expired = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def __iter__(self) -> Iterator[Track]:
        return iter(list(self._tracks.values()))

    def check_room(self, client: str) -> None:
        """Go on only if a client may have one more.

        Raises:
            BusyError: if there are too many.
        """
        most = self._settings.max_tracks
        if len(self) >= most:
            raise BusyError(f"there are {len(self)} sessions, the limit is {most}. {_HOW}")
        most_of_key = self._settings.max_tracks_per_key
        count = sum(track.client == client for track in self)
        if client and most_of_key is not None and count >= most_of_key:
            raise BusyError(f"this key has {count} sessions, the limit is {most_of_key}. {_HOW}")

    def add(self, track: Track) -> None:
        """Take in a session.

        Raises:
            BusyError: if there are too many.
        """
        self.check_room(track.client)
        track.used = self._clock()
        self._tracks[track.session_id] = track

    def find(self, session_id: str, client: str) -> Track:
        """Return a session of this client.

        Raises:
            UnknownTrackError: if there is none of this name; also if it is another client's.
        """
        track = self._tracks.get(session_id)
        if track is None or track.client != client or self._is_old(track):
            raise UnknownTrackError(
                f"there is no session {session_id[:64]!r}, or it has ended: sessions end after "
                f"{self._settings.track_idle_s:g} s without a request. Begin another with "
                "POST /track."
            )
        return track

    @contextmanager
    def using(self, track: Track) -> Iterator[None]:
        """Have a session alone as long as the block lasts.

        Raises:
            TrackConflictError: if somebody else has it.
        """
        if track.is_used:
            raise TrackConflictError(
                "earlier frames of this session are not answered yet. Send frames one after the "
                "other, or several in one request."
            )
        track.is_used = True
        try:
            yield
        finally:
            track.is_used = False
            track.used = self._clock()

    def expires_in(self, track: Track) -> float:
        """Seconds until a session ends if no request comes."""
        left = track.used + self._settings.track_idle_s - self._clock()
        return self._settings.track_idle_s if track.is_used else left

    def remove(self, track: Track) -> None:
        """Let go of a session; it is to be closed once nobody uses it."""
        self._tracks.pop(track.session_id, None)
        track.has_ended = True

    def remove_old(self) -> list[Track]:
        """Let go of the sessions of which nothing has come for too long; they are to be closed."""
        old = [track for track in self if self._is_old(track)]
        for track in old:
            self.remove(track)
        self.expired += len(old)
        return old

    def _is_old(self, track: Track) -> bool:
        return not track.is_used and self.expires_in(track) <= 0


_HOW = "End one with DELETE /track/{id}, or try again later."
