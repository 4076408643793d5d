from __future__ import annotations

import pytest

from sam2_blocks.hosts import fiftyone


def test_the_report_names_every_block(plugins):
    report = fiftyone.report(plugins)
    assert report.title == "FiftyOne"
    assert set(report.blocks) == set(plugins.manifests)


def test_there_is_no_other_name():
    assert callable(fiftyone.to_fiftyone)
    with pytest.raises(AttributeError, match="has no attribute 'to_fifty'"):
        _ = fiftyone.to_fifty
