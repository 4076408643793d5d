from __future__ import annotations

import re

import numpy as np
import pytest

from sam2_blocks import Image, load_plugins
from sam2_blocks.engine.records import ErrorRecord, ItemResult
from sam2_blocks.formats.rows import rows_to_detections
from sam2_blocks.runs import report as report_module
from sam2_blocks.runs.report import Report
from sam2_blocks.runs.run import run_pipeline
from tests.conftest import PICTURES, ROOT

BOXES = rows_to_detections([[1, 2, 3, 4], [5, 6, 7, 8]])
RED = Image(np.full((400, 800, 3), (200, 0, 0), np.uint8))


def page(report, folder, errors=()):
    return report.write(folder, errors).read_text(encoding="utf-8")


def test_it_shows_pictures_counts_failures_and_times(tmp_path):
    report, plugins = Report("Boxes & masks"), load_plugins(points=[])
    plugins.manager.register(report)
    run = run_pipeline(
        ROOT / "examples" / "quickstart.yaml", PICTURES, out=tmp_path / "out", plugins=plugins
    )
    for result in run:
        report.add(result)
    text = page(report, tmp_path / "out", run.errors)
    assert "<h1>Boxes &amp; masks</h1>" in text
    assert "2 of 4 done, 2 failed" in text  # two pictures have no boxes beside them
    assert text.count("data:image/jpeg;base64,") == 2
    assert "predictions: 24" in text
    assert "boxes: " in text  # the step that failed, and why
    for step in ("boxes", "segment", "draw"):
        assert re.search(rf"<tr><td>{step}</td><td>\d+\.\d\d s</td>", text)


def test_it_is_one_file_that_asks_nothing_of_the_network(tmp_path):
    report = Report("one")
    report.add(ItemResult("a.jpg", {"overlay": RED, "predictions": BOXES}))
    assert not re.search(r"https?://|<link|<script|url\(", page(report, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_names_of_strangers_are_text(tmp_path):
    report = Report("<b>")
    bad = ErrorRecord("<img src=x>.jpg", "boxes", "b@v1", "<script>alert(1)</script>", "E")
    report.add(ItemResult(bad.item, {}, (bad,)))
    text = page(report, tmp_path)
    assert "<script>" not in text
    assert "<img src=x>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_an_item_that_could_not_be_written_is_a_failure(tmp_path):
    report = Report("late")
    report.add(ItemResult("a.jpg", {"overlay": RED}))
    text = page(report, tmp_path, [ErrorRecord("a.jpg", "outputs", "", "disk full", "OSError")])
    assert "0 of 1 done, 1 failed" in text
    assert "outputs: disk full" in text


def test_without_pictures_it_says_what_would_show_them(tmp_path):
    report = Report("bare")
    report.add(ItemResult("a.jpg", {"predictions": BOXES}))
    assert "an output of draw/masks@v1 would be shown here" in page(report, tmp_path)


@pytest.mark.parametrize("most", [1, 2])
def test_of_many_pictures_only_some_are_shown(tmp_path, monkeypatch, most):
    monkeypatch.setattr(report_module, "MOST_THUMBNAILS", most)
    report = Report("many")
    for name in "abc":
        report.add(ItemResult(name, {"overlay": RED}))
    text = page(report, tmp_path)
    assert text.count("<img") == most
    assert text.count("<figure") == 3
    assert f"Only {most} pictures are shown" in text
