"""Roboflow's own blocks in their remote mode, before our server instead of theirs.

Source: roboflow/inference, ``tests/workflows/unit_tests/core_steps/models/foundation``:
``test_segment_anything2.py`` and ``test_segment_anything3_interactive.py``, the tests of remote
execution; the same inputs and expectations, written anew. There the client is a mock.
``tests/hosts/upstream.py`` counts them.
"""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor
from tests.hosts.roboflow.conftest import IGNORED
from tests.hosts.roboflow.test_upstream import SOME, dog
from tests.hosts.serving import running

pytestmark = pytest.mark.filterwarnings(IGNORED)

KEY = "test_api_key"


class Noting(FakeExecutor):
    """Notes the prompts it is asked for."""

    def __init__(self):
        super().__init__("hiera_tiny")
        self.asked = []

    def segment(self, items, **options):
        self.asked += [list(prompts.prompts) for _, prompts in items]
        return super().segment(items, **options)


@pytest.fixture
def executor():
    return Noting()


@pytest.fixture
def remote(engine_class, executor, monkeypatch):
    """``remote("segment_anything2.v1", "SegmentAnything2BlockV1")``: a block of theirs."""
    from importlib import import_module

    from roboflow_workflows.core_steps.common.entities import StepExecutionMode

    from sam2_blocks.hosts.http import create_app

    app = create_app(ServedModels({"hiera_tiny": executor}), ServiceSettings(api_key=KEY))
    with running(app) as url:

        def make(module, name):
            home = import_module(f"roboflow_workflows.core_steps.models.foundation.{module}")
            monkeypatch.setattr(home, "LOCAL_INFERENCE_API_URL", url)
            monkeypatch.setattr(home, "WORKFLOWS_REMOTE_API_TARGET", "self-hosted")
            return getattr(home, name)(None, KEY, StepExecutionMode.REMOTE)

        yield make


@pytest.fixture
def segment(remote):
    block = remote("segment_anything2.v1", "SegmentAnything2BlockV1")
    return lambda boxes: block.run([some_picture()], boxes, "hiera_tiny", 0.0, True)


@pytest.fixture
def interact(remote):
    name = "SegmentAnything3InteractiveBlockV1"
    block = remote("segment_anything3_interactive.v1", name)
    return lambda points, boxes: block.run([some_picture()], points, boxes, 0.0, True)


def some_picture():
    from roboflow_workflows.execution_engine.entities.base import (
        ImageParentMetadata,
        WorkflowImageData,
    )

    return WorkflowImageData(ImageParentMetadata(parent_id="some"), numpy_image=SOME)


def test_their_sam2_block_asks_us_for_the_picture_alone(segment, executor):
    [result] = segment(None)
    assert isinstance(result["predictions"], sv.Detections)
    assert len(executor.asked) == 1


def test_their_sam2_block_asks_us_with_boxes(segment, executor):
    [result] = segment([dog()])
    [[prompt]] = executor.asked
    assert prompt.box_xyxy.tolist() == [10, 10, 50, 50]
    assert result["predictions"]["class_name"].tolist() == ["object"]
    assert np.allclose(result["predictions"].xyxy, [[10, 10, 49, 49]])


def test_their_interactive_block_asks_us_with_points(interact, executor):
    [result] = interact([{"x": 320, "y": 240, "positive": True}], None)
    assert "predictions" in result
    [[prompt]] = executor.asked
    assert prompt.point_coords.tolist() == [[320, 240]]
    assert prompt.point_labels.tolist() == [1]


def test_their_interactive_block_asks_us_with_boxes(interact, executor):
    [result] = interact(None, [dog()])
    [[prompt]] = executor.asked
    assert prompt.box_xyxy.tolist() == [10, 10, 50, 50]
    assert list(result["predictions"]["class_name"]) == ["object"]


def test_their_interactive_block_asks_us_with_both_in_two_requests(interact, executor):
    [result] = interact([[320, 240]], [dog()])
    assert [prompt.box_xyxy is None for [prompt] in executor.asked] == [False, True]
    assert result["predictions"].class_id.tolist() == [0, -1]
