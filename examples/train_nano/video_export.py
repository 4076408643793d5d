"""Join a run's video memory with the package's weights for pictures, which do not change.

python -m examples.train_nano.video_export runs/nano_video/checkpoint.pt
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from examples.train_nano.export import WEIGHTS
from examples.train_nano.model import CONFIG, build
from examples.train_nano.video_model import is_memory, picture_state
from examples.train_nano.video_pool import ABSENCE

# A loss in which frames without the object count ABSENCE times divides the odds of "seen" by that
# number. What is packaged takes half of it back (of the logarithm): all of it finds more objects
# that return, none of it says more often that they are gone.
SEEN_ODDS = ABSENCE**0.5
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def load_pictures(weights: Path = WEIGHTS) -> SAM2Base:
    """Build nano with a file's weights for pictures, and fresh ones for the memory."""
    model = build()
    pictures = {k: v.float() for k, v in picture_state(load_file(weights)).items()}
    missing, unexpected = model.load_state_dict(pictures, strict=False)
    if unexpected or any(not is_memory(name) for name in missing):
        raise ValueError(
            f"{weights} does not hold nano's weights for pictures: "
            f"missing {[n for n in missing if not is_memory(n)]}, unexpected {unexpected}"
        )
    return model


def shift_score(memory: Mapping[str, Tensor], odds: float) -> dict[str, Tensor]:
    """Multiply the odds by which a memory's object score says "seen"."""
    shifted = memory[SCORE_BIAS].detach() + math.log(odds)
    return {**memory, SCORE_BIAS: shifted}


def recipe_hash() -> str:
    """Hash the code that decides the memory's weights."""
    here = Path(__file__).parent
    pictures = ("bank", "model", "prompts", "scenes", "train")
    video = ("model", "painters", "pool", "scenes", "shelf", "train")
    names = [*pictures, *(f"video_{name}" for name in video)]
    files = [CONFIG, *(here / f"{name}.py" for name in names)]
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()[:16]


def export(checkpoint: Path, target: Path = WEIGHTS, hardware: str = "?") -> dict[str, object]:
    """Put a checkpoint's memory into ``target``; returns what its JSON says of the file.

    Args:
        checkpoint: of `video_train`.
        target: a file of nano's weights; those for pictures stay as they are, bit by bit.
        hardware: what it was trained on, for the model card.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    with safe_open(target, "pt") as file:
        about = dict(file.metadata() or {})
    weights = picture_state(load_file(target))
    memory = shift_score(state["average"], SEEN_ODDS)
    weights |= {k: v.detach().half().contiguous() for k, v in memory.items()}
    video = {
        "recipe": recipe_hash(),
        "hardware": hardware,
        "steps": str(state["step"]),
        "tracked": str(state["tracked"]),
        "minutes": f"{state['seconds'] / 60:.0f}",
    }
    about |= {f"video_{name}": value for name, value in video.items()}
    save_file(weights, target, metadata=about)
    target.chmod(0o644)  # safetensors writes a private file
    content = target.read_bytes()
    facts: dict[str, object] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    target.with_suffix(".json").write_text(json.dumps(facts) + "\n")
    return facts


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--target", type=Path, default=WEIGHTS)
    parser.add_argument("--hardware", default="?")
    args = parser.parse_args()
    print(json.dumps(export(args.checkpoint, args.target, args.hardware)))


if __name__ == "__main__":
    main()
