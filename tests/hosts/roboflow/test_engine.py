from __future__ import annotations

import sys

import pytest

from tests.hosts.roboflow.conftest import IGNORED

pytestmark = pytest.mark.filterwarnings(IGNORED)


def test_an_older_engine_inside_inference_is_found(engine_class, monkeypatch):
    import roboflow_workflows

    from sam2_blocks.hosts.roboflow import engine

    monkeypatch.setattr(engine, "ENGINES", ("no_such_engine", "in_tree.workflows"))
    alias = "in_tree.workflows"
    names = [name for name in sys.modules if name.startswith("roboflow_workflows")]
    for name in names:
        monkeypatch.setitem(
            sys.modules, name.replace("roboflow_workflows", alias, 1), sys.modules[name]
        )
    monkeypatch.setitem(sys.modules, "in_tree", roboflow_workflows)
    engine.load_engine.cache_clear()
    assert "image_embedding" in engine.load_engine().kinds
    engine.load_engine.cache_clear()
