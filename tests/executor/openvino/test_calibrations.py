from __future__ import annotations

import logging

import pytest

from sam2_blocks.executor.openvino.calibrations import (
    Calibration,
    calibration_path,
    find_calibration,
    keep_calibration,
)
from sam2_blocks.executor.weights.download import CACHE_VARIABLE

KEPT = Calibration("net@1", {"a": (-1.5, 2.0), "b": (0.0, 0.1)}, 3, {"mean_iou": 0.97}, True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "calibrated"


def test_what_is_kept_is_found_by_its_weights_alone(folder):
    assert find_calibration("net@1") is None
    assert keep_calibration(KEPT).parent == folder
    assert find_calibration("net@1") == KEPT
    assert find_calibration("net@1-128px") is None


def test_a_newer_one_takes_the_place_of_an_older_one(folder):
    keep_calibration(KEPT)
    newer = Calibration("net@1", {"a": (-2.0, 2.0)}, 5, {})
    keep_calibration(newer)
    assert find_calibration("net@1") == newer
    assert len(list(folder.iterdir())) == 1


def test_the_key_says_which_ranges_and_weights_and_nothing_else():
    same = Calibration("net@1", {"b": (0.0, 0.1), "a": (-1.5, 2.0)}, 9, {})
    assert same.key == KEPT.key
    assert Calibration("net@2", KEPT.ranges, 3, {}).key != KEPT.key
    assert Calibration("net@1", {**KEPT.ranges, "a": (-1.5, 2.1)}, 3, {}).key != KEPT.key


@pytest.mark.parametrize("content", [b"", b"{}", b'{"weights": "net@1", "ranges": {"a": [1]}}'])
def test_a_damaged_file_is_said_and_not_used(caplog, content):
    keep_calibration(KEPT).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find_calibration("net@1") is None
    assert "cannot be read: its content is not what was written. " in caplog.text
    assert "Calibrate anew" in caplog.text


def test_one_that_cannot_be_opened_is_said_and_not_used(caplog, folder):
    calibration_path("net@1").mkdir(parents=True)
    assert find_calibration("net@1") is None
    assert "Is a directory" in caplog.text


def test_one_under_the_name_of_another_is_not_used():
    keep_calibration(KEPT).rename(calibration_path("net@2"))
    assert find_calibration("net@2") is None
