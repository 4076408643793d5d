from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from sam2_blocks import Item, Runner, hookimpl, load_pipeline
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import PipelineError, StepError
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.testing import FakeExecutor, sample_image
from tests.engine.conftest import Double


def test_items_go_through_in_micro_batches(doubling):
    results = doubling.run([1, 2, 3], batch_size=2)
    assert [result.outputs["four"] for result in results] == [4, 8, 12]
    assert Double.batches == [[1, 2], [2, 4], [3], [6]]


def test_each_step_is_made_once_and_finished_once(doubling):
    doubling.run([1, 2, 3], batch_size=1)
    assert (Double.made, Double.finished) == (2, 2)


def test_a_returned_exception_fails_only_its_item(doubling):
    good, bad, other = doubling.run([1, 7, 2])
    assert not good.errors
    assert other.outputs == {"two": 4, "four": 8}
    [error] = bad.errors
    assert bad.outputs == {}
    assert (error.item, error.step, error.block) == ("1", "once", "test/double@v1")
    assert (error.message, error.cause) == ("7 is refused", "ValueError")


def test_a_raising_batch_is_retried_one_by_one(doubling):
    results = doubling.run([1, 13, 2])
    assert [bool(result.errors) for result in results] == [False, True, False]
    assert results[1].errors[0].message == "13 is unlucky"


def test_outputs_made_before_the_failure_are_kept(doubling):
    [result] = doubling.run([6.5])  # 6.5 doubles to 13, which the second step cannot take
    assert result.outputs == {"two": 13}
    assert result.errors[0].step == "twice"


def test_a_model_that_cannot_load_stops_the_run(doubling):
    with pytest.raises(StepError, match=r"step 'once' \(test/double@v1\): no such model"):
        doubling.run([99, 1])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (8, "the block's output 'number' is wrong: float: wants float or int, got str"),
        (9, r"the block promises ['number'], but gave ['result']"),
    ],
)
def test_what_a_block_returns_is_checked(doubling, number, message):
    [result] = doubling.run([number])
    assert result.errors[0].message == message


def test_a_selector_may_stand_for_nothing_and_then_counts_as_not_given(plugins):
    pipeline = load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {
                "image": {"kind": "image"},
                "boxes": {"kind": "object_detection_prediction", "default": None},
            },
            "steps": {
                "s": {
                    "use": "sam2/segment@v1",
                    "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
                }
            },
            "outputs": {"masks": "$steps.s.predictions"},
        },
        plugins.manifests,
        plugins.kinds,
    )
    with Runner(pipeline, plugins, resources=Resources({"sam2": FakeExecutor})) as runner:
        [result] = runner.run([Item("a", {"image": sample_image()})])
    assert result.errors[0].message == "give at least one of 'boxes', 'prompts'."


def test_a_kind_may_fail_in_any_way(doubling):
    def check(value):
        if value == 4:
            raise OSError("no four")

    kinds = doubling.plugins.kinds  # which the pipeline shares
    kinds["float"] = replace(kinds["float"], check=check)
    first, second = doubling.run([2, 3])
    assert first.errors[0].message == "no four"
    assert not second.errors


def test_a_picture_without_a_name_gets_that_of_its_item(plugins):
    pipeline = load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {"e": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
            "outputs": {"image": "$inputs.image"},
        },
        plugins.manifests,
        plugins.kinds,
    )
    pixels = np.zeros((4, 4, 3), np.uint8)
    items = [Item("a", {"image": pixels}), Item("b", {"image": sample_image("cat.png")})]
    with Runner(pipeline, plugins, resources=Resources({"sam2": FakeExecutor})) as runner:
        assert [result.outputs["image"].id for result in runner.run(items)] == ["a", "cat.png"]


def test_a_parameter_from_a_selector_is_checked_again(doubling):
    items = [Item("a", {"x": 1, "limit": -5})]
    with Runner(doubling.pipeline, doubling.plugins) as runner:
        [result] = runner.run(items)
    assert "'limit': Input should be greater than or equal to 0" in result.errors[0].message


def test_an_input_of_the_wrong_kind_fails_its_item(doubling):
    [bad, good] = doubling.run(["one", 1])
    assert bad.errors[0].step == "inputs"
    assert bad.errors[0].message == "input 'x': wants float or int, got str"
    assert not good.errors


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("gone", ["inputs 'x', 'limit': gone"]),
        ("broken", ["input 'x': gone", "input 'limit': broken"]),
    ],
)
def test_inputs_that_fail_for_one_reason_are_one_error(doubling, second, expected):
    def fail(reason):
        raise OSError(reason)

    item = Item("a", {"x": lambda: fail("gone"), "limit": lambda: fail(second)})
    with Runner(doubling.pipeline, doubling.plugins) as runner:
        [result] = runner.run([item])
    assert [error.message for error in result.errors] == expected
    assert result.outputs == {}


def test_a_callable_input_is_read_in_another_thread(doubling):
    seen = []

    def read():
        seen.append(threading.current_thread().name)
        return 5

    [result] = doubling.run([read])
    assert result.outputs["two"] == 10
    assert seen[0].startswith("sam2-blocks-reader")


def test_a_missing_and_an_unknown_input_end_the_run(doubling):
    with (
        Runner(doubling.pipeline, doubling.plugins) as runner,
        pytest.raises(PipelineError, match=r"no input is called 'y'.*\n.*input 'x' is required"),
    ):
        list(runner.run([Item("a", {"y": 1})]))


def test_blocks_are_finished_after_an_interruption(doubling):
    def items():
        yield Item("a", {"x": 1})
        yield Item("b", {"x": 1})
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Runner(doubling.pipeline, doubling.plugins, batch_size=1) as runner,
    ):
        list(runner.run(items()))
    assert Double.finished == 2


def accelerated(manifest):
    """The manifest with the hint that its block wants a GPU."""
    hints = manifest.resources.hints.model_copy(update={"accelerator": "cuda"})
    resources = manifest.resources.model_copy(update={"hints": hints})
    return manifest.model_copy(update={"resources": resources})


@pytest.fixture
def overlapping(doubling, plugins):
    """A pipeline whose first step asks for a GPU and whose second does not."""
    plugins.manifests["test/gpu@v1"] = accelerated(plugins.manifests["test/double@v1"])
    document = {
        "pipeline_version": 1,
        "inputs": {"x": {"kind": "float"}},
        "steps": {
            "gpu": {"use": "test/gpu@v1", "with": {"number": "$inputs.x"}},
            "cpu": {"use": "test/double@v1", "with": {"number": "$steps.gpu.number"}},
        },
        "outputs": {"four": "$steps.cpu.number"},
    }
    return load_pipeline(document, plugins.manifests, plugins.kinds)


class Watcher:
    """A plugin that holds the last step of the first micro-batch until the second has begun."""

    def __init__(self):
        self.second_batch_began = threading.Event()
        self.overlapped = None

    @hookimpl
    def before_step(self, step, item_ids):
        if step.id == "gpu" and item_ids == ["b"]:
            self.second_batch_began.set()
        if step.id == "cpu" and item_ids == ["a"]:
            self.overlapped = self.second_batch_began.wait(timeout=120)


def test_steps_after_the_accelerator_run_beside_the_next_micro_batch(overlapping, plugins):
    watcher = Watcher()
    plugins.manager.register(watcher)
    items = [Item(name, {"x": float(n)}) for n, name in enumerate("abc")]
    with Runner(overlapping, plugins, batch_size=1) as runner:
        results = list(runner.run(items))
    assert watcher.overlapped
    assert [(result.id, result.outputs["four"]) for result in results] == [
        ("a", 0.0),
        ("b", 4.0),
        ("c", 8.0),
    ]


def test_results_before_a_fatal_error_are_given(overlapping, plugins):
    items = [Item("a", {"x": 1.0}), Item("b", {"x": 99.0})]
    with Runner(overlapping, plugins, batch_size=1) as runner:
        results = runner.run(items)
        assert next(results).outputs == {"four": 4.0}
        with pytest.raises(StepError, match="no such model"):
            next(results)


def test_a_fatal_error_beside_the_accelerator_ends_the_run(overlapping, plugins):
    items = [Item("a", {"x": 49.5}), Item("b", {"x": 1.0}), Item("c", {"x": 1.0})]
    with (
        Runner(overlapping, plugins, batch_size=1) as runner,
        pytest.raises(StepError, match="no such model"),
    ):
        list(runner.run(items))


def run_until(error, runner, items):
    """Ids of the results that come before the error."""
    ids: list[str] = []
    with pytest.raises(error):
        ids.extend(result.id for result in runner.run(items))
    return ids


def test_results_before_an_interruption_while_reading_are_given(overlapping, plugins):
    def interrupt():
        raise KeyboardInterrupt

    items = [Item(name, {"x": 1.0}) for name in "ab"] + [Item("c", {"x": interrupt})]
    with Runner(overlapping, plugins, batch_size=1) as runner:
        assert run_until(KeyboardInterrupt, runner, items) == ["a", "b"]


def test_results_before_an_item_with_a_wrong_input_are_given(overlapping, plugins):
    items = [Item("a", {"x": 1.0}), Item("b", {"y": 1.0})]
    with Runner(overlapping, plugins, batch_size=1) as runner:
        assert run_until(PipelineError, runner, items) == ["a"]


def test_an_interruption_waits_for_what_is_nearly_done(overlapping, plugins):
    class Interrupting:
        @hookimpl
        def before_step(self, step, item_ids):
            if step.id == "cpu" and item_ids == ["b"]:
                main = threading.main_thread().ident
                while sys._current_frames()[main].f_code.co_name != "wait":
                    time.sleep(0.001)  # until nothing is left to do but to wait for this
                signal.pthread_kill(main, signal.SIGUSR1)

    plugins.manager.register(Interrupting())
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with Runner(overlapping, plugins, batch_size=1) as runner:
            items = [Item(name, {"x": 1.0}) for name in "ab"]
            assert run_until(KeyboardInterrupt, runner, items) == ["a", "b"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_every_block_is_finished_even_if_one_fails(doubling, monkeypatch):
    def fail(self):
        Double.finished += 1
        raise OSError("disk full")

    monkeypatch.setattr(Double, "finish", fail)
    with pytest.raises(OSError, match="disk full"):
        doubling.run([1])
    assert Double.finished == 2


def test_steps_share_one_executor_and_pictures_are_embedded_together(plugins):
    loaded = []

    def factory(model, *, device, dtype):
        loaded.append(FakeExecutor(model))
        return loaded[-1]

    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "boxes": {"kind": "object_detection_prediction"}},
        "steps": {
            "embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}},
            "one": {
                "use": "sam2/segment@v1",
                "with": {"embedding": "$steps.embed.embedding", "boxes": "$inputs.boxes"},
            },
            "two": {
                "use": "sam2/segment@v1",
                "with": {
                    "embedding": "$steps.embed.embedding",
                    "prompts": [{"point_coords": [[5, 5]]}],
                },
            },
        },
        "outputs": {"one": "$steps.one.predictions", "two": "$steps.two.predictions"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    items = [
        Item("full", {"image": sample_image("a"), "boxes": [[2, 3, 12, 15], [1, 1, 4, 4]]}),
        Item("none", {"image": sample_image("b"), "boxes": []}),
        Item("bad", {"image": sample_image("c"), "boxes": [[500, 500, 600, 600]]}),
    ]
    with (
        Runner(pipeline, plugins, resources=Resources({"sam2": factory})) as runner,
        pytest.warns(UserWarning, match="1 of 3 prompts mean nothing"),
    ):
        full, none, bad = runner.run(items)
    assert len(loaded) == 1
    assert loaded[0].embedded == ["a", "b", "c"]
    assert full.outputs["one"].area.tolist() == [120, 9]
    assert len(none.outputs["one"]) == 0
    assert none.outputs["one"].data.keys() == full.outputs["one"].data.keys()
    assert len(none.outputs["two"]) == 1
    assert not bad.errors
    assert "outside" in bad.outputs["one"].data["prompt_error"][0]
    assert len(bad.outputs["two"]) == 1
    assert np.array_equal(full.outputs["one"].data["prompt_index"], [0, 1])


@pytest.mark.parametrize("size", [0, True, 1.5, "2", float("nan"), None])
def test_a_batch_has_a_whole_number_of_items(doubling, size):
    with pytest.raises(ValueError, match="batch_size wants 1 or more, got"):
        doubling.run([1], batch_size=size)


EXPECTING = """\
manifest_version: 1
id: test/expecting@v1
title: Expecting
summary: Notes the pictures it gets, and those it is told of.
entry: tests.engine.test_runner:Expecting
inputs: {image: {kind: image, required: true}, other: {kind: image}}
outputs: {image: {kind: image}}
"""


class Expecting:
    """A block that waits in its first micro-batch until it was told of the second."""

    at_work = threading.Event()
    told = threading.Event()
    expected: list[str] = []  # noqa: RUF012
    wanted = 2

    def __init__(self, resources):
        pass

    def run(self, items):
        Expecting.at_work.set()
        if Expecting.wanted:
            assert Expecting.told.wait(120)
        return [{"image": item.image} for item in items]

    def expect(self, image):
        Expecting.expected.append(image.id)
        if len(Expecting.expected) == Expecting.wanted:
            Expecting.told.set()


@pytest.fixture
def expecting(plugins):
    """``expecting(steps, items, batch_size)``: what the steps were told of, in order of names."""
    plugins.manifests["test/expecting@v1"] = load_manifest(EXPECTING, "e.yaml", plugins.kinds)

    def run(steps, count, batch_size, *, told):
        Expecting.expected, Expecting.wanted = [], told
        Expecting.at_work.clear()
        Expecting.told.clear()
        document = {
            "pipeline_version": 1,
            "inputs": {"picture": {"kind": "image"}, "wants": {"kind": "boolean"}},
            "steps": {name: {"use": "test/expecting@v1", **step} for name, step in steps.items()},
            "outputs": {"image": "$inputs.picture"},
        }
        pipeline = plugins.load_pipeline(document)

        def read(name):
            if int(name) >= batch_size:  # not before there is a block
                assert Expecting.at_work.wait(120)
            return sample_image(name)

        names = [str(number) for number in range(count)]
        items = [Item(n, {"picture": partial(read, n), "wants": True}) for n in names]
        with Runner(pipeline, plugins, batch_size=batch_size) as runner:
            assert [result.id for result in runner.run(items)] == names
        return sorted(Expecting.expected)

    return run


FROM_INPUT = {"with": {"image": "$inputs.picture"}}


def test_a_block_at_work_is_told_of_pictures_of_the_next_micro_batch(expecting):
    assert expecting({"only": FROM_INPUT}, 4, 2, told=2) == ["2", "3"]


def test_a_picture_that_comes_alone_is_not_announced(expecting):
    assert expecting({"only": FROM_INPUT}, 3, 2, told=0) == []
    assert expecting({"only": FROM_INPUT}, 3, 1, told=0) == []


@pytest.mark.parametrize(
    "step",
    [
        {**FROM_INPUT, "when": {"value": "$inputs.wants", "is": "equals", "to": True}},
        {"with": {"image": "$steps.first.image"}},
        {"with": {"image": "$steps.first.image", "other": "$inputs.picture"}},
    ],
)
def test_only_pictures_that_are_certain_to_come_are_announced(expecting, step):
    steps = {"first": FROM_INPUT, "second": step}
    assert expecting(steps, 4, 2, told=2) == ["2", "3"]  # to the first


def test_a_block_that_needs_a_step_that_may_be_skipped_is_told_of_nothing(expecting):
    when = {"value": "$inputs.wants", "is": "equals", "to": True}
    after = {"with": {"image": "$inputs.picture", "other": "$steps.first.image"}}
    steps = {"first": {**FROM_INPUT, "when": when}, "second": after}
    assert expecting(steps, 4, 2, told=0) == []


def test_a_block_that_fails_when_it_is_told_ends_the_run_by_name(expecting, monkeypatch):
    def fail(self, image):
        Expecting.told.set()
        raise SystemExit(image.id)

    monkeypatch.setattr(Expecting, "expect", fail)
    message = r"step 'only' \(test/expecting@v1\): 'expect' failed: ForeignError: SystemExit: [23]"
    with pytest.raises(StepError, match=message):
        expecting({"only": FROM_INPUT}, 4, 2, told=2)


def test_results_are_settled_a_micro_batch_at_a_time_before_they_are_given(doubling):
    settled = []

    def settle(results):
        settled.append([result.id for result in results])
        return [replace(result, id=f"{result.id}!") for result in results]

    items = [Item(name, {"x": 1}) for name in "abc"]
    with Runner(doubling.pipeline, doubling.plugins, batch_size=2) as runner:
        assert [result.id for result in runner.run(items, settle)] == ["a!", "b!", "c!"]
    assert settled == [["a", "b"], ["c"]]


def test_what_cannot_be_settled_ends_the_run(doubling):
    def settle(results):
        raise OSError("disk full")

    with (
        pytest.raises(OSError, match="disk full"),
        Runner(doubling.pipeline, doubling.plugins) as runner,
    ):
        list(runner.run([Item("a", {"x": 1})], settle))
    assert Double.finished == 2
