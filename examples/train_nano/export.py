"""Write a run's averaged weights as the package's float16 safetensors, and their size and SHA-256.

python -m examples.train_nano.export runs/nano/checkpoint.pt
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base

from examples.train_nano.model import CONFIG, build

WEIGHTS = CONFIG.with_suffix(".safetensors")


def recipe_hash() -> str:
    """Hash the code that decides the weights: scenes, trainer, model and its config."""
    here = Path(__file__).parent
    names = ("bank.py", "model.py", "prompts.py", "scenes.py", "train.py")
    files = [CONFIG, *(here / name for name in names)]
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()[:16]


def history(state: dict[str, Any]) -> dict[str, str]:
    """Say how long a checkpoint was trained, as safetensors metadata."""
    minutes = f"{state['seconds'] / 60:.0f}"
    return {"steps": str(state["step"]), "pictures": str(state["pictures"]), "minutes": minutes}


def export(checkpoint: Path, target: Path = WEIGHTS, hardware: str = "?") -> dict[str, object]:
    """Convert a checkpoint; returns the ``sha256`` and ``bytes`` written beside it as JSON."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in state["average"].items()
    }
    about = {"recipe": recipe_hash(), "hardware": hardware, **history(state)}
    save_file(weights, target, metadata=about)
    target.chmod(0o644)  # safetensors writes a private file
    content = target.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    facts: dict[str, object] = {"sha256": digest, "bytes": len(content)}
    target.with_suffix(".json").write_text(json.dumps(facts) + "\n")
    return facts


def load(
    weights: Path | None = None, image_size: int | None = None
) -> tuple[SAM2Base, dict[str, str]]:
    """Build nano with weights of a safetensors file or checkpoint, and say where they come from.

    Args:
        weights: default: the package's.
        image_size: input pixels of a side; default: the config's.
    """
    path = weights or WEIGHTS
    model = build(image_size).eval()
    if path.suffix == ".pt":
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state, about = saved["average"], history(saved)
    else:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
    model.load_state_dict(state)
    return model, about


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--target", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--hardware", default="?", help="what it was trained on, for the model card"
    )
    args = parser.parse_args()
    print(json.dumps(export(args.checkpoint, args.target, args.hardware)))


if __name__ == "__main__":
    main()
