"""Run the benchmarks: ``python -m benchmarks [SCENARIO ...] [options]``.

Exit status 1 if our masks in any row are not what its gate asks for: equal bytes, or in half
precision a mean IoU. Rows of other peers that fail theirs are marked.
``python -m benchmarks video`` is about clips; see `benchmarks.video`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import video
from benchmarks.measure import environment
from benchmarks.peers import (
    OfficialCompiled,
    Ours,
    OursCompiled,
    OursEncoderCompiled,
    OursPackaged,
)
from benchmarks.report import plot, print_table, save
from benchmarks.scenarios import LABELS, MASKS, SCENARIOS, SIZES_HW, Row, Settings
from sam2_blocks.executor.sam2.loading import resolve_device

Step = tuple[tuple[str, ...], Settings]
"""Names of scenarios, and how to run them."""

RESULTS = Path(__file__).parent / "results"
SLOW_TO_START = tuple(
    peer.label() for peer in (OfficialCompiled, OursCompiled, OursEncoderCompiled, OursPackaged)
)
DEFAULT_PEERS = [label for label in LABELS if label not in SLOW_TO_START]

TINY, LARGE = "sam2.1/hiera_tiny", "sam2.1/hiera_large"
PACKAGED = "'sam2_blocks fast + compile encoder' 'sam2_blocks fast + package'"
OURS = "'sam2_blocks strict' 'sam2_blocks fast' 'sam2_blocks fast + compile'"
MAIN = "'official float32' 'tuned dense float32' 'sam2_blocks strict' 'sam2_blocks fast'"
ON_CPU = (
    f"{MAIN} 'official bf16' 'transformers float32' 'openvino plain' "
    "'sam2_blocks strict + openvino' 'sam2_blocks fast + openvino' 'sam2_blocks int8 + openvino'"
)


class Preset(NamedTuple):
    """Command lines, most wanted first; what the user adds comes after each of them.

    No other case starts after so many minutes.
    """

    minutes: float
    common: str
    steps: tuple[str, ...]


PRESETS = {
    "gpu": Preset(
        8.5,
        "--device cuda --warmups 20 --runs 100 --seconds 2",
        (
            f"encoder --models {TINY} {LARGE} --batches 1 8",
            f"boxes --models {TINY} --sizes 1080p 4K --counts 100 --masks small",
            f"boxes click --models nano {LARGE} --sizes 1080p --counts 100 --masks small",
            f"click --models {TINY}",
            f"memory --models {TINY} --sizes 1080p 4K --counts 100 --peers {MAIN}",
            f"folder --models {TINY} --pictures 200 --warmups 0 --runs 3 --peers {MAIN}",
            f"cold --models {TINY} --runs 2",
            "rle --counts 100",
        ),
    ),
    "gpu-more": Preset(
        8.5,
        "--device cuda --warmups 20 --runs 100 --seconds 1",
        (
            f"encoder boxes --models {TINY} --batches 8 --sizes 1080p --counts 100 --masks small "
            f"--peers 'official float32' 'official bf16 + compile' {OURS}",
            f"cold --models {TINY} --runs 1 --peers {OURS}",
            f"cold --models {TINY} --runs 1 --peers {PACKAGED}",
            f"boxes --models {TINY} --counts 1 10 50",
            f"boxes --models {TINY} --counts 100 --masks large",
            "rle --counts 1 10 50",
        ),
    ),
    "cpu": Preset(
        60,
        "--device cpu --warmups 1 --runs 5 --seconds 10",
        (
            f"encoder --models nano {TINY} --batches 1 --runs 3 --peers {ON_CPU}",
            f"boxes --models {TINY} --sizes 1080p 4K --counts 100 --masks small --peers {ON_CPU}",
            f"folder --models {TINY} --pictures 20 --peers {ON_CPU}",
            f"click --models {TINY} nano --runs 10 --peers {MAIN}",
            "rle --counts 100",
            f"boxes --models {TINY} nano --sizes 1080p --counts 10 --masks small",
            f"memory --models {TINY} --sizes 1080p 4K --counts 100 --peers {MAIN}",
            f"folder --models nano --pictures 20 --peers {MAIN}",
            f"cold --models {TINY} nano --runs 3",
            "encoder --models nano --batches 1 --runs 3",
            f"boxes --models nano --sizes 1080p --counts 100 --peers {MAIN}",
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["video"]:  # clips, not pictures: with peers and options of its own
        return video.main(words[1:])
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=PRESETS, help="command lines: see __main__.py")
    first.add_argument("--name", default="latest", help="of the files under benchmarks/results")
    first.add_argument("--minutes", type=float, help="start no other case after them")
    run, rest = first.parse_known_args(argv)
    parser = _settings_parser(first)
    minutes, common, steps = PRESETS[run.preset] if run.preset else Preset(math.inf, "", ("",))
    parsed = [_parse(parser, shlex.split(f"{common} {step}") + rest) for step in steps]
    deadline = time.monotonic() + 60 * (run.minutes or minutes)
    rows = _run(parsed, RESULTS / run.name, deadline=deadline)
    print_table(rows)
    failed = [row for row in rows if row.fails]
    for row in failed:
        case = f"{row.scenario} {row.model} {row.case}, {row.peer} {row.mode}"
        print(f"FAILS: {case}: {row.agreement}; wanted: {row.gate}", file=sys.stderr)
    return 1 if any(row.peer == Ours.name for row in failed) else 0


def _run(steps: Sequence[Step], path: Path, *, deadline: float) -> list[Row]:
    """Run steps until the deadline, keeping on disk what is measured so far."""
    document: dict[str, Any] = {
        "environment": environment(steps[0][1].device),
        "steps": [{"scenarios": names, **asdict(settings)} for names, settings in steps],
        "cut_short_in": [],
    }
    about = document["environment"]
    print(f"{about['processor']}, {about['cores']} cores: {' '.join(about['instructions'])}")
    rows: list[Row] = []
    for names, settings in steps:
        for case in itertools.chain.from_iterable(SCENARIOS[name](settings) for name in names):
            rows += case
            for row in case:
                took = f"{row.timing.p50_ms:,.1f} ms" if row.timing else row.note
                print(row.scenario, row.model, row.case, row.peer, row.mode, took, file=sys.stderr)
            save(rows, document, path.with_suffix(".json"))
            if time.monotonic() > deadline:
                document["cut_short_in"].append(names)
                print(f"time is up during {names}: what is left of it is left out", file=sys.stderr)
                break
    save(rows, document, path.with_suffix(".json"))
    plot(rows, document["environment"], path.with_suffix(".png"))
    return rows


def _parse(parser: argparse.ArgumentParser, line: Sequence[str]) -> Step:
    arguments = vars(parser.parse_intermixed_args(line))
    for name in ("preset", "name", "minutes"):
        del arguments[name]
    names = tuple(arguments.pop("scenarios")) or tuple(SCENARIOS)
    unknown = set(names) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    arguments["device"] = str(resolve_device(arguments["device"]))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    return names, Settings(**values)


def _settings_parser(first: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, parents=[first], allow_abbrev=False
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    add(
        "--models", nargs="+", default=[TINY, "nano"], help="random weights, but for nano and files"
    )
    add("--device", default="auto")
    add("--peers", nargs="+", choices=LABELS, default=DEFAULT_PEERS)
    add("--runs", type=int, default=5)
    add("--warmups", type=int, default=1)
    add(
        "--seconds", type=float, default=60, help="for one peer of a case; slow ones run less often"
    )
    add("--sizes", nargs="+", choices=SIZES_HW, default=list(SIZES_HW))
    add("--counts", nargs="+", type=int, default=[1, 10, 50, 100], help="boxes a picture")
    add("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    add("--batches", nargs="+", type=int, default=[1, 8], help="pictures, in scenario encoder")
    add("--pictures", type=int, default=20, help="files in the folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
