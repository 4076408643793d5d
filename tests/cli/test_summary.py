from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import typer

from sam2_blocks import ErrorRecord
from sam2_blocks.cli import options, summary
from sam2_blocks.cli.summary import sum_up
from tests.cli.conftest import QUICKSTART


def run_of(*errors, **seconds):
    return SimpleNamespace(errors=list(errors), seconds=seconds)


def test_speed_and_shares_are_said(capsys):
    sum_up(run_of(embed=6.0, decode=3.0, write=1.0, list=0.001, wait=90), 20, "out", seconds=8.0)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "20 of 20 done, in out",
        "2.5 items/s; the work was embed 60%, decode 30%, write 10%",
    ]


def test_failures_are_counted_by_kind_and_the_code_says_so(capsys):
    wrong = [ErrorRecord(name, "inputs", "", "no", "ImageError") for name in "ab"]
    with pytest.raises(typer.Exit) as stop:
        sum_up(run_of(*wrong), 5, "out", seconds=1.0)
    assert stop.value.exit_code == options.ITEMS_FAILED
    assert capsys.readouterr().out.startswith("3 of 5 done, in out\nfailures: 2 ImageError in inpu")


def test_nothing_and_one_have_no_speed(capsys):
    sum_up(run_of(), 0, "out", seconds=1.0)
    sum_up(run_of(), 1, "out", seconds=1.0)
    assert capsys.readouterr().out == "nothing is left to do, in out\n1 of 1 done, in out\n"


def test_a_run_says_where_its_time_went(call, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "LEAST_SHOWN", 0.0)  # a busy disk may take nearly all
    (folder / "broken.jpg").unlink()
    code, out, err = call("run", QUICKSTART, "-i", folder, "-o", tmp_path / "out")
    assert code == 0, err
    assert re.search(r"[\d.]+ items/s; the work was .*\bdecode \d+%", out)
