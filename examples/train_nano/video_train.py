"""Train nano's video memory for a number of minutes, on frozen weights for pictures; resumes.

python -m examples.train_nano.video_train --minutes 100 --device cpu --out runs/nano_video
python -m examples.train_nano.video_train --minutes 5 --device cuda --out runs/nano_video
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.train_nano.bank import Dice
from examples.train_nano.export import WEIGHTS
from examples.train_nano.model import set_image_size
from examples.train_nano.prompts import Prompts, boxes_of, click
from examples.train_nano.train import MUON, correct, mask_losses, orthogonalize, plain_attention
from examples.train_nano.video_check import check, held_out
from examples.train_nano.video_export import SEEN_ODDS, load_pictures, shift_score
from examples.train_nano.video_log import Log, figures_of
from examples.train_nano.video_model import (
    Answer,
    Features,
    Memory,
    Tracker,
    encode,
    is_memory,
    memory_parameters,
    prepare,
)
from examples.train_nano.video_painters import Errand, Painters
from examples.train_nano.video_pool import ABSENCE, Batch, Pool, Stage, Truth
from examples.train_nano.video_scenes import VideoScenes
from examples.train_nano.video_shelf import Shelf, stage_for
from sam2_blocks.executor.device.precision import has_fast_bfloat16

STAGES = (
    Stage(0.0, 128, 8, 8, 3),
    Stage(0.38, 128, 14, 4, 3),
    Stage(0.76, 256, 8, 3, 3),
)
LONG_FROM = 0.5  # share of the time after which painted clips are tracked over more frames
SHORT, LONG = 8, 16  # frames tracked before and after that
PAINTED, SIZE = 24, 256  # frames of a clip of the painters, and pixels of its side
FEWEST = 24  # such clips before the first step
TRAINED = 0.5  # share of a run after which it no longer needs help; a trained memory starts there
SAVE_EVERY_S = 60


class VideoTrainer:
    """Everything a run is, so that it can be saved and continued.

    Args:
        device: "cpu" or "cuda".
        seed: of weights, clips and prompts.
        rate: peak learning rate.
        bank: textures in the generator's bank.
        weights: pictures' weights; default: the package's.
        half: whether to compute in bfloat16; default: where the device is fast in it.
        start: nano's weights whose memory to go on from; default: a fresh memory.
        painters: processes that make clips; default: this one makes them.
        objects: tracked in a step, if there are painters; half as many over long stretches.
        room: clips of the painters that are kept.
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
        start: Path | None = None,
        painters: Painters | None = None,
        objects: int = 160,
        room: int = 1024,
    ) -> None:
        torch.manual_seed(seed)
        self.rate, self.objects = rate, objects
        self.model = load_pictures(weights).to(device).eval().requires_grad_(False)
        self.probe = nn.Linear(self.model.hidden_dim, 1).to(device)
        self.tracker = Tracker(self.model)
        self.coins = Dice("cpu", seed + 2)  # for what Python asks: a GPU would make it wait
        self.dice: Dice
        if painters is None:
            self.dice = self.scenes = VideoScenes(device, seed=seed + 1, bank=bank)
            self.shelf = None
        else:
            self.dice = Dice(device, seed + 1)
            self.shelf = Shelf(painters, self.dice, room)
            set_image_size(self.model, painters.size)
        self._begin(start)
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

    def _begin(self, start: Path | None) -> None:
        """Take a trained memory over, or prepare a fresh one."""
        self.trained = start is not None
        if start:
            trained = {k: v.float() for k, v in load_file(start).items() if is_memory(k)}
            self.model.load_state_dict(shift_score(trained, 1 / SEEN_ODDS), strict=False)
        elif self.shelf is None:
            set_image_size(self.model, STAGES[0].size)
            clips = [self.scenes.clip(8, STAGES[0].size).images[::4] for _ in range(12)]
            prepare(self.model, encode(self.model, torch.cat(clips)))
        else:
            self.shelf.take_in(FEWEST)
            prepare(self.model, encode(self.model, self.shelf.pictures(FEWEST)))

    @property
    def clips(self) -> int:
        """How many clips painters have made for this run."""
        return self.shelf.clips if self.shelf else 0

    def lesson(self, done: float) -> float:
        """How far a run from a fresh memory would be, in 0..1."""
        return TRAINED + (1 - TRAINED) * done if self.trained else done

    def batch(self, done: float) -> Batch:
        """Draw objects to track when ``done`` (0..1) of the time is over."""
        if self.shelf is not None:
            self.shelf.take_in(FEWEST)
            stage = stage_for(self.objects, self.shelf.size, SHORT)
            if done >= LONG_FROM:
                stage = stage_for(self.objects // 2, self.shelf.size, LONG)
            return self.shelf.batch(self.tracker, stage)
        stage = [s for s in STAGES if s.share <= done][-1]
        if self.pool is None or self.pool.stage != stage:
            set_image_size(self.model, stage.size)
            self.pool = Pool(self.scenes, self.tracker, stage)
        else:
            self.pool.refresh(self.step)
        return self.pool.batch()

    def loss(self, batch: Batch, done: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Track a batch from its first frame on; the loss and what to log of it."""
        memory = Memory()
        losses = [self._start(batch, memory)]
        trues: list[Tensor] = []
        said: list[Tensor] = []
        last = len(batch.features) - 1
        wants_click = float(self.coins.rand(1)) < 0.3
        corrected = 2 + int(self.coins.randint(last - 1, 1)) if wants_click else 0
        for t in range(1, last + 1):
            features, truth = batch.frame(t)
            target = truth.target
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
            trues.append(true)
            said.append(answer.score[:, 0] > 0)
        figures = figures_of(torch.stack(trues), torch.stack(said), batch.present[1:, :, 0])
        return torch.stack(losses).mean(), figures

    def _start(self, batch: Batch, memory: Memory) -> Tensor:
        """Prompt the first frame by a box, a click or a mask; the loss of its object score."""
        features, truth = batch.frame(0)
        target = truth.target
        n, size = len(target), target.shape[-1]
        kind = float(self.coins.rand(1))
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
                box = box + 0.04 * self.dice.rand(1) * self.dice.randn(n, 2, 2) * extent
                prompt = box.clamp(0, size), torch.tensor([[2, 3]], device=device).expand(n, 2)
            else:
                point = click(self.dice, target, middle=0.8)
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
        told = self.dice.rand(n, 1) < max(0.1, 0.9 - 1.6 * done)
        seen = torch.where(told, present, score > 0)
        told = self.dice.rand(n, 1, 1, 1) < max(0.0, 0.7 - 1.6 * done)
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
        prompts = correct(self.dice, Prompts(nothing, labels, target, valid), logits.detach())
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

    def advance(self, done: float) -> dict[str, Tensor]:
        """Make one step; ``done`` in 0..1 is the share of the time that is over.

        Returns:
            Figures of it, on the device: who reads them waits for it.
        """
        batch = self.batch(done)
        self.tracked += batch.present.numel()
        factor = min(1.0, (self.step + 1) / 60) * max(0.02, min(1.0, 1.3 * (1 - done)))
        for optimizer, times in zip(self.optimizers, (MUON, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = times * self.rate * factor
            optimizer.zero_grad()
        loss, figures = self.loss(batch, self.lesson(done))
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self.params:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(0.995, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(
                memory_parameters(self.average).values(),
                memory_parameters(self.model).values(),
                strict=True,
            )
            for mean, new in pairs:
                mean.lerp_(new, 1 - keep)
        return {"loss": loss.detach(), "norm": norm, **figures}

    def advance_or_shrink(self, done: float) -> dict[str, Tensor]:
        """Make one step; where memory of the device is short, with fewer objects from now on."""
        try:
            return self.advance(done)
        except torch.OutOfMemoryError:
            if self.shelf is None or self.objects < 16:
                raise
        # Only here, past the exception, has what the failed step kept been let go.
        self.objects = self.objects * 3 // 4
        print(f"memory is short: from now on {self.objects} objects a step", flush=True)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.cuda.empty_cache()
        return self.advance_or_shrink(done)

    def save(self, path: Path) -> None:
        """Write the whole state; a crash leaves the old file or the new one."""
        state = {
            "model": dict(memory_parameters(self.model)),
            "average": dict(memory_parameters(self.average)),
            "probe": self.probe.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step, "tracked": self.tracked, "seconds": self.seconds,
            "rng": self.dice.rng.get_state().cpu(), "coins": self.coins.rng.get_state(),
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continue from a file of :meth:`save`."""
        state = torch.load(path, map_location=self.dice.device, weights_only=True)
        for model, weights in ((self.model, "model"), (self.average, "average")):
            own = memory_parameters(model)
            with torch.no_grad():
                for name, value in state[weights].items():
                    own[name].copy_(value)
        self.probe.load_state_dict(state["probe"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tracked, self.seconds = state["step"], state["tracked"], state["seconds"]
        self.dice.rng.set_state(state["rng"].cpu())
        self.coins.rng.set_state(state["coins"].cpu())


def fit(trainer: VideoTrainer, minutes: float, path: Path, log: Log) -> None:
    """Train until ``minutes``, counted over all runs, are used up; save to ``path`` on the way."""
    saved = before = time.monotonic()
    while (done := trainer.seconds / (60 * minutes)) < 1:
        figures = trainer.advance_or_shrink(done)
        now = time.monotonic()
        trainer.seconds, before = trainer.seconds + now - before, now
        left_s = 60 * minutes - trainer.seconds
        log.add(figures, left_s, step=trainer.step, tracked=trainer.tracked, clips=trainer.clips)
        if now - saved > SAVE_EVERY_S:
            trainer.save(path)
            saved = now
    trainer.save(path)


def compare(trainer: VideoTrainer, start: dict[str, Tensor], errand: Errand, log: Log) -> None:
    """Check the memory a run started from and its average, on held-out clips, and say so."""
    clips = errand.result()
    model = copy.deepcopy(trainer.average)
    set_image_size(model, clips[0][0].shape[-1])
    for name, memory in (("average", memory_parameters(trainer.average)), ("start", start)):
        model.load_state_dict(shift_score(memory, SEEN_ODDS), strict=False)
        log.write({"weights": name, **check(model, clips)})


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=100.0, help="time over all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/nano_video"))
    parser.add_argument("--start", type=Path, help="safetensors of nano, whose memory goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, help="bfloat16")
    parser.add_argument(
        "--workers", type=int, help="that paint clips (default with a GPU: all cores but one)"
    )
    parser.add_argument("--bank", type=int, default=320, help="textures; with workers, of each")
    parser.add_argument("--objects", type=int, default=160, help="a step, with workers")
    parser.add_argument("--room", type=int, default=1536, help="clips kept, with workers")
    parser.add_argument("--held-out", type=int, default=28, help="clips to check, with workers")
    parser.add_argument("--spare", type=float, default=30.0, help="GiB of a GPU left to others")
    args = parser.parse_args(words)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.workers is None:
        cores = len(os.sched_getaffinity(0))
        args.workers = 0 if args.device == "cpu" else max(1, cores - 1)
    return args


def set_up(device: str, spare: float) -> None:
    """Set what torch has one switch for."""
    if device == "cpu":
        F.scaled_dot_product_attention = plain_attention  # type: ignore[assignment]
        torch.set_flush_denormal(True)
        return
    whole = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(max(0.1, 1 - spare / whole))


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    args = read_arguments(words)
    torch.set_num_threads(args.threads)
    painters = errand = None
    if args.workers:  # first of all: they paint while the device wakes up
        first = 1000 * (args.seed + 1)
        painters = Painters(args.workers, frames=PAINTED, size=SIZE, seed=first, bank=args.bank)
        errand = Errand(held_out, args.held_out, SIZE) if args.held_out else None
    set_up(args.device, args.spare)
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = VideoTrainer(
        device=args.device, seed=args.seed, rate=args.rate, half=args.half, bank=args.bank,
        start=args.start, painters=painters, objects=args.objects, room=args.room,
    )  # fmt: skip
    path = args.out / "checkpoint.pt"
    if path.exists():
        trainer.load(path)
    start = {n: p.detach().clone() for n, p in memory_parameters(trainer.average).items()}
    log = Log(args.out / "log.jsonl")
    fit(trainer, args.minutes, path, log)
    if painters:
        painters.stop()
    if errand:
        compare(trainer, start, errand, log)


if __name__ == "__main__":
    main()
