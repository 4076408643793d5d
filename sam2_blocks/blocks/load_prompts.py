"""``prompts/load@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.files.per_picture import path_beside
from sam2_blocks.formats.prompt_files import load_prompts
from sam2_blocks.values import Image, PromptSet


class LoadPromptsItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    path: str
    mask_px: int
    missing: Literal["error", "empty"]


class LoadPrompts:
    """Read the prompts of each picture from a file of its own."""

    def __init__(self, resources: Resources) -> None:
        self._files = resources.files

    def run(self, items: Sequence[LoadPromptsItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._load_or_error(item) for item in items]

    def _load_or_error(self, item: LoadPromptsItem) -> Mapping[str, Any] | Exception:
        try:
            path = path_beside(item.path, item.image)
            self._files.note_read(path, item.image.id)
            if path.exists():
                return {"prompts": load_prompts(path, item.image.hw, mask_px=item.mask_px)}
        except (OSError, ValueError) as error:
            return error
        if item.missing == "empty":
            return {"prompts": PromptSet()}
        return ValueError(
            f"{path}: no such file beside the picture. Set 'path', or 'missing: empty' if a "
            "picture may have no prompts."
        )
