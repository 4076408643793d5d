from __future__ import annotations

from sam2_blocks.language.manifest import manifest_dir
from sam2_blocks.testing import check_block

BLOCK_FILES = sorted(file.stem for file in manifest_dir().glob("*.yaml"))


def test_examples_of_every_block_run(plugins):
    assert len(plugins.manifests) == len(BLOCK_FILES)
    for block in plugins.manifests:
        check_block(block, plugins=plugins)
