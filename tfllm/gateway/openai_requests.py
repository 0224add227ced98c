"""Bodies of OpenAI's requests to what a model is asked; what is not supported is refused by name.

Source:
    https://platform.openai.com/docs/api-reference, read for the fields and their ranges.
"""

from __future__ import annotations

import dataclasses
import numbers
import random
from collections.abc import Mapping
from typing import Any

from tfllm import contract, rows
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.gateway.texts import Asked, Refused

MAX_TEXTS = 128  # of a request
_AS_MUCH_AS_FITS = 2**30

_IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
# What we do not have may be said if it says the same as leaving it out.
_ONLY = {
    "suffix": (None, ""),
    "echo": (False, None),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "parallel_tool_calls": (True, False, None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
}
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "seed",
)  # fmt: skip
_BOTH = {
    "model", "stream", "stream_options", "n", "stop", "logprobs", "logit_bias", "max_tokens",
    *_SAMPLING,
}  # fmt: skip
_OF_COMPLETIONS = _BOTH | {"prompt", "best_of"}
_OF_CHAT = _BOTH | {"messages", "max_completion_tokens", "top_logprobs"}


@dataclasses.dataclass(frozen=True)
class Writing:
    """A request for texts.

    Attributes:
        prompts: Lists of texts with the same prompt, `n` each; they differ by their seed.
        stream: Whether pieces are sent as they come.
        include_usage: Whether a stream ends with the numbers of tokens.
        wants_logprobs: Whether tokens are told.
    """

    prompts: list[list[Asked]]
    stream: bool
    include_usage: bool
    wants_logprobs: bool


def wrong(param: str, message: str, code: str | None = None) -> Refused:
    """What to raise for a field of a body."""
    return Refused(400, message, param=param, code=code)


def completion(body: Mapping[str, Any], client: str) -> Writing:
    """A body of `/v1/completions`.

    Raises:
        Refused: 400, naming the field.
    """
    _check_fields(body, _OF_COMPLETIONS)
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise wrong("prompt", "prompt must be a text or a list of texts; token ids are not taken.")
    if body.get("best_of") not in (None, body.get("n") or 1):
        raise wrong("best_of", "best_of must be n: this server chooses among no others.")
    alternatives = _whole(body, "logprobs", None, 0, contract.MAX_ALTERNATIVES)
    settings = _settings(body, _stops(body))
    if (most := _whole(body, "max_tokens", None, 0, _AS_MUCH_AS_FITS)) is not None:
        settings["max_new_tokens"] = most
    tokens = alternatives is not None, alternatives or 0
    return _writing(body, prompts, settings, tokens, client)


def chat(body: Mapping[str, Any], template: ChatTemplate | None, client: str) -> Writing:
    """A body of `/v1/chat/completions`.

    Raises:
        Refused: 400, naming the field.
    """
    _check_fields(body, _OF_CHAT)
    if template is None:
        raise wrong("model", "This model has no chat template: ask /v1/completions.")
    try:
        prompt = template.render(body.get("messages"))  # type: ignore[arg-type]
    except UserError as error:
        raise wrong("messages", str(error)) from None
    wants = _flag(body, "logprobs")
    alternatives = _whole(body, "top_logprobs", 0, 0, contract.MAX_ALTERNATIVES)
    if alternatives and not wants:
        raise wrong("top_logprobs", "top_logprobs needs logprobs: true.")
    settings = _settings(body, [*template.stop, *_stops(body)])
    asked = _whole(body, "max_tokens", None, 0, _AS_MUCH_AS_FITS)
    most = _whole(body, "max_completion_tokens", asked, 0, _AS_MUCH_AS_FITS)
    settings["max_new_tokens"] = _AS_MUCH_AS_FITS if most is None else most
    return _writing(body, [prompt], settings, (wants, alternatives), client)


def embedding(body: Mapping[str, Any]) -> tuple[list[str], bool]:
    """A body of `/v1/embeddings`: the texts, and whether the vectors are wanted in base64.

    Raises:
        Refused: 400, naming the field.
    """
    _check_fields(body, {"model", "input", "encoding_format"})
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise wrong("input", "input must be a text or a list of texts; token ids are not taken.")
    if len(texts) > MAX_TEXTS:
        raise wrong("input", f"input may have {MAX_TEXTS} texts, got {len(texts)}.")
    _check_unicode("input", texts)
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise wrong("encoding_format", f"encoding_format must be float or base64, got {form!r}.")
    return texts, form == "base64"


def _check_fields(body: Mapping[str, Any], known: set[str]) -> None:
    for name, value in body.items():
        if name in _ONLY and name not in known:
            if value not in _ONLY[name]:
                raise wrong(name, f"{name} is not supported here: leave it out.", "unsupported")
        elif name not in known | _IGNORED:
            raise wrong(name, f"Unknown field {name}.", "unknown_parameter")


def _writing(
    body: Mapping[str, Any],
    prompts: list[str],
    settings: dict[str, Any],
    tokens: tuple[bool, int],
    client: str,
) -> Writing:
    """A request; `tokens` says whether they are told, and with how many alternatives."""
    number = _number_of_texts(body, len(prompts))
    _check_unicode("prompt", prompts)
    seed = settings.pop("seed", None)
    if seed is None:
        seed = random.getrandbits(62)
    try:
        given = rows.setting_columns(contract.PREFILL, 1, settings | {"seed": seed + number - 1})
    except UserError as error:
        name = next((name for name in _SAMPLING if str(error).startswith(name)), "stop")
        raise wrong(name, str(error)) from None
    of_all = {name: column[0] for name, column in given.items()}
    biases = _biases(body)
    asked = [
        [
            Asked(
                prompt,
                of_all | {"seed": seed + i},
                *tokens,
                biases,
                client,
            )
            for i in range(number)
        ]
        for prompt in prompts
    ]
    stream = _flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and (not stream or not isinstance(options, dict)):
        raise wrong("stream_options", "stream_options must be an object, with stream: true.")
    for name in options or ():
        if name not in ("include_usage", "include_obfuscation"):
            raise wrong("stream_options", f"Unknown field stream_options.{name}.")
    return Writing(asked, stream, bool((options or {}).get("include_usage")), tokens[0])


def _settings(body: Mapping[str, Any], stops: list[str]) -> dict[str, Any]:
    if len(stops) > contract.MAX_STOP_STRINGS:
        raise wrong(
            "stop",
            f"At most {contract.MAX_STOP_STRINGS} stop strings, with those of the chat template: "
            f"got {len(stops)}.",
        )
    settings = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise wrong(name, f"{name} must be a number, got {value!r}.")
    return settings | {"stop": [stops]}


def _stops(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise wrong("stop", "stop must be a text, or a list of texts that are not empty.")
    _check_unicode("stop", stops)
    return stops


def _biases(body: Mapping[str, Any]) -> dict[int, float]:
    given = body.get("logit_bias") or {}
    if not isinstance(given, dict) or len(given) > contract.MAX_BIASES:
        raise wrong(
            "logit_bias", f"logit_bias must be an object of at most {contract.MAX_BIASES} tokens."
        )
    found = {}
    for key, bias in given.items():
        is_number = isinstance(bias, numbers.Real) and not isinstance(bias, bool)
        if not (str(key).isdecimal() and int(key) < 2**31 and is_number and -100 <= bias <= 100):
            raise wrong(
                "logit_bias",
                f"logit_bias must have numbers from -100 to 100 by token ids, got {key}: {bias!r}.",
            )
        found[int(key)] = float(bias)
    return found


def _number_of_texts(body: Mapping[str, Any], num_prompts: int) -> int:
    number = _whole(body, "n", 1, 1, MAX_TEXTS)
    if number * num_prompts > MAX_TEXTS:
        raise wrong("n", f"A request may have {MAX_TEXTS} texts, got {number * num_prompts}.")
    return number


def _whole(body: Mapping[str, Any], name: str, default: Any, least: int, most: int) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong(name, f"{name} must be a whole number from {least} to {most}, got {value!r}.")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False) or isinstance(value, int) and not isinstance(value, bool):
        raise wrong(name, f"{name} must be true or false, got {value!r}.")
    return bool(value)


def _check_unicode(name: str, texts: list[str]) -> None:
    try:
        rows.text_rows(texts, name)
    except UserError as error:
        raise wrong(name, str(error)) from None
