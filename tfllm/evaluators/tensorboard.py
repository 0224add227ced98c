"""Evaluations in TensorBoard: numbers, precision-recall curves, pictures, points with labels."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.pr_curve import metadata as pr_curves
from tensorboard.plugins.projector import projector_config_pb2

from tfllm.aside import make_folder
from tfllm.errors import UserError
from tfllm.evaluators.result import ClassScores, Evaluation

_THRESHOLDS = 201
_MOST_POINTS = 10_000  # the projector shows no more
_MOST_CLASSES = 50  # of which a picture can be read
_MOST_INCHES = 8.0  # of the picture of one head
_OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans")


def write_tensorboard(
    evaluation: Evaluation, folder: str | os.PathLike, *, step: int = 0, name: str | None = None
) -> None:
    """Writes what an evaluation found, under its own name, beside what is there.

    Of a classifier with up to 50 labels a precision-recall curve of each and the confusion matrix;
    of an embedder its first 10,000 texts as points.

    Args:
        evaluation: Of `tfllm.evaluators`.
        folder: A folder of TensorBoard's logs.
        step: Where on the axis it stands, as the optimizer's steps of the model.
        name: Before the names of the numbers; default "evaluation".
    """
    name = name or "evaluation"
    writer = tf.summary.create_file_writer(os.fspath(folder))
    with writer.as_default(step=step):
        for metric, value in evaluation.metrics.items():
            if np.isfinite(value):
                tf.summary.scalar(f"{name}/{metric}", value)
        classes = evaluation.classes
        if classes is not None and len(classes.labels) <= _MOST_CLASSES:
            for c, label in enumerate(classes.labels):
                pr_curve(f"{name}/{label}", classes.truth == c, classes.scores[:, c], step=step)
            tf.summary.image(f"{name}/confusion", _picture(_confusion, classes))
    writer.close()
    if evaluation.vectors is not None:
        points = evaluation.vectors
        write_points(folder, points.vectors, points.columns, name=evaluation.task)


def pr_curve(tag: str, is_positive: Any, score: Any, *, step: int) -> None:
    """Writes a precision-recall curve to the summary writer that is the default.

    Args:
        tag: Its name.
        is_positive: bool[n].
        score: float[n] in [0, 1].
        step: Where it stands.

    Source:
        The tensor float32[6, thresholds] of TensorBoard's plugin pr_curves: true and false
        positives, true and false negatives, precision, recall, at thresholds from 0 to 1.
    """
    is_positive = np.asarray(is_positive, bool)
    bucket = np.floor(np.clip(np.nan_to_num(score), 0, 1) * (_THRESHOLDS - 1)).astype(int)
    reached = [
        # Of the rows at or above each threshold.
        np.bincount(bucket[side], minlength=_THRESHOLDS)[::-1].cumsum()[::-1]
        for side in (is_positive, ~is_positive)
    ]
    hits, false_alarms = reached
    misses, passes = hits[0] - hits, false_alarms[0] - false_alarms
    precision = hits / np.maximum(hits + false_alarms, 1e-7)
    recall = hits / np.maximum(hits + misses, 1e-7)
    data = np.stack([hits, false_alarms, passes, misses, precision, recall]).astype(np.float32)
    told = pr_curves.create_summary_metadata(tag, "", _THRESHOLDS)
    metadata = tf.compat.v1.SummaryMetadata.FromString(told.SerializeToString())
    tf.summary.write(f"{tag}/pr_curves", data, step=step, metadata=metadata)


def write_points(
    folder: str | os.PathLike,
    vectors: np.ndarray,
    columns: Mapping[str, Sequence[str]],
    *,
    name: str = "embeddings",
) -> None:
    """Writes points for the projector of TensorBoard, with what is known of each.

    Args:
        folder: A folder of TensorBoard's logs; one set of points per folder.
        vectors: float[n, m].
        columns: n values by the name of the column; by each the points can be coloured.
        name: Of the points.

    Raises:
        UserError: there are no points, or not as many values in a column.
    """
    for column, values in columns.items():
        if len(values) != len(vectors):
            raise UserError(f"{column!r} has {len(values)} values for {len(vectors)} points.")
    if not columns or not len(vectors):
        raise UserError("The projector needs points, and at least one column of their names.")
    folder = make_folder(folder)
    rows = list(zip(*columns.values(), strict=True))[:_MOST_POINTS]
    # A file of one column has no line with names.
    rows = rows if len(columns) == 1 else [tuple(columns), *rows]
    _write(folder / f"{name}-metadata.tsv", rows)
    _write(folder / f"{name}-tensors.tsv", np.asarray(vectors, float)[:_MOST_POINTS].tolist())
    config = projector_config_pb2.ProjectorConfig()
    config.embeddings.add(
        tensor_name=name,
        tensor_path=f"{name}-tensors.tsv",
        metadata_path=f"{name}-metadata.tsv",
    )
    (folder / "projector_config.pbtxt").write_text(str(config), encoding="utf-8")


def write_attention(
    folder: str | os.PathLike,
    tokens: Sequence[str],
    attention: np.ndarray,
    *,
    name: str = "attention",
    step: int = 0,
) -> None:
    """Writes one picture of the weights of all heads of a layer: row = from, column = to.

    Args:
        folder: A folder of TensorBoard's logs.
        tokens: t of them.
        attention: float[h, t, t], in [0, 1].
        name: Of the picture.
        step: Where it stands.

    Raises:
        UserError: the weights are not of so many tokens.
    """
    attention = np.asarray(attention)
    if attention.ndim != 3 or attention.shape[1:] != (len(tokens),) * 2 or not attention.size:
        raise UserError(
            f"Expected weights of [heads, {len(tokens)}, {len(tokens)}], one row and column per "
            f"token, got {list(attention.shape)}."
        )
    writer = tf.summary.create_file_writer(os.fspath(folder))
    with writer.as_default(step=step):
        tf.summary.image(name, _picture(_heads, tokens, attention))
    writer.close()


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    # A tab or the end of a line would begin another cell.
    lines = ("\t".join(" ".join(str(cell).split()) or "∅" for cell in row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _picture(draw, *args) -> np.ndarray:
    """uint8[1, height, width, 4] of what a function draws on a figure."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import get_font_names

    there = get_font_names()
    fonts = ["DejaVu Sans", *(font for font in _OTHER_SCRIPTS if font in there)]
    with matplotlib.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # without a font a box stands for it
        figure = Figure(layout="constrained", dpi=100)
        canvas = FigureCanvasAgg(figure)  # without a screen; pyplot's choice is left alone
        draw(figure, *args)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[None]


def _confusion(figure, classes: ClassScores) -> None:
    count = len(classes.labels)
    side = 3 + 0.45 * count  # inches
    figure.set_size_inches(side, side)
    axes = figure.subplots()
    share = classes.matrix / np.maximum(classes.matrix.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), classes.labels, rotation=90, parse_math=False)
    axes.set_yticks(range(count), classes.labels, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    for row, column in np.ndindex(count, count):
        colour = "white" if share[row, column] > 0.5 else "black"
        number = str(classes.matrix[row, column])
        axes.text(column, row, number, ha="center", va="center", color=colour)


def _heads(figure, tokens: Sequence[str], attention: np.ndarray) -> None:
    heads, length = attention.shape[:2]
    across = min(heads, 4)
    down = -(-heads // across)
    side = min(1.5 + 0.18 * length, _MOST_INCHES)
    size = min(6.0, 40 * side / length)  # points of the tokens
    figure.set_size_inches(across * side, down * side)
    places = figure.subplots(down, across, squeeze=False).flat
    for head, axes in enumerate(places):
        if head >= heads:
            axes.set_axis_off()
            continue
        axes.imshow(attention[head], cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"head {head}", fontsize=8)
        axes.set_xticks(range(length), tokens, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(length), tokens, fontsize=size, parse_math=False)
