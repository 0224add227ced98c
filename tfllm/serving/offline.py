"""A file of questions to a file of answers, by a served model or a live one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

from tfllm.errors import Failure, UserError
from tfllm.serving.journal import Journal
from tfllm.serving.questions import Asked, Question, task_of
from tfllm.serving.status import ServingError


def answer_file(
    model: Any,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    signature: str | None = None,
    batch_size: int = 8,
    concurrency: int = 8,
    settings: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    on_lines: Callable[[int], Any] = lambda _: None,
) -> dict[str, int]:
    """Answers every line of a file.

    A line is a JSON object with the inputs of the signature by name, as `prompt`, and the settings
    that are its own, as `max_new_tokens`; in place of `prompt` it may have `messages`. What else it
    has goes along. A line of the target is `{"line": 1, "input": …, "output": …}`, with "error" and
    the reason in place of "output" where there is none, in the order of the input. A run that was
    ended goes on where it was.

    Args:
        model: A `Client`, or a live model.
        source: A file of JSON lines.
        target: The file of answers.
        signature: What is asked; default the model's own task.
        batch_size: Lines in a request, at most.
        concurrency: Requests at a time.
        settings: For all lines that have none of their own.
        retry_failed: Whether lines that failed before are asked again.
        on_lines: Called with a number of lines that were done, also before.

    Returns:
        Numbers of `lines`, of those `answered` and `failed`, and of those `asked` in this run.

    Raises:
        UserError: the files cannot be these, or the model does not know the signature.
        Failure: the server cannot answer any more; what is done is kept.
    """
    if batch_size < 1 or concurrency < 1:
        raise UserError("batch_size and concurrency must be at least 1.")
    if Path(source).resolve() == Path(target).resolve():
        raise UserError("--output must be another file than --input.")
    try:
        with open(source, "rb"):
            pass
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error.strerror}.") from None
    question = Question(model, signature or task_of(model), settings or {})
    with Journal.opened(target) as journal:
        num_asked = _answer_all(
            question, source, journal, batch_size, concurrency, retry_failed, on_lines
        )
        journal.finish()
    failed = sum(kept.failed for kept in journal.kept.values())
    lines = len(journal.kept)
    return {"lines": lines, "answered": lines - failed, "failed": failed, "asked": num_asked}


def _answer_all(
    question: Question,
    source: str | os.PathLike[str],
    journal: Journal,
    batch_size: int,
    concurrency: int,
    retry_failed: bool,
    on_lines: Callable[[int], Any],
) -> int:
    batches = _batches(_left(source, journal, retry_failed, on_lines), question, batch_size)
    running: set[futures.Future] = set()
    num_asked = 0
    with futures.ThreadPoolExecutor(concurrency) as threads:
        try:
            while True:
                for batch in itertools.islice(batches, concurrency - len(running)):
                    running.add(threads.submit(question.records, batch))
                if not running:
                    return num_asked
                done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                num_asked += _kept(done, journal, on_lines)
        except ServingError as error:
            with contextlib.suppress(ServingError):
                _kept(futures.wait(running).done, journal, on_lines)
            raise Failure(
                f"{error} {len(journal.kept)} lines are done and kept in {journal.path}: the same "
                "command goes on with the others."
            ) from error


def _kept(done: set[futures.Future], journal: Journal, on_lines: Callable[[int], Any]) -> int:
    """Writes down what was answered, and says how many lines.

    Raises:
        ServingError: of one that was not, after that.
    """
    records = [r for future in done if future.exception() is None for r in future.result()]
    journal.append(records)
    on_lines(len(records))
    for future in done:
        future.result()
    return len(records)


def _left(
    source: str | os.PathLike[str],
    journal: Journal,
    retry_failed: bool,
    on_lines: Callable[[int], Any],
) -> Iterator[Asked]:
    for asked in _lines(source):
        if journal.is_done(asked.line, asked.row, retry_failed):
            on_lines(1)
        else:
            yield asked


def _lines(source: str | os.PathLike[str]) -> Iterator[Asked]:
    """The lines of a file that are not blank, numbered from 1."""
    with open(source, "rb") as file:
        for number, content in enumerate(file, 1):
            if not content.strip():
                continue
            try:
                row = json.loads(content)
            except ValueError as error:
                yield Asked(number, None, f"The line is no JSON: {error}")
                continue
            if isinstance(row, dict):
                yield Asked(number, row)
            else:
                yield Asked(number, None, "The line is no JSON object.")


def _batches(lines: Iterator[Asked], question: Question, size: int) -> Iterator[list[Asked]]:
    """Lines in a row that have the same inputs."""
    batch: list[Asked] = []
    kind: Any = None
    for asked in lines:
        here = None if asked.row is None else question.own(asked.row)
        if batch and (here != kind or len(batch) == size):
            yield batch
            batch = []
        kind = here
        batch.append(asked)
    if batch:
        yield batch
