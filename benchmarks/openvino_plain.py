"""OpenVINO used plainly, as its notebook for SAM 2 does: what everybody can have without us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import CocoRle
from benchmarks.peers import (
    Lap,
    Official,
    answering,
    encode_best,
    no_lap,
    replaced,
)
from benchmarks.scenes import Scene
from benchmarks.weights import Weights
from sam2_blocks.executor.backends import has_openvino
from sam2_blocks.executor.openvino.library import openvino


class OpenVinoPlain(Official):
    """The official predictor with encoder and mask decoder converted, each in one call.

    Compiled with OpenVINO's own defaults, which compute in bfloat16 where the processor has it. As
    in the notebook an object is one call of the decoder, and its masks come at full size.
    """

    name = "openvino"
    mode = "plain"
    exact = False
    dense = False

    @classmethod
    def missing(cls) -> str:
        return "" if has_openvino() else "needs: pip install openvino"

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        side, grid = self._network.image_size, self._network.image_size // 16
        channels = self._network.sam_prompt_encoder.embed_dim
        picture = torch.zeros(1, 3, side, side)
        levels = [
            torch.zeros(1, channels // divisor, grid * scale, grid * scale)
            for divisor, scale in ((1, 1), (8, 4), (4, 2))
        ]
        prompt = torch.zeros(1, 3, channels), torch.zeros(1, channels, grid, grid)
        self._encode = _compiled(_Encoder(self._network), (picture,))
        self._decode = _compiled(_Decoder(self._network), (*levels, *prompt), free_tokens=3)

    def embed(self, pixels: np.ndarray) -> None:
        with self._in_openvino():
            super().embed(pixels)

    def encode(self, batch: Tensor) -> None:
        for picture in batch.split(1):
            self._encode(picture)

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        answers: list[CocoRle] = []
        decoder = self._network.sam_mask_decoder
        for index, arguments in enumerate(self._prompts(scene)):
            one = slice(index, index + 1)
            logits = None if scene.logits is None else scene.logits[one]
            iou = None if scene.iou is None else scene.iou[one]
            with self._in_openvino(), torch.inference_mode():
                given = answering(decoder.forward, logits, iou)
                with replaced(decoder, "forward", given):
                    masks, scores, _ = self._predictor.predict(**arguments)
            answers += encode_best(masks, scores)
        lap("segment and encode")
        return answers

    def _prompts(self, scene: Scene) -> Iterator[dict[str, np.ndarray]]:
        if scene.click_xy is not None:
            yield self._arguments(scene)
            return
        yield from ({"box": box} for box in scene.boxes_xyxy)

    @contextmanager
    def _in_openvino(self) -> Iterator[None]:
        """Let the network that all share compute with OpenVINO meanwhile."""
        with ExitStack() as stack:
            for owner, name, function in (
                (self._network, "forward_image", self._forward_image),
                (self._network.sam_mask_decoder, "forward", self._forward_decoder),
            ):
                stack.enter_context(replaced(owner, name, function))
            yield

    def _forward_image(self, batch: Tensor) -> dict[str, Any]:
        levels = self._encode(batch)
        places = [torch.zeros_like(level) for level in levels]  # the predictor reads none
        return {"backbone_fpn": levels, "vision_pos_enc": places}

    def _forward_decoder(self, **named: Any) -> tuple[Tensor, ...]:
        logits, iou = self._decode(
            named["image_embeddings"],
            *named["high_res_features"],
            named["sparse_prompt_embeddings"],
            named["dense_prompt_embeddings"],
        )
        return logits, iou, logits, iou  # of the other two nothing is read


class _Encoder(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.forward_image(batch)["backbone_fpn"])


class _Decoder(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.decoder = network.sam_mask_decoder
        self.places = network.sam_prompt_encoder.get_dense_pe()

    def forward(self, embed: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        fine, middle, sparse, dense = rest
        logits, iou, _, _ = self.decoder(
            image_embeddings=embed,
            image_pe=self.places,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=[fine, middle],
        )
        return logits, iou


def _compiled(module: nn.Module, example: tuple[Tensor, ...], *, free_tokens: int = -1) -> Any:
    shapes = [
        [1, -1, x.shape[-1]] if index == free_tokens else list(x.shape)
        for index, x in enumerate(example)
    ]
    with torch.no_grad():
        converted = openvino().convert_model(module.eval(), example_input=example, input=shapes)
    request = openvino().Core().compile_model(converted, "CPU").create_infer_request()

    def run(*inputs: Tensor) -> list[Tensor]:
        found = request.infer([x.contiguous().numpy() for x in inputs]).values()
        return [torch.from_numpy(np.array(one)) for one in found]

    return run
