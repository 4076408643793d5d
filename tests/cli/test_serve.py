from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.main import get_command

from sam2_blocks.cli import app as cli
from sam2_blocks.cli.options import STOPPED, WRONG_INPUT
from sam2_blocks.executor import load
from sam2_blocks.service import ServiceSettings
from sam2_blocks.service.settings import told_settings
from sam2_blocks.testing import FakeExecutor

pytest.importorskip("fastapi", reason="needs the extra http")


@pytest.fixture
def serve(monkeypatch, capsys):
    """``serve(option, …)``: exit code, errors, and what the server would have started with."""
    started, apps = [], []
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setattr("warnings.showwarning", None)  # main() replaces it
    monkeypatch.setattr("sam2_blocks.executor.load", lambda model, **_: FakeExecutor(model))
    monkeypatch.setattr(
        "sam2_blocks.hosts.http.server.serve",
        lambda app, **address: (started.append((app.state.service, address)), apps.append(app)),
    )

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["sam2-blocks", "serve", *options])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, capsys.readouterr().err, started[-1] if started else None

    run.has_page = lambda: "page" in [getattr(route, "name", "") for route in apps[-1].routes]
    with warnings.catch_warnings():
        yield run
    for service, _ in started:
        service.close()


def test_by_default_it_listens_here_only_with_the_default_limits(serve):
    code, err, (service, address) = serve()
    assert (code, err) == (0, "loading nano\n")
    assert address == {"host": "127.0.0.1", "port": 9001}
    assert service.settings == ServiceSettings()
    assert service.models.names == ["nano"]


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--api-key", "secret"], "api_key", "secret"),
        (["--window-ms", "0"], "window_ms", 0),
        (["--max-queue", "5"], "max_queue", 5),
        (["--deadline", "7.5"], "deadline_s", 7.5),
        (["--max-body-mb", "2"], "max_body_bytes", 2 * 2**20),
        (["--max-answer-mb", "3"], "max_answer_bytes", 3 * 2**20),
        (["--max-prompts", "6"], "max_prompts", 6),
        (["--max-points", "7"], "max_points", 7),
        (["--max-pipeline-parts", "8"], "max_pipeline_parts", 8),
        (["--max-open-images", "9"], "max_open_images", 9),
        (["--url-timeout", "2.5"], "url_timeout_s", 2.5),
        (["--compile", "encoder"], "compile", "encoder"),
        (["--backend", "auto"], "backend", "auto"),
        (["--input-px", "128"], "input_px", 128),
        (["--cache-mb", "3"], "embedding_bytes", 3 * 2**20),
        (["--host-cache-mb", "4"], "embedding_host_bytes", 4 * 2**20),
        (["--cache-dir", "kept"], "embedding_dir", Path("kept")),
        (["--disk-cache-mb", "5"], "embedding_disk_bytes", 5 * 2**20),
        (["--on-conflict", "replace"], "on_conflict", "replace"),
        (["--no-urls"], "allow_urls", False),
        (["--private-urls"], "allow_private_urls", True),
        (["--numpy"], "allow_numpy", True),
        (["--file-root", "."], "file_root", Path(".")),
    ],
)
def test_an_option_becomes_a_setting(serve, options, field, value):
    _, _, (service, _) = serve(*options)
    assert getattr(service.settings, field) == value


def test_models_see_the_size_that_is_asked_for(serve, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "sam2_blocks.executor.load",
        lambda model, **options: asked.append(options["input_px"]) or FakeExecutor(model),
    )
    serve("--input-px", "128")
    serve()
    assert asked == [128, 0]


def test_a_size_that_cannot_be_is_said_at_the_start(serve, monkeypatch):
    monkeypatch.setattr("sam2_blocks.executor.load", load)
    code, err, _ = serve("--input-px", "100")
    assert code == STOPPED
    assert "input_px must be a multiple of 32 from 64 to 4096" in " ".join(err.split())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], True),
        (["--no-page"], False),
        (["--host", "0.0.0.0"], False),
        (["--host", "::1"], True),
        (["--host", "0.0.0.0", "--page"], True),
        (["--host", "0.0.0.0", "--api-key", "secret"], True),
    ],
)
def test_the_page_is_off_where_others_reach_it_without_a_key(serve, options, expected):
    code, _, _ = serve(*options)
    assert (code, serve.has_page()) == (0, expected)


def test_pictures_for_a_page_that_is_off_are_refused(serve):
    code, err, _ = serve("--host", "0.0.0.0", "--images", ".")
    assert code == WRONG_INPUT
    assert "--images and --out are for the page" in " ".join(err.split())


def test_every_option_is_told_of_and_every_setting_has_one_or_a_variable():
    for name, _, _, setting in told_settings():
        assert setting.option or setting.variable, name
        assert setting.help.endswith("."), name
    help_texts = {
        parameter.name: parameter.help
        for parameter in get_command(cli.app).commands["serve"].params
    }
    for name, _, _, setting in told_settings():
        if setting.option:
            assert help_texts[name] == setting.help


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-queue", "0"], "Invalid value for '--max-queue'"),
        (["--deadline", "0"], "Invalid value for '--deadline'"),
        (["--compile", "some"], "Invalid value for '--compile'"),
    ],
)
def test_a_wrong_option_is_refused(serve, options, message):
    code, err, _ = serve(*options)
    assert code == WRONG_INPUT
    assert message in " ".join(err.replace("│", " ").split())


def test_reading_the_command_line_imports_no_service():
    code = (
        "import sys, sam2_blocks.cli.app; loaded = set(sys.modules) & "
        "{'sam2_blocks.service.core', 'fastapi', 'torch'}; assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_may_have_other_names(serve, monkeypatch):
    _, _, (service, _) = serve("-m", "nano", "-m", "hiera_large=nano")
    assert service.models.names == ["nano", "hiera_large"]
    monkeypatch.setenv("SAM2_VERSION_ID", "hiera_tiny")
    _, _, (service, _) = serve()
    assert service.models.names == ["hiera_tiny"]


def test_a_wrong_variable_stops_it_with_one_readable_block(serve, monkeypatch):
    monkeypatch.setenv("SAM2_MAX_EMBEDDING_CACHE_SIZE", "many")
    code, err, _ = serve()
    assert code == STOPPED
    assert "wants a number of entries" in err
    assert "Traceback" not in err


def test_without_the_extra_it_says_what_to_install():
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['sam2-blocks', 'serve']\n"
        "from sam2_blocks.cli.app import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == STOPPED
    assert "pip install 'sam2-blocks[http]'" in result.stderr
