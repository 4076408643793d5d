from __future__ import annotations

import json
from importlib.resources import files

import pytest

from sam2_blocks.hosts.http.page.folder import PageFolder
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.testing import FakeDetector, FakeExecutor
from tests.hosts.http.conftest import refused
from tests.hosts.http.page.conftest import clicks_of

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra http")
STATIC = files("sam2_blocks.hosts.http.page") / "static"
HERE = "http://127.0.0.1"


@pytest.fixture
def open_page(plugins):
    """``open_page(pictures, out, setting=value)``: a client of a server with the page."""
    from sam2_blocks.hosts.http import create_app

    clients = []

    def make(pictures=None, out=None, models=None, page=True, **settings):
        served = ServedModels(models or {"nano": FakeExecutor("nano")})
        folder = PageFolder(pictures, out) if page else None
        app = create_app(served, ServiceSettings(**settings), plugins=plugins, page=folder)
        client = testclient.TestClient(app, base_url=HERE)
        clients.append(client.__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def test_the_page_may_load_nothing_from_elsewhere(open_page):
    response = open_page().get("/page")
    policy = response.headers["content-security-policy"]
    assert response.text.startswith("<!doctype html>")
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_every_file_has_the_type_that_nosniff_wants(open_page):
    client = open_page()
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    for name in ("index.html", "page.css", "js/main.js", "icons.svg"):
        response = client.get(f"/page/{name}")
        expected = types.get(f".{name.rpartition('.')[2]}", "image/svg+xml")
        assert response.headers["content-type"].startswith(expected)
        assert "content-security-policy" in response.headers


def test_other_routes_keep_their_headers(open_page):
    assert "content-security-policy" not in open_page().get("/docs").headers


def test_the_page_is_small_and_each_file_short():
    found = [path for folder in (STATIC, STATIC / "js") for path in folder.iterdir()]
    contents = [path.read_bytes() for path in found if path.is_file()]
    assert sum(map(len, contents)) < 150_000
    assert max(content.count(b"\n") for content in contents) < 500


def test_without_it_there_is_no_page(open_page):
    assert open_page(page=False).get("/page/").status_code == 404


def test_the_session_says_what_there_is(open_page, pictures, tmp_path):
    session = open_page(pictures, tmp_path / "out").get("/page/api/session").json()
    assert session == {
        "model": "nano",
        "grounding": None,
        "pictures": ["a b.png", "deep/c.tif"],
        "saved": [],
        "saves": True,
    }


def test_a_model_that_reads_phrases_is_named(open_page):
    models = {"nano": FakeExecutor("nano"), "words": FakeDetector("transformers:words")}
    session = open_page(models=models).get("/page/api/session").json()
    assert (session["model"], session["grounding"]) == ("nano", "transformers:words")


def test_a_picture_is_sent(open_page, pictures):
    response = open_page(pictures).get("/page/api/pictures/a%20b.png")
    assert response.content == (pictures / "a b.png").read_bytes()
    assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize("name", ["..%2foutside.png", "%2e%2e/outside.png", "%2Fetc%2Fpasswd"])
def test_no_other_file_is_sent(open_page, pictures, name):
    client = open_page(pictures)
    assert client.get(f"/page/api/pictures/{name}").status_code == 404
    assert client.get(f"/page/{name}").status_code == 404


def test_what_is_saved_comes_back(open_page, pictures, tmp_path):
    client = open_page(pictures, tmp_path / "out")
    assert client.get("/page/api/clicks/deep/c.tif").json() == {"clicks": None}
    clicks = clicks_of("deep/c.tif", model="nano")
    assert client.put("/page/api/clicks", json=clicks).json() == {"saved": "deep/c.tif"}
    kept = client.get("/page/api/clicks/deep/c.tif").json()["clicks"]
    assert kept["objects"][0]["mask"] == clicks["objects"][0]["mask"]
    assert kept["prompts"] == clicks["prompts"]
    assert client.get("/page/api/session").json()["saved"] == ["deep/c.tif"]


def test_nothing_is_saved_outside(open_page, pictures, tmp_path):
    client = open_page(pictures, tmp_path / "out")
    response = client.put("/page/api/clicks", json=clicks_of("../../x.png"))
    refused(response, 403, "leads out of the folder")
    refused(client.get("/page/api/clicks/..%2f..%2fx.png"), 403, "leads out of the folder")
    assert not list(tmp_path.rglob("x.png*"))


def test_what_cannot_be_saved_is_said(open_page, pictures):
    client = open_page(pictures)
    refused(client.put("/page/api/clicks", json=clicks_of("a b.png")), 403, "start with --out")
    refused(client.put("/page/api/clicks", json={"file_name": "a"}), 422, "width: Field required")


def test_an_export_is_a_download(open_page):
    request = {"form": "masks", "pictures": [clicks_of("a ä.png")]}
    response = open_page().post("/page/api/export", json=request)
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%C3%A4.png"
    assert response.content.startswith(b"\x89PNG")


def test_all_that_is_saved_is_exported_into_the_folder(open_page, pictures, tmp_path):
    client = open_page(pictures, tmp_path / "out")
    for name in ("deep/c.tif", "a b.png"):
        client.put("/page/api/clicks", json=clicks_of(name))
    request = {"form": "coco", "everything": True, "save": True, "classes": ["cup"]}
    answer = client.post("/page/api/export", json=request).json()
    assert answer == {"folder": str(tmp_path / "out"), "pictures": 2}
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [row["file_name"] for row in coco["images"]] == ["a b.png", "deep/c.tif"]


def test_what_cannot_be_exported_is_said(open_page):
    client = open_page()
    twice = {"form": "yolo", "pictures": [clicks_of("a.jpg"), clicks_of("a.png")]}
    refused(client.post("/page/api/export", json=twice), 422, "is the file of another picture")
    saved = {"form": "yolo", "save": True}
    refused(client.post("/page/api/export", json=saved), 422, "start with --out FOLDER")
    refused(client.post("/page/api/export", json={"form": "xml"}), 422, "form: Input should be")


def test_a_picture_that_is_brought_is_kept(open_page, pictures, tmp_path):
    client = open_page(pictures, tmp_path / "out")
    content = (tmp_path / "outside.png").read_bytes()
    answers = [
        client.post("/page/api/pictures", data={"name": name}, files={"image": content})
        for name in ("new.png", "new.png", "a b.png")
    ]
    names = [answer.json()["name"] for answer in answers]
    assert names == ["pictures/new.png", "pictures/new.png", "a b.png"]
    assert client.get("/page/api/pictures/pictures/new.png").content == content
    assert client.get("/page/api/session").json()["pictures"][-1] == "pictures/new.png"


def test_what_cannot_be_kept_is_said(open_page, pictures, tmp_path):
    form = {"data": {"name": "new.png"}, "files": {"image": b"no picture"}}
    refused(open_page(pictures).post("/page/api/pictures", **form), 403, "start with --out")
    client = open_page(pictures, tmp_path / "out")
    refused(client.post("/page/api/pictures", **form), 400, "new.png: not a picture")
    elsewhere = {"name": "x.png", "image": {"type": "file", "value": str(tmp_path / "outside.png")}}
    refused(client.post("/page/api/pictures", json=elsewhere), 422, "wants an uploaded file")
    inside = {"name": "x.png", "image": {"type": "multipart", "value": "text"}}
    refused(client.post("/page/api/pictures", json=inside), 422, "wants an uploaded file")
    assert not (tmp_path / "out").exists()


ROUTES = [
    ("GET", "/page/api/session"),
    ("POST", "/page/api/pictures"),
    ("GET", "/page/api/pictures/x.png"),
    ("GET", "/page/api/clicks/x.png"),
    ("PUT", "/page/api/clicks"),
    ("POST", "/page/api/export"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_the_key(open_page, method, path):
    client = open_page(api_key="secret")
    json_body = {"json": {"form": "coco"}} if method != "GET" else {}
    refused(client.request(method, path, **json_body), 401, "API key is missing or wrong")
    answer = client.request(method, path, headers={"X-API-Key": "secret"}, **json_body)
    assert answer.status_code != 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_answers_other_sites(open_page, method, path):
    response = open_page().request(method, path, headers={"Origin": "https://evil.example"})
    refused(response, 403, "requests of other sites are not answered here")


def test_the_page_itself_needs_no_key(open_page):
    assert open_page(api_key="secret").get("/page/").status_code == 200
