"""Which prompts start tracks, which show one anew, and when a track has ended."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.strategies.tracking import TrackKeeper, TrackPolicy, track_frames
from sam2_blocks.testing import FakeTrackSession
from sam2_blocks.values import Image, Prompt

HW = (20, 30)
LEFT, RIGHT, MOVED = [2, 2, 10, 10], [16, 4, 28, 14], [3, 3, 11, 11]


def frame(*, dark: bool = False) -> Image:
    return Image(np.full((*HW, 3), 0 if dark else 200, np.uint8))


def box(values: list[float]) -> Prompt:
    return Prompt(box_xyxy=np.array(values, np.float32))


def click(x: float, y: float) -> Prompt:
    return Prompt(point_coords=np.array([[x, y]], np.float32), point_labels=np.ones(1, np.int32))


def keeper(**policy) -> TrackKeeper:
    return TrackKeeper(FakeTrackSession(), TrackPolicy(**policy))


def numbered(count: int) -> list[Image]:
    return [Image(np.full((*HW, 3), 200, np.uint8), id=str(number)) for number in range(count)]


def test_frames_are_read_only_so_far_ahead_and_announced():
    read = []

    def frames():
        for image in numbered(5):
            read.append(image.id)
            yield image

    session = FakeTrackSession()
    steps = track_frames(session, frames(), [box(LEFT)], [7])
    assert next(steps).state == ("new",)
    assert (session.frames, read) == (["0"], ["0", "1", "2"])
    assert [tracks.tracker_id.tolist() for tracks in steps] == [[7]] * 4
    assert session.frames == read == ["0", "1", "2", "3", "4"]
    assert sorted(set(session.expected)) == ["1", "2", "3", "4"]
    assert list(track_frames(session, [])) == []


def test_a_stream_is_not_held_back_where_that_saves_no_time(monkeypatch):
    monkeypatch.setattr(FakeTrackSession, "ahead", 0)
    session, coming = FakeTrackSession(), iter(numbered(3))
    steps = track_frames(session, coming, [box(LEFT)])
    next(steps)
    assert next(coming).id == "1"
    assert session.expected == []


def ids_of(found) -> list[int]:
    return found.tracks.tracker_id.tolist()


def test_first_listens_once():
    tracks = keeper()
    assert ids_of(tracks.step(frame())) == []
    assert not tracks.has_started
    assert ids_of(tracks.step(frame(), [box(LEFT)])) == [1]
    assert ids_of(tracks.step(frame(), [box(RIGHT)])) == [1]
    assert tracks.has_started


def test_new_only_starts_what_lies_on_no_track():
    tracks = keeper(prompt="new_only")
    tracks.step(frame(), [box(LEFT)])
    found = tracks.step(frame(), [box(MOVED), box(RIGHT)])
    assert ids_of(found) == [1, 2]
    assert found.tracks.state == ("tracked", "new")
    assert dict(found.shown) == {2: 1}
    assert found.tracks.prediction.mask_box_xyxy[0].tolist() == [2, 2, 9, 9]


def test_every_also_shows_tracks_anew():
    tracks = keeper(prompt="every")
    tracks.step(frame(), [box(LEFT)])
    found = tracks.step(frame(), [box(MOVED)])
    assert dict(found.shown) == {1: 0}
    assert found.tracks.prediction.mask_box_xyxy[0].tolist() == [3, 3, 10, 10]


def test_every_n_listens_on_every_nth_frame():
    tracks = keeper(prompt="every_n", prompt_every=3)
    shown = [
        dict(tracks.step(frame(), [box(LEFT), box(RIGHT)][: n % 3 + 1]).shown) for n in range(5)
    ]
    assert shown == [{1: 0}, {}, {}, {1: 0}, {}]


def test_every_n_waits_for_a_frame_that_prompts_anything():
    tracks = keeper(prompt="every_n", prompt_every=2)
    prompted = [[box(LEFT)], [], [], [box(LEFT)], [box(LEFT)], [box(LEFT)]]
    shown = [dict(tracks.step(frame(), prompts).shown) for prompts in prompted]
    assert shown == [{1: 0}, {}, {}, {1: 0}, {}, {1: 0}]


def test_of_two_prompts_on_one_track_the_better_shows_it_anew():
    tracks = keeper(prompt="every")
    tracks.step(frame(), [box(LEFT)])
    found = tracks.step(frame(), [box(MOVED), box(LEFT)])
    assert dict(found.shown) == {1: 1}
    assert ids_of(found) == [1]


@pytest.mark.parametrize(
    "prompt", [mask_to_rle(np.pad(np.ones((8, 8), bool), ((2, 10), (2, 20)))), click(5, 5)]
)
def test_masks_and_clicks_lie_on_tracks(prompt):
    tracks = keeper(prompt="new_only")
    tracks.step(frame(), [box(LEFT)])
    assert ids_of(tracks.step(frame(), [prompt])) == [1]
    assert ids_of(tracks.step(frame(), [click(20, 10)])) == [1, 2]


def test_ids_decide_whom_a_prompt_is_about():
    tracks = keeper(prompt="every")
    tracks.step(frame(), [box(LEFT)], [7])
    found = tracks.step(frame(), [box(RIGHT), box(LEFT)], [7, None])
    assert ids_of(found) == [7]
    assert found.tracks.prediction.mask_box_xyxy[0].tolist() == [16, 4, 27, 13]


def test_an_unknown_id_on_a_track_starts_no_second_one():
    tracks = keeper(prompt="new_only")
    tracks.step(frame(), [box(LEFT)], [7])
    assert ids_of(tracks.step(frame(), [box(LEFT), box(RIGHT)], [8, 9])) == [7, 9]


def test_no_more_tracks_than_there_may_be():
    tracks = keeper(prompt="new_only", max_objects=1)
    found = tracks.step(frame(), [box(LEFT), box(RIGHT)])
    assert ids_of(found) == [1]
    assert found.refused == (1,)
    assert tracks.step(frame(), [box(RIGHT)]).refused == (0,)


def test_a_track_lost_for_too_long_has_ended():
    tracks = keeper(lost_after=3)
    tracks.step(frame(), [box(LEFT)])
    states = []
    for dark in (True, True, False, True, True, True):
        found = tracks.step(frame(dark=dark))
        states.append((found.tracks.state, found.ended.tracker_id.tolist()))
    lost, seen = (("lost",), []), (("tracked",), [])
    assert states == [lost, lost, seen, lost, lost, ((), [1])]
    assert ids_of(tracks.step(frame())) == []


def test_a_low_score_is_lost():
    tracks = keeper(min_object_score=6)
    tracks.step(frame(), [box(LEFT)])
    assert tracks.step(frame()).tracks.state == ("lost",)


def test_a_lost_track_is_shown_anew_where_it_was_seen_last():
    tracks = keeper(refine="low_score")
    tracks.step(frame(), [box(LEFT)])
    assert dict(tracks.step(frame(), [box(MOVED)]).shown) == {}
    tracks.step(frame(dark=True))
    assert dict(tracks.step(frame(dark=True), [box(MOVED)]).shown) == {1: 0}


def test_a_prompt_that_means_nothing_changes_nothing():
    session = FakeTrackSession()
    tracks = TrackKeeper(session, TrackPolicy(prompt="new_only"))
    tracks.step(frame(), [box(LEFT)])
    with pytest.raises(ValueError, match=r"prompt 1: box .* is inverted"):
        tracks.step(frame(), [box(RIGHT), box([9, 9, 3, 3])])
    with pytest.raises(ValueError, match=r"prompt 0: a mask of size \(4, 4\) is not of this frame"):
        tracks.step(frame(), [mask_to_rle(np.ones((4, 4), bool))])
    with pytest.raises(ValueError, match=r"one id a prompt, none twice; got .* for 2 prompts"):
        tracks.step(frame(), [box(LEFT), box(RIGHT)], [3, 3])
    assert len(session.frames) == 1
