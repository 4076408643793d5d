"""The cache of the hub's library, a hub that answers on this machine, and a network that is off."""

from __future__ import annotations

import hashlib
import importlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor.weights.hub import fetch_repository, hub_cache, is_in_cache
from sam2_blocks.executor.weights.names import HubName

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "code.py": b"raise SystemExit"}
NAME = HubName("owner/tiny")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        if "owner/gated" in self.path:
            self.answer(403, b"", **{"X-Error-Code": "GatedRepo"})
        elif "owner/tiny" not in self.path:
            self.answer(401, b"", **{"X-Error-Code": "RepoNotFound"})
        elif "nothing" in self.path:
            self.answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in self.path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode())
        elif self.path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in FILES]
            body = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(body).encode())
        else:
            content = FILES[self.path.rpartition("/")[2]]
            etag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, **{"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, as the hub's library and ours see it."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("SAM2_BLOCKS_OFFLINE", raising=False)
    return tmp_path


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub on this machine, and the paths it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = importlib.import_module("huggingface_hub.constants")
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield server.asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_network(monkeypatch):
    """Whoever reaches for the network fails."""

    def connect(*arguments):
        raise AssertionError(f"tried to reach {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def put(cache, **files):
    """Put a repository into the cache, as a download leaves it."""
    folder = cache / "models--owner--tiny"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name.replace("__", ".")).write_bytes(content)
    return snapshot


def test_data_is_downloaded_and_code_is_not(hub, cache):
    assert not is_in_cache("owner/tiny")
    folder = fetch_repository(NAME)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert is_in_cache("owner/tiny")
    assert not any("code.py" in path for path in hub)


def test_a_revision_is_asked_for(hub):
    fetch_repository(HubName("owner/tiny", "v1.2"))
    assert any("v1.2" in path for path in hub)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (HubName("owner/gated"), "'owner/gated' is gated: its owner wants to be asked. Accept the"),
        (HubName("owner/none"), "the hub has no repository 'owner/none', or it is private"),
        (HubName("owner/tiny", "nothing"), "'owner/tiny' has no revision 'nothing'"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub, name, message):
    with pytest.raises(ModelError, match=message):
        fetch_repository(name)


def test_without_a_network_the_reason_is_said(cache, monkeypatch):
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the hub cannot be reached|could not be downloaded"):
        fetch_repository(NAME)


def test_offline_takes_what_is_in_the_cache_and_asks_nobody(cache, monkeypatch, no_network):
    snapshot = put(cache, config__json=b"{}")
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    assert fetch_repository(NAME) == snapshot


def test_offline_refuses_what_is_not_in_the_cache(cache, monkeypatch, no_network):
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"'owner/tiny' is not on this machine and downloads are"):
        fetch_repository(NAME)
    monkeypatch.delenv("SAM2_BLOCKS_OFFLINE")
    with pytest.raises(ModelError, match="downloads are off"):
        fetch_repository(NAME, offline=True)


def test_the_cache_is_where_the_hubs_library_has_it(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub_cache() == tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    assert hub_cache() == tmp_path / "other"


def test_without_its_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[hub\]'"):
        fetch_repository(NAME)
