from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import MissingExtraError, ModelError, Sam2BlocksError, load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts.fiftyone import zoo
from sam2_blocks.hosts.fiftyone.labels import to_fiftyone
from sam2_blocks.testing import FakeExecutor, run_block, sample_detections, sample_image
from tests.conftest import ROOT
from tests.hosts.contract import check_host_masks
from tests.hosts.labelstudio.projects import MARKED

SOURCE = ROOT / "examples" / "fiftyone"
PICTURE = sample_image().pixels


def test_the_manifest_names_models_that_are_there():
    manifest = json.loads((SOURCE / "manifest.json").read_text())
    assert manifest["name"] == "sam2_blocks_zoo"  # imported under it: that of the package is taken
    from sam2_blocks.executor.weights.catalogue import find_model

    for row in manifest["models"]:
        name = row["base_name"].removeprefix("sam2_blocks/")
        assert row["base_filename"] == f"{name}.json"
        assert name == zoo.PIPELINE or find_model(name)


def test_weights_are_downloaded_into_our_own_cache(tmp_path):
    zoo.download_model("sam2_blocks/nano", str(tmp_path / "nano.json"))
    assert json.loads((tmp_path / "nano.json").read_text()) == {"model": "nano"}
    zoo.download_model("sam2_blocks/pipeline", str(tmp_path / "pipeline.json"))
    with pytest.raises(ModelError, match="nan0"):
        zoo.download_model("sam2_blocks/nan0", str(tmp_path / "nan0.json"))
    assert not (tmp_path / "nan0.json").exists()


def test_without_fiftyone_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone.core.labels", None)
    zoo.model_class.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install fiftyone"):
        zoo.load_model("sam2_blocks/nano", "")


@pytest.fixture
def load(labels):
    """``load(name, **options)``: a model of the zoo on the fake executor."""
    resources = Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))
    return lambda name="nano", **given: zoo.load_model(
        f"sam2_blocks/{name}", "", resources=resources, **given
    )


def prompted(model, label):
    """What a model finds in the sample, prompted by a field of it."""
    model.needs_fields = {"prompt_field": "marks"}
    return model.predict(PICTURE, sample={"marks": label})


def masks_of(label):
    shown = [one.to_segmentation(frame_size=PICTURE.shape[1::-1]).mask for one in label.detections]
    return [mask > 0 for mask in shown]


def as_label(labels, prompt):
    """What FiftyOne has in a field to say this."""
    height, width = PICTURE.shape[:2]
    if prompt.point_coords is None:
        x0, y0, x1, y1 = (prompt.box_xyxy / [width, height, width, height]).tolist()
        one = labels.Detection(label="cup", bounding_box=[x0, y0, x1 - x0, y1 - y0])
        return labels.Detections(detections=[one])
    points = (prompt.point_coords / [width, height]).tolist()
    one = labels.Keypoint(label="cup", points=points, sam_labels=prompt.point_labels.tolist())
    return labels.Keypoints(keypoints=[one])


@pytest.mark.parametrize("name", ["fake", "nano"])
def test_the_contract_of_all_hosts(labels, name):
    fakes = dict.fromkeys(("sam2", "fake"), FakeExecutor)
    resources = Resources(fakes) if name == "fake" else load_plugins(points=[]).resources()
    model = zoo.load_model(f"sam2_blocks/{name}", "", device="cpu", resources=resources)

    def mask_of(image, prompt):
        [mask] = masks_of(prompted(model, as_label(labels, prompt)))
        return mask

    without = ["a box and a click"]  # no label of FiftyOne has both
    params = {"model": name, "device": "cpu"}
    check_host_masks(mask_of, params=params, resources=resources, without=without)


def test_labels_and_indices_of_prompts_are_kept(labels, load):
    given = labels.Detections(
        detections=[
            labels.Detection(label="cup", bounding_box=[0.1, 0.1, 0.3, 0.5], index=7),
            labels.Detection(label="dog", bounding_box=[0.5, 0.2, 0.3, 0.5], index=3),
        ]
    )
    found = prompted(load(), given)
    assert [(one.label, one.index) for one in found.detections] == [("cup", 7), ("dog", 3)]
    assert all(0 < one.confidence <= 1 for one in found.detections)
    points = labels.Keypoint(label="cup", points=[(0.5, 0.5)])
    [one] = prompted(load(), labels.Keypoints(keypoints=[points])).detections
    assert one.label == "cup"


def test_without_a_field_everything_is_found(load):
    model = load(points_per_side=2, pred_iou_thresh=0)
    assert len(model.predict(PICTURE).detections) == 4


def test_a_field_that_is_empty_finds_nothing(labels, load):
    assert prompted(load(), None).detections == []
    assert prompted(load(), labels.Detections(detections=[])).detections == []


def test_a_pipeline_is_a_model(load, tmp_path):
    (tmp_path / "marked.yaml").write_text(MARKED)
    model = load("pipeline", pipeline=tmp_path / "marked.yaml")
    found = model.predict(PICTURE)
    assert [one.label for one in found.detections] == ["cup", "Saucer", "dog"]
    with pytest.raises(Sam2BlocksError, match="a pipeline takes no prompt_field"):
        prompted(model, to_fiftyone(sample_detections(), PICTURE.shape[:2]))
    failing = load("pipeline", pipeline=tmp_path / "marked.yaml", boxes=[[1, 2, 3]])
    with pytest.raises(Sam2BlocksError, match="boxes"):
        failing.predict(PICTURE)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pipeline", {}, "give pipeline=PATH"),
        ("nano", {"point_per_side": 2}, "there is no parameter 'point_per_side'; there are"),
    ],
)
def test_options_that_are_wrong(load, name, given, message):
    with pytest.raises(Sam2BlocksError, match=message):
        load(name, **given)


def test_the_app_asks_for_the_options(labels):
    def names(model):
        return list(zoo.resolve_input(model, None).type.properties)

    assert names("sam2_blocks/nano") == ["device"]
    assert names("sam2_blocks/pipeline") == ["pipeline"]


@contextlib.contextmanager
def serving(folder):
    """Serve the files of a folder on the loopback address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_zoo_of_fiftyone_loads_it_from_a_remote_source(labels, tmp_path, monkeypatch):
    """What ``register_zoo_model_source`` and ``load_zoo_model`` do; no database is needed."""
    import fiftyone as fo
    import fiftyone.zoo as foz

    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "zoo"))
    shutil.make_archive(str(tmp_path / "source"), "zip", SOURCE)
    with serving(tmp_path) as url:
        foz.register_zoo_model_source(f"{url}/source.zip")
    assert "sam2_blocks/nano" in foz.list_zoo_models()
    model = foz.load_zoo_model("sam2_blocks/nano", device="cpu", ensure_requirements=False)
    assert isinstance(model, fo.Model)
    sample = fo.Sample(filepath="a.png")
    boxes = sv.Detections(sample_detections().xyxy)
    sample["marks"] = to_fiftyone(boxes, PICTURE.shape[:2])
    model.needs_fields = {"prompt_field": "marks"}
    found = model.predict(PICTURE, sample=sample)
    wanted = run_block(
        "sam2/segment@v1",
        {"image": sample_image(), "boxes": boxes},
        resources=load_plugins(points=[]).resources(),
        model="nano",
        device="cpu",
    ).outputs["predictions"]
    kept = [mask for mask in np.array(wanted.mask) if mask.any()]
    assert all(map(np.array_equal, masks_of(found), kept))
    assert len(found.detections) == len(kept) > 0
