"""Procedural scenes in which everything is a segment.

A scene starts from a partition of the ground (sky, grass, walls: the arg max of smooth random
fields), then takes objects and parts of objects in front. Only the *ids* are painted layer by
layer; colours are looked up once per pixel from a table with one row per segment, so a scene costs
pixels, not pixels times layers. All on one device.

Axis letters: B scenes, I ids (ground first, then layers), S pixels of a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from examples.train_nano.bank import SIDE, Bank, Dice, box_blur

GROUND, LAYERS = 5, 10  # most regions a ground has, most objects and parts in front of it


@dataclass(frozen=True)
class Scene:
    """A batch: images (B, 3, S, S) in 0..1, ids (B, S, S) int64, member (B, J, I) bool.

    ``member[b, j, i]`` tells whether segment j of scene b holds id i.
    """

    images: Tensor
    ids: Tensor
    member: Tensor

    def flip(self) -> Scene:
        """Mirror left and right."""
        return Scene(self.images.flip(-1), self.ids.flip(-1), self.member)

    def pick(self, rows: Tensor) -> Scene:
        """Take some scenes of the batch."""
        return Scene(self.images[rows], self.ids[rows], self.member[rows])


class Scenes(Dice):
    """Make scenes from a bank of textures and shapes, drawn once from ``seed``.

    Args:
        device: where the bank lives and scenes are made.
        seed: of everything random here.
        bank: number of textures; there are four times as many shapes.
    """

    def __init__(self, device: str | torch.device = "cpu", seed: int = 0, bank: int = 320) -> None:
        drawn = Bank(device, seed)
        super().__init__(device, seed + 1)
        self.textures = drawn.textures(bank)  # (T, SIDE, SIDE, 3) uint8 around 128
        shapes = [drawn.shapes(64) for _ in range(bank // 16)]
        self.fields = torch.cat(shapes)  # (M, SIDE/2, SIDE/2)

    def sample(self, batch: int, size: int, objects: int = LAYERS) -> Scene:
        """Make ``batch`` scenes of ``size`` pixels with up to ``objects`` <= LAYERS layers each."""
        fine = size * 3 // 2  # averaged down later: borders mix colours as in a photograph
        ids, place, parent, whole = self._paint(batch, fine, objects)
        ramp = torch.linspace(-1, 1, fine, device=self.device)
        x, y = ramp[None, None, :].expand_as(ids), ramp[None, :, None].expand_as(ids)
        images = self._colour(ids, place, parent, x, y)
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        ids = F.interpolate(ids[:, None].float(), size=(size, size), mode="nearest-exact")
        members = self._members(parent, whole)
        images = self._grain(self._lens(images))
        return Scene(images.clamp(0, 1), ids[:, 0].long(), members)

    def _ground(self, b: int, size: int, rough: Tensor) -> Tensor:
        """Partition the ground into 1 to GROUND regions, (b, size, size) int64."""
        ramp = torch.linspace(-1, 1, 64, device=self.device)
        upright = self.between(1, 3, b, 1, 1, 1) if self.rand(1) < 0.7 else 1.0
        slope_y = self.randn(b, GROUND, 1, 1) * 1.5 * upright
        plane = self.randn(b, GROUND, 1, 1) * ramp[None, :] + slope_y * ramp[:, None]
        wavy = self.noise(b * GROUND, 1, 64, self.between(0.3, 0.7, b * GROUND, 1, 1, 1))
        wavy = wavy.view(b, GROUND, 64, 64) * self.log_between(0.05, 2.5, b, 1, 1, 1)
        level = plane + wavy + self.randn(b, GROUND, 1, 1) * 0.6
        absent = torch.arange(GROUND, device=self.device) > self.randint(GROUND, b, 1)
        level = level - 99.0 * absent[:, :, None, None]
        level = F.interpolate(level, size=(size, size), mode="bilinear")
        jagged = self.randn(b, GROUND, 1, 1) * 0.25 * self.rand(b, 1, 1, 1) ** 3
        best = torch.full_like(rough[:, 0], -1e9)
        ids = torch.zeros_like(best, dtype=torch.long)
        for i in range(GROUND):  # many times faster on a CPU than argmax over axis 1
            here = level[:, i] + rough[:, 0] * jagged[:, i]
            ids = torch.where(here > best, i, ids)
            best = torch.maximum(best, here)
        return ids

    def _paint(self, b: int, size: int, objects: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paint ids (b, size, size).

        Also returns every id's place (b, I, 4: x, y, scale, angle), its parent (b, I), and whether
        it only counts as a part of that (b, I).
        """
        n, total = LAYERS, GROUND + LAYERS
        ramp = torch.linspace(-1, 1, size, device=self.device)
        rough = self.noise(b, 2, size, self.between(0.5, 0.85, b, 1, 1, 1), start=8)
        ids = self._ground(b, size, rough)
        place = torch.zeros(b, total, 4, device=self.device)
        place[..., 2] = 1.0
        place[:, :GROUND, 3] = self.rand(b, GROUND) * 7
        scale = self.log_between(0.07, 1.3, b, n)
        order = (scale * torch.exp(self.randn(b, n) * 0.4)).argsort(1, descending=True)
        place[:, GROUND:, 2] = scale.gather(1, order)
        place[:, GROUND:, :2] = self.between(-1.1, 1.1, b, n, 2)
        upright, tilt = self.rand(b, n) < 0.75, self.randn(b, n) * 0.2
        place[:, GROUND:, 3] = torch.where(upright, tilt, self.rand(b, n) * 7)
        parent = torch.arange(total, device=self.device).repeat(b, 1)
        count = 1 + (self.rand(b) ** 0.6 * objects).long()
        rows = torch.arange(b, device=self.device)
        parts = self.between(0.2, 0.7, b)  # from scattered things to a few things of many parts
        for i in range(GROUND, GROUND + objects):
            is_part = (self.rand(b) < parts) & (i > GROUND)
            host = GROUND + (self.rand(b) * (i - GROUND)).long()
            at, share = place[rows, host], self.between(0.3, 1.0, b)
            near = at[:, :2] + self.randn(b, 2) * 0.35 * at[:, 2:3]
            place[:, i, :2] = torch.where(is_part[:, None], near, place[:, i, :2])
            place[:, i, 2] = torch.where(is_part, at[:, 2] * share, place[:, i, 2])
            parent[:, i] = torch.where(is_part, host, parent[:, i])
            x, y = ramp[None, None, :], ramp[None, :, None]
            inside = self._inside(place[:, i], x, y, rough)
            inside = inside & (i - GROUND < count)[:, None, None]
            inside = inside & (~is_part[:, None, None] | (ids == host[:, None, None]))
            ids = torch.where(inside, i, ids)
        whole = self.rand(b, total) < self.between(0.1, 0.9, b, 1)
        whole = whole & (parent != torch.arange(total, device=self.device))
        return ids, place, parent, whole

    def _inside(self, place: Tensor, x: Tensor, y: Tensor, rough: Tensor) -> Tensor:
        """Where random shapes of the bank, put at ``place`` (b, 4), cover x, y (b, s, s); bool."""
        b, stretch = len(place), torch.exp(self.randn(len(place)) * 0.35).clamp(0.4, 2.5)
        at_x, at_y, s, angle = place[:, :, None, None].unbind(1)
        cos, sin, stretch = angle.cos(), angle.sin(), stretch[:, None, None]
        mirror = self.chance(0.5, b, 1, 1) * 2 - 1
        x, y = x - at_x, y - at_y
        jag = 0.06 * self.rand(b, 1, 1) ** 3
        u = (x * cos + y * sin) / (s * stretch * mirror) * 0.65
        v = (y * cos - x * sin) / (s / stretch) * 0.65
        grid = torch.stack([u + rough[:, 0] * jag, v + rough[:, 1] * jag], -1)
        field = self.fields[self.randint(len(self.fields), b)][:, None]
        near = (grid.abs() < 1).all(-1)
        height = F.grid_sample(field, grid, padding_mode="border", align_corners=False)[:, 0]
        return (height > 0) & near

    def _colours(self, b: int, total: int, parent: Tensor) -> Tensor:
        """Choose every id's colour near its scene's palette, or its parent's; (b, I, 3)."""
        spread = self.log_between(0.09, 0.35, b, 1, 1)
        light = self.randn(b, total, 1) * spread
        warm = self.randn(b, total, 1) * spread * 0.45 * self.rand(b, 1, 1)
        green = self.randn(b, total, 1) * spread * 0.3 * self.rand(b, 1, 1)
        axis = torch.tensor([[0.6, 0.25, -0.9], [-0.5, 0.6, -0.3]], device=self.device)
        colour = self.between(0.25, 0.7, b, 1, 1) + light + warm * axis[0] + green * axis[1]
        vivid = self.chance(0.12, b, total, 1) * self.chance(0.6, b, 1, 1)
        colour = torch.lerp(colour, self.rand(b, total, 3), vivid)
        like = (parent != torch.arange(total, device=self.device)) & (self.rand(b, total) < 0.5)
        same = colour.gather(1, parent[..., None].expand(-1, -1, 3))
        same = same + self.randn(b, total, 3) * 0.06
        return torch.where(like[..., None], same, colour).clamp(0.02, 0.98)

    def _colour(self, ids: Tensor, place: Tensor, parent: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Fill ids with colour, two textures, shading and shadows; (b, 3, s, s).

        ``x`` and ``y`` (b, s, s) say which point of a texture a pixel shows.
        """
        b, total = parent.shape
        size = ids.shape[-1]
        base = self._colours(b, total, parent)
        gain = torch.stack([self.rand(b, total) ** 1.5 * 0.22, self.rand(b, total) ** 3 * 0.2], -1)
        gain = gain * self.between(0.3, 1.3, b, 1, 1)
        loud = self.chance(0.3, b, total, 1) * self.rand(b, 1, 1)  # more contrast than the border
        gain = torch.maximum(gain, loud * self.between(0.08, 0.25, b, total, 1))
        zoom = self.log_between(60, 420, b, total, 2)  # texels along half a picture
        turn, shift = self.rand(b, total, 2) * 7, self.rand(b, total, 4) * SIDE
        pick = self.randint(len(self.textures), b, total, 2).float()
        grade = self.randn(b, total, 2) * 0.13 / place[..., 2:3].clamp(min=0.2)
        dome = self.randn(b, total, 1) * 0.08
        chroma = self.rand(b, total, 1)
        aim = [zoom * turn.cos(), zoom * turn.sin()]
        rows = [base, gain, *aim, shift, pick, grade, dome, chroma, place[..., :3]]
        row = torch.cat(rows, -1).flatten(0, 1)
        index = (ids + torch.arange(b, device=self.device)[:, None, None] * total).flatten()
        at = row[index].view(b, size, size, -1)  # (b, s, s, 22)
        colour = at[..., :3].clone()
        for i in range(2):
            cos, sin = at[..., 5 + i], at[..., 7 + i]
            tu = (x * cos + y * sin + at[..., 9 + i]).long().remainder(2 * SIDE)
            tv = (y * cos - x * sin + at[..., 11 + i]).long().remainder(2 * SIDE)
            tu, tv = torch.minimum(tu, 2 * SIDE - 1 - tu), torch.minimum(tv, 2 * SIDE - 1 - tv)
            texel = (at[..., 13 + i].long() * SIDE + tv) * SIDE + tu
            value = self.textures.view(-1, 3)[texel.flatten()].view(b, size, size, 3)
            value = (value.float() - 128) / 42
            grey = value.mean(-1, keepdim=True)
            colour += at[..., 3 + i, None] * torch.lerp(grey, value, at[..., 18:19])
        dx, dy = x - at[..., 19], y - at[..., 20]
        far = ((dx * dx + dy * dy) / at[..., 21].clamp(min=0.1) ** 2).clamp(max=1.5)
        shade = 1 + dx * at[..., 15] + dy * at[..., 16] + at[..., 17] * far
        image = (colour * shade[..., None]).permute(0, 3, 1, 2) * self._shadow(ids, total)[:, None]
        far_off = (ids < GROUND)[:, None] & (self.rand(b, 1, 1, 1) < 0.3)
        return torch.where(far_off, box_blur(box_blur(image, 5), 7), image)

    def _shadow(self, ids: Tensor, total: int) -> Tensor:
        """Darken what lies beside something higher; (b, s, s) in 0..1."""
        b, size = len(ids), ids.shape[-1]
        height = F.pad(self.rand(b, total - GROUND), (GROUND, 0))
        relief = height.gather(1, ids.flatten(1)).view(b, 1, size, size)
        kernel = 2 * int(self.between(0, size / 96, 1)) + 1
        dx, dy = (self.randn(2) * size / 160).round().long().tolist()
        cast = F.avg_pool2d(relief, 4).roll((abs(dy), dx), (2, 3))
        cast = box_blur(cast, kernel)
        cast = F.interpolate(cast, size=(size, size), mode="bilinear")
        strength = self.chance(0.6, b, 1, 1, 1) * self.rand(b, 1, 1, 1) * 0.8
        return (1 - strength * (cast - relief).clamp(min=0))[:, 0]

    def _lens(self, images: Tensor) -> Tensor:
        """Light, exposure, cast and defocus."""
        b, size = len(images), images.shape[-1]
        light = F.interpolate(self.randn(b, 1, 3, 3), size=(size, size), mode="bicubic")
        images = images * (1 + light * self.rand(b, 1, 1, 1) * 0.25)
        images = images * (1 + self.randn(b, 3, 1, 1) * 0.05)
        images = images.clamp(0, 1) ** torch.exp(self.randn(b, 1, 1, 1) * 0.3)
        soft = box_blur(images, 3)
        softer = box_blur(soft, 5)
        choice = self.rand(b, 1, 1, 1)
        return torch.where(choice < 0.45, images, torch.where(choice < 0.85, soft, softer))

    def _grain(self, images: Tensor) -> Tensor:
        """Noise of the sensor."""
        b, size = len(images), images.shape[-1]
        grain = self.randn(b, 3, size, size) * 0.4 + self.randn(b, 1, size, size)
        return images + grain * self.rand(b, 1, 1, 1) ** 2 * 0.05

    def _members(self, parent: Tensor, whole: Tensor) -> Tensor:
        """List segments as sets of ids: each id alone, then each with its parts; (b, 2 I, I) bool.

        An id marked ``whole`` is no segment of its own, and its parent never comes without it.
        """
        b, total = parent.shape
        alone = torch.eye(total, dtype=torch.bool, device=self.device).repeat(b, 1, 1)
        up = torch.nn.functional.one_hot(parent, total).bool().transpose(1, 2)  # (b, parent, child)
        family = alone | up
        for _ in range(3):
            family = (family.float() @ family.float()) > 0
        needs = (up & whole[:, None, :]).any(-1, keepdim=True)
        return torch.cat([alone & ~whole[:, :, None] & ~needs, family & ~whole[:, :, None]], 1)
