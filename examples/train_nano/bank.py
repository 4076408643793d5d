"""Random numbers on a device, and the textures and shapes that scenes are made of."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

SIDE = 256  # pixels of a texture's side; a shape's field has half of that
# Freely licensed (CC0 or public domain) pictures inside the wheels of scikit-image and matplotlib.
PHOTOGRAPHS = (
    *(f"skimage/data/{n}.png" for n in ("astronaut", "brick", "camera", "chelsea", "coffee")),
    *(
        f"skimage/data/{n}"
        for n in ("coins.png", "grass.png", "gravel.png", "rocket.jpg", "hubble_deep_field.jpg")
    ),
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)


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


def box_blur(images: Tensor, side: int, *, zeros_around: bool = False) -> Tensor:
    """Average images (b, c, h, w) over ``side`` x ``side`` (odd) pixels around each.

    What lies outside the picture is left out, or counts as zeros.
    """
    for kernel in ((side, 1), (1, side)):
        pad = (kernel[0] // 2, kernel[1] // 2)
        images = F.avg_pool2d(images, kernel, 1, pad, count_include_pad=zeros_around)
    return images


class Dice:
    """A random generator with a seed and a device."""

    def __init__(self, device: str | torch.device, seed: int) -> None:
        self.device = torch.device(device)
        self.rng = torch.Generator(self.device).manual_seed(seed)

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
            octave = self.randn(n, channels, cells, cells)
            octave = F.interpolate(octave, size=(size, size), mode="bicubic")
            total, power, gain = total + gain * octave, power + gain**2, gain * slope
            cells *= 2
        return total / power.sqrt()


class Bank(Dice):
    """Draws textures and shapes."""

    def textures(self, count: int) -> Tensor:
        pictures = photographs()
        crops = count // 2 if pictures else 0
        tiles = [self._crop(pictures[i % len(pictures)]) for i in range(crops)]
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
        spots = grey - self.randn(n, 1, 1, 1) * 0.7
        spots = torch.tanh(spots * self.log_between(1, 30, n, 1, 1, 1))
        ramp = torch.linspace(-1, 1, SIDE, device=self.device)
        angle, pitch = self.rand(n, 1, 1, 1) * math.pi, self.log_between(4, 90, n, 1, 1, 1)
        bend = self.noise(n, 1, SIDE, slope.clamp(max=0.6)) * self.between(0, 0.3, n, 1, 1, 1)
        phase = (ramp[None, :] * angle.cos() + ramp[:, None] * angle.sin() + bend) * pitch
        stripes = torch.tanh(phase.sin() * self.log_between(0.7, 8, n, 1, 1, 1))
        kind = self.rand(n, 1, 1, 1)
        base = torch.where(kind < 0.5, grey, torch.where(kind < 0.75, spots, stripes + 0.3 * grey))
        colour = self.noise(n, 3, SIDE, slope) * self.between(0, 0.5, n, 1, 1, 1)
        return base * (1 + 0.3 * self.randn(n, 3, 1, 1)) + colour

    def shapes(self, n: int) -> Tensor:
        """Draw fields, positive inside objects of radius 0.65 on [-1, 1]²; (n, SIDE/2, SIDE/2)."""
        ramp = torch.linspace(-1, 1, SIDE // 2, device=self.device) / 0.65
        warp = self.noise(n, 2, SIDE // 2, self.between(0.3, 0.6, n, 1, 1, 1))
        warp = warp * self.between(0, 0.25, n, 1, 1, 1)
        u, v = ramp[None, None, :] + warp[:, 0], ramp[None, :, None] + warp[:, 1]
        angle, radius = torch.atan2(v, u), (u * u + v * v).sqrt()
        wave, rough = torch.ones_like(angle), self.rand(n, 1, 1)
        for k in range(2, 9):
            height = rough * self.randn(n, 1, 1) * 0.35 / k**0.8
            wave = wave + height * torch.cos(k * angle + self.rand(n, 1, 1) * 7)
        blob = wave.clamp(min=0.15) - radius
        power = self.log_between(1.2, 12, n, 1, 1)
        box = 0.9 - (u.abs() ** power + v.abs() ** power + 1e-6) ** (1 / power)
        sector = 2 * math.pi / (3 + self.randint(5, n, 1, 1))
        turned = torch.remainder(angle + self.rand(n, 1, 1) * 7, sector)
        polygon = 0.8 - radius * torch.cos(turned - sector / 2)
        limbs = self._limbs(u, v)
        ring = torch.minimum(blob, radius - self.between(0.3, 0.7, n, 1, 1))
        both = torch.maximum(blob.roll(1, 0), torch.minimum(limbs, 0.4 + 0 * limbs))
        bitten = torch.minimum(box, -blob.roll(2, 0) + 0.3)
        weights = torch.tensor([0.32, 0.2, 0.12, 0.13, 0.03, 0.13, 0.07], device=self.device)
        kind = torch.multinomial(weights, n, replacement=True, generator=self.rng)
        kinds = torch.stack([blob, box, polygon, limbs, ring, both, bitten])
        return kinds[kind, torch.arange(n, device=self.device)]

    def _limbs(self, u: Tensor, v: Tensor) -> Tensor:
        """Join up to 6 capsules into animals, branches, furniture; u, v, result (n, s, s)."""
        n = len(u)
        points, width = self.randn(n, 7, 2, 1, 1) * 0.55, self.between(0.06, 0.4, n, 1, 1)
        field = torch.full_like(u, -9.0)
        for i in range(6):
            a = points[:, i] if i % 2 == 0 else points[:, 0]
            ab = points[:, i + 1] - a
            t = (u - a[:, 0]) * ab[:, 0] + (v - a[:, 1]) * ab[:, 1]
            t = (t / ((ab**2).sum(1) + 1e-6)).clamp(0, 1)
            du, dv = u - a[:, 0] - t * ab[:, 0], v - a[:, 1] - t * ab[:, 1]
            distance = (du**2 + dv**2 + 1e-9).sqrt()
            present = (self.rand(n, 1, 1) < 0.75) | (torch.tensor(i < 2, device=self.device))
            thick = width * self.between(0.5, 1.3, n, 1, 1)
            thick = thick * (1 + self.between(-0.4, 0.4, n, 1, 1) * t)
            field = torch.maximum(field, torch.where(present, thick - distance, -9.0))
        return field
