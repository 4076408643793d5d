"""Checkpoint files to tensors to a network, refusing what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.layouts import (
    MEMORY_PREFIXES,
    from_transformers,
    is_of_transformers,
    lacks_memory,
    strip_training_prefixes,
)

SHOWN_KEYS = 3
STATE_NAMES = ("model", "state_dict", "model_state_dict")

# Width of the encoder's first stage and number of its blocks.
_SIZES = {
    (48, 8): "nano",
    (96, 12): "hiera_tiny",
    (96, 16): "hiera_small",
    (112, 24): "hiera_b_plus",
    (144, 48): "hiera_large",
}
_TRUNK = "image_encoder.trunk"
_ONLY_IN_2_1 = "no_obj_embed_spatial"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint under the names of the public ones; never execute anything.

    Args:
        path: ``.safetensors``, or a torch file that holds ``{"model": state_dict}`` as the public
            checkpoints do, with whatever of training beside it, or a bare state dict. Names may be
            those of the transformers library, or have the prefixes of training.

    Raises:
        ModelError: if there is no such file or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}.")
    try:
        if path.suffix == ".safetensors":
            return _in_our_names(load_file(path), path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # what is no checkpoint breaks the readers in many ways
        reason = str(error).partition("\n")[0] or type(error).__name__
        if reason.startswith("Weights only load failed"):
            # What follows is torch's advice to run whatever is in the file.
            reason = "it is damaged, or holds more than tensors"
        raise ModelError(
            f"{path} is not a readable checkpoint of plain tensors: {reason}"
        ) from error
    state = _state_of(content)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path} holds no state dict: expected {{'model': {{name: tensor}}}}.")
    return _in_our_names(state, path)


def _state_of(content: object) -> object:
    """The state dict of a network, of a file that may hold those of optimizers, too."""
    if not isinstance(content, dict):
        return None
    return next((content[name] for name in STATE_NAMES if name in content), content)


def _in_our_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    stripped = strip_training_prefixes(state)
    if is_of_transformers(stripped):
        return from_transformers(stripped, source=str(path))
    return stripped


def recognise_architecture(state: Mapping[str, Tensor]) -> str | None:
    """Name the catalogue's architecture that a state dict is of, fine-tuned or not.

    Args:
        state: tensors by name.

    Returns:
        Such as ``sam2.1/hiera_tiny``; None if it is of none we know.
    """
    stem = state.get(f"{_TRUNK}.patch_embed.proj.weight")
    blocks = {key.split(".")[3] for key in state if key.startswith(f"{_TRUNK}.blocks.")}
    size = _SIZES.get((0 if stem is None else len(stem), len(blocks)))
    if size is None or size == "nano":
        return size
    # Without what videos need, the two releases are the same.
    is_2_1 = _ONLY_IN_2_1 in state or lacks_memory(state)
    return f"sam2.1/{size}" if is_2_1 else f"sam2/{size}"


def apply_checkpoint(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy a state dict into a network of exactly the same keys and shapes.

    What only videos need may be missing, all of it: a model fine-tuned on pictures with the
    transformers library has none.

    Args:
        module: the network; untouched when the keys differ.
        state: tensors by name; converted to the dtype of the network.
        source: what to call the checkpoint in the message.

    Raises:
        ModelError: if keys or shapes differ, with a few of them; usually the checkpoint belongs
            to another variant than the configuration.
    """
    expected = module.state_dict()
    reshaped = {
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    }
    missing = expected.keys() - state.keys()
    if lacks_memory(state):
        missing = {name for name in missing if not name.startswith(MEMORY_PREFIXES)}
    differences = [
        _count_and_show("missing", missing),
        _count_and_show("unexpected", state.keys() - expected.keys()),
        _count_and_show("of another shape", reshaped),
    ]
    problems = "; ".join(filter(None, differences))
    if problems:
        raise ModelError(
            f"{source} does not fit this architecture: {problems}. It is probably the checkpoint "
            "of another variant; SAM 2 and SAM 2.1 of one size differ too."
        )
    module.load_state_dict(state, strict=not lacks_memory(state))


def _count_and_show(label: str, keys: Iterable[str]) -> str:
    names = sorted(keys)
    if not names:
        return ""
    more = ", …" if len(names) > SHOWN_KEYS else ""
    return f"{len(names)} keys {label} ({', '.join(names[:SHOWN_KEYS])}{more})"
