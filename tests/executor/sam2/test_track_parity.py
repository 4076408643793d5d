"""The same tracks as the official SAM2VideoPredictor: same weights, float32, CPU, 24 frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.frames import frames_to_batch
from sam2_blocks.masks.rle import mask_to_rle, rle_to_mask
from sam2_blocks.options import TrackSettings
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, Prompt, Rle, Tracks
from tests.executor.conftest import BACKENDS
from tests.executor.sam2.official_video import (
    box_of,
    load_tracking,
    official,
    propagate,
    write_clip,
)

FRAMES = 24
LOGIT_TOLERANCE = 1e-4
FLIPPED_PX_TOLERANCE = 1e-5


@dataclass
class Clip:
    folder: str
    images: list[Image]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    return Clip(str(folder), write_clip(folder, FRAMES))


@pytest.fixture(scope="module")
def executors(tmp_path_factory) -> dict[str, Sam2Executor]:
    folder = tmp_path_factory.mktemp("configs")
    return {name: load_tracking(name, folder) for name in ("nano", "hiera_tiny")}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def start(predictor, clip: Clip):
    return predictor.init_state(clip.folder, offload_video_to_cpu=True)


class Comparison:
    """Our tracks beside official logits (h, w) and masks (H, W) by object, frame for frame."""

    def __init__(self) -> None:
        self.flipped: list[int] = []
        self.pixels = 0

    def add(self, tracks: Tracks, frame: int, expected: dict) -> None:
        assert tracks.tracker_id.tolist() == list(expected)
        for row, (key, (logits, mask)) in enumerate(expected.items()):
            error = np.abs(tracks.prediction.low_res_logits[row] - np.clip(logits, -32, 32)).max()
            assert error <= LOGIT_TOLERANCE, f"frame {frame}, object {key}: {error:.1e}"
            self.add_mask(tracks.prediction.rles[row], mask)

    def add_mask(self, rle: Rle, mask: np.ndarray) -> None:
        self.flipped.append(int((rle_to_mask(rle) != mask).sum()))
        self.pixels += mask.size

    def check(self) -> None:
        """No more flipped than the tolerance in all; a mask's share depends on how it is rounded.

        Of the same logits, which `add` compares, pixels near zero fall on either side: with
        random weights and other numbers of threads up to three in one mask of a clip.
        """
        figures = f"{self.flipped} pixels a mask, of {self.pixels} in all"
        assert sum(self.flipped) <= FLIPPED_PX_TOLERANCE * self.pixels, figures
        assert max(self.flipped) <= 5, figures


@pytest.fixture
def comparison() -> Iterator[Comparison]:
    comparison = Comparison()
    yield comparison
    comparison.check()


def assert_meaningful(found: dict) -> None:
    """Objects differ by far more than the tolerance, and are seen: equality says something."""
    shown = [logits for logits, mask in found.values() if mask.any()]
    assert len(shown) >= len(found) / 2
    differences = [np.abs(a - b).max() for a, b in itertools.pairwise(shown)]
    assert min(differences, default=1) > 10 * LOGIT_TOLERANCE, differences


def mask_of(k: int, frame: int) -> np.ndarray:
    x0, y0, x1, y1 = box_of(k, frame).astype(int)
    mask = np.zeros((240, 320), bool)
    mask[y0:y1, x0:x1] = True
    mask[y0 + 8 : y0 + 16, x0 + 8 : x0 + 16] = False
    return mask


def clicks(k: int, frame: int, count: int) -> Prompt:
    x0, y0, x1, y1 = box_of(k, frame)
    points = [[(x0 + x1) / 2, (y0 + y1) / 2], [x0 + 4, y0 + 4], [x1 - 3, y1 - 5]]
    return Prompt(
        point_coords=np.array(points[:count], np.float32),
        point_labels=np.array([1, 1, 0][:count], np.int32),
    )


def add(predictor, state, frame: int, key: int, prompt: Prompt | Rle):
    if isinstance(prompt, Rle):
        return predictor.add_new_mask(state, frame, key, rle_to_mask(prompt))
    return predictor.add_new_points_or_box(
        state,
        frame,
        key,
        points=prompt.point_coords,
        labels=prompt.point_labels,
        box=prompt.box_xyxy,
    )


def test_frames_are_preprocessed_as_by_the_official_predictor(clip, video_class, executors):
    executor = executors["nano"]
    state = start(official(video_class, executor), clip)
    ours = frames_to_batch([image.pixels for image in clip.images[:3]], executor.model)
    assert torch.equal(ours, state["images"][:3])


@pytest.mark.parametrize("name", ["nano", "hiera_tiny"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_one_object(name, reverse, clip, video_class, executors, comparison):
    executor, order = executors[name], list(range(FRAMES))[:: -1 if reverse else 1]
    first, last = order[0], order[-1]
    predictor = official(video_class, executor)
    state = start(predictor, clip)
    prompt = Prompt(box_xyxy=box_of(1, first))
    add(predictor, state, first, 1, prompt)
    expected = dict(propagate(predictor, state, first, last, reverse=reverse))
    with executor.track() as session:
        for frame in order:
            tracks = session.step(clip.images[frame], [prompt] if frame == first else None)
            comparison.add(tracks, frame, expected[frame])
    assert list(expected) == order
    assert_meaningful(expected[last])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["nano", "hiera_tiny"])
def test_frames_that_are_encoded_ahead(
    name, backend, clip, video_class, executors, comparison, tmp_path
):
    """On two cores, beside objects that are followed; what OpenVINO encodes, too."""
    with torch_threads(2):
        executor = load_tracking(name, tmp_path, backend=backend)
        prompts = [Prompt(box_xyxy=box_of(k, 0)) for k in (0, 1, 4)]
        with executor.track() as session:
            found = list(track_frames(session, clip.images, prompts))
    predictor = official(video_class, executors[name])
    state = start(predictor, clip)
    for key, prompt in enumerate(prompts, 1):
        add(predictor, state, 0, key, prompt)
    for frame, expected in propagate(predictor, state, 0, FRAMES - 1):
        comparison.add(found[frame], frame, expected)
    assert_meaningful(expected)


@pytest.mark.parametrize("name", ["nano", "hiera_tiny"])
def test_six_objects_added_corrected_and_removed(name, clip, video_class, executors, comparison):
    """Boxes, clicks and a mask; one joins at frame 10, one is mended at 12, one leaves at 20."""
    executor = executors[name]
    prompts = {
        1: Prompt(box_xyxy=box_of(0, 0)),
        2: Prompt(box_xyxy=box_of(1, 0)),
        3: clicks(2, 0, 1),
        4: clicks(3, 0, 3),
        5: mask_to_rle(mask_of(4, 0)),
    }
    late, mending = Prompt(box_xyxy=box_of(5, 10)), clicks(1, 12, 2)
    predictor = official(video_class, executor)
    state = start(predictor, clip)
    expected = {}
    for key, prompt in prompts.items():
        add(predictor, state, 0, key, prompt)
    expected.update(propagate(predictor, state, 0, 9))
    add(predictor, state, 10, 6, late)
    expected.update(propagate(predictor, state, 10, 12))
    _, _, mended = add(predictor, state, 12, 2, mending)
    expected.update(propagate(predictor, state, 13, 19))
    predictor.remove_object(state, 3)
    expected.update(propagate(predictor, state, 20, 23))
    assert_meaningful(expected[9])

    with executor.track() as session:
        for frame, image in enumerate(clip.images):
            if frame == 20:
                session.remove(3)
            given = {0: list(prompts.values()), 10: [late]}.get(frame)
            tracks = session.step(image, given)
            comparison.add(tracks, frame, expected[frame])
            if frame == 12:
                tracks = session.correct(2, mending)
                comparison.add_mask(tracks.prediction.rles[1], (mended[1, 0] > 0).numpy())


@pytest.mark.parametrize("kind", ["clicks", "box", "mask"])
@pytest.mark.parametrize("keep", [False, True])
def test_corrections_of_each_kind(kind, keep, clip, video_class, executors, comparison):
    executor = executors["nano"]
    prompt = Prompt(box_xyxy=box_of(1, 0))
    mending = {
        "clicks": clicks(2, 4, 1),
        "box": Prompt(box_xyxy=box_of(2, 4)),
        "mask": mask_to_rle(mask_of(2, 4)),
    }[kind]
    predictor = official(video_class, executor, add_all_frames_to_correct_as_cond=keep)
    state = start(predictor, clip)
    add(predictor, state, 0, 1, prompt)
    expected = dict(propagate(predictor, state, 0, 4))
    add(predictor, state, 4, 1, mending)
    expected.update(propagate(predictor, state, 5, 14))
    with executor.track() as session:
        for frame, image in enumerate(clip.images[:15]):
            tracks = session.step(image, [prompt] if frame == 0 else None)
            comparison.add(tracks, frame, expected[frame])
            if frame == 4:
                session.correct(1, mending, keep=keep)


def test_a_known_object_prompted_anew(clip, video_class, executors, comparison):
    executor = executors["nano"]
    predictor = official(video_class, executor)
    state = start(predictor, clip)
    prompts = {frame: Prompt(box_xyxy=box_of(1, frame)) for frame in (0, 6)}
    add(predictor, state, 0, 1, prompts[0])
    expected = dict(propagate(predictor, state, 0, 5))
    add(predictor, state, 6, 1, prompts[6])
    expected.update(propagate(predictor, state, 6, 16))
    with executor.track() as session:
        for frame, image in enumerate(clip.images[:17]):
            given = [prompts[frame]] if frame in prompts else None
            tracks = session.step(image, given, [1] if given else None)
            comparison.add(tracks, frame, expected[frame])


def test_masks_that_do_not_overlap(clip, video_class, executors, comparison):
    executor = executors["nano"]
    predictor = official(video_class, executor, non_overlap_masks=True)
    state = start(predictor, clip)
    prompts = [Prompt(box_xyxy=box_of(k, 0)) for k in range(3)]
    for key, prompt in enumerate(prompts, 1):
        add(predictor, state, 0, key, prompt)
    expected = dict(propagate(predictor, state, 0, 2))
    with executor.track(TrackSettings(non_overlap=True)) as session:
        for frame in range(3):
            tracks = session.step(clip.images[frame], prompts if frame == 0 else None)
            comparison.add(tracks, frame, expected[frame])
            masks = np.stack([rle_to_mask(rle) for rle in tracks.prediction.rles])
            assert masks.sum(0).max() == 1
