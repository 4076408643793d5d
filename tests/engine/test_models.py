from __future__ import annotations

import pytest

from sam2_blocks.errors import PipelineError


def document(values, inputs=None):
    return {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, **(inputs or {})},
        "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image", **values}}},
        "outputs": {"embedding": "$steps.embed.embedding"},
    }


def needed(plugins, *arguments):
    pipeline = plugins.load_pipeline(document(*arguments))
    return [
        model if isinstance(model, str) else model.full_name
        for model in plugins.model_names.needed_by(pipeline)
    ]


@pytest.mark.parametrize("name", ["nano", "hiera_tiny", "sam2/hiera_large", "sam2:nano", "my.pt"])
def test_names_that_load(plugins, name):
    assert plugins.load_pipeline(document({"model": name})).steps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "hiera_lage"}, "there is no model 'hiera_lage'. Did you mean 'hiera_large'?"),
        ({"model": "sam2:nanno"}, "there is no model 'sam2:nanno'. Did you mean 'nano'?"),
        ({"model": "min:nano"}, "there is no model 'min:nano'. Did you mean 'nano'?"),
        ({"backend": "openvin"}, "'torch' or 'openvino', got 'openvin'"),
        ({"input_px": -32}, "greater than or equal to 0"),
        ({"device": "cudda"}, "there is no device 'cudda'. Did you mean 'cuda'?"),
    ],
)
def test_a_misspelt_name_is_a_problem_of_the_pipeline(plugins, values, message):
    [where] = values
    with pytest.raises(PipelineError) as caught:
        plugins.load_pipeline(document(values))
    assert f"steps.embed.with.{where}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """A detector as far as its classes are known."""
    (tmp_path / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    return str(tmp_path)


def detecting(**values):
    step = {"use": "transformers/detect@v1", "with": {"image": "$inputs.image", **values}}
    return {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "name": {"kind": "string"}},
        "steps": {"detect": step},
        "outputs": {"found": "$steps.detect.detections"},
    }


def test_a_class_that_the_model_does_not_know_is_a_problem_of_the_pipeline(plugins, folder):
    with pytest.raises(PipelineError) as caught:
        plugins.load_pipeline(detecting(model=folder, classes=["cat", "dgo"]))
    [problem] = caught.value.problems
    assert "steps.detect.with.classes" in str(caught.value)
    assert problem.message == (f"the model {folder!r} knows no class 'dgo'. Did you mean 'dog'?")


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ["dog", "cat"]},
        {"classes": ["dgo"], "model": "$inputs.name"},
        {"classes": ["dgo"], "revision": "$inputs.name"},
        {"classes": ["dgo"], "model": "owner/not_here"},
        {"classes": "$inputs.name"},
    ],
)
def test_classes_that_nobody_can_check_yet_are_let_through(plugins, folder, values):
    if values["classes"] == "$inputs.name":
        values = {"classes": ["$inputs.name"]}
    assert plugins.load_pipeline(detecting(**{"model": folder, **values})).steps


def test_a_device_from_a_selector_is_checked_when_it_is_there(plugins, run_one_step):
    from sam2_blocks.testing import sample_image

    with pytest.raises(PipelineError, match="there is no device 'gpu'"):
        run_one_step("sam2/embed@v1", {"image": sample_image()}, {"device": "gpu"})


def test_which_models_a_pipeline_needs(plugins):
    assert needed(plugins, {}) == ["nano"]
    assert needed(plugins, {"model": "hiera_tiny"}) == ["sam2.1/hiera_tiny"]
    assert needed(plugins, {"model": "mine/large.pt"}) == ["mine/large.pt"]
    said = {"model": {"kind": "string", "default": "sam2/hiera_tiny"}}
    assert needed(plugins, {"model": "$inputs.model"}, said) == ["sam2/hiera_tiny"]
    assert needed(plugins, {"model": "$inputs.model"}, {"model": {"kind": "string"}}) == []


def test_known_names_are_suggested(plugins):
    param = plugins.manifests["sam2/embed@v1"].params["model"]
    assert param.suggestions[:2] == ["nano", "hiera_tiny"]


@pytest.mark.parametrize("block", ["embed", "segment", "automatic", "track", "propagate"])
def test_a_backend_that_is_not_installed_is_a_problem_of_the_pipeline(plugins, block, monkeypatch):
    wired = {"image": "$inputs.image", "backend": "openvino"}
    inputs = {"image": {"kind": "image"}}
    if block == "segment":
        wired["prompts"] = [{"box_xyxy": [0, 0, 9, 9]}]
    if block == "propagate":
        inputs["clip"] = {"kind": "clip"}
        wired["clip"] = "$inputs.clip"
    output = "embedding" if block == "embed" else "predictions"
    asked = {
        "pipeline_version": 1,
        "inputs": inputs,
        "steps": {"it": {"use": f"sam2/{block}@v1", "with": wired}},
        "outputs": {"found": f"$steps.it.{output}"},
    }
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: True)
    assert plugins.load_pipeline(asked).steps
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    with pytest.raises(PipelineError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        plugins.load_pipeline(asked)
