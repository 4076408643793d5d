from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam2_blocks import Item, Runner, load_pipeline
from sam2_blocks.testing import check_block

BLOCKS = ("opencv/detect@v1", "opencv/grabcut@v1")
PIPELINE = Path(__file__).parents[1] / "grabcut.yaml"


@pytest.mark.parametrize("block_id", BLOCKS)
def test_the_examples_of_each_manifest_run(block_id, plugins):
    check_block(block_id, plugins=plugins)


def test_the_plugin_brings_these_blocks_and_nothing_else(plugins):
    [record] = [record for record in plugins.records if record.name == "opencv"]
    assert (record.distribution, record.blocks) == ("sam2-blocks-opencv", BLOCKS)


def test_loading_the_plugin_does_not_import_opencv():
    code = "import sys, sam2_blocks_opencv; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_detector_and_grabcut_work_together(plugins, astronaut):
    pipeline = load_pipeline(PIPELINE, plugins.manifests, plugins.kinds)
    with Runner(pipeline, plugins) as runner:
        [result] = runner.run([Item("astronaut", {"image": astronaut})])
    assert result.errors == ()
    masks = result.outputs["predictions"]
    assert list(masks.data["class_name"]) == ["face"]
    assert list(masks.class_id) == [0]
    assert not np.array_equal(result.outputs["overlay"].pixels, astronaut.pixels)
