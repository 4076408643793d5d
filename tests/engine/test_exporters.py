import json

import numpy as np

from sam2_blocks.engine.exporters import export_json


def test_numbers_are_written_as_over_http(tmp_path):
    path = export_json({"x": np.float32(1.5), "y": [np.int64(2)]}, tmp_path / "value")
    assert json.loads(path.read_text()) == {"x": 1.5, "y": [2]}
