"""From a manifest to the two classes the engine wants: one that checks a step, one that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import AliasChoices, ConfigDict, Field, create_model, model_validator

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts.bridge import BlockBridge
from sam2_blocks.hosts.roboflow.clicks import (
    find_clickable,
    join_clicks,
    points_to_prompts,
    split_clicks,
)
from sam2_blocks.hosts.roboflow.engine import TENSOR_SWITCH, Engine
from sam2_blocks.hosts.roboflow.values import FORM_FIELDS, Form, row_to_ours, value_to_theirs
from sam2_blocks.kinds import element_kind
from sam2_blocks.language.manifest import Input, Manifest, Output, Param
from sam2_blocks.prompts import NO_PROMPT, parse_prompts
from sam2_blocks.values import PromptSet

HOST = "roboflow"
COMPATIBLE = ">=1.3.0,<2.0.0"
"""Engine versions with selectors of any data and parameters that take batches and scalars."""

RESERVED = ("name", "type", *FORM_FIELDS)
"""Names that inputs and parameters cannot have here."""

NO_TENSORS = (
    "sam2_blocks takes and gives supervision.Detections, which the engine's tensor mode has not; "
    f"set {TENSOR_SWITCH}=False."
)
UNPROMPTED_CLASS = "foreground"
"""What the engine's own block calls the mask that no prompt asked for."""


def workflow_type(block_id: str) -> str:
    """Return the name of a block in a workflow: ``sam2_blocks/segment@v1``."""
    namespace, _, name = block_id.partition("/")
    return f"sam2_blocks/{name if namespace == 'sam2' else f'{namespace}_{name}'}"


def workflow_manifest(manifest: Manifest, plugins: Plugins, engine: Engine) -> Any:
    """Make the class that the engine checks a step with.

    Args:
        manifest: the block.
        plugins: where it comes from.
        engine: the engine that is installed.

    Returns:
        A pydantic model, a ``WorkflowBlockManifest`` of the engine.
    """
    names = list(manifest.names)
    models = [name for name, param in manifest.params.items() if param.format == "model"]
    outputs = [
        engine.base.OutputDefinition(name=name, kind=engine.find_kinds(socket))
        for name, socket in manifest.outputs.items()
    ]
    shown = _shown(manifest)

    class Described(engine.block.WorkflowBlockManifest):  # type: ignore[name-defined, misc]
        model_config = ConfigDict(json_schema_extra=shown)

        @model_validator(mode="after")
        def _check(self) -> Any:
            problems = _problems(vars(self), manifest, plugins, engine)
            if problems:
                raise ValueError(" ".join(problems))
            return self

        @classmethod
        def describe_outputs(cls) -> list[Any]:
            return outputs

        @classmethod
        def get_parameters_accepting_batches_and_scalars(cls) -> list[str]:
            return names

        @classmethod
        def get_execution_engine_compatibility(cls) -> str:
            return COMPATIBLE

        @classmethod
        def get_supported_model_variants(cls) -> list[str] | None:
            return _variants(manifest)

        def discover_dependent_resources(self) -> list[Any]:
            third_party = engine.block.third_party_model  # theirs are loaded by the engine
            named = {name: _ours(manifest, name, getattr(self, name)) for name in models}
            return [third_party("sam2_blocks", model) for model in named.values()]

    fields = _fields(manifest, engine)
    return create_model(_class_name(manifest, "Manifest"), __base__=Described, **fields)


def _fields(manifest: Manifest, engine: Engine) -> dict[str, Any]:
    """The fields of a step: its type, inputs and parameters, and how predictions are handed on."""
    type_names = (workflow_type(manifest.id), manifest.id)
    fields: dict[str, Any] = {"type": (Literal[type_names], ...)}
    fields |= {name: _field(manifest, name, engine) for name in manifest.names}
    if _predicts(manifest.outputs.values()):
        fields |= {
            name: (bool, Field(Form._field_defaults[name], description=text))
            for name, text in FORM_FIELDS.items()
        }
    return fields


def _problems(
    step: Mapping[str, Any], manifest: Manifest, plugins: Plugins, engine: Engine
) -> list[str]:
    """What is wrong with a step, beside its single fields."""
    problems = list(manifest.missing_packages())
    problems += manifest.unmet_groups({**step, **_unprompted(manifest, step)})
    if engine.hands_over_tensors and _has_predictions(manifest):
        problems.append(NO_TENSORS)
    for name, param in manifest.params.items():
        if param.format == "model":
            problems.append(_wrong_model(plugins, param, _ours(manifest, name, step[name])))
    for name, socket in manifest.inputs.items():
        if "prompts" in socket.kinds:
            problems.append(_wrong_prompts(name, step[name]))
    return [problem for problem in problems if problem]


def _field(manifest: Manifest, name: str, engine: Engine) -> tuple[Any, Any]:
    overrides = manifest.for_host(HOST)
    socket: Input | Param = manifest.inputs.get(name) or manifest.params[name]
    selector = engine.types.Selector(kind=engine.find_kinds(socket))
    if isinstance(socket, Param):
        known_as = tuple(overrides.values.get(name, ()))
        annotation, text = _literal(socket, known_as) | selector, socket.json_schema["description"]
        default = overrides.defaults.get(name, socket.default)
    else:
        literal = list[Any] if "prompts" in socket.kinds else None
        annotation, text = selector | literal | None, socket.description
        default = ... if socket.required else None
    examples = [example.with_[name] for example in manifest.examples if name in example.with_]
    aliases = AliasChoices(name, *overrides.aliases.get(name, ()))
    info = Field(default, description=text, examples=examples, validation_alias=aliases)
    return annotation, info


def _literal(param: Param, known_as: tuple[str, ...]) -> Any:
    """What may be written for a parameter: of suggestions one, which editors list, or free text.

    Args:
        param: the parameter.
        known_as: what some of its values are called here.
    """
    written = param.python_type
    if param.suggestions:
        written = Literal[tuple(param.suggestions)] | written
    return written | Literal[known_as] if known_as else written


def _ours(manifest: Manifest, name: str, written: Any) -> Any:
    """The value of a parameter that is called so here."""
    values = manifest.for_host(HOST).values.get(name, {})
    return values.get(written, written) if isinstance(written, str) else written


def _shown(manifest: Manifest) -> dict[str, Any]:
    """What the engine's editor shows."""
    return {
        "name": manifest.title,
        "version": manifest.id.rpartition("@")[2],
        "short_description": manifest.summary,
        "long_description": manifest.summary,
        "block_type": "transformation",
        **manifest.for_host(HOST).extra,
    }


def _predicts(sockets: Iterable[Input | Output]) -> bool:
    """Whether predictions go through one of these sockets."""
    kinds = (element_kind(kind) for socket in sockets for kind in socket.kinds)
    return any(kind.endswith("_prediction") for kind in kinds)


def _has_predictions(manifest: Manifest) -> bool:
    return _predicts((*manifest.inputs.values(), *manifest.outputs.values()))


def _variants(manifest: Manifest) -> list[str] | None:
    """Every model that a step may name; of a block without a model none is asked for."""
    named = [p.suggestions for p in manifest.params.values() if p.format == "model"]
    return sorted({name for names in named for name in names}) if named else None


def _wrong_model(plugins: Plugins, param: Param, name: object) -> str:
    """What is wrong with a model that a step names; empty for what only a run can know.

    Families that are not registered may come with the resources that a workflow starts with.
    """
    if not isinstance(name, str) or name.startswith("$"):
        return ""
    families = plugins.model_names.families
    prefix = name.partition(":")[0] if ":" in name else param.model_family
    return plugins.model_names.check_model(param, name) if prefix in families else ""


def _wrong_prompts(name: str, written: object) -> str:
    """What is wrong with prompts that are written out in a step."""
    made = points_to_prompts(written)
    if not isinstance(made, list):
        return ""
    try:
        parse_prompts(made)
    except (TypeError, ValueError) as error:
        return f"{name}: {error}"
    return ""


def _unprompted(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, PromptSet]:
    """What stands for prompts where none are connected: the engine's own block takes that, too."""
    for group in manifest.require.at_least_one:
        prompts = [name for name in group if "prompts" in manifest.inputs[name].kinds]
        if prompts and all(given.get(name) is None for name in group):
            return {prompts[0]: PromptSet((NO_PROMPT,))}
    return {}


def workflow_block(manifest: Manifest, plugins: Plugins, engine: Engine) -> type[Any]:
    """Make the class that the engine runs a step with.

    Args:
        manifest: the block.
        plugins: where it comes from.
        engine: the engine that is installed.

    Returns:
        A ``WorkflowBlock`` of the engine; its instances want ``resources``.
    """
    described = workflow_manifest(manifest, plugins, engine)
    prompts = [name for name, socket in manifest.inputs.items() if "prompts" in socket.kinds]
    clickable = find_clickable(manifest)

    class Bridged(engine.block.WorkflowBlock):  # type: ignore[name-defined, misc]
        def __init__(self, resources: Resources) -> None:
            self._bridge = BlockBridge(manifest, plugins, resources)

        @classmethod
        def get_init_parameters(cls) -> list[str]:
            return ["resources"]

        @classmethod
        def get_manifest(cls) -> Any:
            return described

        def run(self, **given: Any) -> Any:
            given = {name: _ours(manifest, name, value) for name, value in given.items()}
            form = Form(**{name: given.pop(name) for name in FORM_FIELDS if name in given})
            nothing = _unprompted(manifest, given)
            rows = [{**row, **nothing} for row in _rows(given, engine.base.Batch)]
            made = self._make(rows)
            if nothing:
                made = [_named(outputs, UNPROMPTED_CLASS) for outputs in made]
            results = [
                {name: value_to_theirs(value, row, engine, form) for name, value in outputs.items()}
                for row, outputs in zip(rows, made, strict=True)
            ]
            batched = any(isinstance(value, engine.base.Batch) for value in given.values())
            return results if batched else results[0]

        def _make(self, rows: list[dict[str, Any]]) -> list[Any]:
            """Call the block; clicks beside boxes are a row of their own to it."""
            parts = [split_clicks(row, clickable) for row in rows]
            ready = [_prompted(row_to_ours(part, engine), prompts) for p in parts for part in p]
            step = getattr(self, "_workflow_step_name", "step")
            made = self._bridge.run(ready, step=step)
            return join_clicks(rows, parts, made, clickable) if clickable else made

        def close(self) -> None:
            self._bridge.finish()

    Bridged.__name__ = Bridged.__qualname__ = _class_name(manifest, "Block")
    return Bridged


def _prompted(row: dict[str, Any], prompts: Iterable[str]) -> dict[str, Any]:
    """A row whose labeled points are prompts."""
    return row | {name: points_to_prompts(row[name]) for name in prompts if name in row}


def _named(outputs: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """Name the class of predictions that nobody named."""
    for value in outputs.values():
        if "class_name" in getattr(value, "data", ()):
            value.data["class_name"] = np.array([class_name] * len(value), np.str_)
    return dict(outputs)


def _class_name(manifest: Manifest, suffix: str) -> str:
    return workflow_type(manifest.id).replace("/", "_").replace("@", "_").title() + suffix


def _rows(given: Mapping[str, Any], batch: type[Any]) -> Iterator[dict[str, Any]]:
    """Turn the engine's arguments into one mapping for each item; scalars go to all of them."""
    batches = {name: value for name, value in given.items() if isinstance(value, batch)}
    for index in range(max(map(len, batches.values()), default=1)):
        yield {**given, **{name: values[index] for name, values in batches.items()}}
