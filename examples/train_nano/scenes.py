"""Procedural scenes in which everything is a segment, and prompts for them.

A scene starts from a partition of the ground (sky, grass, walls: the arg max of smooth random
fields), then takes objects and parts of objects in front. Only the *ids* are painted layer by
layer; colours are looked up once per pixel from a table with one row per segment, so a scene costs
pixels, not pixels times layers. All on one device.

Axis letters: B scenes, I ids (ground first, then layers), K prompts, S pixels of a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

GROUND, LAYERS = 5, 10  # most regions a ground has, most objects and parts in front of it
SIDE = 256  # pixels of a bank texture's side; a shape's field has half of that
# Freely licensed (CC0 or public domain) pictures inside the wheels of scikit-image and matplotlib.
PHOTOGRAPHS = (
    *(f"skimage/data/{n}.png" for n in ("astronaut", "brick", "camera", "chelsea", "coffee")),
    *(
        f"skimage/data/{n}"
        for n in ("coins.png", "grass.png", "gravel.png", "rocket.jpg", "hubble_deep_field.jpg")
    ),
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)


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


def photographs(names: tuple[str, ...] = PHOTOGRAPHS) -> list[Tensor]:
    """Load those of the named pictures that are installed, as float (3, H, W) in 0..1."""
    pictures = []
    for name in names:
        package, _, rest = name.partition("/")
        spec = find_spec(package)
        if spec and spec.origin and (path := Path(spec.origin).parent / rest).exists():
            rgb = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
            pictures.append(torch.from_numpy(rgb).permute(2, 0, 1))
    return pictures


class Scenes:
    """Make scenes from a bank of textures and shapes, drawn once from ``seed``.

    Args:
        device: where the bank lives and scenes are made.
        seed: of everything random here.
        bank: number of textures; there are four times as many shapes.
    """

    def __init__(self, device: str | torch.device = "cpu", seed: int = 0, bank: int = 320) -> None:
        self.device = torch.device(device)
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.textures = self._texture_bank(bank)  # (T, SIDE, SIDE, 3) uint8 around 128
        self.fields = torch.cat(
            [self._shapes(64) for _ in range(bank * 4 // 64)]
        )  # (M, SIDE/2, SIDE/2)

    # --- random numbers on the device
    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.rng, device=self.device)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.rng, device=self.device)

    def randint(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.rng, device=self.device)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * self.rand(*shape)

    def log_between(self, low: float, high: float, *shape: int) -> Tensor:
        return low * torch.exp(self.rand(*shape) * math.log(high / low))

    def chance(self, p: float, *shape: int) -> Tensor:
        return (self.rand(*shape) < p).float()

    def noise(self, n: int, channels: int, size: int, slope: Tensor, start: int = 2) -> Tensor:
        """Sum octaves, each ``slope`` (n, 1, 1, 1) times the one before; standard deviation 1."""
        total = torch.zeros(n, channels, size, size, device=self.device)
        gain = torch.ones(n, 1, 1, 1, device=self.device)
        power, cells = torch.zeros_like(gain), start
        while cells <= size:
            octave = F.interpolate(
                self.randn(n, channels, cells, cells), size=(size, size), mode="bicubic"
            )
            total, power, gain = total + gain * octave, power + gain**2, gain * slope
            cells *= 2
        return total / power.sqrt()

    # --- the bank
    def _texture_bank(self, count: int) -> Tensor:
        pictures = photographs()
        tiles = [
            self._crop(pictures[i % len(pictures)]) for i in range(count // 2 if pictures else 0)
        ]
        made = [self._made_textures(16) for _ in range((count - len(tiles)) // 16)]
        bank = torch.cat([torch.stack(tiles), *made] if tiles else made)
        bank = bank - bank.mean((2, 3), keepdim=True)
        bank = bank / bank.std((1, 2, 3), keepdim=True).clamp(min=0.02)
        return (128 + 42 * bank).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()

    def _crop(self, picture: Tensor) -> Tensor:
        """Cut a random square of a picture, (3, SIDE, SIDE); turned and mirrored."""
        h, w = picture.shape[-2:]
        side = int(min(h, w) * float(self.log_between(0.12, 1.0, 1)))
        y, x = int(self.randint(h - side + 1, 1)), int(self.randint(w - side + 1, 1))
        tile = picture[None, :, y : y + side, x : x + side].to(self.device)
        tile = F.interpolate(tile, size=(SIDE, SIDE), mode="bicubic", antialias=True)[0]
        tile = tile.rot90(int(self.randint(4, 1)), (1, 2))
        return tile.flip(-1) if self.rand(1) < 0.5 else tile

    def _made_textures(self, n: int) -> Tensor:
        """Noise, spots and bent stripes, (n, 3, SIDE, SIDE)."""
        slope = self.between(0.45, 1.05, n, 1, 1, 1)
        grey = self.noise(n, 1, SIDE, slope, start=int(self.randint(3, 1)) + 2)
        spots = torch.tanh(
            (grey - self.randn(n, 1, 1, 1) * 0.7) * self.log_between(1, 30, n, 1, 1, 1)
        )
        ramp = torch.linspace(-1, 1, SIDE, device=self.device)
        angle, pitch = self.rand(n, 1, 1, 1) * math.pi, self.log_between(4, 90, n, 1, 1, 1)
        bend = self.noise(n, 1, SIDE, slope.clamp(max=0.6)) * self.between(0, 0.3, n, 1, 1, 1)
        phase = (ramp[None, :] * angle.cos() + ramp[:, None] * angle.sin() + bend) * pitch
        stripes = torch.tanh(phase.sin() * self.log_between(0.7, 8, n, 1, 1, 1))
        kind = self.rand(n, 1, 1, 1)
        base = torch.where(kind < 0.5, grey, torch.where(kind < 0.75, spots, stripes + 0.3 * grey))
        colour = self.noise(n, 3, SIDE, slope) * self.between(0, 0.5, n, 1, 1, 1)
        return base * (1 + 0.3 * self.randn(n, 3, 1, 1)) + colour

    def _shapes(self, n: int) -> Tensor:
        """Draw fields, positive inside objects of radius 0.65 on [-1, 1]²; (n, SIDE/2, SIDE/2)."""
        ramp = torch.linspace(-1, 1, SIDE // 2, device=self.device) / 0.65
        warp = self.noise(n, 2, SIDE // 2, self.between(0.3, 0.6, n, 1, 1, 1)) * self.between(
            0, 0.25, n, 1, 1, 1
        )
        u, v = ramp[None, None, :] + warp[:, 0], ramp[None, :, None] + warp[:, 1]
        angle, radius = torch.atan2(v, u), (u * u + v * v).sqrt()
        wave, rough = torch.ones_like(angle), self.rand(n, 1, 1)
        for k in range(2, 9):
            wave = wave + rough * self.randn(n, 1, 1) * 0.35 / k**0.8 * torch.cos(
                k * angle + self.rand(n, 1, 1) * 7
            )
        blob = wave.clamp(min=0.15) - radius
        power = self.log_between(1.2, 12, n, 1, 1)
        box = 0.9 - (u.abs() ** power + v.abs() ** power + 1e-6) ** (1 / power)
        sector = 2 * math.pi / (3 + self.randint(5, n, 1, 1))
        polygon = 0.8 - radius * torch.cos(
            torch.remainder(angle + self.rand(n, 1, 1) * 7, sector) - sector / 2
        )
        limbs = self._limbs(u, v)
        ring = torch.minimum(blob, radius - self.between(0.3, 0.7, n, 1, 1))
        both = torch.maximum(blob.roll(1, 0), torch.minimum(limbs, 0.4 + 0 * limbs))
        bitten = torch.minimum(box, -blob.roll(2, 0) + 0.3)
        weights = torch.tensor([0.3, 0.14, 0.1, 0.2, 0.04, 0.14, 0.08], device=self.device)
        kind = torch.multinomial(weights, n, replacement=True, generator=self.rng)
        return torch.stack([blob, box, polygon, limbs, ring, both, bitten])[
            kind, torch.arange(n, device=self.device)
        ]

    def _limbs(self, u: Tensor, v: Tensor) -> Tensor:
        """Join up to 6 capsules into animals, branches, furniture; u, v, result (n, s, s)."""
        n = len(u)
        points, width = self.randn(n, 7, 2, 1, 1) * 0.55, self.between(0.06, 0.4, n, 1, 1)
        field = torch.full_like(u, -9.0)
        for i in range(6):
            a = points[:, i] if i % 2 == 0 else points[:, 0]
            ab = points[:, i + 1] - a
            t = ((u - a[:, 0]) * ab[:, 0] + (v - a[:, 1]) * ab[:, 1]) / ((ab**2).sum(1) + 1e-6)
            t = t.clamp(0, 1)
            distance = (
                (u - a[:, 0] - t * ab[:, 0]) ** 2 + (v - a[:, 1] - t * ab[:, 1]) ** 2 + 1e-9
            ).sqrt()
            present = (self.rand(n, 1, 1) < 0.75) | (torch.tensor(i < 2, device=self.device))
            thick = (
                width * self.between(0.5, 1.3, n, 1, 1) * (1 + self.between(-0.4, 0.4, n, 1, 1) * t)
            )
            field = torch.maximum(field, torch.where(present, thick - distance, -9.0))
        return field

    # --- one batch of scenes
    def sample(self, batch: int, size: int, objects: int = LAYERS) -> Scene:
        """Make ``batch`` scenes of ``size`` pixels with up to ``objects`` <= LAYERS layers each."""
        fine = (
            size * 3 // 2
        )  # painted larger, then averaged down: borders mix colours as in a photograph
        ids, place, parent, whole = self._paint(batch, fine, objects)
        images = self._colour(ids, place, parent)
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        ids = F.interpolate(ids[:, None].float(), size=(size, size), mode="nearest-exact")[
            :, 0
        ].long()
        return Scene(self._camera(images).clamp(0, 1), ids, self._members(parent, whole))

    def _ground(self, b: int, size: int, rough: Tensor) -> Tensor:
        """Partition the ground into 1 to GROUND regions, (b, size, size) int64."""
        ramp = torch.linspace(-1, 1, 64, device=self.device)
        upright = self.between(1, 3, b, 1, 1, 1) if self.rand(1) < 0.7 else 1.0
        slope_y = self.randn(b, GROUND, 1, 1) * 1.5 * upright
        plane = self.randn(b, GROUND, 1, 1) * ramp[None, :] + slope_y * ramp[:, None]
        wavy = self.noise(b * GROUND, 1, 64, self.between(0.3, 0.7, b * GROUND, 1, 1, 1)).view(
            b, GROUND, 64, 64
        )
        level = (
            plane
            + wavy * self.log_between(0.05, 2.5, b, 1, 1, 1)
            + self.randn(b, GROUND, 1, 1) * 0.6
        )
        absent = torch.arange(GROUND, device=self.device) > self.randint(GROUND, b, 1)
        level = level - 99.0 * absent[:, :, None, None]
        level = F.interpolate(level, size=(size, size), mode="bilinear")
        jagged = self.randn(b, GROUND, 1, 1) * 0.25 * self.rand(b, 1, 1, 1) ** 3
        best, ids = (
            torch.full_like(rough[:, 0], -1e9),
            torch.zeros(b, size, size, dtype=torch.long, device=self.device),
        )
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
        place[:, GROUND:, 3] = torch.where(
            self.rand(b, n) < 0.5, self.randn(b, n) * 0.3, self.rand(b, n) * 7
        )
        parent = torch.arange(total, device=self.device).repeat(b, 1)
        count = 1 + (self.rand(b) ** 0.6 * objects).long()
        rows = torch.arange(b, device=self.device)
        for i in range(GROUND, GROUND + objects):
            is_part = (self.rand(b) < 0.4) & (i > GROUND)
            host = GROUND + (self.rand(b) * (i - GROUND)).long()
            at, share = place[rows, host], self.between(0.3, 1.0, b)
            near = at[:, :2] + self.randn(b, 2) * 0.35 * at[:, 2:3]
            place[:, i, :2] = torch.where(is_part[:, None], near, place[:, i, :2])
            place[:, i, 2] = torch.where(is_part, at[:, 2] * share, place[:, i, 2])
            parent[:, i] = torch.where(is_part, host, parent[:, i])
            inside = self._inside(place[:, i], ramp, rough) & (i - GROUND < count)[:, None, None]
            inside = inside & (~is_part[:, None, None] | (ids == host[:, None, None]))
            ids = torch.where(inside, i, ids)
        whole = (self.rand(b, total) < 0.4) & (parent != torch.arange(total, device=self.device))
        return ids, place, parent, whole

    def _inside(self, place: Tensor, ramp: Tensor, rough: Tensor) -> Tensor:
        """Where random shapes of the bank cover pictures, put at ``place`` (b, 4); bool."""
        b, stretch = len(place), torch.exp(self.randn(len(place)) * 0.35).clamp(0.4, 2.5)
        cos, sin, s = place[:, 3].cos(), place[:, 3].sin(), place[:, 2]
        mirror = self.chance(0.5, b) * 2 - 1
        x = ramp[None, None, :] - place[:, 0, None, None]
        y = ramp[None, :, None] - place[:, 1, None, None]
        jag = (0.06 * self.rand(b) ** 3)[:, None, None]
        u = (
            (x * cos[:, None, None] + y * sin[:, None, None])
            / (s * stretch * mirror)[:, None, None]
        ) * 0.65
        v = (
            (y * cos[:, None, None] - x * sin[:, None, None]) / (s / stretch)[:, None, None]
        ) * 0.65
        grid = torch.stack([u + rough[:, 0] * jag, v + rough[:, 1] * jag], -1)
        field = self.fields[self.randint(len(self.fields), b)][:, None]
        near = (grid.abs() < 1).all(-1)
        return (
            F.grid_sample(field, grid, padding_mode="border", align_corners=False)[:, 0] > 0
        ) & near

    def _colours(self, b: int, total: int, parent: Tensor) -> Tensor:
        """Choose every id's colour near its scene's palette, or its parent's; (b, I, 3)."""
        spread = self.log_between(0.05, 0.32, b, 1, 1)
        light = self.randn(b, total, 1) * spread
        warm = self.randn(b, total, 1) * spread * 0.45 * self.rand(b, 1, 1)
        green = self.randn(b, total, 1) * spread * 0.3 * self.rand(b, 1, 1)
        axis = torch.tensor([[0.6, 0.25, -0.9], [-0.5, 0.6, -0.3]], device=self.device)
        colour = self.between(0.25, 0.7, b, 1, 1) + light + warm * axis[0] + green * axis[1]
        vivid = self.chance(0.12, b, total, 1) * self.chance(0.6, b, 1, 1)
        colour = torch.lerp(colour, self.rand(b, total, 3), vivid)
        like = (parent != torch.arange(total, device=self.device)) & (self.rand(b, total) < 0.5)
        same = (
            colour.gather(1, parent[..., None].expand(-1, -1, 3)) + self.randn(b, total, 3) * 0.06
        )
        return torch.where(like[..., None], same, colour).clamp(0.02, 0.98)

    def _colour(self, ids: Tensor, place: Tensor, parent: Tensor) -> Tensor:
        """Fill ids with colour, two textures, shading and shadows; (b, 3, s, s)."""
        b, total = parent.shape
        size = ids.shape[-1]
        base = self._colours(b, total, parent)
        gain = torch.stack([self.rand(b, total) ** 1.5 * 0.22, self.rand(b, total) ** 3 * 0.2], -1)
        gain = gain * self.between(0.3, 1.3, b, 1, 1)
        zoom = self.log_between(60, 420, b, total, 2)  # texels along half a picture
        turn, shift = self.rand(b, total, 2) * 7, self.rand(b, total, 4) * SIDE
        pick = self.randint(len(self.textures), b, total, 2).float()
        grade = self.randn(b, total, 2) * 0.13 / place[..., 2:3].clamp(min=0.2)
        dome = self.randn(b, total, 1) * 0.08
        chroma = self.rand(b, total, 1)
        rows = [
            base,
            gain,
            zoom * turn.cos(),
            zoom * turn.sin(),
            shift,
            pick,
            grade,
            dome,
            chroma,
            place[..., :3],
        ]
        row = torch.cat(rows, -1).flatten(0, 1)
        index = (ids + torch.arange(b, device=self.device)[:, None, None] * total).flatten()
        at = row[index].view(b, size, size, -1)  # (b, s, s, 22)
        ramp = torch.linspace(-1, 1, size, device=self.device)
        x, y = ramp[None, None, :].expand(b, size, size), ramp[None, :, None].expand(b, size, size)
        colour = at[..., :3].clone()
        for i in range(2):
            cos, sin = at[..., 5 + i], at[..., 7 + i]
            tu = (x * cos + y * sin + at[..., 9 + i]).long().remainder(2 * SIDE)
            tv = (y * cos - x * sin + at[..., 11 + i]).long().remainder(2 * SIDE)
            tu, tv = torch.minimum(tu, 2 * SIDE - 1 - tu), torch.minimum(tv, 2 * SIDE - 1 - tv)
            texel = (at[..., 13 + i].long() * SIDE + tv) * SIDE + tu
            value = (
                self.textures.view(-1, 3)[texel.flatten()].view(b, size, size, 3).float() - 128
            ) / 42
            grey = value.mean(-1, keepdim=True)
            colour += at[..., 3 + i, None] * torch.lerp(grey, value, at[..., 18:19])
        dx, dy = x - at[..., 19], y - at[..., 20]
        far = ((dx * dx + dy * dy) / at[..., 21].clamp(min=0.1) ** 2).clamp(max=1.5)
        shade = 1 + dx * at[..., 15] + dy * at[..., 16] + at[..., 17] * far
        return (colour * shade[..., None]).permute(0, 3, 1, 2) * self._shadow(ids, total)[:, None]

    def _shadow(self, ids: Tensor, total: int) -> Tensor:
        """Darken what lies beside something higher; (b, s, s) in 0..1."""
        b, size = len(ids), ids.shape[-1]
        height = torch.cat(
            [torch.zeros(b, GROUND, device=self.device), self.rand(b, total - GROUND)], 1
        )
        relief = height.gather(1, ids.flatten(1)).view(b, 1, size, size)
        kernel = 2 * int(self.between(0, size / 96, 1)) + 1
        dx, dy = (self.randn(2) * size / 160).round().long().tolist()
        cast = F.avg_pool2d(relief, 4).roll((abs(dy), dx), (2, 3))
        cast = F.avg_pool2d(cast, kernel, 1, kernel // 2, count_include_pad=False)
        cast = F.interpolate(cast, size=(size, size), mode="bilinear")
        strength = self.chance(0.6, b, 1, 1, 1) * self.rand(b, 1, 1, 1) * 0.8
        return (1 - strength * (cast - relief).clamp(min=0))[:, 0]

    def _camera(self, images: Tensor) -> Tensor:
        """Light, exposure, cast, defocus and grain."""
        b, size = len(images), images.shape[-1]
        light = F.interpolate(self.randn(b, 1, 3, 3), size=(size, size), mode="bicubic")
        images = (
            images
            * (1 + light * self.rand(b, 1, 1, 1) * 0.25)
            * (1 + self.randn(b, 3, 1, 1) * 0.05)
        )
        images = images.clamp(0, 1) ** torch.exp(self.randn(b, 1, 1, 1) * 0.3)
        soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        softer = F.avg_pool2d(F.pad(soft, (2, 2, 2, 2), mode="replicate"), 5, 1)
        choice = self.rand(b, 1, 1, 1)
        images = torch.where(choice < 0.45, images, torch.where(choice < 0.85, soft, softer))
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


@dataclass(frozen=True)
class Prompts:
    """Coords (B, K, P, 2), labels (B, K, P), targets (B, K, S, S) in 0..1, valid (B, K) bool."""

    coords: Tensor
    labels: Tensor
    targets: Tensor
    valid: Tensor


def pick_segments(
    scenes: Scenes, scene: Scene, count: int, least: float = 0.002
) -> tuple[Tensor, Tensor]:
    """Choose ``count`` different segments of each scene, each at least ``least`` of the picture.

    Returns:
        Targets (B, count, S, S) float, and which of them exist (B, count) bool.
    """
    b, size = len(scene.ids), scene.ids.shape[-1]
    total = scene.member.shape[-1]
    area = torch.zeros(b, total, device=scene.ids.device)
    area.scatter_add_(
        1, scene.ids.flatten(1), torch.ones_like(scene.ids, dtype=torch.float).flatten(1)
    )
    member = scene.member & (area > 0)[:, None]  # what is hidden does not tell two segments apart
    share = (member.float() * area[:, None]).sum(-1) / size**2
    family = torch.arange(member.shape[1], device=area.device) >= total
    fresh = ~family | (member.sum(-1) != torch.cat([member[:, :total].sum(-1)] * 2, 1))
    good = (share > least) & (share < 0.98) & fresh
    score = scenes.rand(*share.shape) * (0.3 + share.clamp(max=0.1).sqrt()) * good
    best = score.topk(count, 1).indices
    rows = torch.arange(b, device=area.device)[:, None]
    chosen = member[rows, best]  # (b, count, I)
    flat = scene.ids.flatten(1)[:, None].expand(-1, count, -1)
    return chosen.gather(2, flat).view(b, count, size, size).float(), good[rows, best]


def boxes_of(targets: Tensor) -> Tensor:
    """Bound masks (B, K, S, S) by corners (B, K, 2, 2) in pixel edges; zeros for an empty mask."""
    corners = []
    for axis in (-2, -1):  # any over rows leaves columns
        hit = (targets > 0.5).any(axis)
        size = hit.shape[-1]
        first, last = hit.float().argmax(-1), size - hit.flip(-1).float().argmax(-1)
        corners.append(torch.stack([first, last], -1) * hit.any(-1, keepdim=True))
    return torch.stack(corners, -1).float()


def click(scenes: Scenes, region: Tensor, *, middle: float = 0.5) -> Tensor:
    """Pick a pixel of each region (B, K, S, S), deep inside with chance ``middle``; (B, K, 2)."""
    b, k, size, _ = region.shape
    depth = F.avg_pool2d(F.avg_pool2d(region, 4), size // 32 + 1, 1, size // 64)
    depth = F.interpolate(depth, size=(size, size), mode="bilinear")
    deep = scenes.rand(b, k, 1, 1) < middle
    chance = scenes.rand(b, k, size, size)
    score = region * torch.where(deep, depth + 0.05 * chance, chance)
    best = score.flatten(2).argmax(-1)
    return torch.stack([best % size, best // size], -1).float() + 0.5


def make_prompts(scenes: Scenes, scene: Scene, count: int, box_share: float = 0.65) -> Prompts:
    """Prompt ``count`` segments a scene with a box (half of them jittered) or one click."""
    targets, valid = pick_segments(scenes, scene, count)
    size = targets.shape[-1]
    box = boxes_of(targets)
    extent = (box[:, :, 1] - box[:, :, 0])[:, :, None]
    b = len(targets)
    jitter = (
        scenes.chance(0.5, b, count, 1, 1)
        * 0.08
        * scenes.rand(b, count, 1, 1)
        * scenes.randn(b, count, 2, 2)
    )
    box = (box + jitter * extent).clamp(0, size)
    point = click(scenes, targets)
    point = torch.stack([point, torch.zeros_like(point)], 2)
    use_box = scenes.rand(b, count) < box_share
    coords = torch.where(use_box[..., None, None], box, point)
    corners, single = torch.tensor([[2, 3], [1, -1]], device=box.device)
    return Prompts(coords, torch.where(use_box[..., None], corners, single), targets, valid)
