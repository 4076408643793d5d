from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sam2_blocks.errors import MissingExtraError, UsageError
from sam2_blocks.formats.parquet import load_pyarrow, open_parquet


def test_a_file_is_opened_and_one_that_was_cut_short_is_named():
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), stream)
    assert open_parquet(stream, "t.parquet").metadata.num_rows == 2
    with pytest.raises(UsageError, match=r"t\.parquet: is no whole Parquet file"):
        open_parquet(io.BytesIO(stream.getvalue()[:-20]), "t.parquet")


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[data\]'"):
        load_pyarrow()
