"""Run the benchmarks: ``python -m benchmarks [SCENARIO ...] [options]``.

Exit status 1 if any mask differs from the official ones by more than rounding explains.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import environment
from benchmarks.report import print_table, save
from benchmarks.scenarios import SCENARIOS, SIZES_HW, Row, Settings

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--model", default="sam2.1/hiera_tiny", help="architecture")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warmups", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=SIZES_HW, default=["VGA", "1080p", "4K"])
    parser.add_argument("--counts", nargs="+", type=int, default=[10, 50, 100])
    parser.add_argument("--pictures", type=int, default=20, help="files in the folder")
    parser.add_argument("--name", default="latest", help="of the files under benchmarks/results")
    arguments = vars(parser.parse_args())
    names, chosen = arguments.pop("name"), arguments.pop("scenarios") or list(SCENARIOS)
    unknown = set(chosen) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    settings = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
    started = environment(settings.device)
    rows: list[Row] = []
    for name in chosen:
        for row in SCENARIOS[name](settings):
            print(f"{row.scenario:8} {row.case:24} {row.peer}", file=sys.stderr)
            rows.append(row)
        save(rows, started, asdict(settings), RESULTS / f"{names}.json")
    print_table(rows)
    wrong = [row for row in rows if row.equality is not None and not row.equality.holds]
    for row in wrong:
        print(f"NOT EQUAL: {row.scenario} {row.case} {row.peer}: {row.equality}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
