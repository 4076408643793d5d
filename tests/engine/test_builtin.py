from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from sam2_blocks.engine import builtin
from sam2_blocks.errors import PipelineError
from sam2_blocks.language.manifest import manifest_dir
from sam2_blocks.masks.windows import cut
from sam2_blocks.testing import check_block, sample_detections, sample_image

BLOCK_FILES = sorted(file.stem for file in manifest_dir().glob("*.yaml"))


CROP = cut(sample_image(), (0, 0, 32, 24), name="crop")
TRACKED = sample_detections()
TRACKED.tracker_id = np.arange(len(TRACKED))
SAMPLES = {
    "export/youtube_vis@v1": {"predictions": TRACKED},
    "detections/uncrop@v1": {"crops": [CROP, CROP], "detections": [sample_detections()] * 2},
    "detections/classify_from@v1": {
        "detections": sample_detections(2),
        "classes": ["cat", "dog"],
    },
}
"""Values that belong together, for blocks that take some from two sides."""


def test_examples_of_every_block_run(plugins):
    assert len(plugins.manifests) == len(BLOCK_FILES)
    for block in plugins.manifests:
        if block != "track/boxes@v1" or find_spec("trackers"):  # has an environment of its own
            check_block(block, plugins=plugins, samples=SAMPLES.get(block))


@pytest.mark.parametrize(
    ("family", "name", "is_file", "is_download"),
    [
        ("sam2", "nano", False, False),
        ("sam2", "sam2.1/hiera_tinny", False, False),
        ("sam2", "facebook/sam2.1-hiera-tiny", False, True),
        ("sam2", "hub:facebook/sam2.1-hiera-tiny@main", False, True),
        ("sam2", "./folder", True, False),
        ("sam2", "mine.safetensors", True, False),
        ("transformers", "PekingU/rtdetr_v2_r18vd", False, False),
        ("transformers", "PekingU/rtdetr_v2_r18vd@v1", False, True),
        ("transformers", "somebody/else", False, True),
        ("transformers", "/folder", True, False),
    ],
)
def test_families_know_files_and_downloads(family, name, is_file, is_download):
    found = builtin.register_executors()[family]
    assert found.is_file(name) == is_file
    assert found.is_download(name) == is_download


def test_a_name_like_one_of_the_catalogue_is_not_of_the_hub(plugins):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {"a": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
        "outputs": {"embedding": "$steps.a.embedding"},
    }
    document["steps"]["a"]["with"]["model"] = "facebook/sam2.1-hiera-tiny"
    plugins.load_pipeline(document)
    document["steps"]["a"]["with"]["model"] = "sam2.1/hiera_tinny"
    with pytest.raises(PipelineError, match=r"no model 'sam2\.1/hiera_tinny'. Did you mean"):
        plugins.load_pipeline(document)
