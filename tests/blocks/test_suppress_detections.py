from __future__ import annotations

import pytest

from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.testing import check_block

BLOCK = "detections/nms@v1"


def test_examples(plugins):
    check_block(BLOCK, plugins=plugins)


@pytest.mark.parametrize(
    ("params", "kept"),
    [({}, [0.9, 0.4]), ({"class_agnostic": True}, [0.9]), ({"iou": 1}, [0.5, 0.9, 0.4])],
)
def test_the_most_certain_stays(run_one_step, params, kept):
    rows = [
        {"box_xyxy": [0, 0, 10, 10], "class_name": name, "class_id": number, "confidence": score}
        for name, number, score in [("cat", 0, 0.5), ("cat", 0, 0.9), ("dog", 1, 0.4)]
    ]
    inputs = {"detections": rows_to_detections(rows)}
    found = run_one_step(BLOCK, inputs, params).outputs["detections"]
    assert found.confidence.tolist() == pytest.approx(kept)
