from __future__ import annotations

import json

import pytest

from sam2_blocks.clock import Clock, stage
from sam2_blocks.engine.trace import TraceRecorder


def test_a_trace_holds_a_span_for_each_step_and_batch(doubling, tmp_path):
    recorder = TraceRecorder()
    doubling.plugins.manager.register(recorder)
    doubling.run([1, 2, 7], batch_size=2)
    recorder.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert [(span["name"], span["args"]["items"]) for span in spans[:2]] == [
        ("once", ["0", "1"]),
        ("twice", ["0", "1"]),
    ]
    assert all(span["dur"] >= 0 and span["ts"] >= 0 for span in spans)
    assert [event["args"]["item"] for event in events if event["ph"] == "i"] == ["2"]


def test_stages_are_in_it_with_their_shares(tmp_path):
    recorder, clock = TraceRecorder(), Clock()
    clock.listener = recorder.add_stage
    with clock.running(), stage("decode"), stage("read"):
        pass
    recorder.write(tmp_path / "trace.json", clock.seconds)
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [(event["name"], event["cat"]) for event in trace["traceEvents"]] == [
        ("read", "stage"),
        ("decode", "stage"),
    ]
    assert sum(trace["otherData"]["shares"].values()) == pytest.approx(1)
