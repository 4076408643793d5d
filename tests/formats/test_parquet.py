from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_blocks.errors import MissingExtraError, UsageError
from sam2_blocks.formats.parquet import cell_to_text, load_pyarrow, open_parquet, text_to_cell


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


@given(st.text(st.one_of(st.characters(), st.sampled_from("\\ud5cf0\udcff\ud800"))))
def test_any_name_is_a_cell_and_comes_back(name):
    cell = text_to_cell(name)
    cell.encode()
    assert cell_to_text(cell) == name
    assert cell == name or "\\ud" in cell


def test_a_name_of_other_bytes_is_read_by_people():
    assert text_to_cell("caf\udce9.jpg") == r"caf\udce9.jpg"
    assert text_to_cell("c:\\dud\\new café.jpg") == "c:\\dud\\new café.jpg"
