"""`sam2/track@v1`: a state a video, whatever comes in between."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.blocks import track as track_module
from sam2_blocks.blocks.track import Track
from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import ModelError
from sam2_blocks.executors import Family
from sam2_blocks.language.pipeline import load_pipeline
from sam2_blocks.testing import FakeExecutor, check_block
from sam2_blocks.values import Image, PromptSet, VideoFrame

HW = (20, 30)
BOXES = [[2, 2, 10, 10], [16, 4, 28, 14]]


def frame(index: int, video: str = "a.mp4", *, dark: bool = False, hw=HW) -> Image:
    pixels = np.full((*hw, 3), 0 if dark else 200, np.uint8)
    return Image(pixels, f"{video}/{index}", video=VideoFrame(video, index))


def boxes(*rows: int, ids=None, names=None) -> sv.Detections:
    found = sv.Detections(np.array([BOXES[row] for row in rows], np.float32).reshape(-1, 4))
    found.tracker_id = None if ids is None else np.array(ids)
    found.class_id = np.array(rows, int)
    found.data["class_name"] = np.array(names or [f"kind {row}" for row in rows])
    return found


class Sessions(FakeExecutor):
    """Remembers the sessions it began."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sessions = []

    def track(self, *args, **kwargs):
        self.sessions.append(super().track(*args, **kwargs))
        return self.sessions[-1]


def run_frames(plugins, resources, items, **params):
    """Run the block on the frames of one run: what became of each."""
    manifest = plugins.manifests["sam2/track@v1"]
    names = items[0].inputs
    wiring = {name: f"$inputs.{name}" for name in names}
    document = {
        "pipeline_version": 1,
        "inputs": {name: {"kind": list(manifest.inputs[name].kinds)} for name in names},
        "steps": {"track": {"use": manifest.id, "with": wiring | params}},
        "outputs": {name: f"$steps.track.{name}" for name in manifest.outputs},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    with Runner(pipeline, plugins, resources=resources) as runner:
        return list(runner.run(items))


@pytest.fixture
def executor():
    return Sessions()


@pytest.fixture
def track(plugins, executor, tmp_path):
    """Run frames, each with boxes or none, through the block: their outputs, or errors."""

    def run(frames, given=None, **params):
        items = [
            Item(str(number), {"image": image, "boxes": (given or {}).get(number, boxes())})
            for number, image in enumerate(frames)
        ]
        resources = Resources({"sam2": lambda *_, **__: executor}, tmp_path)
        return run_frames(plugins, resources, items, **params)

    return run


def ids(result, output="predictions") -> list[int]:
    assert not result.errors, result.errors
    return result.outputs[output].tracker_id.tolist()


def test_examples_run(plugins):
    check_block("sam2/track@v1", plugins=plugins)


def test_objects_keep_their_ids_and_classes(track):
    results = track([frame(n) for n in range(4)], {1: boxes(0, 1)})
    assert [ids(result) for result in results] == [[], [1, 2], [1, 2], [1, 2]]
    assert [ids(result, "new") for result in results] == [[], [1, 2], [], []]
    found = results[3].outputs["predictions"]
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["kind 0", "kind 1"]
    assert found.data["track_state"].tolist() == ["tracked", "tracked"]
    assert found.data["object_score"].dtype == np.float32
    assert found.mask.shape == (2, *HW)


def test_the_confidence_is_that_of_the_detection(track):
    sure, unsure = boxes(0, 1), boxes(0, 1)
    sure.confidence = np.array([0.9, 0.3], np.float32)
    unsure.confidence = np.array([0.4, 0.3], np.float32)
    frames = [frame(n) for n in range(3)]
    results = track(frames, {0: sure, 2: unsure}, prompt="every", min_confidence=0.35)
    found = [result.outputs["predictions"] for result in results]
    assert [ids(result) for result in results] == [[1], [1], [1]]
    assert np.allclose([one.confidence for one in found], [[0.9], [0.9], [0.4]])
    assert np.allclose(found[0].data["iou_prediction"], [1])
    assert ids(results[0], "new") == [1, 2]


def test_without_a_detection_the_confidence_is_that_of_the_model(track):
    results = track([frame(0), frame(1)], {0: boxes(0)}, min_confidence=1)
    assert results[1].outputs["predictions"].confidence.tolist() == [1]


def test_every_frame_has_detection_ids_of_its_own(track):
    found = [
        [result.outputs["predictions"].data["detection_id"][0] for result in results]
        for results in (track([frame(0), frame(1)], {0: boxes(0)}) for _ in range(2))
    ]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_ids_of_a_tracker_are_kept(track):
    results = track([frame(0), frame(1)], {0: boxes(0, 1, ids=[42, -1])})
    assert ids(results[1]) == [42, 43]


def test_two_clips_in_one_micro_batch(track, executor):
    frames = [frame(n // 2, "ab"[n % 2]) for n in range(6)]
    results = track(frames, {0: boxes(0), 1: boxes(1, 0)})
    assert [ids(result) for result in results] == [[1], [1, 2]] * 3
    assert len(executor.sessions) == 2


def test_frames_of_a_micro_batch_are_announced_to_their_video(track, executor):
    track([frame(n // 2, "ab"[n % 2]) for n in range(8)], {0: boxes(0), 1: boxes(0)})
    for session, name in zip(executor.sessions, "ab", strict=True):
        assert session.frames == [f"{name}/{n}" for n in range(4)]
        assert {f"{name}/2", f"{name}/3"} <= set(session.expected) <= set(session.frames)


def test_each_frame_is_named_once(track, monkeypatch):
    named = []

    def key_of(item, key_of=track_module._key_of):
        named.append(item.image.id)
        return key_of(item)

    monkeypatch.setattr(track_module, "_key_of", key_of)
    frames = [frame(n // 2, "ab"[n % 2]) for n in range(40)]
    track(frames, {0: boxes(0), 1: boxes(0)})
    assert named == [one.id for one in frames]


def test_gaps_and_any_first_number(track, executor):
    results = track([frame(n) for n in (7, 9, 30)], {0: boxes(0)})
    assert [ids(result) for result in results] == [[1]] * 3
    assert len(executor.sessions) == 1


@pytest.mark.filterwarnings("ignore:video 'a.mp4'")
def test_a_video_that_begins_anew(track, executor):
    frames = [frame(5), frame(3), frame(4), frame(5, hw=(10, 12))]
    results = track(frames, {0: boxes(0), 1: boxes(0, 1)})
    assert [ids(result) for result in results] == [[1], [1, 2], [1, 2], []]
    assert [session.closed for session in executor.sessions] == [True, True, True]


def test_beginning_anew_is_said_once(track):
    with pytest.warns(UserWarning, match="frame 0 comes after frame 1, so tracking begins") as said:
        track([frame(n % 2) for n in range(6)])
    assert len(said) == 1


def test_a_frame_that_fails_is_an_error_and_the_video_goes_on(track):
    bad = boxes(0)
    bad.xyxy = np.array([[50, 50, 60, 60]], np.float32)
    results = track([frame(n) for n in range(3)], {0: boxes(0), 1: bad}, prompt="new_only")
    assert "lies wholly outside the 30x20 image" in results[1].errors[0].message
    assert ids(results[2]) == [1]


def test_a_session_that_raises_once_is_asked_once(track, executor, monkeypatch):
    steps = []

    def step(self, image, *args):
        steps.append(image.id)
        if len(steps) == 2:
            raise RuntimeError("the device stumbled")
        return original(self, image, *args)

    cls = type(FakeExecutor().track())
    original = cls.step
    monkeypatch.setattr(cls, "step", step)
    results = track([frame(n) for n in range(3)], {0: boxes(0)})
    assert [bool(result.errors) for result in results] == [False, True, False]
    assert steps == ["a.mp4/0", "a.mp4/1", "a.mp4/2"]


def test_a_clip_of_one_frame(track, executor):
    frames = [frame(0, "a"), frame(0, "b"), frame(1, "b")]
    results = track(frames, {0: boxes(0), 1: boxes(0, 1)})
    assert [ids(result) for result in results] == [[1], [1, 2], [1, 2]]
    assert all(session.closed for session in executor.sessions)


def test_fifty_frames_without_prompts(track):
    results = track([frame(n) for n in range(51)], {0: boxes(0)}, prompt="new_only")
    assert [ids(result) for result in results] == [[1]] * 51


def test_a_hundred_objects(track):
    many = sv.Detections(
        np.array([[x, y, x + 1, y + 1] for x in range(10) for y in range(10)], float)
    )
    results = track([frame(n) for n in range(3)], {0: many}, max_objects=100)
    assert [ids(result) for result in results] == [list(range(1, 101))] * 3


def test_an_object_that_left_may_come_back(track):
    """While it is lost a prompt with its id is about it; once it has ended that starts it anew."""
    frames = [frame(n, dark=n in (1, 2, 5, 6)) for n in range(9)]
    given = {n: boxes(0, ids=[7]) for n in (0, 2, 3, 8)}
    results = track(frames, given, prompt="every", lost_after=3)
    assert [ids(result) for result in results] == [[7]] * 9
    again = track(frames, given, prompt="every", lost_after=2)
    assert [ids(result) for result in again] == [[7], [7], [], [7], [7], [7], [], [], [7]]
    assert [ids(again[n], "new") for n in (2, 3, 4, 8)] == [[], [7], [], [7]]


@pytest.mark.parametrize("at", range(5))
def test_a_run_that_is_interrupted_at_any_frame_frees_everything(plugins, executor, tmp_path, at):
    """What came until then is there, and the next run is as if this one had not been."""
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "boxes": {"kind": "object_detection_prediction"}},
        "steps": {
            "track": {
                "use": "sam2/track@v1",
                "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
            }
        },
        "outputs": {"predictions": "$steps.track.predictions"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    resources = Resources({"sam2": lambda *_, **__: executor}, tmp_path)

    def items(stop):
        for n in range(5):
            if n == stop:
                raise KeyboardInterrupt
            yield Item(str(n), {"image": frame(n), "boxes": boxes(0) if n == 0 else boxes()})

    came = []
    with (
        pytest.raises(KeyboardInterrupt),
        Runner(pipeline, plugins, resources=resources, batch_size=1) as runner,
    ):
        came.extend(runner.run(items(at)))
    assert [ids(result) for result in came] == [[1]] * len(came)
    assert all(session.closed for session in executor.sessions)
    with Runner(pipeline, plugins, resources=resources, batch_size=2) as runner:
        assert [ids(result) for result in runner.run(items(None))] == [[1]] * 5


def test_lost_and_ended(track):
    frames = [frame(n, dark=n > 0) for n in range(4)]
    results = track(frames, {0: boxes(0)}, lost_after=2)
    states = [result.outputs["predictions"].data["track_state"].tolist() for result in results]
    assert states == [["new"], ["lost"], [], []]
    assert [ids(result, "ended") for result in results] == [[], [], [1], []]
    dropped = track(frames, {0: boxes(0)}, lost="drop")
    assert [ids(result) for result in dropped] == [[1], [], [], []]


def test_masks_are_taken_as_they_are(plugins, track, executor, tmp_path):
    start = track([frame(0)], {0: boxes(1)})[0].outputs["predictions"]
    start.tracker_id = np.array([5])
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    items = [Item("0", {"image": frame(0), "masks": start})]
    [result] = run_frames(plugins, resources, items)
    assert ids(result) == [5]
    assert result.outputs["predictions"].xyxy.tolist() == start.xyxy.tolist()


def test_everything_is_followed_where_nothing_is_asked_for(plugins, executor, tmp_path):
    resources = Resources({"sam2": lambda *_, **__: executor}, tmp_path)
    settings = {"points_per_side": 2, "stability_score_thresh": 0}
    items = [Item(str(n), {"image": frame(n)}) for n in range(3)]
    results = run_frames(plugins, resources, items, **settings)
    assert [ids(result) for result in results] == [[1, 2, 3, 4]] * 3
    assert executor.embedded == ["a.mp4/0"]


def test_what_fills_the_frame_is_not_followed(plugins, executor, tmp_path):
    resources = Resources({"sam2": lambda *_, **__: executor}, tmp_path)
    settings = {"points_per_side": 2, "stability_score_thresh": 0, "max_area_ratio": 0.01}
    items = [Item("0", {"image": frame(0)})]  # masks of 25 pixels, of 600
    [result] = run_frames(plugins, resources, items, **settings)
    assert ids(result) == []


def test_prompts_of_points(plugins, tmp_path):
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    items = [Item("0", {"image": frame(0), "prompts": PromptSet.from_points([[5, 5]])})]
    [result] = run_frames(plugins, resources, items)
    assert ids(result) == [1]


def test_no_more_objects_than_there_may_be(track):
    with pytest.warns(UserWarning, match="max_objects = 1 are followed; 1 more are not"):
        results = track([frame(0)], {0: boxes(0, 1)}, max_objects=1)
    assert ids(results[0]) == [1]


def test_a_picture_that_is_no_frame(track):
    [result] = track([Image(np.zeros((*HW, 3), np.uint8), "a.png")])
    assert "picture 'a.png' is no frame of a video. Give a video" in result.errors[0].message


def test_a_model_that_cannot_track(plugins, tmp_path):
    whole = FakeExecutor()
    pictures = SimpleNamespace(spec=whole.spec, embed=whole.embed, segment=whole.segment)
    block = Track(Resources({"sam2": lambda *_, **__: pictures}, tmp_path))
    with pytest.raises(ModelError, match="cannot track: it has no track"):
        block.run([step_item(frame(0))])


def step_item(image: Image, **params):
    """What the runner would make of the manifest's defaults."""
    values = {
        "prompt": "first", "prompt_every": 30, "match_iou": 0.5, "max_objects": 64,
        "lost_after": 30, "min_object_score": 0, "refine": "never", "refine_below": 3,
        "lost": "keep", "min_confidence": 0, "non_overlap": False, "mask_threshold": 0,
        "max_prompt_frames": 4, "memory_frames": None, "max_videos": 8, "idle_s": 600,
        "model": "nano", "device": "auto", "dtype": "auto",
        "backend": "auto", "input_px": 0,
        "boxes": boxes(), "masks": None, "prompts": None,
    }  # fmt: skip
    return SimpleNamespace(image=image, **(values | params))


def test_the_longest_waiting_video_is_forgotten(executor, tmp_path):
    block = Track(Resources({"sam2": lambda *_, **__: executor}, tmp_path))
    for video in "abac":
        block.run([step_item(frame(0, video), max_videos=2)])
    assert [session.closed for session in executor.sessions] == [False, True, False]


def test_a_video_that_stopped_is_forgotten(executor, tmp_path):
    block = Track(Resources({"sam2": lambda *_, **__: executor}, tmp_path))
    block.run([step_item(frame(0, "a"))])
    block.run([step_item(frame(0, "b"), idle_s=0)])
    assert [session.closed for session in executor.sessions] == [True, False]


def test_finish_frees_every_video(executor, tmp_path):
    block = Track(Resources({"sam2": lambda *_, **__: executor}, tmp_path))
    block.run([step_item(frame(0, video)) for video in "abc"])
    block.finish()
    assert [session.closed for session in executor.sessions] == [True] * 3


def test_the_network_is_the_one_asked_for(plugins, executor, tmp_path):
    asked = []

    def load(model, **options):
        asked.append((options["backend"], options["input_px"]))
        return executor

    family = Family(load, options=frozenset({"backend", "input_px"}))
    items = [Item("0", {"image": frame(0), "boxes": boxes(0)})]
    resources = Resources({"sam2": family}, tmp_path)
    [result] = run_frames(plugins, resources, items, backend="torch", input_px=512)
    assert ids(result) == [1]
    assert asked == [("torch", 512)]
