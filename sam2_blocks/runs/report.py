"""A contact sheet of a run: one HTML file without links, to look at and to pass on."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image as Pil

from sam2_blocks.engine.hookspecs import hookimpl
from sam2_blocks.engine.records import ErrorRecord, ItemResult
from sam2_blocks.files.atomic import write_text
from sam2_blocks.language.pipeline import Step
from sam2_blocks.values import Image

REPORT_FILE = "index.html"
THUMBNAIL_PX = 320
MOST_THUMBNAILS = 2000
"""Pictures shown; of larger runs the rest is listed without, so that a browser opens the file."""

STYLE = """
body {font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fafafa}
table {border-collapse: collapse; margin: 1em 0} td, th {padding: .2em 1em .2em 0; text-align: left}
main {display: flex; flex-wrap: wrap; gap: 1em}
figure {margin: 0; padding: .6em; background: #fff; border: 1px solid #ddd; width: 320px}
figure img {display: block; max-width: 320px; margin: 0 auto .5em}
figcaption {overflow-wrap: anywhere} .failed {border-color: #c33} .error {color: #a00}
"""


class Report:
    """Gathers what a run gave; a plugin of the runner, for the times of its steps.

    Args:
        title: heading of the page, such as the pipeline's name.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.perf_counter()
        self._begun: dict[tuple[int, str], float] = {}
        self._seconds: dict[str, float] = {}
        self._batches: Counter[str] = Counter()
        self._figures: dict[str, str] = {}
        self._failed: set[str] = set()
        self._shown = 0

    @hookimpl
    def before_step(self, step: Step) -> None:
        """Note when the step starts."""
        self._begun[threading.get_ident(), step.id] = time.perf_counter()

    @hookimpl
    def after_step(self, step: Step) -> None:
        """Add the time of the step."""
        begun = self._begun.pop((threading.get_ident(), step.id))
        spent = time.perf_counter() - begun
        self._seconds[step.id] = self._seconds.get(step.id, 0.0) + spent
        self._batches[step.id] += 1

    def add(self, result: ItemResult) -> None:
        """Add what became of one item."""
        self._add(result.id, result.outputs, result.errors)

    def write(self, folder: Path, errors: Sequence[ErrorRecord] = ()) -> Path:
        """Write ``index.html``; the file is whole or not there.

        Args:
            folder: where it goes.
            errors: all errors of the run; those of items that were added without one were found
                when their results were written.
        """
        late: dict[str, list[ErrorRecord]] = {}
        for error in errors:
            if error.item not in self._failed:
                late.setdefault(error.item, []).append(error)
        for item, found in late.items():
            self._add(item, {}, found)
        return write_text(folder / REPORT_FILE, self._page())

    def _add(self, item: str, outputs: Mapping[str, Any], errors: Sequence[ErrorRecord]) -> None:
        lines = [f"<strong>{escape(item)}</strong>"]
        lines += [f"{escape(name)}: {count}" for name, count in _counts(outputs)]
        lines += [f'<span class="error">{escape(_why(error))}</span>' for error in errors]
        if errors:
            self._failed.add(item)
        picture = ""
        image = next((value for value in outputs.values() if isinstance(value, Image)), None)
        if image is not None and self._shown < MOST_THUMBNAILS:
            self._shown += 1
            picture = f'<img alt="{escape(item)}" src="{_thumbnail(image)}">'
        look = ' class="failed"' if errors else ""
        caption = "<br>".join(lines)
        self._figures[item] = f"<figure{look}>{picture}<figcaption>{caption}</figcaption></figure>"

    def _page(self) -> str:
        title, figures = escape(self._title), self._figures
        steps = "".join(
            f"<tr><td>{escape(step)}</td><td>{seconds:.2f} s</td>"
            f"<td>{self._batches[step]}</td></tr>"
            for step, seconds in self._seconds.items()
        )
        seconds = time.perf_counter() - self._started
        head = (
            f"{len(figures) - len(self._failed)} of {len(figures)} done, "
            f"{len(self._failed)} failed, in {seconds:.1f} s"
        )
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1><p>{head}{self._notes()}</p>\n"
            f"<table><tr><th>step</th><th>time</th><th>batches</th></tr>{steps}</table>\n"
            f"<main>\n{chr(10).join(figures.values())}\n</main></body></html>\n"
        )

    def _notes(self) -> str:
        if not self._shown and len(self._figures) > len(self._failed):
            return ". The pipeline gives no picture; an output of draw/masks@v1 would be shown here"
        if self._shown == MOST_THUMBNAILS:
            return f". Only {MOST_THUMBNAILS} pictures are shown"
        return ""


def _counts(outputs: Mapping[str, Any]) -> list[tuple[str, int]]:
    import supervision as sv

    return [(name, len(v)) for name, v in outputs.items() if isinstance(v, sv.Detections)]


def _why(error: ErrorRecord) -> str:
    return f"{error.step}: {error.message}"


def _thumbnail(image: Image) -> str:
    picture = Pil.fromarray(image.pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
