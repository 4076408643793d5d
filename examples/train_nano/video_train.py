"""Train nano's video memory for a number of minutes, on frozen weights for pictures; resumes.

python -m examples.train_nano.video_train --minutes 100 --device auto --out runs/nano_video
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from examples.train_nano.export import WEIGHTS
from examples.train_nano.model import set_image_size
from examples.train_nano.prompts import Prompts, boxes_of, click
from examples.train_nano.train import MUON, correct, mask_losses, orthogonalize, plain_attention
from examples.train_nano.video_export import load_pictures
from examples.train_nano.video_model import (
    Answer,
    Features,
    Memory,
    Tracker,
    encode,
    memory_parameters,
    prepare,
)
from examples.train_nano.video_pool import Batch, Pool, Stage, Truth
from examples.train_nano.video_scenes import VideoScenes
from sam2_blocks.executor.device.precision import has_fast_bfloat16

STAGES = (
    Stage(0.0, 128, 8, 8, 3),
    Stage(0.38, 128, 14, 4, 3),
    Stage(0.76, 256, 8, 3, 3),
)
ABSENCE = 3.0  # what a frame without the object counts in the loss of its score
SAVE_EVERY_S = 180


class VideoTrainer:
    """Everything a run is, so that it can be saved and continued.

    Args:
        device: "cpu" or "cuda".
        seed: of weights, clips and prompts.
        rate: peak learning rate.
        bank: textures in the generator's bank.
        weights: pictures' weights; default: the package's.
        half: whether to compute in bfloat16; default: where the device is fast in it.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        seed: int = 0,
        rate: float = 1e-3,
        bank: int = 320,
        weights: Path = WEIGHTS,
        half: bool | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.rate = rate
        self.model = load_pictures(weights).to(device).eval().requires_grad_(False)
        self.probe = nn.Linear(self.model.hidden_dim, 1).to(device)
        self.tracker = Tracker(self.model)
        self.scenes = VideoScenes(device, seed=seed + 1, bank=bank)
        set_image_size(self.model, STAGES[0].size)
        clips = [self.scenes.clip(8, STAGES[0].size).images[::4] for _ in range(12)]
        prepare(self.model, encode(self.model, torch.cat(clips)))
        named = memory_parameters(self.model)
        matrices = [p for n, p in named.items() if p.ndim == 2 and "embed" not in n]
        matrices = [p for p in matrices if min(p.shape) > 1]
        others = [p for p in named.values() if not any(p is m for m in matrices)]
        self.params = [p.requires_grad_() for p in (*matrices, *others, *self.probe.parameters())]
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        half = has_fast_bfloat16(torch.device(device)) if half is None else half
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=half)
        if not half:
            muon = torch.optim._muon  # which always takes bfloat16
            muon._zeropower_via_newtonschulz = orthogonalize  # type: ignore[assignment]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=MUON * rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                [*others, *self.probe.parameters()], lr=rate, weight_decay=0.0, betas=(0.9, 0.98)
            ),
        ]
        self.step, self.tracked, self.seconds = 0, 0, 0.0
        self.pool: Pool | None = None

    def batch(self, done: float) -> Batch:
        """Draw objects to track when ``done`` (0..1) of the time is over."""
        stage = [s for s in STAGES if s.share <= done][-1]
        if self.pool is None or self.pool.stage != stage:
            set_image_size(self.model, stage.size)
            self.pool = Pool(self.scenes, self.tracker, stage)
        else:
            self.pool.refresh(self.step)
        return self.pool.batch()

    def loss(self, batch: Batch, done: float) -> tuple[Tensor, dict[str, float]]:
        """Track a batch from its first frame on; the loss and what to log of it."""
        memory = Memory()
        losses = [self._start(batch, memory)]
        scores: dict[str, list[Tensor]] = {"iou": [], "last": [], "seen": [], "lost": []}
        last = len(batch.features) - 1
        wants_click = float(self.scenes.rand(1)) < 0.3
        corrected = 2 + int(self.scenes.randint(last - 1, 1)) if wants_click else 0
        for t in range(1, last + 1):
            features, truth = batch.frame(t)
            target, present = truth.target, truth.present
            with self.autocast():
                conditioned = self.tracker.condition(t, features, memory)
                answer = self.tracker.decode(conditioned, features)
            loss, true = self._frame_loss(answer, truth)
            probe = self._probe_loss(conditioned, target) * max(0.0, 1 - done / 0.5)
            losses.append(loss + probe)
            logits, token = self.tracker.choose(answer, multimask=True)
            prompted = t == corrected
            if prompted:
                answer, logits, token = self._correct(conditioned, features, logits, target)
                losses.append(self._frame_loss(answer, truth)[0])
            with self.autocast():
                memories = self._remember(batch, t, logits, token, answer.score, done)
            (memory.prompted if prompted else memory.tracked)[t] = memories
            scores["iou"].append(true[present[:, 0]])
            if t == last:
                scores["last"].append(true[present[:, 0]])
            said = (answer.score > 0).float()
            scores["seen"].append(said[present])
            scores["lost"].append(1 - said[~present])
        seen = {k: torch.cat(v).mean().item() for k, v in scores.items()}
        return torch.stack(losses).mean(), seen

    def _start(self, batch: Batch, memory: Memory) -> Tensor:
        """Prompt the first frame by a box, a click or a mask; the loss of its object score."""
        features, truth = batch.frame(0)
        target = truth.target
        n, size = len(target), target.shape[-1]
        kind = float(self.scenes.rand(1))
        conditioned = features.levels[-1] + self.model.no_mem_embed[0, 0, :, None, None]
        device = target.device
        with self.autocast():
            if kind < 0.3:
                memory.prompted[0] = self.tracker.remember_mask(features, target > 0.5)
                small = self.model.mask_downsample((target > 0.5).float()).detach()
                answer = self.tracker.decode(features.levels[-1], features, masks=small)
                return self._score_loss(answer, truth)
            if kind < 0.75:
                box = boxes_of(target)[:, 0]
                extent = (box[:, 1] - box[:, 0])[:, None]
                box = box + 0.04 * self.scenes.rand(1) * self.scenes.randn(n, 2, 2) * extent
                prompt = box.clamp(0, size), torch.tensor([[2, 3]], device=device).expand(n, 2)
            else:
                point = click(self.scenes, target, middle=0.8)
                prompt = point, torch.ones(n, 1, dtype=torch.long, device=device)
            answer = self.tracker.decode(conditioned, features, prompt)
            logits, token = self.tracker.choose(answer, multimask=kind >= 0.75)
            # Who cannot know what was meant cannot follow it: a wrong mask is replaced by the true.
            good = mask_losses(logits[:, None], target, balance=0)[1][:, 0] > 0.6
            logits = torch.where(good[..., None, None], logits, self._ideal(target, logits))
            logits = (logits > 0) * 20.0 - 10
            ones = torch.ones_like(batch.present[0])
            memory.prompted[0] = self.tracker.remember(
                features, logits.detach(), token.detach(), ones
            )
        return self._score_loss(answer, truth)

    def _remember(
        self, batch: Batch, t: int, logits: Tensor, token: Tensor, score: Tensor, done: float
    ) -> dict[str, object]:
        """Remember what was predicted; early in training, more often what is true."""
        target, present = batch.targets[t], batch.present[t]
        n = len(target)
        told = self.scenes.rand(n, 1) < max(0.1, 0.9 - 1.6 * done)
        seen = torch.where(told, present, score > 0)
        told = self.scenes.rand(n, 1, 1, 1) < max(0.0, 0.7 - 1.6 * done)
        logits = torch.where(told, self._ideal(target, logits), logits)
        return self.tracker.remember(batch.features[t], logits.detach(), token.detach(), seen)

    def _correct(
        self, conditioned: Tensor, features: Features, logits: Tensor, target: Tensor
    ) -> tuple[Answer, Tensor, Tensor]:
        """Click where a mask is wrong and decode again."""
        n = len(target)
        nothing = torch.zeros(n, 1, 0, 2, device=target.device)
        labels = torch.zeros(n, 1, 0, dtype=torch.long, device=target.device)
        valid = torch.ones(n, 1, dtype=torch.bool, device=target.device)
        prompts = correct(self.scenes, Prompts(nothing, labels, target, valid), logits.detach())
        points = prompts.coords[:, 0], prompts.labels[:, 0]
        before = logits.detach().clamp(-32, 32)
        with self.autocast():
            answer = self.tracker.decode(conditioned, features, points, before)
        return answer, *self.tracker.choose(answer, multimask=True)

    @staticmethod
    def _ideal(target: Tensor, logits: Tensor) -> Tensor:
        """Give logits that draw a target."""
        return F.interpolate(target, size=logits.shape[-2:], mode="area") * 20 - 10

    @staticmethod
    def _score_loss(answer: Answer, truth: Truth) -> Tensor:
        """Judge the object score; frames without the object are rare and count more."""
        weight = torch.where(truth.present, 1.0, ABSENCE) * truth.sure
        return F.binary_cross_entropy_with_logits(answer.score, truth.present.float(), weight)

    def _frame_loss(self, answer: Answer, truth: Truth) -> tuple[Tensor, Tensor]:
        """Add up the losses of all candidates, of predicted IoU and of the object score."""
        each, true = mask_losses(answer.logits[:, None], truth.target, balance=0.3)
        each, true = each[:, 0], true[:, 0]
        three = each[:, 1:]
        masks = 0.3 * each[:, 0] + torch.lerp(three.min(-1).values, three.mean(-1), 0.7)
        ranking = 0.3 * (answer.iou - true).abs().mean(-1)
        weight = truth.present[:, 0].float()
        loss = ((masks + ranking) * weight).sum() / weight.sum().clamp(min=1)
        best = answer.iou[:, 1:].argmax(-1, keepdim=True) + 1
        return loss + 0.5 * self._score_loss(answer, truth), true.gather(1, best)[:, 0]

    def _probe_loss(self, conditioned: Tensor, target: Tensor) -> Tensor:
        """Ask a throw-away linear layer where the object is, which shortens the first plateau."""
        logits = self.probe(conditioned.float().movedim(1, -1))[..., 0]
        area = F.interpolate(target, size=logits.shape[-2:], mode="area")[:, 0]
        bce = F.binary_cross_entropy_with_logits(logits, area, reduction="none")
        inside, outside = area.sum((-1, -2)), (1 - area).sum((-1, -2)).clamp(min=1)
        even = (bce * area).sum((-1, -2)) / inside.clamp(min=1) + (bce * (1 - area)).sum(
            (-1, -2)
        ) / outside
        return even.mean()

    def advance(self, done: float) -> dict[str, float]:
        """Make one step; ``done`` in 0..1 is the share of the time that is over."""
        batch = self.batch(done)
        factor = min(1.0, (self.step + 1) / 60) * max(0.02, min(1.0, 1.3 * (1 - done)))
        for optimizer, times in zip(self.optimizers, (MUON, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = times * self.rate * factor
            optimizer.zero_grad()
        loss, seen = self.loss(batch, done)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.tracked += batch.present.numel()
        keep = min(0.995, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(
                memory_parameters(self.average).values(),
                memory_parameters(self.model).values(),
                strict=True,
            )
            for mean, new in pairs:
                mean.lerp_(new, 1 - keep)
        return {"loss": loss.item(), "norm": norm.item(), **seen}

    def save(self, path: Path) -> None:
        """Write the whole state; a crash leaves the old file or the new one."""
        state = {
            "model": dict(memory_parameters(self.model)),
            "average": dict(memory_parameters(self.average)),
            "probe": self.probe.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step, "tracked": self.tracked, "seconds": self.seconds,
            "rng": self.scenes.rng.get_state().cpu(),
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continue from a file of :meth:`save`."""
        state = torch.load(path, map_location=self.scenes.device, weights_only=True)
        for model, weights in ((self.model, "model"), (self.average, "average")):
            own = memory_parameters(model)
            with torch.no_grad():
                for name, value in state[weights].items():
                    own[name].copy_(value)
        self.probe.load_state_dict(state["probe"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tracked, self.seconds = state["step"], state["tracked"], state["seconds"]
        self.scenes.rng.set_state(state["rng"].cpu())


def fit(trainer: VideoTrainer, minutes: float, path: Path) -> None:
    """Train until ``minutes``, counted over all runs, are used up; save to ``path`` on the way."""
    seen: list[dict[str, float]] = []
    saved = before = time.monotonic()
    while (done := trainer.seconds / (60 * minutes)) < 1:
        seen.append(trainer.advance(done))
        now = time.monotonic()
        trainer.seconds, before = trainer.seconds + now - before, now
        if trainer.step % 20 == 0 or trainer.step == 3:
            values = {k: [s[k] for s in seen if s[k] == s[k]] for k in seen[0]}
            text = " ".join(f"{k} {sum(v) / max(1, len(v)):.3f}" for k, v in values.items())
            print(f"step {trainer.step}, {trainer.seconds / 60:.1f} min: {text}", flush=True)
            seen = []
        if now - saved > SAVE_EVERY_S:
            trainer.save(path)
            saved = now
    trainer.save(path)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=100.0, help="time over all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/nano_video"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, help="bfloat16")
    args = parser.parse_args()
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if args.device == "auto" else args.device
    if device == "cpu":
        F.scaled_dot_product_attention = plain_attention  # type: ignore[assignment]
        torch.set_flush_denormal(True)
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = VideoTrainer(device=device, seed=args.seed, rate=args.rate, half=args.half)
    path = args.out / "checkpoint.pt"
    if path.exists():
        trainer.load(path)
    fit(trainer, args.minutes, path)


if __name__ == "__main__":
    main()
