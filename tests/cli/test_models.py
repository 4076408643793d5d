from __future__ import annotations

import json

import pytest

from sam2_blocks.cli import options
from tests.cli.conftest import QUICKSTART


def test_models_of_every_family_are_listed(call):
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json")[1])}
    assert rows["sam2.1/hiera_tiny"]["nbytes"] == 156008466
    assert rows["nano"]["family"] == "sam2"
    assert "sam2.1/hiera_tiny" in call("models", "list")[1]


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
