"""What a user asks of a model, in the same words of a live one and of a served one.

A model and the clients mix these classes in; they give `_ask` and `_defaults`. Where a text is
wanted, one str gives one answer and a list of str a list of answers; what is wrong with one row is
said in that row. Like the contract this needs nothing but the standard library.

Inside, every call is a coroutine. A model and a client that blocks never wait in one, so that
`_run` ends it at once; `AsyncClient` gives the coroutine to its user.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from tfllm import contract, rows
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError

_SETTINGS = [field.name for field in contract.SAMPLING]


def ended(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine in which nothing waits."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    call.close()
    raise RuntimeError("A call that must not wait did.")


class Calls:
    """What the calls stand on."""

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """What a public call returns: the answer, or for a user who awaits it the call itself."""
        return ended(call)

    async def _ask(
        self, signature: str, inputs: Mapping[str, list], **options: Any
    ) -> Mapping[str, Any]:
        """The outputs of a signature as arrays by name; every input has one value per row."""
        raise NotImplementedError

    async def _defaults(self, signature: str) -> Mapping[str, Any]:
        """One row's value of each input of the signature that may be left out."""
        raise NotImplementedError

    async def _columns(
        self, signature: str, num_rows: int, settings: Mapping[str, Any]
    ) -> dict[str, list]:
        """The settings as columns, those that are left out as the model has them."""
        columns = rows.setting_columns(signature, num_rows, settings)
        left_out = rows.optional_inputs(signature).keys() - columns.keys()
        if left_out:
            defaults = await self._defaults(signature)
            columns |= rows.setting_columns(
                signature, num_rows, {name: defaults[name] for name in left_out}
            )
        return columns

    async def _answers(
        self,
        kind: type[rows.Row],
        signature: str,
        texts: Mapping[str, str | Sequence[str]],
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """One answer or several, as the first of the texts is one or several."""
        columns = {name: rows.text_rows(value, name) for name, value in texts.items()}
        rows.same_number(**columns)
        first = next(iter(texts))
        num_rows = len(columns[first])
        if not num_rows:  # a batching server never answers a request of no rows
            return []
        if settings is not None:
            columns |= await self._columns(signature, num_rows, settings)
        answers = rows.answers(kind, await self._ask(signature, columns, **options))
        return answers[0] if isinstance(texts[first], str) else answers


class TokenizerCalls(Calls):
    """Of every text model."""

    def tokenize(self, text: str | Sequence[str], **options: Any) -> Any:
        """Token ids of a text, list[int], or of each of several, without begin and end."""
        return self._run(self._tokenize(text, **options))

    async def _tokenize(self, text: str | Sequence[str], **options: Any) -> list:
        texts = rows.text_rows(text, "text")
        if not texts:
            return []
        out = await self._ask(contract.TOKENIZE, {"text": texts}, **options)
        padded, sizes = out["token_ids"].tolist(), out["num_tokens"].tolist()
        several = [ids[:size] for ids, size in zip(padded, sizes, strict=True)]
        return several[0] if isinstance(text, str) else several

    def detokenize(self, token_ids: Sequence[int] | Sequence[Sequence[int]], **options: Any) -> Any:
        """The text of a list of token ids, a str, or the texts of a list of such lists."""
        return self._run(self._detokenize(token_ids, **options))

    async def _detokenize(self, token_ids: Sequence, **options: Any) -> str | list[str]:
        several, is_one = rows.token_rows(token_ids)
        out = await self._ask(contract.DETOKENIZE, {"token_ids": several}, **options)
        texts = rows.plain(out["text"].tolist())
        return texts[0] if is_one else texts


class GeneratorCalls(TokenizerCalls):
    """Of models that write text."""

    def generate(  # noqa: PLR0913  the settings of the contract
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int | Sequence[int] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        min_p: float | Sequence[float] | None = None,
        repetition_penalty: float | Sequence[float] | None = None,
        presence_penalty: float | Sequence[float] | None = None,
        frequency_penalty: float | Sequence[float] | None = None,
        seed: int | Sequence[int] | None = None,
        stop: str | Sequence[str] | Sequence[Sequence[str]] = (),
        num_return_sequences: int = 1,
        **options: Any,
    ) -> Any:
        """Continues each prompt; of a sequence-to-sequence model the prompt is the source.

        Each setting is one value for all prompts or a list of one per prompt; `stop` may be a list
        of lists. What is left out is as the model has it: 64 tokens, greedy, no penalty, unless
        its checkpoint came with other settings.

        Args:
            prompt: One prompt or several.
            max_new_tokens: New tokens at most.
            temperature: 0 = the best token each time.
            top_k: Sample among the k best tokens; 0 = off.
            top_p: Sample among the fewest tokens that reach this probability; 1 = off.
            min_p: Sample among tokens at least this times as probable as the best; 0 = off.
            repetition_penalty: Divides the scores of tokens seen before; 1 = off.
            presence_penalty: From -2 to 2, is taken from the scores of tokens that were written
                before; 0 = off.
            frequency_penalty: The same, as often as each was written.
            seed: Of the sample.
            stop: Up to four strings that end the text.
            num_return_sequences: Answers per prompt, with the seeds seed, seed + 1, …
            **options: Of the client: `timeout_s`, the seconds for one call.

        Returns:
            `Generation`, or a list of them if `prompt` is a list; with `num_return_sequences`
            above 1 a list of so many in place of each.

        Raises:
            UserError: an input has the wrong type or number.
        """
        return self._run(
            self._generate(
                prompt,
                num_return_sequences,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                presence_penalty=presence_penalty,
                frequency_penalty=frequency_penalty,
                seed=seed,
                stop=stop,
                **options,
            )
        )

    async def _generate(self, prompt, num_return_sequences: int = 1, **given: Any) -> Any:
        settings = {name: given.pop(name, None) for name in _SETTINGS}
        if num_return_sequences == 1:
            return await self._answers(
                contract.Generation, contract.GENERATE, {"prompt": prompt}, settings, **given
            )
        return await self._several(prompt, settings, num_return_sequences, **given)

    async def _several(self, prompt, settings, count: int, **options: Any) -> list:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"num_return_sequences must be at least 1, got {count!r}.")
        prompts = rows.text_rows(prompt, "prompt")
        if not prompts:
            return []
        columns = await self._columns(contract.GENERATE, len(prompts), settings)
        repeated = {
            name: [value for value in column for _ in range(count)]
            for name, column in ({"prompt": prompts} | columns).items()
        }
        repeated["seed"] = [seed + i for seed in columns["seed"] for i in range(count)]
        out = await self._ask(contract.GENERATE, repeated, **options)
        answers = rows.answers(contract.Generation, out)
        groups = [answers[i : i + count] for i in range(0, len(answers), count)]
        return groups[0] if isinstance(prompt, str) else groups

    def chat_template(self) -> Any:
        """How conversations are written for the model, a `ChatTemplate`.

        Raises:
            UserError: it was not made for conversations.
        """
        return self._run(self._template())

    async def _template(self) -> ChatTemplate:
        raise NotImplementedError

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        *,
        stop: str | Sequence[str] = (),
        **settings: Any,
    ) -> Any:
        """Answers a conversation, or each of several.

        Args:
            messages: Dicts with `role` and `content`, the oldest first; or a list of such lists.
            stop: Strings that end the answer, beside those of the model's chat template.
            **settings: As of `generate`.

        Returns:
            As `generate`.

        Raises:
            UserError: a message is none, or the model was not made for conversations.
        """
        return self._run(self._chat(messages, stop, **settings))

    async def _chat(self, messages, stop, **settings: Any) -> Any:
        template = await self._template()
        several = bool(messages) and all(isinstance(each, list | tuple) for each in messages)
        if several:
            prompt: str | list[str] = [template.render(each) for each in messages]
        else:
            prompt = template.render(messages)
        stop = rows.text_rows(stop or [], "stop")
        stop = [*dict.fromkeys([*stop, *template.stop])]
        return await self._generate(prompt, stop=stop, **settings)

    def beam_search(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int | Sequence[int] | None = None,
        length_penalty: float | Sequence[float] | None = None,
        **options: Any,
    ) -> Any:
        """Continues each prompt in the most probable ways that a search finds.

        Args:
            prompt: One prompt or several.
            max_new_tokens: New tokens at most.
            length_penalty: Above 0 favours long continuations, below 0 short ones.
            **options: Of the client: `timeout_s`.

        Returns:
            `Beams`, or a list of them; the number of beams is fixed with the model.
        """
        settings = {"max_new_tokens": max_new_tokens, "length_penalty": length_penalty}
        return self._run(
            self._answers(
                contract.Beams, contract.BEAM_SEARCH, {"prompt": prompt}, settings, **options
            )
        )

    def score(
        self, prompts: str | Sequence[str], completions: str | Sequence[str], **options: Any
    ) -> Any:
        """How likely each completion is after its prompt.

        Args:
            prompts: One text or several; may be empty.
            completions: As many.
            **options: Of the client: `timeout_s`.

        Returns:
            `Score`, or a list of them if `prompts` is a list.

        Raises:
            UserError: an input has the wrong type or number.
        """
        texts = {"prompt": prompts, "completion": completions}
        return self._run(self._answers(contract.Score, contract.SCORE, texts, **options))


class ClassifierCalls(TokenizerCalls):
    """Of models that name what a text is."""

    def classify(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """The label of each text, or of each pair of texts: `Classification`, or a list of them."""
        return self._run(
            self._answers(
                contract.Classification,
                contract.CLASSIFY,
                {"text": text},
                {"text_pair": text_pair},
                **options,
            )
        )


class MaskedLMCalls(TokenizerCalls):
    """Of models that know what is missing."""

    def fill_mask(self, text: str | Sequence[str], **options: Any) -> Any:
        """Tokens for the first mask of each text: `MaskFill`, or a list of them."""
        call = self._answers(contract.MaskFill, contract.FILL_MASK, {"text": text}, **options)
        return self._run(call)


class EmbedderCalls(TokenizerCalls):
    """Of models that turn a text into a vector."""

    def embed(self, text: str | Sequence[str], **options: Any) -> Any:
        """The vector of each text: `Embedding`, or a list of them."""
        return self._run(
            self._answers(contract.Embedding, contract.EMBED, {"text": text}, **options)
        )


class SpanQACalls(TokenizerCalls):
    """Of models that find an answer in a text."""

    def answer(
        self, question: str | Sequence[str], context: str | Sequence[str], **options: Any
    ) -> Any:
        """The part of each context that answers its question: `Answer`, or a list of them."""
        texts = {"question": question, "context": context}
        return self._run(self._answers(contract.Answer, contract.ANSWER, texts, **options))
