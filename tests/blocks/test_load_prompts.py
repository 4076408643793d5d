from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_blocks.values import Image


@pytest.fixture
def load(run_one_step, tmp_path):
    image = Image(np.zeros((40, 60, 3), np.uint8), "deep/a.png", tmp_path / "a.png")

    def run(**params):
        return run_one_step("prompts/load@v1", {"image": image}, params)

    return run


def test_prompts_are_beside_the_picture_or_elsewhere(load, tmp_path):
    rows = json.dumps([{"box_xyxy": [1, 2, 30, 20]}])
    (tmp_path / "a.prompts.json").write_text(rows)
    assert len(load().outputs["prompts"]) == 1
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(rows)
    assert len(load(path=f"{tmp_path}/{{folder}}/{{stem}}.json").outputs["prompts"]) == 1


def test_a_missing_file_is_an_error_or_no_prompt(load):
    [error] = load().errors
    assert "a.prompts.json: no such file beside the picture" in error.message
    assert len(load(missing="empty").outputs["prompts"]) == 0


def test_a_wrong_file_fails_its_picture(load, tmp_path):
    (tmp_path / "a.prompts.json").write_text("[1]")
    [error] = load().errors
    assert "a.prompts.json: " in error.message
