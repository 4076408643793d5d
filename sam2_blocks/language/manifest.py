"""The block manifest: the one description everything else about a block is made from.

`Manifest` is the format. `Manifest.step_model` is the pydantic model of a step as written in a
pipeline, where every value may be a selector; `Manifest.item_model` is the model of one item at
run time, where every value is there. Schemas, docs and host adapters read the same manifest.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import SchemaError

from sam2_blocks.devices import DEVICE_PATTERN, check_device
from sam2_blocks.errors import (
    ForeignError,
    ManifestError,
    Problem,
    as_error,
    did_you_mean,
    message_of,
)
from sam2_blocks.kinds import Kind, find_kind, kinds_fit
from sam2_blocks.language.documents import Document, parse_yaml, validation_problems
from sam2_blocks.language.fields import (
    checked_value,
    class_name,
    unless_selector,
    written_value,
)
from sam2_blocks.language.read_before import read_before
from sam2_blocks.values import DEFAULT_FAMILY

BLOCK_ID_PATTERN = r"^[a-z][a-z0-9_]*/[a-z][a-z0-9_]*@v[1-9][0-9]*$"
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]

ParamType = Literal["string", "number", "integer", "boolean", "array", "object"]

PYTHON_TYPES: Mapping[str, Any] = {
    "string": str,
    "number": float,
    "integer": int,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
}

PARAM_KINDS: Mapping[str, tuple[str, ...]] = {
    "string": ("string",),
    "number": ("float", "integer"),
    "integer": ("integer",),
    "boolean": ("boolean",),
    "array": ("list_of_values",),
    "object": ("dictionary",),
}


BOUNDED_TYPES: Mapping[str, tuple[ParamType, ...]] = {
    "minimum": ("number", "integer"),
    "maximum": ("number", "integer"),
    "exclusiveMinimum": ("number", "integer"),
    "exclusiveMaximum": ("number", "integer"),
    "pattern": ("string",),
    "items": ("array",),
}


MOST_KINDS = 32  # of one socket; each unknown one is a problem, and pipelines come from strangers


class Section(BaseModel):
    """A mapping of a document: unknown keys are errors, and no value is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Socket(Section):
    """One input or output of a block.

    Attributes:
        kind: a kind, or the list of kinds it accepts or may give. ``list of K`` is a kind, too.
        description: what it means, with units.
    """

    kind: str | Annotated[list[str], Field(min_length=1, max_length=MOST_KINDS)]
    description: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds as a tuple."""
        return (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)


class Input(Socket):
    """One input of a block; a missing optional input reaches the block as None.

    Attributes:
        required: whether a step must give it.
        many: takes a list of selectors; the block gets the values of those that were not skipped,
            one at least.
    """

    required: bool = False
    many: bool = False


class Output(Socket):
    """One output of a block; ``same_as`` names the input whose kind it has.

    Of an input that takes a list it may have the kind of the elements, and of one that takes
    ``many`` wires the kinds of all.
    """

    same_as: str = ""


class Param(Section):
    """One parameter, in the vocabulary of JSON Schema plus a unit.

    A parameter without ``default`` is required; ``default: null`` makes it optional.

    Attributes:
        format: what a string names: a ``model`` to load, the ``device`` to load it on, or the
            ``backend`` to compute it with; or what each string of an array names: a ``class`` that
            the parameter called ``model`` knows. Names are checked with the pipeline, before
            anything loads, and hosts and editors offer those that are known; any other may be
            written, too.
        family: of a model, or of the model of a class: the family of names without a prefix;
            ``sam2`` if not given.
        suggestions: values to offer beside free text; of a model, those that plugins registered.
    """

    type: ParamType
    description: str
    default: Any = Field(default_factory=lambda: ...)
    unit: str | None = None
    enum: list[Any] | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusiveMinimum: float | None = None  # noqa: N815 (JSON Schema's spelling)
    exclusiveMaximum: float | None = None  # noqa: N815
    pattern: str | None = None
    items: dict[Literal["type"], ParamType] | None = None
    format: Literal["model", "device", "backend", "class"] | None = None
    family: Name | None = None
    suggestions: list[str] = []

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Param:
        for bound, types in BOUNDED_TYPES.items():
            if getattr(self, bound) is not None and self.type not in types:
                wanted = " or ".join(types)
                raise ValueError(f"{bound!r} goes with type {wanted}, not with {self.type}")
        wanted = "array" if self.format == "class" else "string"
        if self.format is not None and self.type != wanted:
            raise ValueError(f"'format' goes with type {wanted}, not with {self.type}")
        if self.family is not None and self.format not in ("model", "class"):
            raise ValueError("'family' goes with format: model, or class")
        if self.suggestions and (self.type != "string" or self.enum):
            raise ValueError("'suggestions' goes with type string, without enum")
        if self.pattern is not None:
            try:
                TypeAdapter(Annotated[str, Field(pattern=self.pattern)])
            except SchemaError as error:
                reason = str(error).splitlines()[-1].removeprefix("error: ")
                raise ValueError(f"'pattern' is no regular expression: {reason}") from error
        return self

    @property
    def required(self) -> bool:
        """Whether a step must give it."""
        return self.default is ...

    @property
    def model_family(self) -> str:
        """The family of a model's name without a prefix."""
        return self.family or DEFAULT_FAMILY

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds a selector given for this parameter may have."""
        return PARAM_KINDS[self.type]

    @property
    def json_schema(self) -> dict[str, Any]:
        """This parameter as JSON Schema."""
        ours = {"default", "unit", "family", "suggestions"}
        ours |= {"format"} if self.format == "class" else set()
        schema = self.model_dump(exclude_none=True, exclude=ours)
        if not self.required:
            schema["default"] = self.default
        if self.format == "device":
            schema["pattern"] = DEVICE_PATTERN
        if self.default is None:
            schema["type"] = [self.type, "null"]
        if self.unit:
            schema["description"] = f"{self.description} Unit: {self.unit}."
        return schema

    @property
    def python_type(self) -> Any:
        """The annotated Python type pydantic checks values with."""
        bounds: dict[str, Any] = {
            "ge": self.minimum,
            "le": self.maximum,
            "gt": self.exclusiveMinimum,
            "lt": self.exclusiveMaximum,
            "pattern": self.pattern,
            "allow_inf_nan": False if self.type == "number" else None,
        }
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        kind: Any = Literal[tuple(self.enum)] if self.enum else PYTHON_TYPES[self.type]
        if self.type == "array" and self.items:
            kind = list.__class_getitem__(PYTHON_TYPES[self.items["type"]])
        kind = Annotated[kind, Field(**given)] if given else kind
        if self.format == "device":
            kind = Annotated[kind, AfterValidator(check_device)]
        return kind | None if self.default is None else kind


class Require(Section):
    """Rules over several inputs, each a list of input names.

    Attributes:
        exactly_one: of each group exactly one input is connected.
        at_least_one: of each group one input or more is connected.
    """

    exactly_one: list[list[str]] = []
    at_least_one: list[list[str]] = []


class Example(Section):
    """One use of the block; run as a test with a sample value for every connected input."""

    title: str
    with_: dict[str, Any] = Field(alias="with", default_factory=dict)


class Hints(Section):
    """What the block would like to run on; hosts translate it, nothing is enforced."""

    accelerator: Literal["none", "cuda"] = "none"
    memory_mb: Annotated[int, Field(ge=0)] | None = None


class ResourceNeeds(Section):
    """What the block needs from the machine."""

    hints: Hints = Hints()


class HostOverrides(Section):
    """What one host needs to know about a block, and nothing else in the manifest can say.

    Attributes:
        aliases: more names of inputs and parameters, those its users know them by.
        defaults: other defaults of parameters.
        values: what values of parameters are called there, by parameter: theirs to ours.
        extra: passed to the host as it is, such as ``ui_manifest`` for Roboflow.
    """

    aliases: dict[Name, list[str]] = {}
    defaults: dict[Name, Any] = {}
    values: dict[Name, dict[str, Any]] = {}
    extra: dict[str, Any] = {}


class Manifest(Section):
    """One block, as its YAML file describes it.

    Attributes:
        entry: ``module:Class``, imported only when a step runs.
        require: rules over several inputs.
        requires: packages that it imports and not every installation has: what pip installs, by
            the name of the module. `Plugins.load_pipeline` says which are missing.
        file_access: what the block does with files of its machine. A step that writes may have
            unused outputs; a host that takes pipelines from strangers runs only ``none``.
        resumable: of a block that writes: whether ``run --resume`` loses nothing, because it writes
            a file for each item, or its file keeps what it says of ``resources.files.kept``.
        deprecated: what to use instead. The block goes on working; whoever checks a pipeline that
            uses it is warned.
        hosts: overrides by host, such as ``roboflow``.
    """

    manifest_version: Literal[1]
    id: Annotated[str, Field(pattern=BLOCK_ID_PATTERN)]
    title: str
    summary: str
    entry: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    inputs: dict[Name, Input] = {}
    params: dict[Name, Param] = {}
    outputs: Annotated[dict[Name, Output], Field(min_length=1)]
    require: Require = Require()
    requires: dict[ModuleName, str] = {}
    file_access: Literal["none", "read", "write"] = "none"
    resumable: bool = False
    deprecated: str = ""
    resources: ResourceNeeds = ResourceNeeds()
    hosts: dict[Name, HostOverrides] = {}
    examples: list[Example] = []

    @model_validator(mode="after")
    def _names_are_consistent(self) -> Manifest:
        clash = sorted(set(self.inputs) & set(self.params))
        if clash:
            raise ValueError(f"{clash[0]!r} is both an input and a parameter; rename one")
        for name, output in self.outputs.items():
            if output.same_as and output.same_as not in self.inputs:
                hint = did_you_mean(output.same_as, self.inputs)
                raise ValueError(f"output {name!r} is the same as no input.{hint}")
        for group in (*self.require.exactly_one, *self.require.at_least_one):
            for name in group:
                if name not in self.inputs:
                    hint = did_you_mean(name, self.inputs)
                    raise ValueError(f"'require' names the unknown input {name!r}.{hint}")
        for host, overrides in self.hosts.items():
            self._check_overrides(host, overrides)
        return self

    def _check_overrides(self, host: str, overrides: HostOverrides) -> None:
        taken = set(self.names)
        for name, aliases in overrides.aliases.items():
            if name not in self.names:
                hint = did_you_mean(name, self.names)
                raise ValueError(f"host {host!r} gives aliases to the unknown {name!r}.{hint}")
            clash = sorted(taken.intersection(aliases))
            if clash:
                raise ValueError(f"host {host!r}: the alias {clash[0]!r} is taken; choose another")
            taken.update(aliases)
        for name in (*overrides.defaults, *overrides.values):
            if name not in self.params:
                hint = did_you_mean(name, self.params)
                raise ValueError(f"host {host!r} sets the unknown parameter {name!r}.{hint}")

    @property
    def names(self) -> tuple[str, ...]:
        """Everything a step may give in ``with:``."""
        return (*self.inputs, *self.params)

    def missing_packages(self) -> Iterator[str]:
        """Say which of ``requires`` are not installed, and what to run; imports nothing."""
        for module, package in self.requires.items():
            if not _is_installed(module):
                yield (
                    f"{self.id} needs the package {module!r}, which is not installed. "
                    f"Run: pip install {package!r}"
                )

    def for_host(self, host: str) -> HostOverrides:
        """What this host must know about the block."""
        return self.hosts.get(host, HostOverrides())

    def unmet_groups(self, given: Mapping[str, Any]) -> Iterator[str]:
        """Say which rules of ``require`` are broken by these values; None is not given."""
        for group in self.require.exactly_one:
            present = [name for name in group if given.get(name) is not None]
            if len(present) != 1:
                got = " and ".join(map(repr, present)) or "none"
                yield f"give exactly one of {', '.join(map(repr, group))}; got {got}."
        for group in self.require.at_least_one:
            if all(given.get(name) is None for name in group):
                yield f"give at least one of {', '.join(map(repr, group))}."

    def step_model(self, kinds: Mapping[str, Kind]) -> type[BaseModel]:
        """Pydantic model of a step's ``with:`` once its selectors are parsed.

        Parameters and inputs that hold a selector are left for run time; literals are checked now.
        """
        fields: dict[str, Any] = {}
        for name, socket in self.inputs.items():
            literal = written_value(socket.kinds, kinds, required=socket.required)
            fields[name] = (literal, ... if socket.required else None)
        for name, param in self.params.items():
            fields[name] = (unless_selector(param.python_type), param.default)
        return create_model(class_name(self.id, "Step"), __base__=Section, **fields)

    def item_model(self, kinds: Mapping[str, Kind]) -> type[BaseModel]:
        """Pydantic model of one item at run time; inputs are checked by their kinds."""
        fields: dict[str, Any] = {}
        for name, socket in self.inputs.items():
            checked = checked_value(socket.kinds, kinds, many=socket.many)
            fields[name] = (checked, ...) if socket.required else (checked | None, None)
        for name, param in self.params.items():
            fields[name] = (param.python_type, param.default)
        return create_model(class_name(self.id, "Item"), __base__=Section, **fields)

    def load_entry(self) -> type[Any]:
        """Import the block's class.

        Raises:
            ManifestError: if the module or the class is not there.
        """
        module, _, name = self.entry.partition(":")
        try:
            found: type[Any] = getattr(importlib.import_module(module), name)
        except BaseException as error:  # importing other people's code may fail in any way
            cause = as_error(error)
            what = message_of(cause)
            if not isinstance(cause, (ImportError, AttributeError, ForeignError)):
                what = f"{type(cause).__name__}: {what}"
            problem = Problem(f"cannot load {self.entry!r}: {what}", "entry")
            raise ManifestError(self.id, [problem]) from cause
        return found


def load_manifest(text: str, source: str, kinds: Mapping[str, Kind]) -> Manifest:
    """Parse and check one manifest.

    Args:
        text: YAML.
        source: file name for messages.
        kinds: the kinds that exist.

    Raises:
        ManifestError: with every problem found, each with line and column.
    """
    known = read_before(text)
    if known is not None and all(find_kind(kind, kinds) for kind in known["kinds"]):
        return Manifest.model_validate(known["manifest"])
    document = parse_yaml(text, source)
    if document.problems:
        raise ManifestError(source, document.problems)
    try:
        manifest = Manifest.model_validate(document.data)
    except ValidationError as error:
        problems = validation_problems(document, error, Manifest)
        raise ManifestError(source, problems) from None
    problems = [*_unknown_kinds(manifest, document, kinds), *_bad_defaults(manifest, document)]
    if problems:
        raise ManifestError(source, problems)
    return manifest


def manifest_dir() -> Path:
    """Find the built-in manifests: inside an installed wheel, beside the package in a checkout."""
    package = Path(str(files("sam2_blocks")))
    packaged = package / "manifests"
    return packaged if packaged.is_dir() else package.parent / "manifests"


def iter_yaml_files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files of a folder, sorted by name."""
    yield from sorted(file for file in folder.iterdir() if file.suffix in {".yaml", ".yml"})


def sockets_fit(given: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether an output of kinds ``given`` may be wired to an input of kinds ``wanted``."""
    return any(kinds_fit(one, other) for one in given for other in wanted)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it was imported from somewhere without a spec
        return True


def _unknown_kinds(
    manifest: Manifest, document: Document, kinds: Mapping[str, Kind]
) -> Iterator[Problem]:
    for section, sockets in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        for name, socket in sockets.items():
            for kind in socket.kinds:
                if find_kind(kind, kinds) is None:
                    message = f"unknown kind {kind!r}.{did_you_mean(kind, kinds)}"
                    yield document.problem((section, name, "kind"), message)


def _bad_defaults(manifest: Manifest, document: Document) -> Iterator[Problem]:
    for name, param in manifest.params.items():
        if param.required or param.default is None:
            continue
        model = create_model("Default", __base__=Section, default=(param.python_type, ...))
        try:
            model.model_validate({"default": param.default})
        except ValidationError as error:
            message = f"the default does not fit its own bounds: {error.errors()[0]['msg']}"
            yield document.problem(("params", name, "default"), message)
