from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
import warnings

import pytest

from sam2_blocks.cli import app as cli
from sam2_blocks.cli.options import STOPPED, WRONG_INPUT
from sam2_blocks.testing import FakeExecutor
from tests.conftest import PICTURES

pytest.importorskip("fastapi", reason="needs the extra http")


@pytest.fixture
def click(monkeypatch, capsys):
    """``click(option, …)``: exit code, what is printed, how the server starts, what is opened."""
    started, opened = [], []
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setattr("warnings.showwarning", None)  # main() replaces it
    monkeypatch.setattr("sam2_blocks.executor.load", lambda model, **_: FakeExecutor(model))
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("threading.Thread.start", lambda self: self.run())

    def serve(app, *, port, listening):
        started.append((app, port))
        listening("http://127.0.0.1:7")

    monkeypatch.setattr("sam2_blocks.hosts.http.server.serve", serve)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["sam2-blocks", "click", *map(str, options)])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, capsys.readouterr(), started[-1] if started else None, opened

    with warnings.catch_warnings():
        yield run
    for app, _ in started:
        app.state.service.close()


def test_it_serves_the_page_here_alone_and_opens_it(click):
    code, printed, (app, port), opened = click(PICTURES)
    assert (code, port) == (0, 0)
    assert "click masks at http://127.0.0.1:7/page/" in printed.out
    assert opened == ["http://127.0.0.1:7/page/"]
    assert app.state.service.models.names == ["nano"]
    assert "page" in [getattr(route, "name", "") for route in app.routes]


def test_large_pictures_of_ones_own_are_taken(click):
    _, _, (app, _), _ = click(PICTURES, "--no-browser")
    assert app.state.service.settings.max_pixels >= 8000 * 8000
    assert app.state.service.settings.max_open_bytes >= 3 * 8000 * 8000


def test_no_browser_is_opened_if_none_is_wanted(click):
    code, printed, _, opened = click(PICTURES, "--no-browser", "-m", "nano", "--port", 7)
    assert (code, opened) == (0, [])
    assert "/page/" in printed.out


def test_pictures_that_are_not_there_are_refused_before_a_model_loads(click, tmp_path):
    assert click(tmp_path / "missing")[0] == WRONG_INPUT
    (tmp_path / "notes.json").write_text("{}")
    code, printed, _, _ = click(tmp_path / "notes.json")
    assert code == WRONG_INPUT
    assert "is a document, not a picture" in printed.err
    assert "loading" not in printed.err


def test_without_the_extra_it_says_what_to_install():
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['sam2-blocks', 'click', '.']\n"
        "from sam2_blocks.cli.app import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == STOPPED
    assert "pip install 'sam2-blocks[http]'" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_ends_it_without_a_word_of_trouble():
    command = [sys.executable, "-m", "sam2_blocks", "click", str(PICTURES), "--no-browser"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAM2_BLOCKS_PLUGINS": "", "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    )
    for line in process.stdout:
        if found := re.search(r"http://\S+/page/", line):
            break
    with urllib.request.urlopen(found[0]) as page:
        assert page.read().startswith(b"<!doctype html>")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "stopped\n")
    assert "Traceback" not in err
