"""Conversations to the text that a chat model reads, and back to who wrote which part of it.

Like the contract this needs no TensorFlow: a client renders with what its server describes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfllm.contract import MAX_STOP_STRINGS
from tfllm.errors import UserError

ASSISTANT = "assistant"
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

# Turns as ChatML has them. A blank that a turn begins or ends with would be one token with the
# line break of the template: it is dropped.
_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- (message['content'] or '') | trim + '<|im_end|>' }}{% endgeneration %}
{%- else %}
{{- (message['content'] or '') | trim + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """How a model was taught to read conversations.

    A message is a dict with a `role` and a `content`, both str; what else it has (`name`,
    `tool_calls`, …) is given to the template as it is.

    Attributes:
        template: Jinja in Hugging Face's convention, see `tfllm.templates`.
        bos_token: What the template calls so.
        eos_token: What the template calls so.
        special_tokens: Strings by which the model tells who speaks. They are taken out of all that
            people write, so that nobody can speak for another.
        assistant_tokens: Those of them that may stand in what the assistant wrote, because the
            template looks for them there.
        stop: Strings that end an answer, where they are text and no tokens that end it; up to
            four.
        begins_with_bos: Whether `generate` itself puts `bos_token` before what it reads. Then a
            rendered conversation is without it.

    Raises:
        UserError: a value of another type, or too many stop strings.
    """

    template: str
    bos_token: str = ""
    eos_token: str = ""
    special_tokens: tuple[str, ...] = ()
    assistant_tokens: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    begins_with_bos: bool = False

    def __post_init__(self):
        for name in ("special_tokens", "assistant_tokens", "stop"):  # JSON makes lists of them
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(x, str) and x for x in value):
                raise UserError(f"{name} must be a list of texts that are not empty: {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.template, str) or not self.template:
            raise UserError(f"A chat template is a text in Jinja, got {self.template!r}.")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise UserError(f"At most {MAX_STOP_STRINGS} stop strings, got {len(self.stop)}.")

    @classmethod
    def of(cls, value: ChatTemplate | Mapping[str, Any] | None) -> ChatTemplate | None:
        """A template, or the dict that stands for it; None stays None.

        Raises:
            UserError: a dict with other entries than a template has.
        """
        if value is None or isinstance(value, ChatTemplate):
            return value
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, Mapping) or not {"template"} <= set(value) <= known:
            raise UserError(
                f"A chat template has the entries {', '.join(sorted(known))}, got "
                f"{', '.join(sorted(value)) if isinstance(value, Mapping) else repr(value)}."
            )
        return cls(**value)

    def as_dict(self) -> dict[str, Any]:
        """Of plain values, for JSON."""
        return dataclasses.asdict(self)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation, as `generate` takes it.

        Args:
            messages: The conversation, oldest first.
            add_generation_prompt: Whether it ends where an answer begins.

        Raises:
            UserError: a message that is none, or a conversation that the template refuses.
        """
        return self._rendered(self._clean(messages), add_generation_prompt)[0]

    def segments(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
        """A whole conversation in parts, and whether the assistant wrote each.

        The assistant writes its texts and what ends them, not the headers before them. A
        template that has `{% generation %}` blocks says so itself; of any other it is what a
        turn adds to the rendered text behind the prompt to answer.

        Args:
            messages: The conversation, oldest first.

        Returns:
            Texts that make the rendered conversation (without a prompt to answer) when joined.

        Raises:
            UserError: as `render`; or the template has no such blocks, and renders a turn
                otherwise when another follows it, so that nobody can say where turns end.
        """
        messages = self._clean(messages)
        text, written = self._rendered(messages, False)
        if not written:
            written = self._differences(messages, text)
        parts, at = [], 0
        for start, end in written:
            parts += [(text[at:start], False), (text[start:end], True)]
            at = end
        return [part for part in (*parts, (text[at:], False)) if part[0]]

    def _rendered(self, messages, add_generation_prompt: bool):
        from tfllm.templates import render

        text, written = render(
            self.template,
            {
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
                "bos_token": self.bos_token,
                "eos_token": self.eos_token,
                # Templates ask whether they are None.
                "tools": None,
                "documents": None,
            },
        )
        if self.begins_with_bos and self.bos_token and text.startswith(self.bos_token):
            size = len(self.bos_token)
            return text[size:], [(max(0, start - size), end - size) for start, end in written]
        return text, written

    def _differences(self, messages, text: str) -> list[tuple[int, int]]:
        written = []
        for i, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before, _ = self._rendered(messages[:i], True)
            after, _ = self._rendered(messages[: i + 1], False)
            if not (after.startswith(before) and text.startswith(after)):
                raise UserError(
                    f"The chat template renders message {i + 1} otherwise when another follows or "
                    "when it is asked for, so what the assistant wrote cannot be told from the "
                    "rest: put {% generation %} and {% endgeneration %} around that in the "
                    "template."
                )
            written.append((len(before), len(after)))
        return written

    def _clean(self, messages) -> list[dict[str, Any]]:
        """The messages without the strings of special tokens in them."""
        cleaned = []
        for number, message in enumerate(checked(messages), 1):
            own = self.assistant_tokens if message["role"] == ASSISTANT else ()
            taken = [token for token in self.special_tokens if token not in own]
            cleaned.append(
                {
                    key: value if key == "role" else self._without(value, taken, number)
                    for key, value in message.items()
                }
            )
        return cleaned

    def _without(self, value, taken: list[str], number: int):
        if isinstance(value, str):
            return without(value, taken)
        if isinstance(value, Mapping):
            return {
                self._without(k, taken, number): self._without(v, taken, number)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._without(each, taken, number) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise UserError(
            f"Message {number} must hold plain values as of JSON, got a {type(value).__name__}."
        )


def chatml() -> ChatTemplate:
    """The template of models that have none of their own.

    It is right for tokenizers that have its two special tokens (`Tokenizer.add_tokens`) and for
    those that read them as text.
    """
    return ChatTemplate(
        _CHATML, special_tokens=("<|im_start|>", "<|im_end|>"), stop=("<|im_end|>",)
    )


def checked(messages: Any) -> list[dict[str, Any]]:
    """The messages of a conversation, which are refused if they are none.

    A content may be a list of parts, `{"type": "text", "text": …}`, as chat services take it: the
    texts become lines.

    Raises:
        UserError: naming the message, from 1.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise UserError(
            'A conversation is a list of messages, such as [{"role": "user", "content": "Hi"}]; '
            f"got {repr(messages)[:60]}."
        )
    found = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UserError(
                f"Message {number} must be an object with role and content, got "
                f"{repr(message)[:60]}."
            )
        role, content = message.get("role"), _text_of(message.get("content"))
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise UserError(
                f"The role of message {number} must be a word, such as user or assistant; got "
                f"{role!r}."
            )
        if not isinstance(content, str) and not (content is None and "tool_calls" in message):
            raise UserError(
                f"The content of message {number} ({role}) must be a text, or a list of parts "
                f'as {{"type": "text", "text": "Hi"}}; got {repr(content)[:60]}.'
            )
        found.append({**message, "content": content})
    return found


def _text_of(content: Any) -> Any:
    """The text of a list of parts that are all texts; anything else as it is."""
    if not isinstance(content, list | tuple) or not content:
        return content
    texts = [
        part["text"]
        for part in content
        if isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
    ]
    return "\n".join(texts) if len(texts) == len(content) else content


def without(text: str, strings: Sequence[str]) -> str:
    """A text with none of the strings in it, also not by what taking one out brings together."""
    if not any(string in text for string in strings):
        return text
    by_end: dict[str, list[str]] = {}
    for string in sorted(strings, key=len, reverse=True):
        by_end.setdefault(string[-1], []).append(string)
    kept: list[str] = []  # never holds one of them, as each goes with its last character
    for character in text:
        kept.append(character)
        for string in by_end.get(character, ()):
            if kept[-len(string) :] == list(string):
                del kept[-len(string) :]
                break
    return "".join(kept)
