from __future__ import annotations

import pytest
from pydantic import ValidationError

from sam2_blocks.errors import ManifestError
from sam2_blocks.kinds import BUILTIN_KINDS
from sam2_blocks.language.manifest import load_manifest, manifest_dir, sockets_fit
from sam2_blocks.language.schema import step_schema
from sam2_blocks.language.selectors import InputRef

KINDS = {kind.name: kind for kind in BUILTIN_KINDS}
GOOD = """\
manifest_version: 1
id: demo/echo@v1
title: Echo
summary: Returns what it gets.
entry: demo.blocks:Echo
inputs:
  image: {kind: image, required: true}
params:
  level: {type: number, minimum: 0, maximum: 1, default: 0.5, unit: px, description: Level.}
  mode: {type: string, enum: [a, b], default: a, description: Mode.}
  names: {type: array, items: {type: string}, default: null, description: Names.}
  count: {type: integer, description: Count.}
outputs:
  image: {kind: image}
"""


def load(text=GOOD):
    return load_manifest(text, "echo.yaml", KINDS)


def problems(text):
    with pytest.raises(ManifestError) as caught:
        load(text)
    return str(caught.value).splitlines()


def test_a_good_manifest_loads():
    manifest = load()
    assert manifest.names == ("image", "level", "mode", "names", "count")
    assert manifest.params["count"].required
    assert not manifest.params["names"].required


def test_all_problems_are_reported_at_once_with_line_and_closest_name():
    text = GOOD.replace("title:", "titel:").replace("required: true", "requird: true")
    assert problems(text) == [
        "echo.yaml:1:1: title: 'title' is required.",
        "echo.yaml:7:24: inputs.image.requird: unknown key 'requird'. Did you mean 'required'?",
        "echo.yaml:3:1: titel: unknown key 'titel'. Did you mean 'title'?",
    ]


def test_an_unknown_kind_suggests_the_closest():
    [problem] = problems(GOOD.replace("image: {kind: image}", "image: {kind: imge}"))
    assert problem.endswith("unknown kind 'imge'. Did you mean 'image'?")


def test_a_default_outside_its_bounds_is_refused():
    [problem] = problems(GOOD.replace("default: 0.5", "default: 2"))
    assert "echo.yaml:9:" in problem
    assert "the default does not fit" in problem


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("pattern: x", "'pattern' goes with type string, not with number"),
        ("items: {type: string}", "'items' goes with type array, not with number"),
    ],
)
def test_a_bound_that_does_not_fit_the_type_is_refused(bound, message):
    [problem] = problems(GOOD.replace("default: 0.5", f"default: 0.5, {bound}"))
    assert "echo.yaml:9:" in problem
    assert message in problem


def test_a_pattern_must_be_a_regular_expression():
    [problem] = problems(GOOD.replace("enum: [a, b], default: a", "pattern: '('"))
    assert "'pattern' is no regular expression: unclosed group" in problem


def test_a_required_input_cannot_be_null():
    model = load().step_model(KINDS)
    with pytest.raises(ValidationError, match="wants a selector to a value of kind image"):
        model.model_validate({"image": None, "count": 1})


@pytest.mark.parametrize("bad", ["echo@v1", "demo/echo", "demo/echo@1", "Demo/echo@v1"])
def test_an_id_without_namespace_or_version_is_refused(bad):
    [problem] = problems(GOOD.replace("demo/echo@v1", bad))
    assert "echo.yaml:2:1: id:" in problem


def test_a_name_cannot_be_input_and_parameter():
    [problem] = problems(GOOD.replace("  level:", "  image:"))
    assert "'image' is both an input and a parameter" in problem


def test_a_rule_over_an_unknown_input_is_refused():
    [problem] = problems(GOOD + "require: {exactly_one: [[image, imag]]}\n")
    assert "'require' names the unknown input 'imag'. Did you mean 'image'?" in problem


def test_loading_imports_no_block_code():
    assert load().entry == "demo.blocks:Echo"  # there is no module 'demo'


def test_a_missing_entry_says_what_is_missing():
    with pytest.raises(ManifestError, match=r"cannot load 'demo\.blocks:Echo': No module named"):
        load().load_entry()


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"level": 1.5}, "less than or equal to 1"),
        ({"level": True}, "valid number"),
        ({"level": "0.5"}, "valid number"),
        ({"level": float("nan")}, "finite"),
        ({"mode": "c"}, "'a' or 'b'"),
        ({"names": [1]}, "valid string"),
        ({"count": 1.5}, "valid integer"),
    ],
)
def test_step_model_checks_literals(given, wrong):
    values = {"image": InputRef("image"), "count": 1, **given}
    with pytest.raises(ValueError, match=wrong):
        load().step_model(KINDS).model_validate(values)


def test_step_model_leaves_selectors_for_run_time():
    values = {"image": InputRef("x"), "count": InputRef("n"), "names": ["a", InputRef("b")]}
    step = load().step_model(KINDS).model_validate(values)
    assert step.count == InputRef("n")
    assert step.level == 0.5


def test_item_model_checks_what_a_selector_stood_for():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        load().item_model(KINDS).model_validate({"image": None, "count": 1, "level": 7})


def test_item_model_checks_inputs_by_kind():
    with pytest.raises(ValueError, match="image: wants Image, got str"):
        load().item_model(KINDS).model_validate({"image": "x.jpg", "count": 1})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("aliases: {imag: [images]}", "aliases to the unknown 'imag'. Did you mean 'image'?"),
        ("aliases: {image: [mode]}", "the alias 'mode' is taken"),
        ("aliases: {image: [x], mode: [x]}", "the alias 'x' is taken"),
        ("defaults: {levl: 1}", "the unknown parameter 'levl'. Did you mean 'level'?"),
        ("values: {levl: {high: 9}}", "the unknown parameter 'levl'. Did you mean 'level'?"),
    ],
)
def test_what_a_host_overrides_must_exist(overrides, message):
    [problem] = problems(f"{GOOD}hosts: {{demo: {{{overrides}}}}}\n")
    assert "host 'demo'" in problem
    assert message in problem


def test_a_host_without_overrides_changes_nothing():
    assert load().for_host("demo").aliases == {}


def test_unmet_groups_are_named():
    rule = "require: {exactly_one: [[image, mask]], at_least_one: [[mask]]}\n"
    text = GOOD.replace("params:\n", "  mask: {kind: image}\nparams:\n") + rule
    assert list(load(text).unmet_groups({"image": 1, "mask": None})) == [
        "give at least one of 'mask'."
    ]
    assert next(load(text).unmet_groups({})) == "give exactly one of 'image', 'mask'; got none."


def test_kinds_fit_when_they_share_one():
    assert sockets_fit(("image",), ("prompts", "image"))
    assert sockets_fit(("*",), ("image",))
    assert not sockets_fit(("image",), ("prompts",))


def test_every_built_in_manifest_loads(plugins):
    assert len(plugins.manifests) == len(list(manifest_dir().glob("*.yaml")))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("type: number, format: model", "'format' goes with type string, not with number"),
        ("type: string, format: class", "'format' goes with type array, not with string"),
        ("type: string, family: mine", "'family' goes with format: model"),
        ("type: string, enum: [a], suggestions: [b]", "'suggestions' goes with type string, with"),
    ],
)
def test_a_format_goes_with_its_type(written, message):
    [problem] = problems(GOOD.replace("type: integer", written))
    assert message in problem


def test_suggestions_are_offered_and_bind_nobody():
    written = "type: string, format: model, family: mine, suggestions: [a, b]"
    manifest = load(GOOD.replace("type: integer", written))
    assert manifest.params["count"].model_family == "mine"
    schema = step_schema(manifest)["properties"]["with"]["properties"]["count"]
    assert schema["anyOf"][:2] == [{"enum": ["a", "b"]}, {"type": "string", "format": "model"}]
    step = manifest.step_model(KINDS)
    assert step.model_validate({"image": InputRef("image"), "count": "c"}).count == "c"
