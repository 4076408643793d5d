from __future__ import annotations

from tests.conftest import ROOT

CROPS = ROOT / "examples" / "crops.yaml"


def test_a_pipeline_is_drawn_on_the_screen_or_in_a_file(call, tmp_path):
    code, text, _ = call("graph", CROPS)
    assert code == 0
    assert text.startswith("flowchart LR\n")
    assert "for each of $steps.crops.crops" in text
    picture = tmp_path / "graph.svg"
    assert call("graph", CROPS, "--out", picture)[:2] == (0, "")
    assert picture.read_text().startswith("<svg ")
    assert call("graph", CROPS, "--format", "svg")[1] == picture.read_text()


def test_wires_are_explained(call):
    code, text, _ = call("validate", "--explain", CROPS)
    assert code == 0
    assert "image ← $each of $steps.crops.crops: image\n" in text


def test_a_wrong_pipeline_is_not_drawn(call, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(CROPS.read_text().replace("$each,", "$steps.crops.crops,"))
    code, _, error = call("graph", path)
    assert code == 2
    assert "Repeat the step with 'for_each', and wire $each." in " ".join(error.split())
