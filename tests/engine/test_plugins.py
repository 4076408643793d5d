from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace

import pytest

from sam2_blocks import Kind, hookimpl, load_plugins
from sam2_blocks.errors import ModelError, PipelineError, PluginError
from sam2_blocks.executors import KnownModel
from sam2_blocks.testing import FakeExecutor
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


def _bringing(tmp_path, name, kind):
    """A plugin with a kind of its own, and a block that uses another's."""
    folder = tmp_path / name
    folder.mkdir()
    text = GOOD.replace("demo/echo", f"{name}/echo").replace("{kind: image}", f"{{kind: {kind}}}")
    (folder / "echo.yaml").write_text(text)
    return {
        "register_manifests": lambda: [folder],
        "register_kinds": lambda: [Kind(f"kind_of_{name}", "", never)],
    }


def test_plugins_use_kinds_of_each_other_in_any_order(entry_point, tmp_path):
    points = [
        entry_point("a", **_bringing(tmp_path, "a", "kind_of_b")),
        entry_point("b", **_bringing(tmp_path, "b", "kind_of_a")),
    ]
    plugins = load_plugins(strict=True, points=points)
    assert {"a/echo@v1", "b/echo@v1"} <= set(plugins.manifests)
    assert [record.blocks for record in plugins.records[1:]] == [("a/echo@v1",), ("b/echo@v1",)]


def test_a_broken_plugin_takes_along_who_uses_its_kinds_and_no_other(entry_point, tmp_path):
    broken = _bringing(tmp_path, "b", "no_such_kind")
    points = [
        entry_point("a", **_bringing(tmp_path, "a", "kind_of_b")),
        entry_point("b", **broken),
        entry_point("c", **_bringing(tmp_path, "c", "kind_of_c")),
    ]
    plugins = load_plugins(points=points)
    errors = {record.name: record.error for record in plugins.records}
    assert "unknown kind 'kind_of_b'" in errors["a"]
    assert "unknown kind 'no_such_kind'" in errors["b"]
    assert errors["c"] == ""
    assert "kind_of_a" not in plugins.kinds
    assert [name for name in plugins.manifests if name.endswith("echo@v1")] == ["c/echo@v1"]


def test_a_hook_that_exits_is_recorded(entry_point):
    def leave():
        raise SystemExit("bye")

    record = load_plugins(points=[entry_point("leaves", register_hosts=leave)]).records[-1]
    assert record.error == "SystemExit: bye"


def test_models_and_hosts_come_through_the_hooks(entry_point):
    point = entry_point(
        "mine",
        register_executors=lambda: {"mine": FakeExecutor},
        register_models=lambda: [KnownModel(name="large", family="mine", aliases=("l",))],
        register_hosts=lambda: {"elsewhere": "a host"},
    )
    plugins = load_plugins(points=[point])
    assert plugins.model_names.get("mine:l").full_name == "mine:large"
    assert plugins.hosts["elsewhere"] == "a host"
    assert {"comfyui", "roboflow"} < set(plugins.hosts)
    with pytest.raises(ModelError, match=r"there is no model 'mine:x'.* Did you mean 'mine:l"):
        plugins.model_names.get("mine:x")


def test_one_name_is_brought_once(entry_point):
    twice = [KnownModel(name="a", family="mine"), KnownModel(name="a", family="mine")]
    records = load_plugins(
        points=[
            entry_point("host", register_hosts=lambda: {"comfyui": "mine"}),
            entry_point("models", register_models=lambda: twice),
        ]
    ).records
    assert "host 'comfyui' is registered already" in records[1].error
    assert "model 'mine:a' is registered already" in records[2].error


def test_a_host_that_cannot_describe_itself_is_named(entry_point):
    class Host:
        def report(self, plugins):
            raise SystemExit(1)

    point = entry_point("mine", register_hosts=lambda: {"elsewhere": Host()})
    with pytest.raises(PluginError, match="host 'elsewhere': SystemExit: 1"):
        load_plugins(points=[point]).host_reports()


@pytest.mark.parametrize(
    ("hook", "brought", "message"),
    [
        ("register_kinds", [SimpleNamespace(name="depth")], "kind 'depth': wants a Kind, got Simp"),
        ("register_kinds", [Kind(5, "", never)], "kind 5: a name wants to be a text, got int"),
        ("register_executors", {"mine": 5}, "executor 'mine': wants a Family, or a factory"),
        ("register_executors", {7: FakeExecutor}, "executor 7: a name wants to be a text"),
        (
            "register_models",
            [SimpleNamespace(full_name="mine:x", family="mine")],
            "model 'mine:x': wants a KnownModel",
        ),
        ("register_models", [KnownModel(name="x", family="y", aliases=(1,))], "names are texts"),
        ("register_sources", {"mine": "mine:"}, "source 'mine': wants a function"),
        ("register_sinks", {"mine": None}, "sink 'mine': wants a function"),
        ("register_manifests", [None], "a folder of manifests or pipelines is a path, got None"),
        ("register_pipelines", [b"x"], "a folder of manifests or pipelines is a path"),
    ],
)
def test_what_is_nothing_of_its_kind_breaks_its_plugin_alone(entry_point, hook, brought, message):
    points = [entry_point("odd", **{hook: lambda: brought}), entry_point("good")]
    plugins = load_plugins(points=points)
    odd, good = sorted(plugins.records[1:], key=lambda record: record.name != "odd")
    assert message in odd.error
    assert not good.error
    steps = {"a": {"use": "no/block@v1", "with": {"x": "$inputs.x"}}}
    document = {"inputs": {"x": {"kind": "depht"}}, "steps": steps, "outputs": {"y": "$steps.a.y"}}
    with pytest.raises(PipelineError, match="unknown kind 'depht'"):  # all names are looked at
        plugins.load_pipeline({"pipeline_version": 1, **document})


def test_a_folder_may_be_a_text(entry_point, tmp_path):
    (tmp_path / "echo.yaml").write_text(GOOD)
    point = entry_point("mine", register_manifests=lambda: [str(tmp_path)])
    assert "demo/echo@v1" in load_plugins(points=[point], strict=True).manifests
