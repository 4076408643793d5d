from __future__ import annotations

import sys
import types

import pytest

from sam2_blocks import load_pipeline
from sam2_blocks.errors import ManifestError, PipelineError
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.language.pipeline import check_pipeline
from sam2_blocks.language.selectors import InputRef, StepRef

GOOD = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
  limit: {kind: float, default: 0.5}
steps:
  draw:
    use: draw/masks@v1
    with: {image: $inputs.image, predictions: $steps.segment.predictions}
  segment:
    use: sam2/segment@v1
    with:
      embedding: $steps.embed.embedding
      boxes: $inputs.boxes
      min_confidence: $inputs.limit
  embed:   {use: sam2/embed@v1, with: {image: $inputs.image}}
outputs:
  picture: $steps.draw.image
"""


@pytest.fixture
def check(plugins):
    def run(text):
        return check_pipeline(parse_yaml(text, "p.yaml"), plugins.manifests, plugins.kinds)

    return run


@pytest.fixture
def problems(check):
    def run(text):
        with pytest.raises(PipelineError) as caught:
            check(text)
        return str(caught.value).splitlines()

    return run


def test_steps_are_sorted_whatever_their_order_in_the_file(check):
    assert [step.id for step in check(GOOD).steps] == ["embed", "segment", "draw"]


def test_steps_that_do_not_need_each_other_stay_in_the_order_of_the_file(check):
    names = [f"step{number}" for number in range(40)]
    steps = [f"  {name}: {{use: sam2/embed@v1, with: {{image: $inputs.image}}}}" for name in names]
    head, tail = (
        "pipeline_version: 1\ninputs: {image: {kind: image}}\nsteps:\n",
        "outputs: {e: $steps.step7.embedding}\n",
    )
    pipeline = check(head + "\n".join(steps) + "\n" + tail)
    assert [step.id for step in pipeline.steps] == names


def test_selectors_become_references(check):
    pipeline = check(GOOD)
    assert pipeline.steps[1].values["embedding"] == StepRef("embed", "embedding")
    assert pipeline.steps[1].values["min_confidence"] == InputRef("limit")
    assert pipeline.kinds_of(pipeline.outputs["picture"]) == ("image",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pipeline_version: 1", "pipeline_version: 2", "p.yaml:1:1: pipeline_version: Input"),
        ("sam2/embed@v1", "sam2/embd@v1", "unknown block 'sam2/embd@v1'. Did you mean 'sam2/embed"),
        ("sam2/embed@v1", "sam2/embed@v9", "there is no 'sam2/embed@v9'; use 'sam2/embed@v1'."),
        ("sam2/embed@v1", "sam2/embed", "there is no 'sam2/embed'; use 'sam2/embed@v1'."),
        ("boxes: $inputs.boxes", "boxs: $inputs.boxes", "unknown key 'boxs'. Did you mean 'boxes'"),
        (
            "$inputs.boxes",
            "$inputs.boxs",
            "the pipeline has no input 'boxs'. Did you mean 'boxes'?",
        ),
        ("$steps.embed.", "$steps.embd.", "there is no step 'embd'. Did you mean 'embed'?"),
        (".embedding\n", ".embeding\n", "has no output 'embeding'. Did you mean 'embedding'?"),
        ("$inputs.boxes", "$input.boxes", "'$input.boxes' is no selector; write $inputs.NAME"),
        ("{kind: image}", "{kind: imag}", "unknown kind 'imag'. Did you mean 'image'?"),
        ("default: 0.5", "default: high", "the default is no float"),
        ("$inputs.limit", "2", "less than or equal to 1, got 2."),
        ("picture: $steps.draw.image", "picture: hello", "an output wants a selector, got 'hello'"),
        (
            "boxes: $inputs.boxes",
            "max_hole_area: 0",
            "give at least one of 'boxes', 'prompts'.",
        ),
        ("with: {image: $inputs.image}}", "with: {}}", "'image' is required."),
        (
            "with: {image: $inputs.image}}",
            "with: {image: x.jpg}}",
            "wants a selector to a value of",
        ),
    ],
)
def test_a_mistake_is_named_at_its_place(problems, old, new, message):
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("p.yaml:") for problem in found)


def test_a_wrong_kind_on_a_wire_names_both_ends(problems):
    [problem] = problems(GOOD.replace("image: $inputs.image, pred", "image: $inputs.boxes, pred"))
    assert problem == (
        "p.yaml:9:12: steps.draw.with.image: input 'image' of draw/masks@v1 wants image, "
        "but $inputs.boxes is object_detection_prediction."
    )


def test_two_of_an_exclusive_group_are_refused(problems):
    text = GOOD.replace("embedding: $steps", "image: $inputs.image\n      embedding: $steps")
    [problem] = problems(text)
    assert "give exactly one of 'image', 'embedding'; got 'image' and 'embedding'." in problem


FILTERED = """\
pipeline_version: 1
inputs: {image: {kind: image}, boxes: {kind: object_detection_prediction}}
steps:
  keep: {use: detections/filter@v1, with: {detections: $inputs.boxes}}
  again: {use: detections/filter@v1, with: {detections: $steps.keep.detections}}
  save:
    use: export/coco@v1
    with: {image: $inputs.image, predictions: $steps.again.detections}
outputs: {kept: $steps.again.detections}
"""


def test_a_filter_gives_the_kind_it_gets(check, problems):
    [problem] = problems(FILTERED)
    assert "instance_segmentation_prediction, but $steps.again.detections is object_" in problem
    check(FILTERED.replace("object_detection_prediction", "rle_instance_segmentation_prediction"))


def test_a_chain_of_filters_may_be_long(problems):
    steps = ["  f0: {use: detections/filter@v1, with: {detections: $inputs.boxes}}"]
    steps += [
        f"  f{n + 1}: {{use: detections/filter@v1, with: {{detections: $steps.f{n}.detections}}}}"
        for n in range(1500)
    ]
    steps += ["  trace: {use: masks/polygons@v1, with: {predictions: $steps.f1500.detections}}"]
    head = "pipeline_version: 1\ninputs: {boxes: {kind: keypoint_detection_prediction}}\nsteps:\n"
    [problem] = problems(head + "\n".join(steps) + "\noutputs: {rings: $steps.trace.polygons}\n")
    assert "but $steps.f1500.detections is keypoint_detection_prediction." in problem


def test_filters_in_a_circle_are_a_cycle(problems):
    text = FILTERED.replace("$inputs.boxes", "$steps.again.detections")
    assert any("steps form a cycle" in problem for problem in problems(text))


def test_a_default_that_cannot_be_written_out_says_so(problems):
    [problem] = problems(GOOD.replace("{kind: image}", "{kind: image, default: a.jpg}"))
    assert "a value of kind image cannot be written out; leave the default out." in problem


def test_a_cycle_is_shown(problems):
    text = GOOD.replace("{image: $inputs.image}}", "{image: $steps.draw.image}}")
    [problem] = problems(text)
    assert "steps form a cycle:" in problem
    assert "embed" in problem
    assert "draw" in problem


def test_a_step_named_twice_is_an_error(problems):
    lines = GOOD.splitlines(keepends=True)
    [problem] = problems("".join([*lines[:16], lines[15], *lines[16:]]))
    assert "key 'embed' is given twice; the first is in line 16" in problem


def test_all_mistakes_come_in_one_report_in_the_order_of_the_file(problems):
    text = GOOD.replace("draw/masks@v1", "draw/mask@v1").replace("$inputs.boxes", "$inputs.b0xes")
    found = problems(text.replace("picture: $steps.draw.image", "picture: $steps.nope.image"))
    assert [problem.split(":")[1] for problem in found] == ["8", "14", "18"]


def test_an_unused_step_is_a_warning(check):
    text = GOOD.replace("picture: $steps.draw.image", "picture: $steps.segment.predictions")
    [warning] = check(text).warnings
    assert warning.render("p.yaml").startswith("p.yaml:7:3: steps.draw: nothing uses the outputs")


def test_a_deprecated_block_is_a_warning_that_says_what_to_use(check, plugins):
    old = plugins.manifests["sam2/embed@v1"].model_copy(update={"deprecated": "use my/embed@v2."})
    plugins.manifests["sam2/embed@v1"] = old
    [warning] = check(GOOD).warnings
    assert warning.message == "sam2/embed@v1 is deprecated: use my/embed@v2."
    assert (warning.line, warning.column) == (16, 13)


def test_a_step_that_writes_files_may_stay_unused(check, plugins):
    extra = (
        "  save: {use: export/coco@v1, with: {image: $inputs.image, "
        "predictions: $steps.segment.predictions}}\noutputs:"
    )
    assert not check(GOOD.replace("outputs:", extra)).warnings


def test_a_doubled_dollar_is_a_literal_one(check):
    text = GOOD.replace("image: $inputs.image}}", "image: $inputs.image, model: $$HOME/m.pt}}")
    assert check(text).steps[0].values["model"] == "$HOME/m.pt"


def test_a_literal_dollar_hides_no_use_of_a_step(check):
    text = """\
pipeline_version: 1
inputs: {image: {kind: image}}
steps:
  load: {use: detections/load@v1, with: {image: $inputs.image}}
  keep:
    use: detections/filter@v1
    with: {detections: $steps.load.detections, classes: [$$5]}
outputs: {kept: $steps.keep.detections}
"""
    assert not check(text).warnings


def test_selectors_work_inside_lists(check, problems):
    text = """\
pipeline_version: 1
inputs:
  boxes: {kind: object_detection_prediction}
  name: {kind: string}
steps:
  keep: {use: detections/filter@v1, with: {detections: $inputs.boxes, classes: [cat, $inputs.name]}}
outputs: {kept: $steps.keep.detections}
"""
    assert check(text).steps[0].values["classes"] == ["cat", InputRef("name")]
    [problem] = problems(text.replace("$inputs.name]", "$inputs.nam]"))
    assert "no input 'nam'. Did you mean 'name'?" in problem


def test_literal_prompts_are_checked_when_loading(check, problems):
    text = GOOD.replace("boxes: $inputs.boxes", "prompts: [{point_coords: [[3, 4]]}]")
    [step] = [step for step in check(text).steps if step.id == "segment"]
    assert step.values["prompts"].prompts[0].point_coords.tolist() == [[3, 4]]
    assert step.values["prompts"].prompts[0].point_labels.tolist() == [1]
    [problem] = problems(text.replace("point_coords: [[3, 4]]", "point: [3, 4]"))
    assert "prompt 0: wants box_xyxy, point_coords and point_labels, got ['point']" in problem


def test_plain_data_can_be_checked_too(plugins):
    with pytest.raises(PipelineError, match=r"pipeline: steps\.a\.use: unknown block 'x/y@v1'"):
        load_pipeline(
            {
                "pipeline_version": 1,
                "inputs": {},
                "steps": {"a": {"use": "x/y@v1"}},
                "outputs": {"o": "$steps.a.b"},
            },
            plugins.manifests,
            plugins.kinds,
        )


def test_a_missing_file_is_a_pipeline_error(plugins, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("none.yaml", r"none\.yaml: cannot be read: no such file\. Did you mean '.*mine\.yaml'"),
        ("a/b.yaml", r"b\.yaml: cannot be read: no such file\.$"),
        ("folder", "cannot be read: it is a folder; a pipeline is a file of YAML"),
        ("mine.yaml", "cannot be read: it is no text in UTF-8; a pipeline is a file of YAML"),
    ):
        with pytest.raises(PipelineError, match=message):
            load_pipeline(tmp_path / name, plugins.manifests, plugins.kinds)


LISTS = """
manifest_version: 1
id: mine/{name}@v1
title: t
summary: s
entry: nowhere:Nothing
inputs: {{given: {{kind: "{taken}", required: true}}}}
outputs: {{made: {{kind: "{made}"}}}}
"""


def load_wired(plugins, kind, wanted):
    """Load a pipeline that wires an output of one kind to an input of another."""
    kinds = plugins.kinds
    made = load_manifest(LISTS.format(name="a", taken="image", made=kind), "a.yaml", kinds)
    taken = load_manifest(LISTS.format(name="b", taken=wanted, made="integer"), "b.yaml", kinds)
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {
            "a": {"use": "mine/a@v1", "with": {"given": "$inputs.image"}},
            "b": {"use": "mine/b@v1", "with": {"given": "$steps.a.made"}},
        },
        "outputs": {"made": "$steps.b.made"},
    }
    return load_pipeline(document, {"mine/a@v1": made, "mine/b@v1": taken}, kinds)


@pytest.mark.parametrize("wanted", ["list of image", "list_of_values", "list of *", "*"])
def test_a_list_can_be_wired_to_what_takes_it(plugins, wanted):
    load_wired(plugins, "list of image", wanted)


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        ("list of image", "list of string", r"wants list of string, but \$steps.a.made is list of"),
        ("image", "list of image", r"wants list of image, but \$steps.a.made is image"),
        ("list of imag", "*", "unknown kind 'list of imag'"),
    ],
)
def test_lists_are_checked_on_every_wire(plugins, kind, wanted, message):
    with pytest.raises((ManifestError, PipelineError), match=message):
        load_wired(plugins, kind, wanted)


DETECTS = """\
pipeline_version: 1
inputs:
  image: {kind: image}
steps:
  detect: {use: transformers/detect@v1, with: {image: $inputs.image}}
outputs:
  found: $steps.detect.detections
"""


def hide(monkeypatch, module):
    """Let a package look as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)


def test_a_package_that_a_step_requires_is_missed_before_the_run(plugins, tmp_path, monkeypatch):
    hide(monkeypatch, "transformers")
    file = tmp_path / "detect.yaml"
    file.write_text(DETECTS)
    with pytest.raises(PipelineError) as raised:
        plugins.load_pipeline(file)
    [problem] = raised.value.problems
    assert (problem.line, problem.where) == (5, "steps.detect.use")
    assert problem.message == (
        "transformers/detect@v1 needs the package 'transformers', which is not installed. "
        "Run: pip install 'sam2-blocks[transformers]'"
    )


def test_a_missing_package_of_a_pipeline_in_a_pipeline_is_named_in_its_own_file(
    plugins, tmp_path, monkeypatch
):
    hide(monkeypatch, "transformers")
    (tmp_path / "inner.yaml").write_text(DETECTS)
    outer = DETECTS.replace("use: transformers/detect@v1", "uses: ./inner.yaml")
    outer = outer.replace("steps.detect.detections", "steps.detect.found")
    (tmp_path / "outer.yaml").write_text(outer)
    with pytest.raises(PipelineError, match=r"inner\.yaml:5:.*pip install 'sam2-blocks\[transf"):
        plugins.load_pipeline(tmp_path / "outer.yaml")


def test_who_brings_models_of_their_own_needs_no_package(plugins, monkeypatch):
    """Tests and hosts with other executors; a package that is missing is said when it loads."""
    hide(monkeypatch, "transformers")
    document = parse_yaml(DETECTS, "detect.yaml")
    assert check_pipeline(document, plugins.manifests, plugins.kinds).steps


@pytest.mark.parametrize("module", ["trackers", "transformers"])
def test_what_is_installed_is_not_missed(plugins, module, monkeypatch):
    """Nothing is imported for it; a module that was made in memory has no spec, and counts."""
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    requiring = [one for one in plugins.manifests.values() if module in one.requires]
    assert requiring
    for manifest in requiring:
        assert list(manifest.missing_packages()) == []
