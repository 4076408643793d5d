"""The ways to get masks: ours, and the official predictor as documented, in half precision, tuned.

A peer is made once for the weights of one `Weights`, and answers every prompt with one compressed
COCO RLE: what a user keeps. `third_party` has those that need packages of their own.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import supervision as sv
import torch
import torch.nn.functional as F  # noqa: N812
from pycocotools import mask as coco_mask
from torch import Tensor

from benchmarks.measure import CLOSE, EQUAL, ROUNDED, CocoRle, Gate
from benchmarks.scenes import Scene
from benchmarks.weights import Weights
from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.executor.backends import has_openvino
from sam2_blocks.executor.device.precision import has_fast_bfloat16
from sam2_blocks.executor.sam2.encode import encode_batch
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.formats.images import read_image
from sam2_blocks.language.pipeline import load_pipeline
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.values import Embedding, Image, Prompt, PromptSet

HALF = "bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32"
"""What mode ``fast`` is on a CPU where nothing is calibrated for int8."""

TUNED_CHUNK = 8
FILES_AT_ONCE = 8  # as the runner does by default
FOLDER_PIPELINE = {
    "pipeline_version": 1,
    "inputs": {
        "image": {"kind": "image"},
        "boxes": {"kind": "object_detection_prediction"},
    },
    "steps": {
        "segment": {
            "use": "sam2/segment@v1",
            "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
        }
    },
    "outputs": {"predictions": "$steps.segment.predictions"},
}

# `import torchvision` fails where its compiled library does not load, for want of these. The
# official predictor needs torchvision's Python code only.
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

Lap = Callable[[str], None]
"""Called by a peer with the name of the stage it has just finished."""


def no_lap(stage: str) -> None:
    """Take no notice of stages."""


class Peer:
    """A way to get masks.

    Attributes:
        name: of the software.
        mode: how it computes.
        exact: whether its own masks should be the official ones; if not, IoU is what counts.
        dense: whether it makes all three candidates of all prompts at full size at once.
    """

    name: ClassVar[str]
    mode: ClassVar[str] = "float32"
    exact: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    _seen: np.ndarray | None = None

    @classmethod
    def missing(cls) -> str:
        """Say what it wants that is not here; empty if nothing."""
        return ""

    @classmethod
    def label(cls) -> str:
        return f"{cls.name} {cls.mode}"

    @classmethod
    def gate(cls, scene: Scene) -> Gate:
        """Return what its masks must keep: with logits given, only its post-processing counts."""
        if scene.logits is not None:
            return EQUAL
        return ROUNDED if cls.exact else CLOSE

    def __init__(self, weights: Weights) -> None:
        raise NotImplementedError

    def look_at(self, pixels: np.ndarray) -> None:
        """Embed a picture for `segment`, unless it was the last one."""
        if self._seen is not pixels:
            self.embed(pixels)
            self._seen = pixels

    def embed(self, pixels: np.ndarray) -> None:
        """Encode a picture and keep what comes out."""
        raise NotImplementedError

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        """Answer the prompts of a scene whose picture is embedded."""
        raise NotImplementedError

    def encode(self, batch: Tensor) -> None:
        """Run the image encoder alone on a batch (B, 3, S, S)."""
        raise NotImplementedError

    def segment_files(self, files: Sequence[Path], scene: Scene) -> list[CocoRle]:
        """Answer the same prompts for each picture file."""
        return self.segment_in_stages(files, scene, no_lap)

    def segment_in_stages(self, files: Sequence[Path], scene: Scene, lap: Lap) -> list[CocoRle]:
        """Do the same, one stage after another."""
        answers: list[CocoRle] = []
        for file in files:
            pixels = read_image(file).pixels
            lap("decode JPEG")
            self.look_at(pixels)
            lap("embed")
            answers += self.segment(scene, lap)
        return answers


class Ours(Peer):
    """The executor of this library; equal to the official masks."""

    name = "sam2_blocks"
    mode = "strict"
    dense = False
    options: ClassVar[dict[str, str]] = {"mode": "strict"}

    def __init__(self, weights: Weights) -> None:
        self._executor = self._load(weights)
        self._executor.warm_up()
        self._embedding: Embedding | None = None

    def _load(self, weights: Weights) -> Sam2Executor:
        return weights.load(**self.options)

    def embed(self, pixels: np.ndarray) -> None:
        [self._embedding] = self._executor.embed([Image(pixels)])

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        assert self._embedding is not None
        return self._segment([self._embedding], scene, lap)

    def encode(self, batch: Tensor) -> None:
        encode_batch(self._executor.model, batch)

    def segment_files(self, files: Sequence[Path], scene: Scene) -> list[CocoRle]:
        """Run the pipeline a user would write, whose runner overlaps the stages."""
        plugins = load_plugins(points=())
        pipeline = load_pipeline(FOLDER_PIPELINE, plugins.manifests, plugins.kinds)
        resources = Resources({"sam2": lambda model, **options: self._executor})
        boxes = sv.Detections(xyxy=scene.boxes_xyxy)
        items = [
            Item(file.name, {"image": partial(read_image, file), "boxes": boxes}) for file in files
        ]
        with (
            replaced(self._executor._decoder, "decode", self._answering(scene)),
            Runner(pipeline, plugins, resources=resources) as runner,
        ):
            found = [result.outputs["predictions"] for result in runner.run(items)]
        return [rle_to_coco(rle) for detections in found for rle in to_rles(detections)]

    def segment_in_stages(self, files: Sequence[Path], scene: Scene, lap: Lap) -> list[CocoRle]:
        answers: list[CocoRle] = []
        for start in range(0, len(files), FILES_AT_ONCE):
            images = [read_image(file) for file in files[start : start + FILES_AT_ONCE]]
            lap("decode JPEG")
            embeddings = self._executor.embed(images)
            lap("embed")
            answers += self._segment(embeddings, scene, lap)
        return answers

    def _segment(self, embeddings: Sequence[Embedding], scene: Scene, lap: Lap) -> list[CocoRle]:
        prompts = _prompts(scene)
        with replaced(self._executor._decoder, "decode", self._answering(scene)):
            predictions = self._executor.segment([(e, prompts) for e in embeddings])
        lap("segment")
        answers = [dict(rle_to_coco(rle)) for p in predictions for rle in p.rles]
        lap("encode")
        return answers

    def _answering(self, scene: Scene) -> Callable[..., tuple[Tensor, Tensor]] | None:
        if scene.logits is None or scene.iou is None:
            return None
        given = scene.logits, scene.iou
        decode = self._executor._decoder.decode

        def answer(rows: Any, *, multimask_output: bool) -> tuple[Tensor, Tensor]:
            decode(rows, multimask_output=multimask_output)
            indices = [row.index for row in rows]
            return given[0][indices], given[1][indices]

        return answer


class OursFast(Ours):
    """The executor in half precision."""

    mode = "fast"
    exact = False
    options: ClassVar[dict[str, str]] = {"mode": "fast", "backend": "torch"}


class OursOpenVino(Ours):
    """The executor with OpenVINO, in float32."""

    mode = "strict + openvino"
    options: ClassVar[dict[str, str]] = {"mode": "strict", "backend": "openvino"}

    @classmethod
    def missing(cls) -> str:
        return "" if has_openvino() else "needs: pip install 'sam2-blocks[openvino]'"


class OursOpenVinoFast(OursOpenVino):
    """The same in half precision."""

    mode = "fast + openvino"
    exact = False
    options: ClassVar[dict[str, str]] = {"mode": "fast", "dtype": HALF, "backend": "openvino"}


class OursCompiled(OursFast):
    """The same, compiled."""

    mode = "fast + compile"
    options: ClassVar[dict[str, str]] = {"mode": "fast", "compile": "all", "backend": "torch"}


class OursEncoderCompiled(OursFast):
    """The same, with the encoder alone compiled."""

    mode = "fast + compile encoder"
    options: ClassVar[dict[str, str]] = {"mode": "fast", "compile": "encoder", "backend": "torch"}


class OursPackaged(OursEncoderCompiled):
    """The same, compiled ahead of time by ``sam2-blocks models compile``."""

    mode = "fast + package"


class Official(Peer):
    """``SAM2ImagePredictor`` as its README shows it, then the best mask to pycocotools."""

    name = "official"

    def __init__(self, weights: Weights) -> None:
        self._network = self._prepare(weights.network)
        self._predictor = official_class()(self._network)
        self._predictor._bb_feat_sizes = feature_sizes(self._network)  # it knows 1024 px only

    def _prepare(self, network: Any) -> Any:
        return network

    def _computing(self) -> Any:
        return torch.inference_mode()

    def embed(self, pixels: np.ndarray) -> None:
        with self._computing():
            self._predictor.set_image(pixels)

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        decoder = self._network.sam_mask_decoder
        given = answering(decoder.forward, scene.logits, scene.iou)
        with self._computing(), replaced(decoder, "forward", given):
            masks, scores, _ = self._predictor.predict(**self._arguments(scene))
        lap("segment")
        answers = encode_best(masks, scores)
        lap("encode")
        return answers

    def encode(self, batch: Tensor) -> None:
        with self._computing():
            self._network.forward_image(batch)

    def _arguments(self, scene: Scene) -> dict[str, np.ndarray]:
        if scene.click_xy is None:
            return {"box": scene.boxes_xyxy}
        return {"point_coords": scene.click_xy[None], "point_labels": np.array([1])}


class OfficialHalf(Official):
    """The same under bfloat16 autocast, as the official README has it for CUDA."""

    mode = "bf16"
    exact = False

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(self._network.device.type, torch.bfloat16):
            yield


class OfficialCompiled(OfficialHalf):
    """The same, compiled as the official ``compile_image_encoder`` and ``vos_optimized`` do."""

    mode = "bf16 + compile"

    def _prepare(self, network: Any) -> Any:
        network = copy.deepcopy(network)
        for module in (network.image_encoder, network.sam_mask_decoder):
            module.forward = torch.compile(
                module.forward, mode="max-autotune", fullgraph=True, dynamic=False
            )
        return network

    def embed(self, pixels: np.ndarray) -> None:
        super().embed(pixels)
        features = self._predictor._features  # in memory that the next CUDA graph overwrites
        features["image_embed"] = features["image_embed"].clone()
        features["high_res_feats"] = [level.clone() for level in features["high_res_feats"]]


class TunedDense(Official):
    """The official modules used well: small chunks, best candidate first, one mask at a time."""

    name = "tuned dense"
    dense = False

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        prompts = [
            (box, None) if scene.click_xy is None else (None, scene.click_xy)
            for box in scene.boxes_xyxy
        ]
        answers: list[CocoRle] = []
        for start in range(0, len(prompts), TUNED_CHUNK):
            logits, iou = self._decode(prompts[start : start + TUNED_CHUNK])
            if scene.logits is not None and scene.iou is not None:
                chunk = slice(start, start + len(logits))
                logits, iou = scene.logits[chunk], scene.iou[chunk]
            answers += encode_dense(logits, iou, scene.image_hw)
        lap("segment and encode")
        return answers

    @torch.inference_mode()
    def _decode(
        self, prompts: Sequence[tuple[np.ndarray | None, np.ndarray | None]]
    ) -> tuple[Tensor, Tensor]:
        predictor, network = self._predictor, self._network
        is_box = prompts[0][0] is not None
        coords = np.stack([box if box is not None else xy for box, xy in prompts])
        points = predictor._transforms.transform_coords(
            torch.as_tensor(coords.reshape(len(prompts), -1, 2), device=network.device),
            normalize=True,
            orig_hw=predictor._orig_hw[0],
        )
        labels = torch.tensor([[2, 3] if is_box else [1]], device=points.device)
        sparse, dense = network.sam_prompt_encoder(
            points=(points, labels.expand(len(points), -1)), boxes=None, masks=None
        )
        logits, iou, _, _ = network.sam_mask_decoder(
            image_embeddings=predictor._features["image_embed"],
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=len(points) > 1,
            high_res_features=predictor._features["high_res_feats"],
        )
        return logits, iou


def official_class() -> Any:
    """Import the official ``SAM2ImagePredictor``."""
    make_torchvision_importable()
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    return SAM2ImagePredictor


@functools.cache
def make_torchvision_importable() -> Any:
    """Declare torchvision's operators where its compiled library cannot; keep what it returns."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        schemas = torch.library.Library("torchvision", "DEF")
        for schema in TORCHVISION_SCHEMAS:
            schemas.define(schema)
        return schemas
    return None


def feature_sizes(network: Any) -> list[tuple[int, int]]:
    """Return the sizes of a network's feature maps, finest first."""
    return [(network.image_size // stride,) * 2 for stride in (4, 8, 16)]


def encode_best(masks: np.ndarray, scores: np.ndarray) -> list[CocoRle]:
    """Compress the best candidate of each prompt: masks (N, 3, H, W) or (3, H, W)."""
    masks, scores = (x.reshape(-1, *x.shape[-n:]) for x, n in ((masks, 3), (scores, 1)))
    pairs = zip(masks, scores.argmax(1), strict=True)
    return [_encode(candidates[best]) for candidates, best in pairs]


def encode_dense(logits: Tensor, iou: Tensor, image_hw: tuple[int, int]) -> list[CocoRle]:
    """Compress the best candidate of each prompt, upsampling that one alone."""
    chosen = logits[torch.arange(len(iou), device=iou.device), iou.argmax(1)]
    answers = []
    for low in chosen:
        full = F.interpolate(low[None, None], image_hw, mode="bilinear", align_corners=False)
        answers.append(_encode((full[0, 0] > 0).cpu().numpy()))
    return answers


def answering(
    forward: Callable[..., Any], logits: Tensor | None, iou: Tensor | None
) -> Callable[..., Any] | None:
    """Let a mask decoder do its work and answer with given logits and predicted IoU."""
    if logits is None:
        return None

    def answer(*arguments: Any, **named: Any) -> tuple[Any, ...]:
        own_logits, own_iou, *rest = forward(*arguments, **named)
        return (logits.view_as(own_logits), iou.view_as(own_iou), *rest)

    return answer


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Shadow a method of one object for a while; None leaves it alone."""
    if value is None:
        yield
        return
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        if before is not None:
            setattr(owner, name, before)


def _prompts(scene: Scene) -> PromptSet:
    if scene.click_xy is None:
        return PromptSet.from_boxes(scene.boxes_xyxy)
    return PromptSet((Prompt(point_coords=scene.click_xy[None], point_labels=np.array([1])),))


def _encode(mask: np.ndarray) -> CocoRle:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
