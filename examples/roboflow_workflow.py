"""Run roboflow_workflow.json: our segmentation and Roboflow's drawing, in their engine.

pip install 'sam2-blocks[roboflow]'
python examples/roboflow_workflow.py out
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import cv2
from roboflow_workflows.execution_engine.core import ExecutionEngine

from sam2_blocks.formats.json_boxes import load_json

HERE = Path(__file__).parent
PICTURE = HERE / "pictures" / "coffee.jpg"


def main(folder: Path) -> None:
    os.environ["WORKFLOWS_PLUGINS"] = "sam2_blocks.hosts.roboflow"  # where the engine finds us
    workflow = json.loads((HERE / "roboflow_workflow.json").read_text())
    engine = ExecutionEngine.init(workflow_definition=workflow)

    boxes = load_json(PICTURE.with_suffix(".json"))  # from a detector's step, in a real workflow
    [result] = engine.run(
        runtime_parameters={"image": [cv2.imread(str(PICTURE))], "boxes": [boxes]},
        serialize_results=True,
    )
    for row in result["predictions"]["predictions"]:
        size = f"{row['width']:.0f}x{row['height']:.0f}"
        print(f"{row['class']:<8} confidence {row['confidence']:.2f}, {size} px")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(result["predictions"], indent=1))
    (folder / "overlay.jpg").write_bytes(base64.b64decode(result["overlay"]["value"]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
