from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from sam2_blocks import Kind, hookimpl, load_plugins
from sam2_blocks.errors import PluginError
from tests.language.test_manifest import GOOD


@pytest.fixture
def entry_point(monkeypatch):
    """Make an entry point to a module with the given hooks: ``entry_point(name, **functions)``."""

    def make(name, **functions):
        module = ModuleType(f"plugin_{name}")
        for function_name, function in functions.items():
            setattr(module, function_name, hookimpl(function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, "sam2_blocks")

    return make


def never(value):
    return None


def test_built_in_blocks_come_through_the_hooks():
    plugins = load_plugins(points=[])
    [record] = plugins.records
    assert record.name == "builtin"
    assert "sam2/segment@v1" in record.blocks
    assert "image" in plugins.kinds
    assert "image" in plugins.exporters
    assert "sam2" in plugins.executors


def test_a_plugin_brings_kinds_and_blocks(entry_point, tmp_path):
    (tmp_path / "echo.yaml").write_text(GOOD.replace("{kind: image}", "{kind: depth_map}"))
    point = entry_point(
        "good",
        register_kinds=lambda: [Kind("depth_map", "float (H, W)", never)],
        register_manifests=lambda: [tmp_path],
    )
    plugins = load_plugins(points=[point])
    assert plugins.manifests["demo/echo@v1"].outputs["image"].kind == "depth_map"
    assert plugins.records[-1].blocks == ("demo/echo@v1",)


def _bring_nothing():
    return []


def _fail():
    raise RuntimeError("no luck")


BROKEN = {
    "raises": ({"register_kinds": _fail}, "RuntimeError: no luck|no luck"),
    "misspelt": ({"register_kindz": _bring_nothing}, "register_kindz"),
    "takes_a_kind": (
        {"register_kinds": lambda: [Kind("image", "mine", never)]},
        "kind 'image' is registered already",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_recorded_and_the_others_load(entry_point, name):
    functions, message = BROKEN[name]
    points = [
        entry_point(name, **functions),
        entry_point("good", register_kinds=lambda: [Kind("depth_map", "", never)]),
    ]
    plugins = load_plugins(points=points)
    broken = next(record for record in plugins.records if record.name == name)
    assert any(part in broken.error for part in message.split("|"))
    assert "Traceback" in broken.traceback
    assert "depth_map" in plugins.kinds


def test_a_module_that_cannot_be_imported_is_recorded():
    plugins = load_plugins(points=[EntryPoint("gone", "no_such_module_xyz", "sam2_blocks")])
    assert "ModuleNotFoundError" in plugins.records[-1].error


def test_a_plugin_that_exits_on_import_is_recorded(tmp_path, monkeypatch):
    (tmp_path / "exits_plugin.py").write_text("import sys; sys.exit('I need X')")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins(points=[EntryPoint("exits", "exits_plugin", "sam2_blocks")])
    assert "SystemExit: I need X" in plugins.records[-1].error


def test_a_switch_to_a_plugin_that_is_not_there_is_recorded(entry_point, monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "opencw")
    record = load_plugins(points=[entry_point("opencv")]).records[-1]
    assert "is not installed. Did you mean 'opencv'?" in record.error


def test_a_half_registered_plugin_is_rolled_back(entry_point, tmp_path):
    (tmp_path / "broken.yaml").write_text("manifest_version: 1\n")
    point = entry_point(
        "half",
        register_kinds=lambda: [Kind("depth_map", "", never)],
        register_manifests=lambda: [tmp_path],
    )
    plugins = load_plugins(points=[point])
    assert "depth_map" not in plugins.kinds
    assert not plugins.manager.has_plugin("half")
    assert "'entry' is required" in plugins.records[-1].error


def test_strict_makes_a_broken_plugin_fatal(entry_point):
    with pytest.raises(PluginError, match=r"plugin 'bad' \(plugin_bad\).*no luck"):
        load_plugins(strict=True, points=[entry_point("bad", register_kinds=_fail)])


def test_the_switch_chooses_plugins(entry_point, monkeypatch):
    points = [entry_point("a"), entry_point("b")]
    names = {}
    for value in ("", "b", "a, b"):
        monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", value)
        names[value] = [record.name for record in load_plugins(points=points).records[1:]]
    assert names == {"": [], "b": ["b"], "a, b": ["a", "b"]}
