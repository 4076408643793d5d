"""Pipelines as a stage of a Ray Data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.records import Item
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import PipelineError, Problem, Sam2BlocksError
from sam2_blocks.formats.columns import Column, find_column
from sam2_blocks.formats.parquet import load_pyarrow
from sam2_blocks.kinds import BUILTIN_KINDS, parse_value
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.values import Image, VideoFrame

IMAGE = next(kind for kind in BUILTIN_KINDS if kind.name == "image")


class PipelineStage:
    """Runs a pipeline on the batches of a Ray Data set; a class for ``map_batches``.

    Each row is one item. A column named like an input of the pipeline feeds it: an image as a path,
    encoded bytes or an RGB array (H, W, 3), other inputs as plain data. Every output becomes a
    typed column, in place of one of its name: images as arrays, detections as lists of structs, as
    in the Parquet parts of a run (`sam2_blocks.formats.columns`), and what is text or a number as
    that. One more column says why an output is None; it is empty on success.

    A stage does not know when the data ends, and runs on many machines: steps that write files are
    refused. Write the columns instead.

    Args:
        pipeline: path of a YAML pipeline, or the document as plain data.
        columns: names of columns by input, where they differ.
        id_column: column that names the items in messages; rows are numbered if not given.
        errors_column: name of the column of errors, which may not exist before.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        PipelineError: if the pipeline is wrong, writes files, has an output of that name, or one
            whose kind has no type in a table, such as embeddings.
    """

    def __init__(
        self,
        pipeline: str | Path | Mapping[str, Any],
        *,
        columns: Mapping[str, str] | None = None,
        id_column: str | None = None,
        errors_column: str = "errors",
    ) -> None:
        plugins = load_plugins()
        self._pipeline = plugins.load_pipeline(pipeline)
        outputs = self._pipeline.outputs.items()
        kinds = {name: self._pipeline.kinds_of(selector) for name, selector in outputs}
        found = {name: find_column(of) for name, of in kinds.items() if "image" not in of}
        _check_fits_stage(self._pipeline, errors_column, found)
        self._typed = {name: column for name, column in found.items() if column is not None}
        resources = plugins.resources(pictures_pass=True).of_a_run()
        self._runner = Runner(self._pipeline, plugins, resources=resources)
        self._columns = {name: name for name in self._pipeline.inputs} | dict(columns or {})
        self._id_column = id_column
        self._errors_column = errors_column

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Add the outputs of the pipeline to a batch.

        Returns:
            An Arrow table.

        Raises:
            Sam2BlocksError: if a column is missing, or that of the errors is there already.
        """
        if self._errors_column in batch:
            raise Sam2BlocksError(
                f"the data set has a column {self._errors_column!r} already. Rename it, or give "
                "this stage another errors_column."
            )
        count = len(next(iter(batch.values())))
        results = list(self._runner.run([self._item(batch, row) for row in range(count)]))
        values = {
            name: [result.outputs.get(name) for result in results]
            for name in self._pipeline.outputs
        }
        pictures = {name: values[name] for name in values if name not in self._typed}
        errors = ["; ".join(error.message for error in result.errors) for result in results]
        others = {
            **{name: column for name, column in batch.items() if name not in values},
            **{name: _picture_column(column) for name, column in pictures.items()},
            self._errors_column: np.array(errors, dtype=object),
        }
        return self._append_typed(_to_table(others), values)

    def _append_typed(self, table: Any, values: Mapping[str, Sequence[Any]]) -> Any:
        arrow = load_pyarrow()
        for name, column in self._typed.items():
            cells = [None if value is None else column.cell(value) for value in values[name]]
            table = table.append_column(name, arrow.array(cells, type=column.type))
        return table

    def _item(self, batch: Mapping[str, Any], row: int) -> Item:
        given = {
            name: _from_cell(batch[column][row])
            for name, column in self._columns.items()
            if column in batch
        }
        missing = [
            self._columns[name]
            for name, declared in self._pipeline.inputs.items()
            if declared.required and name not in given
        ]
        if missing:
            raise Sam2BlocksError(f"the data set lacks the columns {missing}; it has {list(batch)}")
        item_id = row if self._id_column is None else batch[self._id_column][row]
        return Item(str(item_id), given, own=frozenset(given))


class VideoStage(PipelineStage):
    """Runs a pipeline on whole videos of a Ray Data set; a class for ``map_groups``.

    Each row is one frame, and the rows of a video come together, in any order: they are put in that
    of their numbers, and come out in it. Steps that remember, such as ``sam2/track``, have one
    state a video, which is freed after its last frame. All else is as in `PipelineStage`; a frame
    that fails is a row with an error, and its video goes on.

    Args:
        pipeline: path of a YAML pipeline, or the document as plain data.
        video_column: column that names the video of a frame.
        frame_column: column of its number, which may start anywhere and leave numbers out.
        options: those of `PipelineStage`.

    Raises:
        PipelineError: see `PipelineStage`.
    """

    def __init__(
        self,
        pipeline: str | Path | Mapping[str, Any],
        *,
        video_column: str = "video",
        frame_column: str = "frame",
        **options: Any,
    ) -> None:
        super().__init__(pipeline, **options)
        self._video_column = video_column
        self._frame_column = frame_column

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Add the outputs of the pipeline to the frames of one video or several.

        Raises:
            Sam2BlocksError: as in `PipelineStage`, or if a frame has no number.
        """
        missing = [c for c in (self._video_column, self._frame_column) if c not in batch]
        if missing:
            raise Sam2BlocksError(f"the data set lacks the columns {missing}; it has {list(batch)}")
        places = [self._place(batch, row) for row in range(len(batch[self._frame_column]))]
        order = sorted(range(len(places)), key=lambda row: places[row])
        try:
            return super().__call__({name: cells[order] for name, cells in _arrays(batch).items()})
        finally:
            self._runner.finish()

    def _item(self, batch: Mapping[str, Any], row: int) -> Item:
        item = super()._item(batch, row)
        video, index = self._place(batch, row)
        name = f"{video}/{index}" if self._id_column is None else item.id
        frame = VideoFrame(video, index)
        inputs = {
            key: partial(_read_frame, value, name, frame) if key in self._pictures else value
            for key, value in item.inputs.items()
        }
        return Item(name, inputs, group=video, own=item.own)

    @property
    def _pictures(self) -> list[str]:
        """Inputs that frames go to."""
        inputs = self._pipeline.inputs.items()
        return [name for name, declared in inputs if IMAGE.name in declared.kinds]

    def _place(self, batch: Mapping[str, Any], row: int) -> tuple[str, int]:
        video, index = batch[self._video_column][row], batch[self._frame_column][row]
        if isinstance(index, Integral):
            return str(video), int(index)
        raise Sam2BlocksError(
            f"column {self._frame_column!r} wants the number of a frame, got {index!r} in video "
            f"{str(video)!r}."
        )


def map_videos(
    data: Any,
    pipeline: str | Path | Mapping[str, Any],
    *,
    video_column: str = "video",
    concurrency: int | tuple[int, int] | None = None,
    num_gpus: float | None = None,
    partitions: int | None = None,
    **options: Any,
) -> Any:
    """Run a pipeline on the videos of a Ray Data set, several at a time, each on one actor.

    Args:
        data: a ``ray.data.Dataset`` with one row a frame. All rows of a video are in memory at
            once where it is followed: let them name files instead of holding pixels.
        pipeline: path of a YAML pipeline, or the document as plain data.
        video_column: column that names the video of a frame.
        concurrency: how many actors, or between which numbers of them; Ray decides if not given.
        num_gpus: of each actor.
        partitions: into how many parts the videos are shuffled; an actor takes one after another.
            Ray decides if not given.
        options: those of `VideoStage`.

    Returns:
        A ``ray.data.Dataset`` with the outputs as columns, the frames of each video in order.
    """
    return data.groupby(video_column, num_partitions=partitions).map_groups(
        VideoStage,
        fn_constructor_args=[pipeline],
        fn_constructor_kwargs={"video_column": video_column, **options},
        batch_format="numpy",
        concurrency=concurrency,
        num_gpus=num_gpus,
    )


def _arrays(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: cells if isinstance(cells, np.ndarray) else _column(cells)
        for name, cells in batch.items()
    }


def _read_frame(value: Any, name: str, frame: VideoFrame) -> Image:
    image: Image = parse_value(value, [IMAGE])
    return replace(image, id=name, video=frame)


def _check_fits_stage(
    pipeline: Pipeline, errors_column: str, columns: Mapping[str, Column | None]
) -> None:
    problems = [
        Problem(
            f"{step.manifest.id} writes files, which a stage of a data set cannot. Remove the "
            "step, and write the columns that come out.",
            f"steps.{step.id}",
        )
        for step in pipeline.steps
        if step.manifest.file_access == "write"
    ]
    problems += [
        Problem("has no type in a table. Leave this output out.", f"outputs.{name}")
        for name, column in columns.items()
        if column is None
    ]
    if errors_column in pipeline.outputs:
        message = "this column is for errors. Rename the output, or give another errors_column."
        problems.append(Problem(message, f"outputs.{errors_column}"))
    if problems:
        raise PipelineError(pipeline.source, problems)


def _from_cell(cell: Any) -> Any:
    """Undo what Arrow does to plain data; pictures stay arrays."""
    if isinstance(cell, np.generic):
        return cell.item()
    if isinstance(cell, np.ndarray) and cell.dtype != np.uint8:
        return cell.tolist()
    return cell


def _column(cells: Sequence[Any]) -> Any:
    """Make one cell of each value; numpy would stack pictures of equal size, which Arrow takes."""
    shapes = {cell.shape if isinstance(cell, np.ndarray) else None for cell in cells}
    if len(shapes) == 1 and None not in shapes:
        return np.stack(cells)
    column = np.empty(len(cells), object)
    column[:] = cells
    return column


def _picture_column(images: Sequence[Image | None]) -> Any:
    return _column([None if image is None else image.pixels for image in images])


def _to_table(columns: Mapping[str, Any]) -> Any:
    """Make a table as Ray does, which has a type of its own for pictures."""
    from ray.data.block import BlockAccessor

    return BlockAccessor.batch_to_block(dict(columns))
