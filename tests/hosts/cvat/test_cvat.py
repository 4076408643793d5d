"""The functions as CVAT's own program loads and runs them; a server of CVAT is not needed."""

from __future__ import annotations

import pytest

from sam2_blocks.hosts import cvat
from tests.conftest import ROOT
from tests.hosts.labelstudio.projects import MARKED

MODULE = "sam2_blocks.hosts.cvat"


def test_the_report_leaves_out_what_writes_files(plugins):
    report = cvat.report(plugins)
    assert {"sam2/segment@v1", "flow/first@v1", "detections/load@v1"} <= set(report.blocks)
    assert report.left_out["export/coco@v1"].startswith("it writes files, which a function")


@pytest.fixture
def load(sdk):
    """``load(module, NAME="type:value")``: what ``cvat-cli`` makes of its options."""
    common = pytest.importorskip("cvat_cli._internal.common", reason="needs cvat-cli")
    from cvat_cli._internal.parsers import parse_function_parameter

    def make(module, file=None, **given):
        said = [f"{name}={value}" for name, value in given.items()]
        return common.FunctionLoader(module, file, dict(map(parse_function_parameter, said)))

    return make


def test_the_program_of_cvat_loads_each_function(load, sdk, tmp_path):
    (tmp_path / "marked.yaml").write_text(MARKED)
    pipeline = {"pipeline": f"str:{tmp_path / 'marked.yaml'}", "labels": "str:cup,saucer"}
    specs = [
        load(MODULE, model="str:nano", device="str:cpu").load().spec,
        load(MODULE, **pipeline).load().spec,
        load(f"{MODULE}.tracking", model="str:nano").load().spec,
        load(None, ROOT / "examples/cvat/interaction.py").load().spec,
    ]
    assert [type(spec) for spec in specs] == [
        sdk.InteractionFunctionSpec,
        sdk.DetectionFunctionSpec,
        sdk.TrackingFunctionSpec,
        sdk.InteractionFunctionSpec,
    ]


@pytest.fixture
def worker(load):
    """``worker(module)``: the process of an agent, in this one, with a function loaded."""
    agent = pytest.importorskip("cvat_cli._internal.agent", reason="needs cvat-cli")

    def start(module, **given):
        ids = iter("abc")
        agent._worker_init(load(module, model="str:nano", device="str:cpu", **given), ids.__next__)

    return start


def test_an_agent_embeds_a_frame_once_for_all_clicks(worker, frame):
    worker(MODULE)
    from cvat_cli._internal import agent_driver_interaction as driver

    clicks = driver._InteractionPromptsImpl(
        pos_points=((8.0, 9.0),), neg_points=(), bounding_box=None
    )
    assert driver._worker_job_interact_from_cache("frame", clicks) is None
    first = driver._worker_job_interact("frame", frame, clicks)
    assert driver._worker_job_interact_from_cache("frame", clicks) == first
    assert [shape.type for shape in first] == ["mask"]


def test_an_agent_follows_shapes(worker, frame, sdk):
    worker(f"{MODULE}.tracking")
    from cvat_cli._internal import agent_driver_tracking as driver

    shape = sdk.TrackableShape(type="rectangle", points=[4.0, 3.0, 16.0, 15.0])
    states = driver._worker_job_init_tracking(7, frame, [shape, shape])
    assert states == ["a", "b"]
    found = driver._worker_job_track(7, frame, states)
    assert found[0] == found[1]
    assert found[0] is None or found[0].type == "rectangle"
