"""`sam2/propagate@v1`: a whole clip both ways, frame by frame, whatever comes in between."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.engine.places import FrameChoice
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import UsageError
from sam2_blocks.executor import load_executor
from sam2_blocks.runs.run import run_pipeline
from sam2_blocks.testing import FakeExecutor, check_block
from tests.formats.test_video import write

ALL_FRAMES = FrameChoice()
LEFT, RIGHT = [2, 2, 10, 10], [20, 4, 30, 14]
STEP = {"use": "sam2/propagate@v1", "with": {"image": "$inputs.image", "clip": "$inputs.clip"}}


def pipeline(*, prompts=True, **more):
    """A pipeline of one step, and of what is exported."""
    inputs = {"image": {"kind": "image"}, "clip": {"kind": "clip"}}
    given = {**STEP["with"], **more}
    if prompts:
        inputs["prompts"] = {"kind": "clip_prompts"}
        given["prompts"] = "$inputs.prompts"
    return {
        "pipeline_version": 1,
        "inputs": inputs,
        "steps": {"follow": {"use": STEP["use"], "with": given}},
        "outputs": {"predictions": "$steps.follow.predictions"},
    }


def row(frame: int, key: int, box=LEFT, **more):
    return {"frame_index": frame, "tracker_id": key, "box_xyxy": box, **more}


class Sessions(FakeExecutor):
    """Remembers the sessions it began."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sessions = []

    def track(self, *args, **kwargs):
        self.sessions.append(super().track(*args, **kwargs))
        return self.sessions[-1]


@pytest.fixture
def executor():
    return Sessions()


@pytest.fixture
def run(plugins, executor, tmp_path):
    """Run clips through the block: what became of each frame."""

    def run_clips(inputs, prompts=None, *, document=None, choice=ALL_FRAMES, **more):
        settings = {} if prompts is None else {"prompts": prompts}
        document = document or pipeline(prompts=prompts is not None)
        resources = Resources({"sam2": lambda *_, **__: executor}, tmp_path)
        return run_pipeline(
            document,
            inputs,
            settings=settings,
            frames=choice,
            plugins=plugins,
            resources=resources,
            **more,
        )

    return run_clips


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / "clip.mp4", count=6)


def found(results):
    """By frame: the left edge of each object and its state; or why there is none."""
    answers = {}
    for result in results:
        if result.errors:
            answers[result.id] = result.errors[0].message
            continue
        of = result.outputs["predictions"]
        pairs = zip(of.tracker_id.tolist(), of.xyxy[:, 0], of.data["track_state"], strict=True)
        answers[result.id] = {key: (int(x), str(state)) for key, x, state in pairs}
    return answers


def test_examples_run(plugins):
    check_block("sam2/propagate@v1", plugins=plugins)


def test_both_ways_and_the_nearer_prompt_wins(run, clip):
    prompts = [row(1, 5), row(4, 5, RIGHT), row(3, 9, RIGHT)]
    answers = list(found(run(clip, prompts)).values())
    # Frame 0 of this clip is black, where the fake model sees nothing.
    assert [answer[5] for answer in answers] == [
        (0, "lost"),
        (2, "new"),
        (2, "tracked"),
        (20, "tracked"),
        (20, "tracked"),
        (20, "tracked"),
    ]
    assert [answer[9][1] for answer in answers] == [
        "lost",
        "tracked",
        "tracked",
        "new",
        "tracked",
        "tracked",
    ]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_size_of_micro_batches_changes_nothing(run, clip, executor, size):
    answers = found(run(clip, [row(2, 1), row(4, 2, RIGHT)], batch_size=size))
    assert len(answers) == 6
    assert len(executor.sessions) == 2  # one a way
    assert answers == found(run(clip, [row(2, 1), row(4, 2, RIGHT)], batch_size=3))


def test_two_clips_one_after_another_and_what_is_held_is_freed(run, clip, tmp_path, executor):
    other = write(tmp_path / "other.mp4", count=3)
    answers = found(run([clip, other], [row(1, 1)], batch_size=4))
    assert len(answers) == 9
    assert len(executor.sessions) == 4
    assert all(session.closed for session in executor.sessions)


def test_classes_of_objects(run, clip):
    prompts = [row(1, 1, class_name="cup"), row(1, 2, RIGHT, class_name="bowl")]
    of = list(run(clip, prompts))[2].outputs["predictions"]
    assert of.data["class_name"].tolist() == ["cup", "bowl"]
    assert of.class_id.tolist() == [1, 0]


def test_lost_objects_may_be_dropped(run, clip):
    answers = found(run(clip, [row(1, 1)], document=pipeline(lost="drop")))
    assert list(answers.values())[:2] == [{}, {1: (2, "new")}]


def test_prompts_in_a_file_beside_the_clip(run, clip, tmp_path):
    (tmp_path / "clip.prompts.json").write_text(json.dumps([row(1, 1)]))
    answers = found(run(clip))
    assert [set(answer) for answer in answers.values()] == [{1}] * 6


def test_no_file_of_prompts(run, clip):
    answers = found(run(clip))
    assert len(set(answers.values())) == 1
    assert (
        "clip.prompts.json: no such file beside the clip. Set 'prompts'" in answers["clip/000000"]
    )
    document = pipeline(prompts=False, missing="empty")
    assert set(map(str, found(run(clip, document=document)).values())) == {"{}"}


def test_a_file_of_prompts_that_is_wrong(run, clip, tmp_path, executor):
    (tmp_path / "clip.prompts.json").write_text("[")
    assert all("not JSON" in answer for answer in found(run(clip)).values())
    assert executor.sessions == []


def test_a_prompt_on_a_frame_that_is_not_wanted(run, clip):
    answers = found(run(clip, [row(1, 1)], choice=FrameChoice(every=2)))
    assert (
        list(answers.values())
        == ["frame 1 is none of the clip 'clip.mp4'; it has 0 to 4, every 2"] * 3
    )


@pytest.fixture
def nano(executor, monkeypatch):
    """A model that looks at its frames and prompts; how often it was asked to track."""
    real = load_executor("nano", device="cpu")
    begun = []
    monkeypatch.setattr(executor, "track", lambda *a: begun.append(1) or real.track(*a))
    return begun


def test_a_prompt_that_means_nothing_is_asked_once(run, clip, nano):
    """All frames have the same error, and the way back is not gone again for each."""
    answers = found(run(clip, [row(2, 1, [400, 400, 410, 410])]))
    assert len(answers) == 6
    assert all("lies wholly outside the 64x48 image" in answer for answer in answers.values())
    assert len(nano) == 1


def test_an_object_prompted_twice_on_a_frame(run, clip):
    answers = found(run(clip, [row(1, 1), row(1, 1, RIGHT)]))
    assert "an object is prompted twice on a frame" in answers["clip/000000"]


@pytest.fixture
def folder(tmp_path):
    """A clip of five pictures, of which the third is damaged."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for number in range(5):
        Pil.new("RGB", (40, 30), (200, 200, 200)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no picture")
    return folder


def test_a_damaged_frame_is_an_error_and_the_clip_goes_on(run, folder):
    answers = found(run(folder, [row(3, 1)], choice=FrameChoice(as_video=True)))
    assert "2.png" in answers["2.png"]
    assert [answers[f"{n}.png"] for n in (0, 1, 3, 4)] == [
        {1: (2, "tracked")},
        {1: (2, "tracked")},
        {1: (2, "new")},
        {1: (2, "tracked")},
    ]


def test_prompts_on_a_damaged_frame_are_left_out(run, folder):
    prompts = [row(2, 1), row(3, 2, RIGHT)]
    with pytest.warns(
        UserWarning, match=r"clip 'walk': frame 2 has prompts, and is left out: .*2.png"
    ):
        answers = found(run(folder, prompts, choice=FrameChoice(as_video=True)))
    assert [set(answers[f"{n}.png"]) for n in (0, 1, 3, 4)] == [{2}] * 4


def test_frames_of_several_sizes(run, folder, nano):
    Pil.new("RGB", (20, 10)).save(folder / "2.png")
    answers = found(run(folder, [row(3, 1)], choice=FrameChoice(as_video=True)))
    assert all("20x10" in answer for answer in answers.values())


def test_a_resumed_run_has_what_one_that_was_not_interrupted_has(run, clip, tmp_path):
    """A clip of which a frame is missing is followed again as a whole; one that is done is not."""
    other = write(tmp_path / "other.mp4", count=3)
    prompts = [row(1, 1)]
    out = tmp_path / "out"
    first = run([other, clip], prompts, out=out, batch_size=1)
    with first:
        for result in first:
            if result.id == "clip/000002":
                break
    again = found(run([other, clip], prompts, out=out, resume=True))
    assert list(again) == [f"clip/00000{n}" for n in range(6)]
    assert again == found(run(clip, prompts))


def test_pictures_and_streams_are_no_clips(run, clip, tmp_path):
    picture = tmp_path / "a.png"
    Pil.new("RGB", (8, 8)).save(picture)
    with pytest.raises(UsageError, match=r"a\.png: the pipeline wants a whole clip as 'clip'"):
        run(picture, [row(1, 1)])
    with pytest.raises(UsageError, match=r"rtsp://camera: .* this has no end. Record it"):
        run("rtsp://camera", [row(1, 1)])


def test_a_picture_of_something_else(run, clip):
    image = np.full((48, 64, 3), 200, np.uint8)
    plain = {"id": "clip.mp4", "path": str(clip), "frames": {"stop": 6}}
    [result] = run([{"image": image, "clip": plain}], [row(1, 1)])
    assert "is of no video, and the clip is 'clip.mp4'" in result.errors[0].message
