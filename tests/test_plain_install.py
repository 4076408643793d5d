"""What a plain ``pip install`` brings is enough: nothing is used that only tests or extras have."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import PICTURES, ROOT

PROGRAM = """
import importlib.metadata as metadata
import json
import sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def bring(listed, extras, seen):
    # what is required, and what that requires
    for one in map(Requirement, listed):
        key = canonicalize_name(one.name), ("", *sorted(one.extras))
        wanted = one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)
        if wanted and key not in seen:
            seen.add(key)
            try:
                bring(metadata.requires(key[0]) or (), key[1], seen)
            except metadata.PackageNotFoundError:
                pass  # of another system

bring(json.loads(sys.argv[1]), ("",), seen := set())
there = {"sam2-blocks", *(name for name, _ in seen)}
hidden = {
    module
    for module, packages in metadata.packages_distributions().items()
    if not there & set(map(canonicalize_name, packages))
}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in hidden:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
assert "pytest" in hidden
"""

RUN = """
import os, warnings
warnings.simplefilter("ignore")
os.environ["SAM2_BLOCKS_PLUGINS"] = ""
from sam2_blocks import run_pipeline
[result] = run_pipeline("p.yaml", sys.argv[2], out="out")
assert not result.errors, result.errors
assert len(result.outputs["predictions"]) == 24, result
"""

MASKS = {"image": "$inputs.image", "predictions": "$steps.segment.predictions"}
PIPELINE = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}},
    "steps": {
        "boxes": {"use": "detections/load@v1", "with": {"image": "$inputs.image"}},
        "segment": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$steps.boxes.detections"},
        },
        "draw": {"use": "draw/masks@v1", "with": MASKS},
        "polygons": {
            "use": "masks/polygons@v1",
            "with": {"predictions": "$steps.segment.predictions"},
        },
        "masks": {"use": "export/masks@v1", "with": MASKS},
        "yolo": {"use": "export/yolo@v1", "with": MASKS},
        "labelme": {"use": "export/labelme@v1", "with": MASKS},
        "coco": {
            "use": "export/coco@v1",
            "with": {**MASKS, "segmentation": "polygons", "outlines": "pixels"},
        },
    },
    "outputs": {
        "predictions": "$steps.segment.predictions",
        "overlay": "$steps.draw.image",
        "polygons": "$steps.polygons.polygons",
    },
}

SERVE = """
import asyncio, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from sam2_blocks.hosts.http import create_app
from sam2_blocks.requests import Sam2SegmentationRequest
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor

settings = ServiceSettings(file_root=Path(sys.argv[2]))
app = create_app(ServedModels({"nano": FakeExecutor("nano")}), settings)
box = {"box": {"x": 93, "y": 521, "width": 114, "height": 110}}
for given in ("json", "rle", "binary"):
    request = {"image": {"type": "file", "value": "coins.jpg"}, "prompts": [box], "format": given}
    service = app.state.service
    answer = asyncio.run(service.segment(Sam2SegmentationRequest.model_validate(request)))
    if given == "json":
        [row] = answer.predictions
        assert len(row.masks) == 1, row
service.close()
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads pyproject.toml with tomllib")
@pytest.mark.parametrize(
    ("extra", "script", "argument"),
    [(None, RUN, PICTURES / "coins.jpg"), ("http", SERVE, PICTURES)],
    ids=["run", "serve"],
)
def test_it_runs_with_what_is_declared(tmp_path, extra, script, argument):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"].get(extra, [])
    (tmp_path / "p.yaml").write_text(json.dumps(PIPELINE))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + script, json.dumps(declared), argument],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
