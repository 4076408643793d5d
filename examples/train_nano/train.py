r"""Train nano from scratch for a number of minutes; stop and start it at will.

python -m examples.train_nano.train --minutes 25 --device auto --out runs/nano
python -m examples.train_nano.train --minutes 250 \
    --start sam2_blocks/executor/weights/nano.safetensors
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from examples.train_nano.bank import Dice
from examples.train_nano.model import build, decode, embed, set_image_size, trained_parameters
from examples.train_nano.prompts import Prompts, click, make_prompts
from examples.train_nano.scenes import Scene, Scenes
from sam2_blocks.executor.device.precision import has_fast_bfloat16

# (share of the time after which it applies, pixels of a side, pictures a step and CPU worker)
STAGES = ((0.0, 128, 10), (0.4, 192, 12), (0.8, 256, 8), (0.9, 384, 4))
MUON = 3.0  # its rate, as a multiple of AdamW's
POOL = 256  # scenes kept for reuse, by each worker
SAVE_EVERY_S = 240


def orthogonalize(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring all singular values near 1; Muon's iteration in float32, where torch's is bfloat16."""
    a, b, c = coefficients
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def plain_attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    """Attend in two products: the backward pass of torch's fused CPU kernel is 3 times slower."""
    weight = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
    return torch.matmul(weight.softmax(-1, dtype=weight.dtype), v)


def in_autocast_dtype(_: torch.nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    """Cast a module's input; a forward hook."""
    return (args[0].to(torch.bfloat16),)


def mask_losses(logits: Tensor, targets: Tensor, *, balance: float) -> tuple[Tensor, Tensor]:
    """Score every candidate.

    Args:
        logits: (B, K, M, h, w).
        targets: (B, K, S, S) in 0..1.
        balance: weight of the term in which inside and outside count the same.

    Returns:
        Loss and true IoU, each (B, K, M).
    """
    t = F.interpolate(targets, size=logits.shape[-2:], mode="area")[:, :, None]
    inside, outside = t.sum((-1, -2)).clamp(min=1), (1 - t).sum((-1, -2)).clamp(min=1)
    bce = F.binary_cross_entropy_with_logits(logits, t.expand_as(logits), reduction="none")
    loss = 2 * bce.mean((-1, -2))
    if balance > 0:
        even = (bce * t).sum((-1, -2)) / inside + (bce * (1 - t)).sum((-1, -2)) / outside
        loss = loss + balance * 0.5 * even
    p = logits.sigmoid()
    loss = loss + 1 - (2 * (p * t).sum((-1, -2)) + 1) / (p.sum((-1, -2)) + t.sum((-1, -2)) + 1)
    with torch.no_grad():
        mask, truth = logits > 0, t > 0.5
        union = (mask | truth).sum((-1, -2)).clamp(min=1)
        return loss, (mask & truth).sum((-1, -2)) / union


def prompt_loss(
    logits: Tensor, iou: Tensor, score: Tensor, prompts: Prompts, *, balance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add up the losses of the single mask, the best of three, predicted IoU and object score.

    Returns:
        The loss, and of the candidate whose predicted IoU is best its index in 1..3 and its true
        IoU, each (B, K).
    """
    valid, is_box = prompts.valid, prompts.labels[..., 0] == 2
    each, true = mask_losses(logits.float(), prompts.targets, balance=balance)
    three = each[..., 1:]
    # One click may mean three things; a box means one, so that all three should find it.
    all_three = 0.2 + 0.6 * is_box.float()
    masks = 0.7 * each[..., 0] + torch.lerp(three.min(-1).values, three.mean(-1), all_three)
    ranking = (iou.float() - true).abs().mean(-1)
    present = F.binary_cross_entropy_with_logits(score.float(), valid.float(), reduction="none")
    loss = ((masks + ranking) * valid).sum() / valid.sum().clamp(min=1) + 0.05 * present.mean()
    chosen = 1 + iou[..., 1:].argmax(-1)
    return loss, chosen, true.gather(-1, chosen[..., None])[..., 0]


def prototype_loss(
    embedding: tuple[Tensor, list[Tensor]], targets: Tensor, valid: Tensor
) -> Tensor:
    """Make pixels of a segment point the same way: it shortens the plateau of constant masks."""
    fine = embedding[1][1].float()
    coarse = F.interpolate(embedding[0].float(), size=fine.shape[-2:], mode="bilinear")
    f = F.normalize(torch.cat([coarse[:, :64], fine], 1), dim=1)
    t = F.interpolate(targets, size=f.shape[-2:], mode="area")
    mean = torch.einsum("bkhw,bchw->bkc", t, f) / (t.sum((-1, -2))[..., None] + 1e-3)
    alike = torch.einsum("bkc,bchw->bkhw", F.normalize(mean, dim=-1), f) * 8 - 4
    bce = F.binary_cross_entropy_with_logits(alike, t, reduction="none")
    inside, outside = t.sum((-1, -2)).clamp(min=1), (1 - t).sum((-1, -2)).clamp(min=1)
    even = (bce * t).sum((-1, -2)) / inside + (bce * (1 - t)).sum((-1, -2)) / outside
    return (even * valid).sum() * 0.5 / valid.sum().clamp(min=1)


def correct(dice: Dice, prompts: Prompts, logits: Tensor, middle: float = 0.5) -> Prompts:
    """Click where logits (B, K, h, w) are wrong, deep inside the error with chance ``middle``."""
    mask = F.interpolate(logits.float(), size=prompts.targets.shape[-2:], mode="bilinear") > 0
    wrong = mask != (prompts.targets > 0.5)
    point = click(dice, wrong.float(), middle=middle)
    at = (point - 0.5).long()
    flat = at[..., 1] * mask.shape[-1] + at[..., 0]
    label = prompts.targets.flatten(2).gather(2, flat[..., None])[..., 0].long()
    label = torch.where(wrong.flatten(2).any(-1), label, -1)
    coords = torch.cat([prompts.coords, point[:, :, None]], 2)
    return replace(prompts, coords=coords, labels=torch.cat([prompts.labels, label[..., None]], 2))


class Trainer:
    """Everything a run is, so that it can be saved and continued.

    Args:
        device: "cpu" or "cuda".
        seed: of weights, scenes and prompts.
        rate: peak learning rate.
        batch: pictures a step; None takes the stage's.
        prompts: prompts a picture.
        bank: textures in the scene generator's bank.
        reuse: how often a scene is shown, prompted anew each time.
        rank: this worker's number; workers differ in their scenes only.
        workers: how many average their gradients.
        compile: whether the first decode of a step is compiled, which takes a minute for each
            input size and needs a C++ compiler; it then takes a bit more than half as long.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        seed: int = 0,
        rate: float = 1e-3,
        batch: int | None = None,
        prompts: int = 8,
        bank: int = 640,
        reuse: int = 6,
        rank: int = 0,
        workers: int = 1,
        compile: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.device, self.rate, self.batch, self.prompts = device, rate, batch, prompts
        self.reuse, self.rank, self.workers = reuse, rank, workers
        self.model = build(STAGES[0][1]).to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        half = has_fast_bfloat16(torch.device(device))
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=half)
        if half:
            # Autocast would keep the sums of all blocks in float32, for no gain in accuracy.
            self.model.image_encoder.trunk.blocks[0].register_forward_pre_hook(in_autocast_dtype)
        else:
            muon = torch.optim._muon  # which always takes bfloat16
            muon._zeropower_via_newtonschulz = orthogonalize  # type: ignore[attr-defined]
        self.first_decode = torch.compile(decode, dynamic=False) if compile else decode
        self.scenes = Scenes(device, seed=seed + 1 + rank, bank=bank)
        named = trained_parameters(self.model)
        matrices = [
            p for n, p in named.items() if p.ndim == 2 and "embed" not in n and "token" not in n
        ]
        others = [p for p in named.values() if not any(p is m for m in matrices)]
        self.params = [*matrices, *others]
        # Muon's orthogonal steps learn from fewer pictures, which is what a CPU lacks.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=MUON * rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        self.step, self.pictures, self.seconds = 0, 0, 0.0
        self.first_step = 0  # of these optimizers
        self.pool: Scene | None = None

    def stage(self, done: float) -> tuple[int, int]:
        """Side in pixels and pictures a step when ``done`` (0..1) of the time is over."""
        _, size, batch = [s for s in STAGES if s[0] <= done][-1]
        return size, self.batch or batch

    @torch.no_grad()
    def next_scene(self, done: float) -> Scene:
        """Draw a batch of scenes from a pool whose oldest scenes are replaced all the time."""
        size, batch = self.stage(done)
        objects = 3 + int(7 * min(1.0, done / 0.2))
        if self.reuse == 1:
            return self.scenes.sample(batch, size, objects)
        if self.pool is None or self.pool.images.shape[-1] != size:
            parts = [self.scenes.sample(16, size, objects) for _ in range(POOL // 16)]
            self.pool = Scene(
                *(torch.cat([getattr(p, f) for p in parts]) for f in ("images", "ids", "member"))
            )
        elif self.step % self.reuse == 0:
            fresh = self.scenes.sample(batch, size, objects)
            rows = torch.arange(batch) + self.step // self.reuse * batch
            for field in ("images", "ids", "member"):
                getattr(self.pool, field)[rows % POOL] = getattr(fresh, field)
        scene = self.pool.pick(self.scenes.randint(POOL, batch))
        return scene.flip() if self.step % 2 else scene

    def loss(self, done: float) -> tuple[Tensor, dict[str, float]]:
        """Compute one step's loss and what to log of it."""
        scene = self.next_scene(done)
        set_image_size(self.model, scene.images.shape[-1])
        with torch.no_grad():
            prompts = make_prompts(self.scenes, scene, self.prompts)
        balance = max(0.0, 1 - done / 0.5)
        valid = prompts.valid
        with self.autocast():
            embedding = embed(self.model, scene.images)
            logits, iou, score = self.first_decode(
                self.model, embedding, prompts.coords, prompts.labels
            )
        loss, chosen, true = prompt_loss(logits, iou, score, prompts, balance=balance)
        if (weight := max(0.0, 1 - done / 0.6)) > 0:
            loss = loss + weight * prototype_loss(embedding, prompts.targets, valid)
        if done > 0.1 and self.step % 2:
            loss = loss + 0.5 * self.corrected_loss(embedding, prompts, logits, chosen, balance)
        box = prompts.labels[..., 0] == 2
        return loss, {
            "box": true[valid & box].mean().item(),
            "click": true[valid & ~box].mean().item(),
        }

    def corrected_loss(
        self,
        embedding: tuple[Tensor, list[Tensor]],
        prompts: Prompts,
        logits: Tensor,
        chosen: Tensor,
        balance: float,
    ) -> Tensor:
        """Decode half of the prompts again with clicks on errors, mostly with the mask so far."""
        half = slice(0, (self.prompts + 1) // 2)
        fields = (prompts.coords, prompts.labels, prompts.targets, prompts.valid)
        some = Prompts(*(field[:, half] for field in fields))
        index = chosen[:, half, None, None, None].expand(-1, -1, 1, *logits.shape[-2:])
        before = logits[:, half].gather(2, index)[:, :, 0]
        losses = []
        for _ in range(1 + (self.step % 4 == 3)):
            before = before.detach().float()
            with torch.no_grad():
                for _ in range(1 + int(self.scenes.randint(3, 1))):
                    some = correct(self.scenes, some, before)
            masks = before.clamp(-32, 32) if self.step % 8 != 1 else None
            with self.autocast():
                again, iou, score = decode(self.model, embedding, some.coords, some.labels, masks)
            losses.append(prompt_loss(again, iou, score, some, balance=balance)[0])
            before = again[:, :, 0]
        return torch.stack(losses).mean()

    def advance(self, done: float) -> dict[str, float]:
        """Make one step; ``done`` in 0..1 is the share of the time that is over."""
        steps = self.step + 1 - self.first_step
        factor = min(1.0, steps / 150) * max(0.01, min(1.0, 1.25 * (1 - done)))
        for optimizer, times in zip(self.optimizers, (MUON, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = times * self.rate * factor
            optimizer.zero_grad()
        loss, seen = self.loss(done)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.workers > 1:
            self.share_gradients()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.pictures += self.stage(done)[1] * self.workers
        keep = min(0.998, (1 + steps) / (20 + steps))
        with torch.no_grad():
            new = list(self.model.parameters())
            torch._foreach_lerp_(list(self.average.parameters()), new, 1 - keep)
        return {"loss": loss.item(), **seen}

    def share_gradients(self) -> None:
        """Average gradients, and the clock, over the workers."""
        grads = [p.grad for p in self.params if p.grad is not None]
        flat = torch.cat(
            [*(g.flatten() for g in grads), torch.tensor([self.seconds], device=self.device)]
        )
        torch.distributed.all_reduce(flat)
        flat /= self.workers
        self.seconds = flat[-1].item()
        for grad, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def save(self, path: Path) -> None:
        """Write the whole state; a crash leaves the old file or the new one."""
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step, "first_step": self.first_step,
            "pictures": self.pictures, "seconds": self.seconds,
            "rng": self.scenes.rng.get_state().cpu(),
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continue from a file of :meth:`save`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.pictures = state["step"], state["pictures"]
        self.seconds, self.first_step = state["seconds"], state["first_step"]
        if self.rank == 0:
            self.scenes.rng.set_state(state["rng"].cpu())
        else:
            self.scenes.rng.manual_seed(self.step * 1000 + self.rank)

    def start(self, path: Path) -> None:
        """Take weights and history from exported safetensors, but fresh optimizers."""
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        with safe_open(path, "pt") as file:
            about = file.metadata()
        self.model.load_state_dict(state)
        self.average.load_state_dict(state)
        self.step = self.first_step = int(about["steps"])
        self.pictures, self.seconds = int(about["pictures"]), 60 * float(about["minutes"])
        self.scenes.rng.manual_seed(self.step * 1000 + self.rank)


def fit(trainer: Trainer, minutes: float, path: Path) -> None:
    """Train until ``minutes``, counted over all runs, are used up; save to ``path`` on the way."""
    seen: list[dict[str, float]] = []
    saved = before = window = time.monotonic()
    pictures = 0
    while (done := trainer.seconds / (60 * minutes)) < 1:
        seen.append(trainer.advance(done))
        now = time.monotonic()
        trainer.seconds, before = trainer.seconds + now - before, now
        pictures += trainer.stage(done)[1] * trainer.workers
        if trainer.rank == 0 and (trainer.step % 50 == 0 or trainer.step == 5):
            rate = pictures / (now - window)
            values = {k: [s[k] for s in seen if s[k] == s[k]] for k in seen[0]}
            text = " ".join(f"{k} {sum(v) / max(1, len(v)):.3f}" for k, v in values.items())
            more = rate * (minutes * 60 - trainer.seconds)
            at = f"step {trainer.step}, {trainer.seconds / 60:.1f} min, {trainer.stage(done)[0]} px"
            print(f"{at}: {text}; {rate:.1f} pictures/s, {more:,.0f} more at this rate", flush=True)
            seen, pictures, window = [], 0, now
        if trainer.rank == 0 and now - saved > SAVE_EVERY_S:
            trainer.save(path)
            saved = now
    if trainer.rank == 0:
        trainer.save(path)


def work(rank: int, args: argparse.Namespace, device: str) -> None:
    """Train as worker ``rank``; one thread each on a CPU, which wastes less than many threads."""
    if device == "cpu":
        F.scaled_dot_product_attention = plain_attention  # type: ignore[assignment]
        torch.set_flush_denormal(True)
    if args.workers > 1:
        torch.set_num_threads(1)
        store = torch.distributed.FileStore(str(args.out / f"workers.{os.getppid()}"), args.workers)
        torch.distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=args.workers
        )
    trainer = Trainer(
        device=device,
        seed=args.seed,
        rate=args.rate,
        prompts=args.prompts,
        rank=rank,
        workers=args.workers,
        batch=args.batch or (128 if device == "cuda" else None),
        reuse=1 if device == "cuda" else 6,
        compile=has_fast_bfloat16(torch.device(device)) if args.compile is None else args.compile,
    )
    path = args.out / "checkpoint.pt"
    if path.exists():
        trainer.load(path)
    elif args.start:
        trainer.start(args.start)
    fit(trainer, args.minutes, path)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25.0, help="training time over all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/nano"), help="resumed if it holds a checkpoint"
    )
    parser.add_argument(
        "--start", type=Path, help="exported weights to go on from, instead of from scratch"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument(
        "--batch", type=int, help="pictures a step (default: 128 on a GPU, by stage on a CPU)"
    )
    parser.add_argument("--prompts", type=int, default=8, help="prompts a picture")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction,
        help="compile the decoder; needs a C++ compiler (default: where bfloat16 is fast)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, help="processes (default: 1 on a GPU, else one a core, at most 8)"
    )
    args = parser.parse_args()
    device = (
        ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    )
    args.workers = args.workers or (1 if device == "cuda" else min(8, os.cpu_count() or 1))
    args.out.mkdir(parents=True, exist_ok=True)
    if args.workers == 1:
        work(0, args, device)
    else:
        torch.multiprocessing.spawn(work, (args, device), nprocs=args.workers)


if __name__ == "__main__":
    main()
