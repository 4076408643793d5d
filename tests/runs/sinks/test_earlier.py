from __future__ import annotations

import pytest

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.errors import UsageError
from sam2_blocks.files.claims import JOURNAL_FILE, OutputFiles
from sam2_blocks.runs.opening import open_source
from sam2_blocks.runs.sinks.earlier import EarlierRun, plan_run
from sam2_blocks.testing import sample_image
from tests.conftest import PICTURES, ROOT


def request_for(plugins, **more):
    pipeline = plugins.load_pipeline(ROOT / "examples" / "quickstart.yaml")
    return RunRequest(pipeline, plugins, max_pixels=10**8, digest="d", **more)


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def test_an_output_that_is_not_written_again_goes_and_its_empty_folder_too(tmp_path):
    earlier = EarlierRun(tmp_path, OutputFiles(tmp_path), None, {})
    old, new = write(tmp_path / "deep" / "a" / "old.json"), write(tmp_path / "new.json")
    earlier.note("a", [new], failed=False, known=[old, new])
    assert new.exists()
    assert not (tmp_path / "deep").exists()
    assert tmp_path.exists()


def test_nothing_is_removed_that_this_run_wrote_for_another_item(tmp_path):
    earlier = EarlierRun(tmp_path, OutputFiles(tmp_path), None, {})
    shared = write(tmp_path / "a.json")
    earlier.note("one", [shared], failed=False, known=[shared])
    earlier.note("two", [], failed=True, known=[shared])
    assert shared.exists()


def test_a_picture_alone_has_no_journal(plugins, tmp_path):
    (tmp_path / JOURNAL_FILE).write_text("old")
    request = request_for(plugins, out=tmp_path)
    earlier = plan_run(tmp_path, request, open_source(PICTURES / "coffee.jpg", request))
    earlier.start()
    assert earlier.kept == ()
    assert not (tmp_path / JOURNAL_FILE).exists()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (PICTURES / "coffee.jpg", "--resume is for folders and globs"),
        ([sample_image()], "cannot resume: nobody can tell"),
    ],
)
def test_some_inputs_cannot_be_gone_on_with(plugins, tmp_path, inputs, message):
    request = request_for(plugins, out=tmp_path, resume=True)
    with pytest.raises(UsageError, match=message):
        plan_run(tmp_path, request, open_source(inputs, request))
