from __future__ import annotations

import base64

import pytest

from sam2_blocks import read_image, segment
from sam2_blocks.requests import Box
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeExecutor

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")

from sam2_blocks.hosts.http import create_app, docs  # noqa: E402


def test_every_example_of_the_openapi_page_runs(connect, tmp_path):
    from ruamel.yaml import YAML

    with (tmp_path / "name.yaml").open("w") as file:
        YAML().dump(docs.EXAMPLES["pipeline"]["pipeline"], file)
    client = connect(pipelines=tmp_path)
    page = client.get("/openapi.json").json()
    session = client.post("/track", json={}).json()["session_id"]
    ran = []
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                example = operation["requestBody"]["content"]["application/json"]["example"]
                response = client.post(path.format(name="name", session_id=session), json=example)
                assert response.status_code == 200, response.text
                ran.append(path)
    assert len(ran) == 8


def test_the_example_of_a_pipeline_needs_no_model_in_particular(plugins):
    models = ServedModels({"other": FakeExecutor("other")})
    with testclient.TestClient(create_app(models, ServiceSettings(), plugins=plugins)) as client:
        response = client.post("/pipelines/run", json=docs.EXAMPLES["pipeline"])
    assert response.status_code == 200, response.text


def test_the_example_of_a_segmentation_gives_the_bright_square():
    example = docs.EXAMPLES["segment"]
    image = read_image(base64.b64decode(example["image"]["value"]))
    [prompt] = example["prompts"]["prompts"]
    found = segment(image, [Box(**prompt["box"]).to_xyxy()])
    assert (found.mask[0] == (image.pixels[..., 0] > 127)).all()
    assert found.confidence[0] > 0.7
