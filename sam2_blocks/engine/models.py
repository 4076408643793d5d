"""What is known about the names of models before anything loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sam2_blocks.engine.resources import family_of
from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executor.backends import find_backend_problem
from sam2_blocks.executors import Family, KnownModel
from sam2_blocks.language.manifest import Manifest, Param
from sam2_blocks.language.selectors import InputRef
from sam2_blocks.values import DEFAULT_FAMILY, full_name

if TYPE_CHECKING:
    from sam2_blocks.language.pipeline import Pipeline, ValueCheck


@dataclass(frozen=True)
class ModelNames:
    """Checks and suggests the values of parameters with ``format: model``.

    Args:
        families: by name.
        models: what is known by name, by full name.
    """

    families: Mapping[str, Family]
    models: Mapping[str, KnownModel]

    @property
    def checks(self) -> Mapping[str, ValueCheck]:
        """What is wrong with a value, by format of its parameter; see `load_pipeline`."""
        checks = {"model": self.check_model, "class": self.check_class}
        return {**checks, "backend": check_backend}

    def find(self, name: str, family: str) -> KnownModel | None:
        """Return what is known of a model.

        Args:
            name: with the prefix of its family, or without.
            family: of a name without a prefix.
        """
        family = family_of(name, self.families, family)
        bare = name.removeprefix(f"{family}:")
        of_family = [model for model in self.models.values() if model.family == family]
        return next((model for model in of_family if bare in model.names), None)

    def get(self, name: str) -> KnownModel:
        """Return what is known of a model that is named with its family, or is of ``sam2``.

        Raises:
            ModelError: if nothing is.
        """
        found = self.find(name, DEFAULT_FAMILY)
        if found is None:
            own = self.names_in(DEFAULT_FAMILY)
            raise ModelError(
                f"there is no model {name!r}.{did_you_mean(name, [*own, *self.models])}"
            )
        return found

    def check_class(self, param: Param, name: str, settings: Mapping[str, Any]) -> str:
        """Say that a model knows no class of this name; empty if it does, or nobody can tell yet.

        Args:
            param: the parameter.
            name: of the class.
            settings: all parameters of the step, its ``model`` and perhaps ``revision`` among them.
        """
        model, revision = settings.get("model"), settings.get("revision")
        if not isinstance(model, str) or not isinstance(revision, str | None):
            return ""  # it comes with each item
        family = family_of(model, self.families, param.model_family)
        bare = model.removeprefix(f"{family}:") + (f"@{revision}" if revision else "")
        known = self.families[family].class_names(bare) if family in self.families else ()
        if not known or name in known:
            return ""
        return f"the model {model!r} knows no class {name!r}.{did_you_mean(name, known)}"

    def check_model(
        self, param: Param, name: str, settings: Mapping[str, Any] | None = None
    ) -> str:
        """Say what is wrong with the name of a model; empty if nothing is known to be wrong.

        Args:
            param: the parameter, which says the family of names without a prefix.
            name: as it is written in the pipeline.
            settings: as every check of a parameter gets them; not read.
        """
        family = family_of(name, self.families, param.model_family)
        registered = self.families.get(family)
        if registered is None:
            hint = did_you_mean(family, self.families)
            return f"no family of models is registered as {family!r} to load {name!r}.{hint}"
        bare = name.removeprefix(f"{family}:")
        if self.find(name, family):
            return ""
        if not registered.exhaustive or registered.is_file(bare) or registered.is_download(bare):
            return registered.find_problem(bare)
        return f"there is no model {name!r}.{did_you_mean(bare, self.names_in(family))}"

    def names_in(self, family: str) -> list[str]:
        """Every name of the models that are known in a family."""
        of_family = (model for model in self.models.values() if model.family == family)
        return [name for model in of_family for name in model.names]

    def suggest(self, manifest: Manifest) -> Manifest:
        """Put the known names into the parameters of a manifest, for drop-downs."""
        params = dict(manifest.params)
        for name, param in params.items():
            if param.format == "model":
                known = (m for m in self.models.values() if m.family == param.model_family)
                suggested = [model.names[0] for model in known]
                params[name] = param.model_copy(update={"suggestions": suggested})
        return manifest.model_copy(update={"params": params})

    def needed_by(self, pipeline: Pipeline) -> Iterator[KnownModel | str]:
        """Yield the models that a pipeline loads, each once.

        Yields:
            What is known of a model, or its full name if nothing is. A model that comes with an
            item, by a selector without a default, is not known before.
        """
        found: dict[str, KnownModel | str] = {}
        for step in pipeline.steps:
            for key, param in step.manifest.params.items():
                name = _written(pipeline, step.values.get(key, param.default))
                if param.format == "model" and isinstance(name, str):
                    family = family_of(name, self.families, param.model_family)
                    known = self.find(name, family)
                    full = known.full_name if known else full_name(name, family)
                    found[full] = known or full
        yield from found.values()


def check_backend(param: Param, name: str, settings: Mapping[str, Any]) -> str:
    """Say why a backend cannot be used on this machine; empty if it can.

    Args:
        param: as every check of a parameter gets it; not read.
        name: of the backend.
        settings: as every check of a parameter gets them; not read.
    """
    return find_backend_problem(name)


def _written(pipeline: Pipeline, value: object) -> object:
    """A value as the pipeline has it: of a selector, the default of the input it stands for."""
    return pipeline.inputs[value.name].default if isinstance(value, InputRef) else value
