"""A name, a device and a dtype to a network that is ready to run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam2_blocks.errors import MissingExtraError, ModelError, did_you_mean, message_of
from sam2_blocks.executor.device.compiling import CompileLevel, check_level, prepare_compiler
from sam2_blocks.executor.device.packages import Package
from sam2_blocks.executor.device.precision import has_fast_bfloat16
from sam2_blocks.executor.device.seeded import Seeded
from sam2_blocks.executor.openvino.calibrations import Calibration, find_calibration
from sam2_blocks.executor.sam2.backend import FAILURES, choose_backend
from sam2_blocks.executor.sam2.int8 import linear_layers
from sam2_blocks.executor.sam2.model import LoadedModel, Mode
from sam2_blocks.executor.sam2.packaged import EncoderCode, find_encoder
from sam2_blocks.executor.weights.catalogue import (
    MODELS,
    ModelSpec,
    find_model,
    is_catalogued,
)
from sam2_blocks.executor.weights.checkpoint import (
    apply_checkpoint,
    read_checkpoint,
    recognise_architecture,
)
from sam2_blocks.executor.weights.download import Progress, ensure_weights, sha256_of
from sam2_blocks.executor.weights.layouts import lacks_memory
from sam2_blocks.executor.weights.places import find_checkpoint
from sam2_blocks.executor.weights.upstream import build_network, own_input_px, sam2_folder
from sam2_blocks.heap import give_back
from sam2_blocks.values import ExecutorSpec

LOGGER = logging.getLogger(__name__)

INT8 = "int8"
"""Name of linear layers in int8 and the rest in what mode ``fast`` computes in."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INPUT_STEP = 32
"""Pixels to a token of the coarsest stage: sizes between would be padded."""

INPUT_PX = 64, 4096
"""Least and most that a network may see."""

NANO_FOLDER = Path(str(files("sam2_blocks.executor.weights")))


def load_model(
    model: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    mode: Mode | None = None,
    config: str | Path | None = None,
    compile: CompileLevel = "off",
    backend: str = "torch",
    input_px: int = 0,
    seed: int | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
) -> LoadedModel:
    """Build a network, fill it with weights and move it to its device.

    The arguments are those of `sam2_blocks.executor.load`, but for ``calibration``: what to round
    by for ``int8``, instead of what was measured on this machine and kept.

    Raises:
        ModelError: if any of the arguments cannot be honoured.
        MissingExtraError: if the backend is not installed.
    """
    torch_device = resolve_device(device)
    int8 = _is_int8(dtype, mode)
    torch_dtype, resolved_mode = (
        resolve_dtype("auto", "fast", torch_device)
        if int8
        else resolve_dtype(dtype, mode, torch_device)
    )
    chosen = choose_backend(backend, torch_device, torch_dtype, resolved_mode, compile, int8=int8)
    check_level(compile, resolved_mode)
    spec, checkpoint = _resolve_model(str(model), config, offline)
    path = _config_path(spec, config)
    input_px = resolve_input_px(path, input_px)
    code = EncoderCode(sha256_of(path), input_px, torch_dtype, torch_device)
    packages = _find_packages(code, compile)
    network = _build(path, seed if seed is not None else 0, input_px)
    if seed is not None:
        weights, images_only = f"seed-{seed}", False
    else:
        weights, images_only = _fill_from(
            network, spec, checkpoint, offline=offline, progress=progress
        )
    dtype_name = str(torch_dtype).removeprefix("torch.")
    made = "packaged" if packages else "compiled" * (compile != "off")
    rounding = _name_rounding(dtype_name, resolved_mode, made, input_px)
    made_of = f"{_name_architecture(spec, config)}@{weights}"
    name = spec.name if spec is not None and checkpoint is None else str(model)
    loaded = LoadedModel(
        network=network.eval().requires_grad_(False).to(torch_device),
        spec=ExecutorSpec(name, str(torch_device), dtype_name, input_px=input_px),
        key=f"{made_of}/{rounding}",
        mode=resolved_mode,
        dtype=torch_dtype,
        compile=compile,
        images_only=images_only,
        weights=f"{made_of}-{input_px}px" if input_px else made_of,
        code=code,
        packages=packages,
    )
    if chosen == "openvino":
        if calibration is None and (int8 or (resolved_mode, dtype) == ("fast", "auto")):
            calibration = _find_calibration(loaded, required=int8)
        loaded = _in_openvino(loaded, calibration, required=int8 or backend == "openvino")
    store_weights_as(torch_dtype, network, decoder=loaded.backend == "torch")
    return loaded


def _is_int8(dtype: str | torch.dtype, mode: Mode | None) -> bool:
    """Whether int8 is asked for; `resolve_dtype` says what is wrong with anything else."""
    if str(dtype).removeprefix("torch.") != INT8:
        return False
    if mode not in (None, "fast"):
        raise ModelError(f"dtype {INT8!r} is for mode 'fast', not {mode!r}. Use mode='fast'.")
    return True


def _find_calibration(loaded: LoadedModel, *, required: bool) -> Calibration | None:
    """Return what was measured for int8 on this machine, if it was.

    Raises:
        ModelError: if it is required and was not.
    """
    found = find_calibration(loaded.weights)
    layers = linear_layers(loaded.network.image_encoder)
    if found is not None and found.ranges.keys() == layers.keys():
        return found
    if not required:
        return None
    model, side = loaded.spec.model, loaded.spec.input_px
    at = f" --input-px {side}" if side else ""
    raise ModelError(
        f"model {model!r} is not calibrated for dtype {INT8!r} on this machine. Run: sam2-blocks "
        f"models calibrate {model} --pictures FOLDER{at}, or use another dtype."
    )


def _in_openvino(
    loaded: LoadedModel, calibration: Calibration | None, *, required: bool
) -> LoadedModel:
    """Have OpenVINO compile what it computes, at once: a forked child finds it made.

    Args:
        loaded: with weights of float32.
        calibration: for linear layers in int8, if they shall be.
        required: False goes on with torch where OpenVINO cannot.
    """
    dtype = INT8 if calibration else loaded.spec.dtype
    key = f"{loaded.key}-{INT8}-{calibration.key}" if calibration else loaded.key
    made = replace(
        loaded,
        backend="openvino",
        spec=loaded.spec._replace(backend="openvino", dtype=dtype),
        key=f"{key}-openvino",
        calibration=calibration,
    )
    try:
        _ = made.frame_encoder
    except (*FAILURES, MissingExtraError) as error:
        reason = f"OpenVINO cannot compute {loaded.spec.model!r} here: {message_of(error)}"
        if required:
            raise ModelError(f"{reason}. Use backend='torch' or backend='auto'.") from error
        LOGGER.warning("%s. It is computed by torch instead.", reason)
        return loaded
    _let_go_of_weights(made.network.image_encoder)
    give_back()
    return made


def _let_go_of_weights(part: nn.Module) -> None:
    """Free what another backend has a copy of; the part cannot run any more."""
    for parameter in part.parameters():
        parameter.data = torch.empty(0, dtype=parameter.dtype)


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu`` into a device that exists.

    There is one CPU: ``cpu:0`` is ``cpu``.

    Raises:
        ModelError: if there is no such device on this machine.
    """
    name = str(name)
    if name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else name
    try:
        device = torch.device(name)
    except RuntimeError:
        hint = did_you_mean(name, ["auto", "cuda", "cuda:0", "mps", "cpu"])
        raise ModelError(f"there is no device {name!r}.{hint}") from None
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in found:
        raise ModelError(
            f"the model does not run on device {name!r}, but on CUDA, Apple's GPUs (mps) and the "
            "CPU. Use device='auto'."
        )
    present = found[device.type]
    if (device.index or 0) >= present:
        raise ModelError(
            f"device {name!r} is not available here: torch {torch.__version__} sees {present} "
            f"{device.type} device(s). Use device='auto' or device='cpu'."
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device if device.type == "cuda" else torch.device(device.type)


def resolve_dtype(
    name: str | torch.dtype, mode: Mode | None, device: torch.device
) -> tuple[torch.dtype, Mode]:
    """Agree on dtype and mode.

    Args:
        name: ``auto`` is float32, or in mode ``fast`` bfloat16 where that is faster.
        mode: ``strict`` or ``fast``; None follows the dtype.
        device: where the network runs.

    Raises:
        ModelError: if either is unknown, or ``strict`` is asked of half precision.
    """
    if mode not in (None, "strict", "fast"):
        raise ModelError(f"there is no mode {mode!r}.{did_you_mean(mode, ['strict', 'fast'])}")
    name = str(name).removeprefix("torch.")
    if name == "auto":
        half = mode == "fast" and has_fast_bfloat16(device)
        name = "bfloat16" if half else "float32"
    if name not in DTYPES:
        raise ModelError(f"there is no dtype {name!r}.{did_you_mean(name, ['auto', *DTYPES])}")
    if mode == "strict" and name != "float32":
        raise ModelError(f"mode 'strict' computes in float32, not {name!r}. Use mode='fast'.")
    return DTYPES[name], mode or ("strict" if name == "float32" else "fast")


def store_weights_as(dtype: torch.dtype, network: Any, *, decoder: bool = True) -> None:
    """Store the weights of linear layers and convolutions in the dtype autocast runs them in.

    Else it would convert them anew in every pass. Everything else stays float32, and so does the
    prompt encoder, which costs nothing and whose coordinates need the precision.

    Args:
        dtype: of the weights.
        network: whose they are.
        decoder: those of the mask decoder, too; OpenVINO converts it later, from float32.
    """
    for part in (network.image_encoder, *[network.sam_mask_decoder] * decoder):
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                module.to(dtype)


def resolve_input_px(config: Path, asked: int) -> int:
    """Return the side of the square a network sees, in pixels; 0 if it is the one it is built for.

    Args:
        config: of the network.
        asked: the side that is asked for; 0 asks for none in particular.

    Raises:
        ModelError: if there cannot be a network of this size.
    """
    if asked == 0:
        return 0
    least, most = INPUT_PX
    whole = isinstance(asked, Integral) and not isinstance(asked, bool)
    if not whole or asked % INPUT_STEP or not least <= asked <= most:
        raise ModelError(
            f"input_px must be a multiple of {INPUT_STEP} from {least} to {most}, or 0 for what "
            f"the model was trained with; got {asked!r}."
        )
    return 0 if asked == own_input_px(config) else int(asked)


def _find_packages(code: EncoderCode, level: CompileLevel) -> dict[int, Package]:
    """Open what packages of the encoder there are, and see that the rest can be compiled.

    Raises:
        ModelError: if nothing can be compiled here, and something is to be.
    """
    if level == "off":
        return {}
    packages = find_encoder(code)
    if level == "all" or not packages:
        prepare_compiler(level, code.device)
    return packages


def _name_rounding(dtype: str, mode: Mode, made: str, input_px: int) -> str:
    """Name what decides how an embedding comes out; ``made`` by a compiler, if it is."""
    said = [dtype, *["fast"] * (mode == "fast"), *[made] * bool(made)]
    return "-".join([*said, *[f"{input_px}px"] * (input_px > 0)])


def _resolve_model(
    model: str, config: str | Path | None, offline: bool | None
) -> tuple[ModelSpec | None, Path | None]:
    """Return the catalogue entry of the architecture and the checkpoint on this machine, if any."""
    if is_catalogued(model):
        if config is not None:
            raise ModelError(f"config goes with a checkpoint of your own, not with {model!r}.")
        return find_model(model), None
    path = find_checkpoint(model, offline=offline)
    if config is not None and _is_yaml(config):
        return None, path
    architecture = config or recognise_architecture(read_checkpoint(path))
    if architecture is None:
        raise ModelError(
            f"the checkpoint {model!r} is of no architecture we know; say which, such as "
            f"config='sam2.1/hiera_tiny' or the path of a YAML file. Known: {', '.join(MODELS)}."
        )
    return find_model(str(architecture)), path


def _config_path(spec: ModelSpec | None, config: str | Path | None) -> Path:
    if spec is None:
        assert config is not None
        return Path(config)
    return (NANO_FOLDER if spec.embedded else sam2_folder()) / spec.config


def _name_architecture(spec: ModelSpec | None, config: str | Path | None) -> str:
    """Name what is built; a file by its content, which may change under the same name."""
    return spec.name if spec else f"config-{sha256_of(_config_path(None, config))[:12]}"


def _is_yaml(config: str | Path) -> bool:
    return Path(config).suffix in (".yaml", ".yml")


def _build(config: Path, seed: int, input_px: int) -> nn.Module:
    """Build with seeded weights, leaving the process's random state as it is."""
    with Seeded(seed):
        return build_network(config, input_px=input_px)


def _fill_from(
    network: nn.Module,
    spec: ModelSpec | None,
    checkpoint: Path | None,
    *,
    offline: bool | None,
    progress: Progress | None,
) -> tuple[str, bool]:
    """Fill with a checkpoint of this machine, else with what the catalogue says; see `_fill`."""
    if checkpoint is not None:
        return _fill(network, checkpoint, sha256_of(checkpoint))
    if spec is not None and not spec.embedded:
        found = ensure_weights(spec, offline=offline, progress=progress)
        return _fill(network, found, spec.sha256 or "")
    return _fill_nano(network)


def _fill(network: nn.Module, path: Path, sha256: str) -> tuple[str, bool]:
    """Fill with a checkpoint.

    Returns:
        The name of the weights, and whether they are for pictures alone, without a memory.
    """
    state = read_checkpoint(path)
    apply_checkpoint(network, state, source=str(path))
    return sha256[:12], lacks_memory(state)


def _fill_nano(network: nn.Module) -> tuple[str, bool]:
    """Fill ``nano`` with the weights that ship in this package."""
    path, card = NANO_FOLDER / "nano.safetensors", NANO_FOLDER / "nano.json"
    if not path.exists():
        LOGGER.warning(
            "the embedded weights of 'nano' are missing from this installation; it runs with "
            "random weights and its masks mean nothing"
        )
        return "seed-0", False
    expected = json.loads(card.read_text())["sha256"]
    found = sha256_of(path)
    if found != expected:
        raise ModelError(
            f"{path} is damaged: its SHA-256 is {found}, expected {expected}. "
            "Reinstall sam2-blocks."
        )
    return _fill(network, path, found)
