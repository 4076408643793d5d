"""Moving scenes: the layers of `scenes` travel, turn, grow, bend, and pass before one another.

Every pixel of every frame is traced back to the point of the resting scene that it shows: through
the camera's way, through the layer's way, then through its bending. Shape, texture and shade are
looked up there, so that they stick to what moves.

Axis letters: B clips, T frames, I ids (ground first, then layers), S pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from examples.train_nano.bank import box_blur
from examples.train_nano.scenes import GROUND, LAYERS, Scene, Scenes


@dataclass(frozen=True)
class Clip:
    """Images (T, 3, S, S) in 0..1, ids (T, S, S) uint8, member (J, I) bool as in `Scene`."""

    images: Tensor
    ids: Tensor
    member: Tensor

    def frame(self, index: int) -> Scene:
        """One frame as a batch of one scene."""
        at = slice(index, index + 1)
        return Scene(self.images[at], self.ids[at].long(), self.member[None])


@dataclass(frozen=True)
class Motion:
    """Where a layer is at each frame, relative to its rest.

    Attributes:
        back: (T, 2, 3), takes a point of the frame to the resting layer.
        bend: (T, 4): amplitude and phase of the wave along x, then along y.
        pitch: (2,) radians per unit of these waves.
    """

    back: Tensor
    bend: Tensor
    pitch: Tensor

    def rest_of(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Trace points x, y (T, S, S) of the frames back."""
        a, b, c, d, e, f = self.back.flatten(1)[:, :, None, None].unbind(1)
        x, y = a * x + b * y + c, d * x + e * y + f
        if not self.bend.any():
            return x, y
        grow_x, phase_x, grow_y, phase_y = self.bend[:, :, None, None].unbind(1)
        pitch_x, pitch_y = self.pitch.tolist()
        moved = x + grow_x * torch.sin(pitch_x * y + phase_x)
        return moved, y + grow_y * torch.sin(pitch_y * x + phase_y)


def affine(shift: Tensor, log_scale: Tensor, angle: Tensor, centre: Tensor) -> Tensor:
    """Turn and scale about ``centre`` (2,), then shift (T, 2): matrices (T, 3, 3)."""
    scale = log_scale.exp()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrix = torch.eye(3, device=shift.device).repeat(len(shift), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, cos
    matrix[:, :2, 2] = centre + shift - (matrix[:, :2, :2] @ centre)
    return matrix


class VideoScenes(Scenes):
    """Make clips; arguments as for `Scenes`."""

    _frames = 0  # while a clip is painted: what is drawn for so many rows is drawn once

    def rand(self, *shape: int) -> Tensor:
        return self._once_a_clip(super().rand, shape)

    def randn(self, *shape: int) -> Tensor:
        return self._once_a_clip(super().randn, shape)

    def randint(self, high: int, *shape: int) -> Tensor:
        return self._once_a_clip(lambda *s: super(VideoScenes, self).randint(high, *s), shape)

    def _once_a_clip(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self._frames == 0 or shape[0] != self._frames:
            return draw(*shape)
        return draw(1, *shape[1:]).expand(*shape)

    @torch.no_grad()
    def clip(self, frames: int, size: int, *, objects: int = LAYERS, hidden: int = 0) -> Clip:
        """Make a clip.

        Args:
            frames: how many, more than 2.
            size: pixels of a side.
            objects: most layers in front of the ground, up to LAYERS.
            hidden: for how many frames a large layer stays before another one.
        """
        fine = size * 3 // 2
        time = torch.arange(frames, device=self.device) - float(self.rand(1)) * (frames - 1)
        place, parent, whole = self._cast(objects)
        camera = self._camera_path(time)
        motions, place = self._choreography(time, place, parent, camera, hidden)
        self._frames = frames
        try:
            ids, x, y = self._paint_clip(frames, fine, place, parent, camera, motions)
            rows = (t.expand(frames, *t.shape[1:]) for t in (place, parent))
            images = self._colour(ids, *rows, x, y)
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            images = self._lens(images)
        finally:
            self._frames = 0
        ids = F.interpolate(ids[:, None].float(), size=(size, size), mode="nearest-exact")
        images = self._grain(self._focus(images, time)).clamp(0, 1)
        return Clip(images, ids[:, 0].byte(), self._members(parent, whole)[0])

    def _cast(self, objects: int) -> tuple[Tensor, Tensor, Tensor]:
        """Choose layers: place (1, I, 4), parent (1, I), whole (1, I), as `Scenes._paint` does.

        Layers that are not on stage have scale 0.
        """
        total = GROUND + LAYERS
        place = torch.zeros(1, total, 4, device=self.device)
        place[..., 2] = 1.0
        place[:, :GROUND, 3] = self.rand(1, GROUND) * 7
        count = 2 + int(float(self.rand(1)) ** 0.6 * (objects - 2))
        scale = self.log_between(0.08, 0.8, LAYERS)
        order = (scale * torch.exp(self.randn(LAYERS) * 0.6)).argsort(descending=True)
        place[0, GROUND:, 2] = scale[order]
        place[0, GROUND:, :2] = self.between(-0.9, 0.9, LAYERS, 2)
        tilt, turned = self.randn(LAYERS) * 0.2, self.rand(LAYERS) * 7
        place[0, GROUND:, 3] = torch.where(self.rand(LAYERS) < 0.75, tilt, turned)
        place[0, GROUND + count :, 2] = 0.0
        parent = torch.arange(total, device=self.device)[None].clone()
        parts = float(self.between(0.0, 0.5, 1))
        for i in range(GROUND + 1, GROUND + count):
            if float(self.rand(1)) < parts:
                host = GROUND + int(self.randint(i - GROUND, 1))
                parent[0, i] = host
                place[0, i, 2] = place[0, host, 2] * self.between(0.3, 0.9, 1)
                place[0, i, :2] = place[0, host, :2] + self.randn(2) * 0.35 * place[0, host, 2]
        whole = self.rand(1, total) < self.between(0.1, 0.9, 1, 1)
        return place, parent, whole & (parent != torch.arange(total, device=self.device))

    def _camera_path(self, time: Tensor) -> Tensor:
        """Pan, zoom, roll and shake: matrices (T, 3, 3) that take frames to the world."""
        still = float(self.rand(1)) < 0.3
        speed = 0.0 if still else float(self.log_between(0.002, 0.04, 1))
        shake = float(self.chance(0.4, 1) * self.log_between(0.003, 0.03, 1))
        jitter = self.randn(len(time), 4) * shake
        zoom = self.randn(1) * speed * 0.4 * time + jitter[:, 2] * 0.3
        roll = self.randn(1) * speed * 0.4 * time + jitter[:, 3] * 0.3
        pan = self.randn(1, 2) * speed * time[:, None] + jitter[:, :2]
        return affine(pan, zoom.clamp(-0.5, 0.5), roll, torch.zeros(2, device=self.device))

    def _choreography(
        self, time: Tensor, place: Tensor, parent: Tensor, camera: Tensor, hidden: int
    ) -> tuple[list[Motion], Tensor]:
        """Give every layer its way; returns them and the places, some moved to meet another."""
        pace = float(self.log_between(0.008, 0.14, 1))
        ways: list[Tensor] = []  # resting layer to world, (T, 3, 3)
        motions: list[Motion] = []
        place = place.clone()
        for layer in range(LAYERS):
            i = GROUND + layer
            host = int(parent[0, i]) - GROUND
            is_part = host != layer
            shift, grow, turn = self._way(time, pace * (0.1 if is_part else 1.0))
            if not is_part and layer and float(self.rand(1)) < 0.5:
                self._meet(place[0], i, GROUND + int(self.randint(layer, 1)), ways, shift, time)
            way = affine(shift, grow, turn, place[0, i, :2])
            if is_part:
                way = ways[host] @ way
            elif hidden and layer == LAYERS - 1:
                way = self._hide(place[0], i, parent[0], ways, hidden)
            ways.append(way)
            back = torch.linalg.inv(way) @ camera
            bend, pitch = self._bend(time, float(place[0, i, 2]))
            if is_part:
                bend, pitch = motions[host].bend, motions[host].pitch
            motions.append(Motion(back[:, :2], bend, pitch))
        return motions, place

    def _meet(
        self, place: Tensor, i: int, other: int, ways: list[Tensor], shift: Tensor, time: Tensor
    ) -> None:
        """Put layer ``i`` where it passes before ``other``, large enough to hide some of it."""
        if place[i, 2] == 0 or place[other, 2] == 0:
            return
        at = int(self.randint(len(time), 1))
        middle = ways[other - GROUND][at] @ F.pad(place[other, :2], (0, 1), value=1.0)
        place[i, :2] = middle[:2] - shift[at]
        place[i, 2] = (place[other, 2] * self.between(0.7, 2.2, 1)[0]).clamp(0.08, 1.0)

    def _hide(
        self, place: Tensor, i: int, parent: Tensor, ways: list[Tensor], hidden: int
    ) -> Tensor:
        """Let layer ``i`` come, stay before another one for ``hidden`` frames, and go; its way."""
        layers = torch.arange(GROUND, GROUND + LAYERS - 1, device=self.device)
        on_stage = (place[layers, 2] > 0) & (parent[layers] == layers)
        central = place[layers, :2].norm(dim=-1)
        least = place[layers, 2] + 0.5 * central + 9 * ~on_stage + 0.2 * self.rand(len(layers))
        other = int(least.argmin())
        middle = ways[other] @ F.pad(place[GROUND + other, :2], (0, 1), value=1.0)  # (T, 3)
        place[i, 2] = (place[GROUND + other, 2] * 2.8).clamp(0.35, 1.3)
        place[i, :2] = 0
        frames = torch.arange(len(middle), device=self.device)
        start = 2 + int(self.randint(max(1, len(middle) - hidden - 3), 1))
        away = ((start - frames) / 2).clamp(0, 1) - ((frames - start - hidden + 1) / 2).clamp(0, 1)
        side = self.rand(1) * 7
        far = 2.5 * torch.cat([side.cos(), side.sin()])
        still = torch.zeros_like(middle[:, 0])
        return affine(middle[:, :2] + away[:, None] * far, still, still, place[i, :2])

    def _way(self, time: Tensor, pace: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a shift (T, 2), log scale (T) and angle (T) over time."""
        moves = float(self.rand(1)) < 0.8
        speed = self.randn(1, 2) * pace * moves
        bow = self.randn(1, 2) * pace * 0.06 * moves
        swing = self.randn(1, 2) * pace * float(self.chance(0.3, 1)) * 1.5
        wave = torch.sin(time * float(self.between(0.2, 1.2, 1)) + float(self.rand(1)) * 7)
        shift = speed * time[:, None] + bow * time[:, None] ** 2 / 2 + swing * wave[:, None]
        grow = self.randn(1) * pace * 0.5 * float(self.chance(0.5, 1)) * time
        turn = self.randn(1) * pace * float(self.chance(0.6, 1)) * time
        return shift, grow.clamp(-0.7, 0.7), turn

    def _bend(self, time: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Draw the waves that bend a layer: (T, 4) and (2,), as in `Motion`."""
        strength = 0.16 * scale * self.rand(2) * float(self.chance(0.5, 1))
        beat = self.between(0.2, 1.0, 2) * time[:, None]
        phase = self.rand(2) * 7
        grow = strength * torch.sin(beat + self.rand(2) * 7)
        columns = (
            grow[:, :1],
            (phase + beat * 0.3)[:, :1],
            grow[:, 1:],
            (phase - beat * 0.3)[:, 1:],
        )
        return torch.cat(columns, 1), self.between(1, 4, 2) / max(scale, 0.05)

    def _paint_clip(
        self,
        frames: int,
        size: int,
        place: Tensor,
        parent: Tensor,
        camera: Tensor,
        motions: list[Motion],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Paint ids (T, size, size), and the resting x and y of what each pixel shows."""
        ramp = torch.linspace(-1, 1, size, device=self.device)
        x = ramp[None, None, :].expand(frames, size, size)
        y = ramp[None, :, None].expand(frames, size, size)
        nothing = torch.zeros(2, device=self.device)
        still = Motion(camera[:, :2], torch.zeros(frames, 4, device=self.device), nothing)
        rest_x, rest_y = still.rest_of(x, y)
        rough = self.noise(1, 2, size, self.between(0.5, 0.85, 1, 1, 1, 1), start=8)
        ground = self._ground(1, size, rough).float()
        grid = torch.stack([rest_x, rest_y], -1) / 1.4  # so that it reaches beyond the picture
        ground = ground[None].expand(frames, -1, -1, -1)
        ids = F.grid_sample(ground, grid, "nearest", "reflection", align_corners=False)[:, 0].long()
        smooth = torch.zeros(1, 2, 1, 1, device=self.device)
        for i in range(GROUND, GROUND + LAYERS):
            if place[0, i, 2] == 0:
                continue
            at_x, at_y = motions[i - GROUND].rest_of(x, y)
            inside = self._inside(place[:, i].expand(frames, -1), at_x, at_y, smooth)
            if parent[0, i] != i:
                inside = inside & (ids == parent[0, i])
            ids = torch.where(inside, i, ids)
            rest_x = torch.where(inside, at_x, rest_x)
            rest_y = torch.where(inside, at_y, rest_y)
        return ids, rest_x, rest_y

    def _focus(self, images: Tensor, time: Tensor) -> Tensor:
        """Blur some clips along one direction or all over, and let the exposure wander."""
        exposure = torch.sin(time * float(self.between(0.1, 0.9, 1)) + float(self.rand(1)) * 7)
        images = images * (1 + exposure[:, None, None, None] * float(self.rand(1) ** 2) * 0.15)
        kind = float(self.rand(1))
        if kind < 0.7:
            return images
        side = 2 * int(self.between(1, images.shape[-1] / 48, 1)) + 1
        if kind < 0.8:
            return box_blur(images, 3)
        kernel = (side, 1) if kind < 0.9 else (1, side)
        pad = (kernel[0] // 2, kernel[1] // 2)
        blurred = F.avg_pool2d(images, kernel, 1, pad, count_include_pad=False)
        moving = (self.rand(len(time)) < 0.6)[:, None, None, None]
        return torch.where(moving, blurred, images)
