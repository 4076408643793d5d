import io
import json

import numpy as np

from sam2_blocks.engine.exporters import BUILTIN_EXPORTERS, write_json


def test_numbers_are_written_as_over_http():
    file = io.BytesIO()
    write_json({"x": np.float32(1.5), "y": [np.int64(2)]}, file)
    assert json.loads(file.getvalue()) == {"x": 1.5, "y": [2]}


def test_each_says_what_its_files_end_with():
    assert {exporter.suffix for exporter in BUILTIN_EXPORTERS.values()} == {".png", ".json"}
