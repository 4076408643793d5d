"""Pages about hosts, word for word, where the host is installed."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from tests.conftest import ROOT
from tests.hosts.roboflow.conftest import define_torchvision_operators
from tests.pages import own_port, run_page

HOSTS = ROOT / "docs" / "hosts"


def test_the_page_of_roboflow_runs(tmp_path):
    pytest.importorskip("roboflow_workflows")
    define = inspect.getsource(define_torchvision_operators)  # in every process of the page
    (tmp_path / ".installed").mkdir()
    code = f"import sys\n\n{define}\n\ndefine_torchvision_operators()\n"
    (tmp_path / ".installed" / "sitecustomize.py").write_text(code)
    run_page(HOSTS / "roboflow.md", tmp_path)
    assert (tmp_path / "out" / "overlay.jpg").stat().st_size > 0


def test_the_page_of_http_runs_with_the_real_client(tmp_path):
    pytest.importorskip("inference_sdk")
    with own_port():
        said = run_page(HOSTS / "http.md", tmp_path)
    [sure] = re.findall(r"^0\.\d+$", said, re.M)
    assert float(sure) > 0.8
    assert said.count('"tracker_ids":[1]') == 1


def test_the_page_of_cvat_runs(tmp_path):
    pytest.importorskip("cvat_sdk")
    run_page(HOSTS / "cvat.md", tmp_path)


def test_the_page_of_fiftyone_runs(tmp_path):
    pytest.importorskip("fiftyone")
    run_page(HOSTS / "fiftyone.md", tmp_path)


def test_the_page_of_ray_runs(tmp_path):
    pytest.importorskip("ray")
    said = run_page(HOSTS / "ray.md", tmp_path)
    assert "2 of 2 done" in said
    masks = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert len(masks) == 2
    [area] = re.findall(r"^\[.*\] (\d+)$", said, re.M)  # of the first mask, after its types
    assert int(area) == masks[0]["area"]
