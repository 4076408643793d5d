from __future__ import annotations

import pytest

from sam2_blocks.service import ServiceSettings
from sam2_blocks.service.errors import BusyError, TrackConflictError, UnknownTrackError
from sam2_blocks.service.track_table import Track, TrackTable
from sam2_blocks.testing import FakeTrackSession
from sam2_blocks.track_requests import TrackRequest


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def table_of(clock, **settings):
    return TrackTable(ServiceSettings(**settings), clock)


def track_of(client="", **settings):
    return Track(client, None, TrackRequest(**settings), FakeTrackSession())


def test_names_cannot_be_guessed():
    names = {track_of().session_id for _ in range(100)}
    assert len(names) == 100
    assert min(map(len, names)) >= 32


def test_a_session_ends_when_nothing_comes(clock):
    table, track = table_of(clock, track_idle_s=10), track_of()
    table.add(track)
    clock.now += 9
    assert table.find(track.session_id, "") is track
    assert table.expires_in(track) == 1
    assert table.remove_old() == []
    clock.now += 1
    with pytest.raises(UnknownTrackError, match="sessions end after 10 s without a request"):
        table.find(track.session_id, "")
    assert table.remove_old() == [track]
    assert (len(table), table.expired, track.has_ended) == (0, 1, True)


def test_a_session_that_is_used_does_not_end(clock):
    table, track = table_of(clock, track_idle_s=10), track_of()
    table.add(track)
    with table.using(track):
        clock.now += 50
        assert table.remove_old() == []
    clock.now += 9
    assert table.find(track.session_id, "") is track


def test_one_request_at_a_time_uses_a_session(clock):
    table, track = table_of(clock), track_of()
    table.add(track)
    with (
        table.using(track),
        pytest.raises(TrackConflictError, match="earlier frames of this session"),
        table.using(track),
    ):
        pass
    with table.using(track):
        assert track.is_used


def test_a_session_is_its_keys_alone(clock):
    table, track = table_of(clock), track_of("one")
    table.add(track)
    for client in ("two", ""):
        with pytest.raises(UnknownTrackError, match=f"no session '{track.session_id}'"):
            table.find(track.session_id, client)
    assert table.find(track.session_id, "one") is track


def test_there_are_so_many_at_most(clock):
    table = table_of(clock, max_tracks=2)
    first = track_of()
    table.add(first)
    table.add(track_of())
    with pytest.raises(BusyError, match="there are 2 sessions, the limit is 2"):
        table.add(track_of())
    table.remove(first)
    table.add(track_of())
    assert len(table) == 2


def test_there_are_so_many_of_a_key_at_most(clock):
    table = table_of(clock, max_tracks_per_key=1)
    table.add(track_of("one"))
    table.add(track_of("two"))
    with pytest.raises(BusyError, match="this key has 1 sessions, the limit is 1"):
        table.add(track_of("one"))


def test_without_keys_there_is_no_limit_of_one(clock):
    table = table_of(clock, max_tracks_per_key=1)
    for _ in range(3):
        table.add(track_of())
    assert len(table) == 3


def test_sessions_may_be_switched_off(clock):
    with pytest.raises(BusyError, match="there are 0 sessions, the limit is 0"):
        table_of(clock, max_tracks=0).check_room("")


def test_a_full_memory_is_of_so_many_frames():
    assert track_of().remembered_frames == 4 + 7
    assert track_of(max_prompt_frames=2, memory_frames=3).remembered_frames == 5
