"""What is told of each request when it has ended: it is counted, and has a line in a log."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tfllm.gateway import metrics
from tfllm.gateway.texts import Piece, Text

if TYPE_CHECKING:
    from tfllm.gateway.tracing import Tracing

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


class Follower:
    """What became of one text.

    Args:
        keeps_text: Whether the text itself is kept.

    Attributes:
        first_at: When its first token came, of `time.monotonic`; None = there was none.
        num_tokens: That were written.
        finish_reason: "" = it did not end.
        text: What was written, if it is kept.
    """

    def __init__(self, keeps_text: bool = False):
        self.first_at: float | None = None
        self.num_tokens = 0
        self.finish_reason = ""
        self.text = ""
        self._keeps_text = keeps_text

    def take(self, piece: Piece) -> None:
        """What is new."""
        if self.first_at is None and piece.num_tokens:
            self.first_at = time.monotonic()
        self.num_tokens += piece.num_tokens
        self.finish_reason = piece.finish_reason
        if self._keeps_text:
            self.text += piece.text


class Record:
    """What is known of one request.

    Args:
        path: Of HTTP, or the method of gRPC.
        request_id: The client's; another one takes its place if it is none that may be told.
        status: What it is unless it is answered.
        is_told: Whether it may have a line in the log.
        traceparent: The header of the trace that it is part of; "" if there is none.

    Attributes:
        id: Of the request.
        client: The name of the key.
        model: As the client called it.
        status: Of HTTP, or the code of gRPC.
        new_follower: Makes what notes the end of a text; is told whether to keep it.
        is_followed: Whether what becomes of the texts is to be told.
        keeps_texts: And what they were.
    """

    def __init__(
        self,
        path: str,
        request_id: str | None,
        status: str,
        *,
        is_told: bool = True,
        traceparent: str = "",
    ):
        self.path = path
        self.is_told = is_told
        self.traceparent = traceparent
        self.new_follower: Callable[[bool], Follower] = Follower
        self.is_followed = self.keeps_texts = False
        self.id = request_id or ""
        if not _REQUEST_ID.fullmatch(self.id):
            self.id = uuid.uuid4().hex
        self.client = self.model = ""
        self.status = status
        self._started_at = time.monotonic()
        self._groups: Sequence[Sequence[Text]] = ()
        self._followers: list[Follower] = []

    def follow(self, groups: Sequence[Sequence[Text]]) -> None:
        """Notes what becomes of texts, those of one list having the same prompt."""
        if not self.is_followed:
            return
        self._groups = groups
        for group in groups:
            for text in group:
                self._followers.append(self.new_follower(self.keeps_texts))
                text.follower = self._followers[-1]

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.monotonic() - self._started_at

    def line(self) -> dict[str, Any]:
        """The entry of the log; texts only if they are kept."""
        told: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "id": self.id,
            "path": self.path,
            "key": self.client,
            "status": self.status,
            "total_s": round(self.seconds, 4),
        }
        if self.model:
            told["model"] = self.model
        if self._groups:
            told |= self._line_of_texts()
        return told

    def _line_of_texts(self) -> dict[str, Any]:
        of = self._followers
        first_at = min((one.first_at for one in of if one.first_at is not None), default=None)
        told = {
            "servers": sorted({text.server for group in self._groups for text in group}),
            "prompt_tokens": sum(group[0].num_prompt_tokens for group in self._groups),
            "reused_tokens": sum(group[0].num_reused for group in self._groups),
            "completion_tokens": sum(one.num_tokens for one in of),
            "first_token_s": first_at and round(first_at - self._started_at, 4),
            "finish_reasons": [one.finish_reason for one in of],
        }
        if self.keeps_texts:
            told["prompts"] = [group[0].asked.prompt for group in self._groups]
            told["texts"] = [one.text for one in of]
        return told


class Records:
    """Of all requests of a gateway.

    Args:
        file: Gets a line of JSON for each request that has ended; None writes none.
        with_texts: Whether the lines have prompts and what was written.
        tracing: Gets spans of them.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        with_texts: bool = False,
        tracing: Tracing | None = None,
    ):
        self._file = file
        self.tracing = tracing
        self._with_texts = with_texts

    @contextlib.contextmanager
    def kept(self, record: Record) -> Iterator[None]:
        """Tells of the request that is answered inside the `with`."""
        has_line = self._file is not None and record.is_told
        tracing = self.tracing if record.is_told else None
        record.is_followed = has_line or tracing is not None
        record.keeps_texts = has_line and self._with_texts
        try:
            with tracing.of_request(record) if tracing else contextlib.nullcontext():
                yield
        finally:
            metrics.REQUESTS.add(record.path, record.status)
            if has_line:
                self._write(record)

    def _write(self, record: Record) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(record.line(), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            log.warning("the request %s is not in the log: %s", record.id, error)
