"""One version of a model on one server: what it can do, and its calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfllm import contract, rows
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.gateway.texts import Asked, Refused, Text, Token
from tfllm.serving import AsyncClient, Code, columns
from tfllm.serving.metadata import SignatureInfo

# After these the same call may be answered, or was answered and the answer was lost.
MAY_PASS = {
    Code.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED,
    Code.CANCELLED,
    Code.ABORTED,
    Code.RESOURCE_EXHAUSTED,
}

_NO_BIAS = {contract.PADDING: 0.0}
_PLAIN_OUTPUTS = ("text", "finish_reason", "position", "num_tokens", "token_ids")
_TOKEN_OUTPUTS = (*_PLAIN_OUTPUTS, "token_bytes", "logprobs")
_ALTERNATIVE_OUTPUTS = (*_TOKEN_OUTPUTS, "alternative_bytes", "alternative_logprobs")


class Prefilled(NamedTuple):
    """One row of `prefill`; see the contract."""

    slot: int
    is_ready: bool
    num_prompt_tokens: int
    num_read: int
    num_reused: int
    error: str


class Decoded(NamedTuple):
    """One row of `decode`; see the contract."""

    text: str
    finish_reason: str
    token_ids: list[int]
    tokens: tuple[Token, ...]


class Backend:
    """The calls of one version of a model on one server.

    Args:
        client: Asks for that version. Belongs to the backend.

    Attributes:
        address: "host:port" of the server.
        model: Its name there.
        version: Which one it is.
        num_slots: Texts that the server holds at a time; 0 = the export has no sessions.
        signatures: By name, as the server tells.
        chat_template: How conversations are rendered; None if the export has none.
        num_asking: Requests that need no slot and are not answered yet.
    """

    def __init__(self, client: AsyncClient):
        self.address: str = client.address
        self.model: str = client.model
        self.version: int | None = client.version
        self.num_slots = 0
        self.signatures: dict[str, SignatureInfo] = {}
        self.chat_template: ChatTemplate | None = None
        self.num_asking = 0
        self._client = client

    async def open(self) -> None:
        """Looks what the version can do.

        Raises:
            ServingError: as the server says, or UNAVAILABLE.
            UserError: it has a chat template that is none.
        """
        self.signatures = (await self._client.metadata()).signatures
        self.chat_template = ChatTemplate.of(await self._client.describe(contract.CHAT_TEMPLATE))
        if contract.SESSION_SIGNATURES.keys() <= self.signatures.keys():
            told = await self._client.predict(
                {"slot": np.zeros(1, np.int32)}, contract.SLOTS, output_filter=["num_slots"]
            )
            self.num_slots = told["num_slots"].tolist()[0]

    async def close(self) -> None:
        await self._client.close()

    @contextlib.contextmanager
    def asked(self) -> Iterator[Backend]:
        """Itself, which is not closed inside the `with` because another version is meant."""
        self.num_asking += 1
        try:
            yield self
        finally:
            self.num_asking -= 1

    def columns_of(self, signature: str, asked: Sequence[Asked]) -> dict[str, np.ndarray]:
        """The sampling inputs of texts; what they leave out is as the export has it.

        Raises:
            UserError: a value that cannot be sent, naming it.
        """
        found = {}
        known = self.signatures[signature].inputs
        for field in contract.SAMPLING:
            if field.name in contract.LATER_SAMPLING and field.name not in known:
                continue  # `refusal` says who asks for it
            default = field.default
            if field.name in known and (own := known[field.name].default) is not None:
                default = rows.plain(own.tolist()[0])
            values = [each.settings.get(field.name, default) for each in asked]
            found[field.name] = columns.tensor(values, field.dtype, field.name)
        return found

    def refusal(self, asked: Asked) -> Refused | None:
        """Why the version cannot write a text at all: a setting that its export lacks."""
        known = self.signatures[contract.GENERATE].inputs
        try:
            rows.known_columns(
                {name: [value] for name, value in asked.settings.items()}, known, self.model
            )
        except UserError as error:
            param = next(name for name in contract.LATER_SAMPLING if name in str(error))
            return Refused(400, str(error), param=param)
        return None

    async def prefill(self, texts: Sequence[Text], most: Sequence[int]) -> list[Prefilled]:
        """Has texts read so many more tokens each.

        Raises:
            ServingError: nothing is known of what was done.
        """
        asked = [text.asked for text in texts]
        biases = [each.biases or _NO_BIAS for each in asked]
        inputs = {
            "prompt": _strings(each.prompt for each in asked),
            "lease": _strings(text.lease for text in texts),
            "generated": _padded([text.token_ids for text in texts], contract.PADDING, np.int32),
            "max_prefill_tokens": np.array(most, np.int32),
            **self.columns_of(contract.PREFILL, asked),
            "num_alternatives": np.array([each.num_alternatives for each in asked], np.int32),
            "bias_token_ids": _padded([[*b] for b in biases], contract.PADDING, np.int32),
            "bias": _padded([[*b.values()] for b in biases], 0.0, np.float32),
        }
        told = await self._client.predict(inputs, contract.PREFILL, output_filter=Prefilled._fields)
        return rows.answers(Prefilled, told)

    async def decode(self, texts: Sequence[Text], num_tokens: int) -> list[Decoded]:
        """Has texts go on by up to so many tokens each.

        Raises:
            ServingError: nothing is known of what was done; the same call tells.
        """
        inputs = {
            "slot": np.array([text.slot for text in texts], np.int32),
            "lease": _strings(text.lease for text in texts),
            "position": np.array([len(text.token_ids) for text in texts], np.int32),
            "max_tokens": np.full(len(texts), num_tokens, np.int32),
        }
        wanted: tuple[str, ...] = _PLAIN_OUTPUTS
        if any(text.asked.wants_tokens for text in texts):
            wanted = _TOKEN_OUTPUTS
        if any(text.asked.num_alternatives for text in texts):
            wanted = _ALTERNATIVE_OUTPUTS
        told = await self._client.predict(inputs, contract.DECODE, output_filter=wanted)
        of = {name: array.tolist() for name, array in told.items()}
        return [
            Decoded(
                of["text"][row].decode(errors="replace"),
                of["finish_reason"][row].decode(),
                of["token_ids"][row][: of["num_tokens"][row]],
                _tokens(of, row, text.asked) if text.asked.wants_tokens else (),
            )
            for row, text in enumerate(texts)
        ]

    async def release(self, slots: Sequence[tuple[int, str]]) -> None:
        """Gives slots back; who does not own one any more loses nothing.

        Args:
            slots: Pairs of a slot and its lease.
        """
        inputs = {
            "slot": np.array([slot for slot, _ in slots], np.int32),
            "lease": _strings(lease for _, lease in slots),
        }
        await self._client.predict(inputs, contract.RELEASE)

    async def generate(self, asked: Asked) -> tuple[contract.Generation, int]:
        """A whole text, and the number of tokens of its prompt."""
        inputs = {
            "prompt": _strings([asked.prompt]),
            **self.columns_of(contract.GENERATE, [asked]),
        }
        told = await self._client.predict(inputs, contract.GENERATE)
        (generation,) = rows.answers(contract.Generation, told)
        return generation, (await self.num_tokens([asked.prompt]))[0]

    async def embed(self, texts: Sequence[str]) -> list[contract.Embedding]:
        """Vectors of texts."""
        told = await self._client.predict({"text": _strings(texts)}, contract.EMBED)
        return rows.answers(contract.Embedding, told)

    async def num_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of texts; zeros where the export does not tell."""
        if contract.TOKENIZE not in self.signatures:
            return [0] * len(texts)
        told = await self._client.predict(
            {"text": _strings(texts)}, contract.TOKENIZE, output_filter=["num_tokens"]
        )
        return told["num_tokens"].tolist()


def _strings(texts: Iterable[str]) -> np.ndarray:
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise UserError(f"A text must be valid Unicode: {error}.") from None
    array = np.empty(len(encoded), object)
    array[:] = encoded
    return array


def _padded(lists: Sequence[Sequence], padding: Any, dtype: Any) -> np.ndarray:
    width = max(1, *map(len, lists))
    return np.array([[*values, *[padding] * (width - len(values))] for values in lists], dtype)


def _tokens(of: dict[str, list], row: int, asked: Asked) -> tuple[Token, ...]:
    found = []
    for at in range(of["num_tokens"][row]):
        alternatives: tuple[tuple[bytes, float], ...] = ()
        if asked.num_alternatives:
            alternatives = tuple(
                zip(
                    of["alternative_bytes"][row][at][: asked.num_alternatives],
                    of["alternative_logprobs"][row][at],
                    strict=False,
                )
            )
        found.append(Token(of["token_bytes"][row][at], of["logprobs"][row][at], alternatives))
    return tuple(found)
