from __future__ import annotations

import json

import pytest

from sam2_blocks import ItemResult, load_pipeline
from sam2_blocks.errors import UsageError
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.runs.sinks.folder import OutputFolder
from sam2_blocks.testing import sample_detections, sample_image


@pytest.fixture
def open_sink(plugins, tmp_path):
    """``open_sink(output, nested=…)``: a folder for a picture's boxes, and the picture itself."""

    def make(output="boxes", *, nested=True, folder=tmp_path / "out"):
        document = {
            "pipeline_version": 1,
            "inputs": {
                "image": {"kind": "image"},
                "found": {"kind": "object_detection_prediction"},
            },
            "steps": {
                "filter": {"use": "detections/filter@v1", "with": {"detections": "$inputs.found"}},
                "embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}},
            },
            "outputs": {
                output: "$steps.filter.detections",
                "picture": "$inputs.image",
                "code": "$steps.embed.embedding",
            },
        }
        pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
        return OutputFolder(folder, pipeline, plugins, nested=nested, files=OutputFiles(folder))

    return make


def result_of(name):
    return ItemResult(name, {"boxes": sample_detections(), "picture": sample_image()}, ())


@pytest.mark.parametrize(("nested", "prefix"), [(True, "deep/a.png/"), (False, "")])
def test_each_output_is_a_file_of_its_kind(open_sink, tmp_path, nested, prefix):
    with open_sink(nested=nested) as sink:
        sink.submit(result_of("deep/a.png"))
    assert sink.errors == []
    rows = json.loads((tmp_path / "out" / f"{prefix}boxes.json").read_text())["detections"]
    assert [row["class_name"] for row in rows] == ["face", "object"]
    assert (tmp_path / "out" / f"{prefix}picture.png").exists()


def test_what_has_no_file_format_is_named(open_sink):
    assert open_sink().skipped == ["code"]


def test_an_id_never_leads_out_of_the_folder(open_sink, tmp_path):
    with open_sink() as sink:
        sink.submit(result_of("../../a.png"))
    assert (tmp_path / "out" / "a.png" / "boxes.json").exists()


def test_two_runs_at_once_are_refused(open_sink):
    with open_sink(), pytest.raises(UsageError, match="another run is writing there"):
        open_sink().__enter__()


def test_no_output_is_called_like_the_file_of_errors(open_sink):
    with pytest.raises(UsageError, match=r"no output may be called 'errors', because errors\.json"):
        open_sink("errors")


def test_a_folder_that_cannot_be_made_is_named(open_sink, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to the folder '.*file/out'"):
        open_sink(folder=tmp_path / "file" / "out").__enter__()
