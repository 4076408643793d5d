"""What is remembered of each object, and how a frame is read in its light.

SAM 2 reads a bounded past: the frames an object was prompted on, its last six memories and its
last fifteen pointers. Nothing else is kept, and dropping it changes no bit. A memory says where
the object was, as a small map; a pointer is one vector that says what it was. Objects whose
memories have one shape are read as one batch, with the arithmetic of one by one.
Source: sam2 ``modeling/sam2_base.py: _prepare_memory_conditioned_features, _encode_new_memory``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.sam2.memory_attention import attend
from sam2_blocks.executor.sam2.memory_encoder import encode
from sam2_blocks.executor.sam2.model import LoadedModel

# Memories are kept as the official predictor keeps them, whatever the model computes in.
MEMORY_DTYPE = torch.bfloat16
# How the memory of this library reads a network; all public configurations are so.
REQUIRED = {
    "directly_add_no_mem_embed": True,
    "use_mask_input_as_output_without_sam": True,
    "use_obj_ptrs_in_encoder": True,
    "memory_temporal_stride_for_eval": 1,
    "non_overlap_masks_for_mem_enc": False,
}


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """What one frame leaves behind of one object.

    Attributes:
        step: number of the frame in its session.
        features: bfloat16, (h/4 * w/4, D), where it was.
        pointer: (C,), what it was.
    """

    step: int
    features: Tensor
    pointer: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        return self.features.nbytes + self.pointer.nbytes


@dataclass(frozen=True, eq=False)
class MemoryBounds:
    """How much is remembered of each object.

    Attributes:
        prompted: frames it was prompted on: the first and the newest.
        recent: frames just before, with where it was.
        pointers: frames just before, with what it was.
    """

    prompted: int
    recent: int
    pointers: int


@dataclass(frozen=True, eq=False)
class ObjectMemory:
    """Everything remembered of one object; a value, so that a step that fails changes nothing.

    Attributes:
        prompted: memories of the frames it was prompted on, oldest first.
        recent: memories of the last frames it was tracked on, oldest first.
        pointers: steps and pointers of the last frames it was tracked on, oldest first.
    """

    prompted: tuple[FrameMemory, ...] = ()
    recent: tuple[FrameMemory, ...] = ()
    pointers: tuple[tuple[int, Tensor], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        maps = {id(memory): memory.nbytes for memory in (*self.prompted, *self.recent)}
        seen = {id(memory.pointer) for memory in (*self.prompted, *self.recent)}
        return sum(maps.values()) + sum(p.nbytes for _, p in self.pointers if id(p) not in seen)

    def add_prompted(self, memory: FrameMemory, bounds: MemoryBounds) -> ObjectMemory:
        """Remember a frame the object was prompted on, in place of what was tracked on it.

        Args:
            memory: of the frame.
            bounds: how many such frames are kept: the first and the newest.

        Returns:
            What is remembered after it.
        """
        others = tuple(old for old in self.prompted if old.step != memory.step)
        room = bounds.prompted - 1
        if len(others) > room:
            others = (*others[:1], *others[len(others) + 1 - room :])[:room]
        return replace(self._before(memory.step, bounds), prompted=(*others, memory))

    def add_tracked(self, memory: FrameMemory, bounds: MemoryBounds) -> ObjectMemory:
        """Remember a frame the object was tracked on, and forget what will not be read again.

        Args:
            memory: of the frame.
            bounds: how many frames and pointers are read.

        Returns:
            What is remembered after it.
        """
        before = self._before(memory.step, bounds)
        recent = (*before.recent, memory) if bounds.recent else ()
        pointers = (*before.pointers, (memory.step, memory.pointer))
        return replace(before, recent=recent, pointers=pointers)

    def _before(self, step: int, bounds: MemoryBounds) -> ObjectMemory:
        """Return what was tracked before a frame and will still be read after it."""
        return ObjectMemory(
            self.prompted,
            tuple(old for old in self.recent if step - bounds.recent < old.step < step),
            tuple(old for old in self.pointers if step - bounds.pointers < old[0] < step),
        )


@dataclass(frozen=True, eq=False)
class MemoryView:
    """What one object remembers, as seen from a frame.

    Attributes:
        features: maps (h/4 * w/4, D) in the order they are read.
        slots: which of the learned ages each map has.
        pointers: vectors (C,) in the order they are read.
        distances: how many frames ago each vector was.
    """

    features: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pointers: tuple[Tensor, ...]
    distances: tuple[int, ...]

    @property
    def shape_key(self) -> tuple[int, int]:
        """What objects must share to be read together."""
        return len(self.features), len(self.pointers)


def memory_bounds(network: Any, max_prompt_frames: int, memory_frames: int | None) -> MemoryBounds:
    """Say how much a network remembers of each object.

    Args:
        network: with its configuration.
        max_prompt_frames: see `TrackSettings`.
        memory_frames: see `TrackSettings`.

    Raises:
        ModelError: if its configuration asks for a memory that works in another way.
        ValueError: if more is asked for than it was trained with, or less than one frame.
    """
    for name, value in REQUIRED.items():
        if getattr(network, name) != value:
            raise ModelError(
                f"this model cannot track: its configuration has {name}: {getattr(network, name)}, "
                f"and its memory is known with {value} only."
            )
    most = int(network.num_maskmem)
    frames = most if memory_frames is None else memory_frames
    if not 1 <= frames <= most:
        raise ValueError(
            f"memory_frames must be 1 to {most}, what this model was built with; got {frames}"
        )
    if max_prompt_frames < 1:
        raise ValueError(f"max_prompt_frames must be at least 1, got {max_prompt_frames}")
    return MemoryBounds(max_prompt_frames, frames - 1, network.max_obj_ptrs_in_encoder - 1)


class Memory:
    """Reads and writes memories of one model; holds none itself.

    Args:
        model: the network.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._network: Any = model.network
        # Half precision with few exponents loses objects when memories are made with it.
        self._may_reduce = model.dtype != torch.float16

    def view(self, memory: ObjectMemory, step: int) -> MemoryView:
        """Arrange what is remembered of an object in the order in which the network reads it.

        Args:
            memory: of the object.
            step: number of the frame that is read in its light.
        """
        prompted, oldest_slot = memory.prompted, self._network.num_maskmem - 1
        pointers = [(step - old.step, old.pointer) for old in prompted]
        pointers += [(step - past, pointer) for past, pointer in reversed(memory.pointers)]
        return MemoryView(
            features=tuple(old.features for old in (*prompted, *memory.recent)),
            slots=(
                *[oldest_slot] * len(prompted),
                *(step - old.step - 1 for old in memory.recent),
            ),
            pointers=tuple(pointer for _, pointer in pointers),
            distances=tuple(distance for distance, _ in pointers),
        )

    def read(self, image_embed: Tensor, views: Sequence[MemoryView]) -> Tensor:
        """Read a frame in the light of what objects of one shape remember.

        Args:
            image_embed: (1, C, h/4, w/4), features of the frame.
            views: N of one `MemoryView.shape_key`, each of something prompted.

        Returns:
            (N, C, h/4, w/4), features of the frame for each object.
        """
        with self._model.computing():
            maps = _join_maps(views)
            pointers, pointer_places = self._read_pointers(views)
            memory = torch.cat([maps, pointers], 1)  # (N, L, D)
            places = _cat_places(self._map_places(views), pointer_places)  # (1 or N, L, D)
            tokens = attend(
                self._network.memory_attention,
                image_embed.flatten(2).permute(0, 2, 1),
                memory,
                places,
                frame_places=self._frame_places,
                pointers=pointers.shape[1],
            )
        return tokens.permute(0, 2, 1).reshape(len(views), -1, *image_embed.shape[-2:])

    def write(
        self, image_embed: Tensor, logits: Tensor, object_score: Tensor, *, prompted: bool
    ) -> Tensor:
        """Make memories of where objects are on a frame.

        Args:
            image_embed: (1, C, h/4, w/4), features of the frame.
            logits: float32, (N, h, w).
            object_score: float32, (N, 1).
            prompted: the masks are what a user saw and meant: their outline counts, not how sure
                the network was.

        Returns:
            bfloat16, (N, h/4 * w/4, D).
        """
        network, side = self._network, self._model.image_size
        with self._model.computing(reduced=self._may_reduce):
            masks = F.interpolate(logits[:, None], (side, side), mode="bilinear")
            masks = (masks > 0).float() if prompted else masks.sigmoid_()
            if network.sigmoid_scale_for_mem_enc != 1:
                masks.mul_(network.sigmoid_scale_for_mem_enc)
            if network.sigmoid_bias_for_mem_enc != 0:
                masks.add_(network.sigmoid_bias_for_mem_enc)
            # (N, D, h/4, w/4)
            features = encode(network.memory_encoder, image_embed.float(), masks)
            if network.no_obj_embed_spatial is not None:
                unseen = 1 - (object_score > 0).float()  # (N, 1)
                features = features + (unseen * network.no_obj_embed_spatial)[..., None, None]
            memories: Tensor = features.flatten(2).permute(0, 2, 1).to(MEMORY_DTYPE)
        return memories

    def _read_pointers(self, views: Sequence[MemoryView]) -> tuple[Tensor, Tensor]:
        """Cut pointers into tokens (N, P, D) and say how old each is, (1 or N, P, D)."""
        network = self._network
        width = int(network.mem_dim)
        pointers = torch.stack([torch.stack(view.pointers) for view in views])  # (N, p, C)
        pieces = pointers.shape[-1] // width
        tokens = pointers.float().reshape(len(views), -1, width)
        if not network.add_tpos_enc_to_obj_ptrs:
            return tokens, tokens.new_zeros(1, tokens.shape[1], width)
        distances = [view.distances for view in views]
        distances = distances[:1] if len(set(distances)) == 1 else distances
        ages = torch.tensor(distances, device=pointers.device)  # (1 or N, p)
        channels = pointers.shape[-1] if network.proj_tpos_enc_in_obj_ptrs else width
        ages = _sine_encoding(ages / (network.max_obj_ptrs_in_encoder - 1), channels)
        return tokens, network.obj_ptr_tpos_proj(ages).repeat_interleave(pieces, 1)

    def _map_places(self, views: Sequence[MemoryView]) -> Tensor:
        """Say where each token of the maps is, and how old: (1 or N, M * h/4 * w/4, D)."""
        slots = [view.slots for view in views]
        slots = slots[:1] if len(set(slots)) == 1 else slots
        return self._places[torch.tensor(slots, device=self._places.device)].flatten(1, 2)

    @cached_property
    def _places(self) -> Tensor:
        """Places of the tokens of a map at each age: (A, h/4 * w/4, D)."""
        network = self._network
        height, width = self._model.low_res_hw
        empty = torch.zeros(1, int(network.mem_dim), height // 4, width // 4)
        with torch.inference_mode():
            places = network.memory_encoder.position_encoding(empty.to(self._model.device))
            ages = network.maskmem_tpos_enc[:, :, 0]  # (A, 1, D)
            table: Tensor = places.flatten(2).permute(0, 2, 1) + ages
        return table

    @cached_property
    def _frame_places(self) -> Tensor:
        """Places of the tokens of a frame: (1, h/4 * w/4, C)."""
        network = self._network
        height, width = self._model.low_res_hw
        empty = torch.zeros(1, int(network.hidden_dim), height // 4, width // 4)
        with torch.inference_mode():
            places = network.image_encoder.neck.position_encoding(empty.to(self._model.device))
        tokens: Tensor = places.flatten(2).permute(0, 2, 1)
        return tokens


def _join_maps(views: Sequence[MemoryView]) -> Tensor:
    """Lay the maps of each object behind one another: float32, (N, M * h/4 * w/4, D)."""
    first = views[0].features[0]
    shape = (len(views), len(views[0].features), *first.shape)
    maps = torch.empty(shape, device=first.device)
    for row, view in zip(maps, views, strict=True):
        for place, features in zip(row, view.features, strict=True):
            place.copy_(features)  # autocast to float16 would refuse to join them
    return maps.flatten(1, 2)


def _cat_places(maps: Tensor, pointers: Tensor) -> Tensor:
    """Join places along the tokens; either may be shared by all objects (batch of 1)."""
    count = max(len(maps), len(pointers))
    return torch.cat([maps.expand(count, -1, -1), pointers.expand(count, -1, -1)], 1)


def _sine_encoding(positions: Tensor, channels: int, temperature: int = 10_000) -> Tensor:
    """Encode positions (...) as sines: (..., channels); source: sam2 ``get_1d_sine_pe``."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    periods = temperature ** (2 * (index // 2) / half)
    angles = positions.unsqueeze(-1) / periods
    return torch.cat([angles.sin(), angles.cos()], -1)


def kept_bytes(network: Any, bounds: MemoryBounds) -> int:
    """Bound what is remembered of one object, in bytes."""
    features: int = math.prod(network.sam_prompt_encoder.image_embedding_size)
    features *= int(network.mem_dim) * MEMORY_DTYPE.itemsize
    pointer = int(network.hidden_dim) * 4
    maps = bounds.prompted + bounds.recent
    return maps * features + (bounds.prompted + bounds.pointers) * pointer
