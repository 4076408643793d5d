from __future__ import annotations

import pytest

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.hosts import roboflow
from sam2_blocks.hosts.roboflow.blocks import workflow_block
from tests.hosts.roboflow.conftest import IGNORED, detector_output, picture, run_one

pytestmark = pytest.mark.filterwarnings(IGNORED)

CLOSER = """
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
steps:
  crops: {use: image/crop@v1, with: {image: $inputs.image, detections: $inputs.boxes}}
  closer:
    for_each: $steps.crops.crops
    use: sam2/segment@v1
    with: {image: $each, boxes: [[2, 3, 20, 25]]}
  back:
    use: detections/uncrop@v1
    with: {detections: $steps.closer.predictions, crops: $steps.crops.crops}
outputs:
  predictions: $steps.back.detections
"""


@pytest.fixture
def closer(engine_class, tmp_path, monkeypatch):
    """A folder of pipelines whose one pipeline is a block of the engine.

    The engine keeps what it made from classes of the same names, so the others stay the classes
    they were: only the pipeline's own is new.
    """
    known = roboflow.load_blocks()
    (tmp_path / "closer.yaml").write_text(CLOSER)
    monkeypatch.setenv("SAM2_BLOCKS_PIPELINES", str(tmp_path))
    plugins = load_plugins()
    added = workflow_block(plugins.manifests["pipelines/closer@v1"], plugins, roboflow._engine())
    monkeypatch.setattr(roboflow, "load_blocks", lambda: [*known, added])
    return "sam2_blocks/pipelines_closer@v1"


def test_a_pipeline_is_a_block_of_the_engine(closer, start):
    step = {"type": closer, "name": "look", "image": "$inputs.image", "boxes": "$inputs.boxes"}
    engine = start([step], {"found": "$steps.look.predictions"})
    found = run_one(engine, image=picture(), boxes=[detector_output(2)])["found"]
    # each box is 40 x 30 around (60, 60) and (90, 80); each mask is that of its crop's box
    assert found.xyxy.astype(int).tolist() == [[42, 48, 59, 69], [72, 68, 89, 89]]
    assert len(found.mask) == 2
