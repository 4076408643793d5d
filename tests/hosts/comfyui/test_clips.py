"""An IMAGE is a clip to nodes that follow objects."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sam2_blocks import StepError, load_plugins, track_frames
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executor import load
from sam2_blocks.hosts.comfyui.nodes import BATCH_SIZE, make_node
from sam2_blocks.hosts.comfyui.values import Batch, tensor_to_images
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.prompts import PromptSet
from sam2_blocks.testing import FakeExecutor
from tests.hosts.comfyui.conftest import fields_of

LEFT, RIGHT = [2, 3, 12, 15], [14, 5, 30, 20]
COUNT = BATCH_SIZE + 3  # frames of more than one micro-batch


class Sessions(FakeExecutor):
    """Remembers the sessions it began."""

    def __init__(self):
        super().__init__()
        self.sessions = []

    def track(self, *settings):
        self.sessions.append(super().track(*settings))
        return self.sessions[-1]


@pytest.fixture
def executor():
    return Sessions()


@pytest.fixture
def track(node):
    made = node("sam2/track@v1")
    return lambda **given: made.run(unique_id="7", **given)


def clip(count=COUNT, *, dark=()):
    """An IMAGE of frames that are bright, but for some."""
    frames = torch.full((count, 24, 32, 3), 0.8)
    frames[list(dark)] = 0
    return frames


def test_frames_come_in_order_to_one_session_that_is_freed(track, executor):
    track(image=clip(), boxes=[LEFT])
    [session] = executor.sessions
    assert session.frames == [f"image_{index}" for index in range(COUNT)]
    assert session.closed


def test_each_object_has_masks_of_its_own_one_a_frame(track):
    predictions, new, ended, masks, boxes = track(image=clip(), boxes=[LEFT, RIGHT])
    assert [mask.shape for mask in masks] == [(COUNT, 24, 32)] * 2
    assert [mask.sum((1, 2)).unique().tolist() for mask in masks] == [[120], [240]]
    assert [found.tracker_id.tolist() for found in predictions] == [[1, 2]] * COUNT
    assert [len(found) for found in new] == [2] + [0] * (COUNT - 1)
    assert not any(map(len, ended))
    assert len(boxes) == COUNT


def test_an_object_that_is_not_seen_has_an_empty_mask(track):
    *_, masks, _ = track(image=clip(4, dark=[2]), boxes=[LEFT, RIGHT])
    assert [mask.sum((1, 2)).tolist() for mask in masks] == [
        [120, 120, 0, 120],
        [240, 240, 0, 240],
    ]


def test_masks_may_be_joined(track):
    *_, apart, _ = track(image=clip(4), boxes=[LEFT, RIGHT])
    *_, [joined], _ = track(image=clip(4), boxes=[LEFT, RIGHT], individual_masks=False)
    assert torch.equal(joined, torch.stack(apart).amax(0))


def test_objects_may_come_later(track):
    boxes = [[LEFT], [LEFT], [LEFT, RIGHT], []]
    *_, masks, _ = track(image=clip(4), boxes=boxes, prompt="new_only")
    assert [mask.sum((1, 2)).tolist() for mask in masks] == [[120] * 4, [0, 0, 240, 240]]


def test_masks_of_others_are_objects_on_the_first_frame(track):
    mask = torch.zeros(2, 24, 32)
    mask[0, 3:15, 2:12] = 1
    mask[1, 5:20, 14:30] = 1
    for count in (2, 5):  # as many as there are frames or not
        *_, masks, _ = track(image=clip(count), masks=mask)
        assert [one.sum((1, 2)).tolist() for one in masks] == [[120] * count, [240] * count]


def test_what_a_node_of_ours_found_is_followed(node, track):
    [found, *_] = node("sam2/segment@v1").run(image=clip(1), boxes=[LEFT, RIGHT])
    frames = clip(3)
    empty = found[0].select(np.zeros(2, bool))
    predictions, *_ = track(image=frames, masks=Batch([found[0], empty, empty]))
    assert [one.tracker_id.tolist() for one in predictions] == [[1, 2]] * 3


def test_clicks_are_one_object_from_the_first_frame_on(track):
    *_, masks, _ = track(image=clip(3), positive_coords='[{"x": 9, "y": 8}]')
    assert [one.sum((1, 2)).tolist() for one in masks] == [[25] * 3]


def test_a_run_begins_anew(track, executor):
    for _ in range(2):
        predictions, *_ = track(image=clip(2), boxes=[LEFT])
        assert [found.tracker_id.tolist() for found in predictions] == [[1], [1]]
    assert [session.closed for session in executor.sessions] == [True, True]


def test_nothing_followed_is_one_empty_mask_a_frame(track):
    *_, masks, boxes = track(image=clip(3), boxes=[])
    assert [mask.shape for mask in masks] == [(3, 24, 32)]
    assert not masks[0].any()
    assert boxes == [[], [], []]


def test_a_frame_that_fails_frees_the_session(track, executor):
    boxes = [[LEFT], [[500, 500, 600, 600]]]
    with pytest.raises(StepError, match=r"step 'node 7' \(sam2/track@v1\): item 1 of 2: prompt 0"):
        track(image=clip(2), boxes=boxes, prompt="every")
    assert executor.sessions[0].closed


def test_an_interruption_frees_the_session(track, executor, monkeypatch):
    class InterruptProcessingException(Exception):  # noqa: N818 (ComfyUI's name)
        pass

    def throw():
        if executor.sessions:
            raise InterruptProcessingException

    management = SimpleNamespace(throw_exception_if_processing_interrupted=throw)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    with pytest.raises(InterruptProcessingException):
        track(image=clip(4 * BATCH_SIZE), boxes=[LEFT])
    assert executor.sessions[0].closed
    assert len(executor.sessions[0].frames) < 4 * BATCH_SIZE


def test_what_comfyui_is_told_of_the_node(classes):
    track = classes["sam2_blocks_track_v1"]
    assert track.RETURN_NAMES == ("predictions", "new", "ended", "masks", "boxes")
    assert list(track.RETURN_TYPES) == [*["SAM2_BLOCKS_PREDICTIONS"] * 3, "MASK", "BBOX"]
    assert track.OUTPUT_IS_LIST == (False, False, False, True, False)
    assert "one batch an object" in track.OUTPUT_TOOLTIPS[3]
    assert fields_of(track)["image"][0] == "IMAGE"
    assert "MASK" in fields_of(track)["masks"][0].split(",")


def test_tracks_are_those_of_the_library():
    nano = load("nano", device="cpu", seed=3)
    frames = torch.rand(3, 24, 32, 3, generator=torch.Generator().manual_seed(1))
    plugins = load_plugins(points=[])
    resources = Resources({"sam2": lambda *_, **__: nano})
    node = make_node(plugins.manifests["sam2/track@v1"], plugins, resources)()
    *_, masks, _ = node.run(image=frames, boxes=[LEFT, RIGHT], model="nano")
    with nano.track() as session:
        images = tensor_to_images(frames)
        tracks = list(track_frames(session, images, PromptSet.from_boxes([LEFT, RIGHT])))
    for number, mask in enumerate(masks):
        expected = [rle_to_mask(found.prediction.rles[number]) for found in tracks]
        assert np.array_equal(mask.numpy() > 0, expected)


def test_boxes_that_are_tracked_have_no_masks(node):
    pytest.importorskip("trackers", reason="needs the extra trackers")
    boxes = [[LEFT, RIGHT]] * 3
    detections, *_, masks, found = node("track/boxes@v1").run(image=clip(3), detections=boxes)
    assert len(set(detections[2].tracker_id.tolist())) == 2
    assert [mask.shape for mask in masks] == [(3, 24, 32)]
    assert [len(rows) for rows in found] == [2, 2, 2]
