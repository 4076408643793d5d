"""The ways to get COCO run lengths: ours, the official one as documented, and that one tuned.

A peer is built around one network; all peers of a run share it, so weights, precision and
embeddings are the same. Every peer answers with one compressed COCO RLE for each prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pycocotools import mask as coco_mask
from torch import Tensor

from benchmarks.scenes import Scene
from sam2_blocks.executor.executor import Sam2Executor
from sam2_blocks.executor.postprocess import logits_to_rles
from sam2_blocks.masks import rle_to_coco
from sam2_blocks.values import Embedding, Image, PromptSet

Rles = list[dict[str, Any]]

# `import torchvision` fails where its compiled library does not load, for want of these. The
# official predictor needs torchvision's Python code only.
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
TUNED_CHUNK = 8


class Ours:
    """The executor of this library."""

    name = "sam2_blocks"

    def __init__(self, executor: Sam2Executor) -> None:
        self._executor = executor

    def from_boxes(self, embedding: Embedding, scene: Scene) -> Rles:
        prompts = PromptSet.from_boxes(scene.boxes_xyxy)
        with _replaced(self._executor._decoder, "decode", self._answering(scene)):
            [prediction] = self._executor.segment([(embedding, prompts)])
        return [dict(rle_to_coco(rle)) for rle in prediction.rles]

    def from_logits(self, scene: Scene) -> Rles:
        best = scene.iou.argmax(1)
        chosen = scene.logits[torch.arange(len(best)), best]

        def encode(logits: Tensor) -> Rles:
            rles, _ = logits_to_rles(logits, scene.image_hw)
            return [dict(rle_to_coco(rle)) for rle in rles]

        workers = self._executor._workers  # as in `segment`: each core has masks of its own
        return encode(chosen) if workers is None else workers.map_chunks(encode, chosen, 4)

    def from_pictures(self, images: Sequence[Image], boxes: np.ndarray) -> Rles:
        embeddings = self._executor.embed(images)
        prompts = PromptSet.from_boxes(boxes)
        predictions = self._executor.segment([(e, prompts) for e in embeddings])
        return [dict(rle_to_coco(rle)) for p in predictions for rle in p.rles]

    def _answering(self, scene: Scene) -> Callable[..., tuple[Tensor, Tensor]]:
        decode = self._executor._decoder.decode

        def answer(rows: Any, *, multimask_output: bool) -> tuple[Tensor, Tensor]:
            decode(rows, multimask_output=multimask_output)
            indices = [row.index for row in rows]
            return scene.logits[indices], scene.iou[indices]

        return answer


class Official:
    """``SAM2ImagePredictor`` as its README shows it, then the best mask to pycocotools."""

    name = "official"

    def __init__(self, executor: Sam2Executor) -> None:
        self._network = executor.model.network
        self._predictor = official_class()(self._network)
        self._predictor._bb_feat_sizes = [
            (self._network.image_size // stride,) * 2 for stride in (4, 8, 16)
        ]

    def from_boxes(self, embedding: Embedding, scene: Scene) -> Rles:
        self._set_embedding(embedding)
        with _replaced(self._network.sam_mask_decoder, "forward", self._answering(scene)):
            masks, scores, _ = self._predictor.predict(box=scene.boxes_xyxy)
        return self._encode_best(masks, scores)

    def from_logits(self, scene: Scene) -> Rles:
        masks = self._predictor._transforms.postprocess_masks(scene.logits, scene.image_hw) > 0
        return self._encode_best(masks.float().cpu().numpy(), scene.iou.cpu().numpy())

    def from_pictures(self, images: Sequence[Image], boxes: np.ndarray) -> Rles:
        answers: Rles = []
        for image in images:
            self._predictor.set_image(image.pixels)
            masks, scores, _ = self._predictor.predict(box=boxes)
            answers += self._encode_best(masks, scores)
        return answers

    def _set_embedding(self, embedding: Embedding) -> None:
        """Leave the predictor as its own `set_image` would."""
        self._predictor._features = {
            "image_embed": embedding.image_embed,
            "high_res_feats": list(embedding.high_res_feats),
        }
        self._predictor._orig_hw = [embedding.image_hw]
        self._predictor._is_image_set = True

    def _answering(self, scene: Scene) -> Callable[..., tuple[Any, ...]]:
        forward = self._network.sam_mask_decoder.forward

        def answer(**arguments: Any) -> tuple[Any, ...]:
            _, _, *rest = forward(**arguments)
            return (scene.logits, scene.iou, *rest)

        return answer

    def _encode_best(self, masks: np.ndarray, scores: np.ndarray) -> Rles:
        masks, scores = (x.reshape(-1, *x.shape[-n:]) for x, n in ((masks, 3), (scores, 1)))
        return [
            _encode(candidates[best])
            for candidates, best in zip(masks, scores.argmax(1), strict=True)
        ]


class TunedDense(Official):
    """The official modules used well: small chunks, best candidate first, one mask at a time."""

    name = "tuned dense"

    def from_boxes(self, embedding: Embedding, scene: Scene) -> Rles:
        self._set_embedding(embedding)
        predictor = self._predictor
        with torch.inference_mode():
            for start in range(0, len(scene.boxes_xyxy), TUNED_CHUNK):
                boxes = torch.as_tensor(scene.boxes_xyxy[start : start + TUNED_CHUNK])
                points = predictor._transforms.transform_boxes(
                    boxes.to(predictor.device), normalize=True, orig_hw=embedding.image_hw
                )
                labels = torch.tensor([[2, 3]], device=points.device).expand(len(points), -1)
                sparse, dense = self._network.sam_prompt_encoder((points, labels), None, None)
                self._network.sam_mask_decoder(
                    image_embeddings=embedding.image_embed,
                    image_pe=self._network.sam_prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=True,
                    repeat_image=len(points) > 1,
                    high_res_features=list(embedding.high_res_feats),
                )
        return self.from_logits(scene)

    def from_logits(self, scene: Scene) -> Rles:
        best = scene.iou.argmax(1)
        chosen = scene.logits[torch.arange(len(best)), best]
        answers = []
        for logits in chosen:
            full = F.interpolate(logits[None, None], scene.image_hw, mode="bilinear")
            answers.append(_encode((full[0, 0] > 0).cpu().numpy()))
        return answers


PEERS = (Official, TunedDense, Ours)


def official_class() -> Any:
    """Import the official ``SAM2ImagePredictor``."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        _schemas = torch.library.Library("torchvision", "DEF")
        for schema in TORCHVISION_SCHEMAS:
            _schemas.define(schema)
        official_class.schemas = _schemas  # type: ignore[attr-defined]  # they live as long as it
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    return SAM2ImagePredictor


def _encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Shadow a method of one object for a while."""
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
