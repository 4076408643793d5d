from __future__ import annotations

import json

import pytest

from sam2_blocks.cli import options
from sam2_blocks.executor.sam2.calibrate import Measured, Outcome
from sam2_blocks.executor.sam2.packaging import Made
from tests.cli.conftest import QUICKSTART
from tests.conftest import ROOT
from tests.executor.conftest import NEEDS_OPENVINO

PICTURES = ROOT / "examples" / "pictures"


def test_models_of_every_family_are_listed(call):
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json")[1])}
    assert rows["sam2.1/hiera_tiny"]["nbytes"] == 156008466
    assert rows["nano"]["family"] == "sam2"
    assert "sam2.1/hiera_tiny" in call("models", "list")[1]


def test_names_are_whole_on_a_narrow_screen(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call("models", "list")[1]
    cells = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert "transformers:PekingU/rtdetr_v2_r18vd" in "".join(cells)


def test_what_ships_in_the_package_is_not_downloaded(call):
    code, out, _ = call("models", "download", "nano")
    assert code == 0
    assert "there is nothing to download" in out


def test_a_pipeline_says_which_models_it_needs(call):
    code, out, _ = call("models", "download", QUICKSTART)
    assert code == 0
    assert "nano" in out


@pytest.mark.parametrize("command", ["download", "verify"])
def test_a_model_that_is_not_known_gets_a_hint(call, command):
    code, _, err = call("models", command, "hiera_tny")
    assert code == options.STOPPED
    assert "there is no model 'hiera_tny'" in err
    assert "hiera_tiny" in err


def test_the_embedded_model_is_the_published_file(call):
    assert call("models", "verify", "nano")[1].endswith("is the published file\n")


def test_models_of_the_hub_are_listed_with_what_is_here(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--PekingU--rtdetr_v2_r18vd" / "snapshots" / "0").mkdir(parents=True)
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json")[1])}
    assert rows["transformers:PekingU/rtdetr_v2_r18vd"]["weights"] == "downloaded"
    assert rows["transformers:IDEA-Research/grounding-dino-tiny"]["weights"] == "to download"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("facebook/sam2.1-hiera-tiny@main", "facebook/sam2.1-hiera-tiny@main"),
        ("transformers:somebody/detector", "somebody/detector"),
        ("transformers:PekingU/rtdetr_v2_r18vd", "PekingU/rtdetr_v2_r18vd"),
    ],
)
def test_repositories_of_the_hub_are_downloaded_by_name(call, monkeypatch, tmp_path, name, asked):
    from sam2_blocks.executor.weights import download, hub, places

    wanted = []

    def fetch(repository, *files, offline=None):
        wanted.append((str(repository), offline))
        (tmp_path / "model.safetensors").write_bytes(b"")
        return tmp_path

    for module in (download, hub, places):
        monkeypatch.setattr(module, "fetch_repository", fetch)
    code, out, _ = call("models", "download", name)
    assert code == 0
    assert wanted == [(asked, False)]
    assert str(tmp_path) in out.replace("\n", "")


class TestCalibrate:
    """``models calibrate``; what it calls has tests of its own."""

    @pytest.fixture
    def found(self, monkeypatch, tmp_path):
        """What is asked of `calibrate`, which answers with the outcome of the test."""
        asked = []
        rows = [
            Measured("bfloat16, openvino", 20.0, 30.0, 0.98, 0.9, 1e-3),
            Measured("int8, openvino", 15.0, 22.5, 0.97, 0.85, 2e-3),
        ]

        def run(*, problems=(), path=None):
            outcome = Outcome(tuple(rows), 2, 2, 40, problems, path)
            monkeypatch.setattr(
                "sam2_blocks.executor.sam2.calibrate.calibrate",
                lambda *names, **options: asked.append((names, options)) or outcome,
            )
            return asked

        return run

    def test_speed_and_masks_of_each_way_are_printed(self, call, found, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "150")
        asked = found(path=tmp_path / "kept.json")
        code, out, _ = call("models", "calibrate", "nano", "--pictures", PICTURES, "--force")
        assert code == 0
        [((model, pictures), options)] = asked
        assert (model, options) == ("nano", {"input_px": 0, "force": True})
        assert [path.name for path in pictures][:2] == ["astronaut.jpg", "chelsea.jpg"]
        assert "15.0" in out
        assert "0.9700" in out
        assert "0.850" in out
        assert "0.200%" in out
        assert "40 masks on 2 pictures, calibrated on 2 others" in out
        assert "kept.json" in out

    def test_what_is_not_kept_says_why_and_fails(self, call, found):
        found(problems=("mean IoU 0.9, wanted 0.95 or more",))
        code, out, _ = call("models", "calibrate", "nano", "--pictures", PICTURES)
        assert code == options.ITEMS_FAILED
        assert "int8: mean IoU 0.9, wanted 0.95 or more." in out
        assert "Nothing is kept" in out

    def test_json_has_all_of_it(self, call, found, tmp_path):
        found(path=tmp_path / "kept.json")
        answer = json.loads(
            call("models", "calibrate", "nano", "--pictures", PICTURES, "--json")[1]
        )
        assert answer["rows"][1]["cpu_ms"] == 22.5
        assert answer["path"] == str(tmp_path / "kept.json")

    def test_a_folder_without_pictures_is_refused(self, call, tmp_path):
        code, _, err = call("models", "calibrate", "nano", "--pictures", tmp_path)
        assert code == options.WRONG_INPUT
        assert "picture" in err

    @NEEDS_OPENVINO
    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["nanoo"], options.STOPPED, "there is no model 'nanoo'"),
            (["nano", "--input-px", "100"], options.STOPPED, "a multiple of 32 from 64 to 4096"),
            (
                ["nano", "--input-px", "-64"],
                options.WRONG_INPUT,
                "'--input-px': Input should be greater than",
            ),
            (
                ["nano", "--input-px", "half"],
                options.WRONG_INPUT,
                "'--input-px': Input should be a valid integer",
            ),
        ],
    )
    def test_what_cannot_be_is_said(self, call, words, code, said):
        found, _, err = call("models", "calibrate", "--pictures", PICTURES, *words)
        assert found == code
        assert said in " ".join(err.replace("│", "").split())

    @NEEDS_OPENVINO
    def test_one_picture_is_not_enough(self, call, tmp_path):
        (tmp_path / "a.jpg").write_bytes((PICTURES / "coffee.jpg").read_bytes())
        code, _, err = call("models", "calibrate", "nano", "--pictures", tmp_path)
        assert code == options.STOPPED
        assert "wants at least 4 pictures, better 20 or more, got 1" in " ".join(err.split())

    @NEEDS_OPENVINO
    def test_a_picture_that_cannot_be_read_is_named(self, call, tmp_path):
        for name in "abcd":
            (tmp_path / f"{name}.jpg").write_text("no picture")
        code, _, err = call("models", "calibrate", "nano", "--pictures", tmp_path)
        assert code == options.STOPPED
        assert "a.jpg" in "".join(err.split())


class TestCompile:
    """``models compile``; what it calls has tests of its own."""

    @pytest.fixture
    def made(self, monkeypatch, tmp_path):
        """What is asked of `package_encoder`; batches of 4 have been compiled before."""
        asked = []

        def package(model, batch):
            asked.append((model.spec.dtype, model.spec.input_px, batch))
            seconds = 0.0 if batch == 4 else 12.3
            return Made(batch, tmp_path / f"{batch}.blob", 3_500_000, seconds, 0.0078)

        monkeypatch.setattr("sam2_blocks.executor.sam2.packaging.package_encoder", package)
        return asked

    def test_each_size_is_a_line(self, call, made, tmp_path):
        code, out, _ = call(
            *("models", "compile", "nano", "--device", "cpu", "--dtype", "float16"),
            *("--batches", "4", "--input-px", "128"),
        )
        assert code == 0
        assert made == [("float16", 128, 1), ("float16", 128, 4)]
        first, one, four, last = out.splitlines()
        assert first == "nano: the image encoder in float16 for cpu"
        assert one == (
            "batches of 1: compiled in 12.3 s, 3.5 MB, features within 0.78% of torch: "
            f"{tmp_path / '1.blob'}"
        )
        assert four.startswith("batches of 4: was there, 3.5 MB")
        assert "serve --compile encoder" in last

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["nanoo"], "there is no model 'nanoo'"),
            (["nano", "--batches", "1;4"], "--batches wants numbers of pictures with commas"),
            (["nano", "--batches", "99"], "numbers of pictures from 1 to 16, got 99"),
            (["nano", "--mode", "strict"], "mode 'strict' promises the masks"),
            (["nano", "--mode", "quick"], "there is no mode 'quick'"),
            (["nano", "--dtype", "int8"], "dtype 'int8'"),
            (["nano", "--device", "cuda:9"], "device 'cuda:9' is not available here"),
            (["nano", "--input-px", "100"], "a multiple of 32"),
        ],
    )
    def test_what_cannot_be_is_said(self, call, made, words, said):
        code, _, err = call("models", "compile", "--device", "cpu", *words)
        assert code == options.STOPPED
        assert said in " ".join(err.split())
        assert not made

    def test_an_interrupted_compilation_leaves_nothing(self, call, monkeypatch, tmp_path):
        monkeypatch.setenv("SAM2_BLOCKS_CACHE", str(tmp_path))

        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(
            "sam2_blocks.executor.device.packaging.aoti_compile_and_package", interrupt
        )
        assert call("models", "compile", "nano", "--device", "cpu")[0] == options.INTERRUPTED
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
