"""A name to a detector of the ``transformers`` library, ready to run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sam2_blocks.errors import MissingExtraError, ModelError, as_error, message_of
from sam2_blocks.executor.sam2.loading import DTYPES, resolve_device, resolve_dtype
from sam2_blocks.executor.transformers.detector import TransformersDetector
from sam2_blocks.executor.transformers.grounder import TransformersGrounder
from sam2_blocks.executor.transformers.library import torchvision_problem, transformers
from sam2_blocks.executor.transformers.network import Network
from sam2_blocks.executor.transformers.omdet import OMDET, OmDetProcessor
from sam2_blocks.executor.weights.hub import fetch_repository
from sam2_blocks.executor.weights.names import HubName, folder_problem, read_name
from sam2_blocks.values import ExecutorSpec

FAMILY = "transformers"
SHOWN_KEYS = 3


class Task(NamedTuple):
    """What a model is made for, and the class that loads it."""

    name: str
    auto_class: str


SEGMENTER = Task("segmenter", "AutoModelForInstanceSegmentation")
UNIVERSAL = Task("segmenter", "AutoModelForUniversalSegmentation")
DETECTOR = Task("detector", "AutoModelForObjectDetection")
GROUNDER = Task("grounder", "AutoModelForZeroShotObjectDetection")


def load(
    model: str, *, device: str = "auto", dtype: str = "auto", offline: bool | None = None
) -> TransformersDetector | TransformersGrounder:
    """Load a detector.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a repository of the hub; see
            `sam2_blocks.executor.weights.names`.
        device: ``auto`` (CUDA, else Apple's MPS, else CPU), ``cuda``, ``cuda:N``, ``mps``, ``cpu``.
        dtype: ``auto`` (float32), ``float32``, ``bfloat16`` or ``float16``.
        offline: never download; by default as the variable ``SAM2_BLOCKS_OFFLINE`` says.

    Raises:
        MissingExtraError: if the package ``transformers`` is missing, or ``timm``, which some
            networks are made with.
        ModelError: if there is no such model, it is no detector, or its weights do not fit it.
    """
    model = model.removeprefix(f"{FAMILY}:")
    torch_device = resolve_device(device)
    torch_dtype, _ = resolve_dtype(dtype, None, torch_device)
    library = transformers()
    folder = find_folder(model, offline=offline)
    task = task_of(folder, model)
    with _told(model):
        network, differences = getattr(library, task.auto_class).from_pretrained(
            folder,
            dtype=torch_dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        processor = _load_processor(library, folder, task, network.config.model_type)
    _check_complete(model, differences)
    dtype_name = next(name for name, known in DTYPES.items() if known == torch_dtype)
    ready = Network(
        network=network.eval().requires_grad_(False).to(torch_device),
        processor=processor,
        spec=ExecutorSpec(model, str(torch_device), dtype_name, FAMILY),
        dtype=torch_dtype,
    )
    if task is GROUNDER:
        return TransformersGrounder(ready)
    return TransformersDetector(ready, makes_masks=task.name == SEGMENTER.name)


def find_folder(model: str, *, offline: bool | None = None) -> Path:
    """Return the folder of a model on this machine, downloading it if it is of the hub.

    Raises:
        ModelError: if there is no such model, or it is not to be had.
    """
    named = read_name(model)
    folder = fetch_repository(named, offline=offline) if isinstance(named, HubName) else named
    problem = folder_problem(folder)
    if problem:
        raise ModelError(problem)
    return folder


def task_of(folder: Path, model: str) -> Task:
    """Say what the model in a folder is made for.

    Raises:
        ModelError: if it detects nothing.
    """
    from transformers.models.auto import modeling_auto as names

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = str((config.get("architectures") or [""])[0])
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} is no configuration: {error}") from error
    known = {
        GROUNDER: names.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
        SEGMENTER: names.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES,
        UNIVERSAL: names.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
        DETECTOR: names.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    }
    for task, architectures in known.items():
        if architecture in architectures.values():
            return task
    raise ModelError(
        f"the model {model!r} is a {architecture or config.get('model_type')!r}, which detects "
        "nothing that we know of. Use one whose config.json names an architecture such as "
        "'RTDetrV2ForObjectDetection', 'RfDetrForInstanceSegmentation' or "
        "'GroundingDinoForObjectDetection'."
    )


def _load_processor(library: Any, folder: Path, task: Task, model_type: str) -> Any:
    if model_type == OMDET:
        return OmDetProcessor.of(library, folder)
    wanted = library.AutoProcessor if task is GROUNDER else library.AutoImageProcessor
    return wanted.from_pretrained(folder, local_files_only=True)


@contextmanager
def _told(model: str) -> Iterator[None]:
    """Say in our words why a model cannot be loaded."""
    try:
        yield
    except Exception as error:  # files of strangers fail in many ways
        reason = message_of(as_error(error)).strip().partition("\n")[0]
        problem = torchvision_problem()
        if problem and "torchvision" in message_of(error):
            reason = f"it needs torchvision, and {problem}"
        elif isinstance(error, ImportError) and "timm" in reason:
            raise MissingExtraError(
                f"the model {model!r} is made with the package 'timm'. Run: pip install timm"
            ) from error
        raise ModelError(f"could not load {model!r}: {reason}") from error


def _check_complete(model: str, differences: dict[str, Any]) -> None:
    """Refuse weights that leave a part of the network as it was made, at random."""
    missing = sorted(differences["missing_keys"])
    reshaped = sorted(str(key) for key in differences["mismatched_keys"])
    for label, keys in (("missing", missing), ("of another shape", reshaped)):
        if keys:
            more = ", …" if len(keys) > SHOWN_KEYS else ""
            raise ModelError(
                f"the weights of {model!r} do not fit its config.json: {len(keys)} keys are "
                f"{label} ({', '.join(keys[:SHOWN_KEYS])}{more})."
            )
