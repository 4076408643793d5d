"""From a manifest to the two classes the engine wants: one that checks a step, one that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, create_model, model_validator

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts.bridge import BlockBridge
from sam2_blocks.hosts.roboflow.engine import Engine
from sam2_blocks.hosts.roboflow.values import row_to_ours, value_to_theirs
from sam2_blocks.language.manifest import Input, Manifest, Param

HOST = "roboflow"
COMPATIBLE = ">=1.3.0,<2.0.0"
"""Engine versions with selectors of any data and parameters that take batches and scalars."""


def workflow_type(block_id: str) -> str:
    """The name of a block in a workflow."""
    namespace, _, name = block_id.partition("/")
    return f"sam2_blocks/{name if namespace == 'sam2' else f'{namespace}_{name}'}"


def workflow_manifest(manifest: Manifest, engine: Engine) -> Any:
    """Make the class that the engine checks a step with."""
    names = list(manifest.names)
    outputs = [
        engine.base.OutputDefinition(name=name, kind=engine.find_kinds(socket))
        for name, socket in manifest.outputs.items()
    ]
    restrictions = _restrictions(manifest, engine.block)
    shown = _shown(manifest)

    class Described(engine.block.WorkflowBlockManifest):  # type: ignore[name-defined, misc]
        model_config = ConfigDict(json_schema_extra=shown)

        @model_validator(mode="after")
        def _check_required_groups(self) -> Any:
            problems = list(manifest.unmet_groups(vars(self)))
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
        def get_restrictions(cls) -> list[Any]:
            return restrictions

    type_names = (workflow_type(manifest.id), manifest.id)
    fields: dict[str, Any] = {"type": (Literal[type_names], ...)}
    fields |= {name: _field(manifest, name, engine) for name in names}
    return create_model(_class_name(manifest, "Manifest"), __base__=Described, **fields)


def _field(manifest: Manifest, name: str, engine: Engine) -> tuple[Any, Any]:
    overrides = manifest.for_host(HOST)
    socket: Input | Param = manifest.inputs.get(name) or manifest.params[name]
    selector = engine.types.Selector(kind=engine.find_kinds(socket))
    if isinstance(socket, Param):
        annotation, text = _literal(socket) | selector, socket.json_schema["description"]
        default = overrides.defaults.get(name, socket.default)
    else:
        literal = list[dict[str, Any]] if "prompts" in socket.kinds else None
        annotation, text = selector | literal | None, socket.description
        default = ... if socket.required else None
    examples = [example.with_[name] for example in manifest.examples if name in example.with_]
    aliases = AliasChoices(name, *overrides.aliases.get(name, ()))
    info = Field(default, description=text, examples=examples, validation_alias=aliases)
    return annotation, info


def _literal(param: Param) -> Any:
    """What may be written for a parameter: of suggestions one, which editors list, or free text."""
    if not param.suggestions:
        return param.python_type
    return Literal[tuple(param.suggestions)] | param.python_type


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


def _restrictions(manifest: Manifest, block: ModuleType) -> list[Any]:
    """A model runs anywhere, only slower without a GPU; theirs refuses to."""
    if manifest.resources.hints.accelerator == "none" or not hasattr(block, "RuntimeRestriction"):
        return []
    return [
        block.RuntimeRestriction(
            severity=block.Severity.SOFT,
            note="Runs on a CPU, slower than on a GPU.",
            applies_to_runtimes=[block.Runtime.SELF_HOSTED_CPU],
        )
    ]


def workflow_block(manifest: Manifest, plugins: Plugins, engine: Engine) -> type[Any]:
    """Make the class that the engine runs a step with."""
    described = workflow_manifest(manifest, engine)

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
            rows = list(_rows(given, engine.base.Batch))
            step = getattr(self, "_workflow_step_name", "step")
            made = self._bridge.run([row_to_ours(row, engine) for row in rows], step=step)
            results = [
                {name: value_to_theirs(value, row, engine) for name, value in outputs.items()}
                for row, outputs in zip(rows, made, strict=True)
            ]
            batched = any(isinstance(value, engine.base.Batch) for value in given.values())
            return results if batched else results[0]

        def close(self) -> None:
            self._bridge.finish()

    Bridged.__name__ = Bridged.__qualname__ = _class_name(manifest, "Block")
    return Bridged


def _class_name(manifest: Manifest, suffix: str) -> str:
    return workflow_type(manifest.id).replace("/", "_").replace("@", "_").title() + suffix


def _rows(given: Mapping[str, Any], batch: type[Any]) -> Iterator[dict[str, Any]]:
    """Turn the engine's arguments into one mapping for each item; scalars go to all of them."""
    batches = {name: value for name, value in given.items() if isinstance(value, batch)}
    for index in range(max(map(len, batches.values()), default=1)):
        yield {**given, **{name: values[index] for name, values in batches.items()}}
