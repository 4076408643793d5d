"""A real Label Studio on the loopback address, where one is installed.

It wants an environment of its own; ``LABEL_STUDIO_PROGRAM`` names it where it is not on the path.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack

import numpy as np
import pytest
import requests

from sam2_blocks import read_image
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.values import PromptSet
from tests.conftest import PICTURES
from tests.hosts.labelstudio.projects import config
from tests.hosts.labelstudio.test_brush import decode
from tests.hosts.serving import running

PROGRAM = shutil.which(os.environ.get("LABEL_STUDIO_PROGRAM", "label-studio"))
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs label-studio")

USER, PASSWORD, TOKEN = (
    "labeller@example.com",
    "a-long-password",
    "0123456789abcdef" * 2 + "01234567",
)
READY_S = 480


class Studio:
    """A running Label Studio."""

    def __init__(self, url):
        self.url = url
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Token {TOKEN}"

    def ask(self, method, path, **given):
        response = self.session.request(method, f"{self.url}/api/{path}", timeout=60, **given)
        assert response.ok, response.text[:2000]
        return response.json()


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port]
    account = ["--username", USER, "--password", PASSWORD, "--user-token", TOKEN]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *account], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, folder / "log")
        yield Studio(url)
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url, process, log):
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture
def serve(plugins, folder_of_pipelines, nano_executor):
    """``serve(setting=value)``: the URL of a service on the loopback address."""
    pytest.importorskip("fastapi", reason="needs the extra http")
    from sam2_blocks.hosts.http import create_app

    with ExitStack() as servers:

        def start(**settings):
            chosen = ServiceSettings(label_studio=True, **settings)
            models = ServedModels({"nano": nano_executor})
            app = create_app(models, chosen, plugins=plugins, pipelines=folder_of_pipelines)
            return servers.enter_context(running(app))

        yield start


@pytest.fixture
def project(studio):
    """A project with one picture: its id, and that of its task."""
    made = studio.ask("POST", "projects", json={"title": "Cups", "label_config": config()})
    with (PICTURES / "coffee.jpg").open("rb") as file:
        studio.ask("POST", f"projects/{made['id']}/import", files={"file": file})
    [task] = studio.ask("GET", "tasks", params={"project": made["id"]})["tasks"]
    assert task["data"]["picture"].startswith("/data/upload/")
    return made["id"], task["id"]


def connect(studio, project, url, **given):
    """Connect a service to a project; the id of the connection."""
    fields = {"project": project, "url": url, "title": "SAM 2", "is_interactive": True, **given}
    return studio.ask("POST", "ml", json=fields)


def click(x, y, label="cup", *, positive=True):
    """What Label Studio's page sends of a click, in percent."""
    return {
        "id": f"{x}-{y}",
        "from_name": "click",
        "to_name": "image",
        "type": "keypointlabels",
        "original_width": 600,
        "original_height": 400,
        "image_rotation": 0,
        "is_positive": positive,
        "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": [label]},
    }


def interact(studio, connected, task, *drawn):
    body = {"task": task, "context": {"result": list(drawn)}}
    return studio.ask("POST", f"ml/{connected['id']}/interactive-annotating", json=body)


def test_a_click_becomes_a_brush(studio, serve, project, nano_executor):
    url = serve(label_studio_url=studio.url, label_studio_key=TOKEN)
    connected = connect(studio, project[0], url)
    assert (connected["state"], connected["model_version"][-5:]) == ("CO", " nano")
    made = interact(studio, connected, project[1], click(50, 25))["data"]
    [region] = made["result"]
    assert (region["from_name"], region["value"]["brushlabels"]) == ("mask", ["cup"])
    [embedding] = nano_executor.embed([read_image(PICTURES / "coffee.jpg")])
    prompts = PromptSet.from_points(np.array([[300, 100]], np.float32))
    [wanted] = nano_executor.segment([(embedding, prompts)])
    found = decode(region["value"]["rle"], (400, 600))[:, :, 3] > 0
    assert np.array_equal(found, rle_to_mask(wanted.rles[0]))


def test_a_pipeline_labels_the_tasks_of_a_project(studio, serve, project):
    settings = {"label_studio_url": studio.url, "label_studio_key": TOKEN}
    url = serve(**settings, label_studio_pipeline="marked")
    connected = connect(studio, project[0], url)
    chosen = {"selectedItems": {"all": True, "excluded": []}, "project": str(project[0])}
    where = {"id": "retrieve_tasks_predictions", "project": project[0]}
    studio.ask("POST", "dm/actions", params=where, json=chosen)
    [made] = studio.ask("GET", "predictions", params={"task": project[1]})
    assert made["model_version"] == connected["model_version"]
    labels = [one["value"]["brushlabels"] for one in made["result"]]
    assert labels == [["cup"], ["plate"]]


def test_a_personal_access_token_will_do(studio, serve, project):
    organization = studio.ask("GET", "organizations")[0]["id"]
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
    studio.ask("POST", "jwt/settings", json=settings, params={"id": organization})
    personal = studio.ask("POST", "token")["token"]
    assert personal.count(".") == 2
    url = serve(label_studio_url=studio.url, label_studio_key=personal)
    made = interact(studio, connect(studio, project[0], url), project[1], click(50, 25))
    assert len(made["data"]["result"]) == 1


def test_a_password_is_asked_for(studio, serve, project):
    url = serve(label_studio_url=studio.url, label_studio_key=TOKEN, api_key="key")
    fields = {"project": project[0], "url": url}
    refused = studio.session.post(f"{studio.url}/api/ml", json=fields, timeout=60)
    assert "authentication parameters were" in refused.text
    password = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": "key"}
    connected = connect(studio, project[0], url, **password)
    assert "result" in interact(studio, connected, project[1], click(50, 25))["data"]


def test_what_is_wrong_is_told_as_far_as_label_studio_tells(studio, serve, project, caplog):
    connected = connect(studio, project[0], serve())
    [shown] = interact(studio, connected, project[1], click(50, 25))["errors"]
    assert shown.startswith("400 Client Error")
    assert "Start the service with --label-studio-url" in caplog.text
