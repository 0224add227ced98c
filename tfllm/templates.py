"""Jinja templates in Hugging Face's convention, run where they can do no harm."""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfllm.errors import UserError

_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
# What expressions of a template raise: `none + 'x'`, `1 / 0`, `'a'.index('b')`.
_OF_PYTHON = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_MARKS = "_marks"  # a variable, not a state: threads share a template


class Rendered(NamedTuple):
    """What a template made.

    Attributes:
        text: All of it.
        written: (start, end) in the text of each `{% generation %}` block.
    """

    text: str
    written: list[tuple[int, int]]


def render(source: str, variables: Mapping[str, Any]) -> Rendered:
    """Runs a template.

    It has the functions `raise_exception` and `strftime_now`, the filter `tojson`, `break` and
    `continue`, and the blocks `{% generation %}`; it sees neither files nor Python.

    Args:
        source: The template.
        variables: Plain values by name.

    Raises:
        UserError: the template is damaged, or refuses what it was given; in its own words.

    Source:
        `apply_chat_template` of Hugging Face `transformers` 5.23, for the behaviour.
    """
    import jinja2

    try:
        template = _compiled(source)
        plain = template.render(**variables)
        if not _GENERATION.search(source):
            return Rendered(plain, [])
        # Any two characters that are not in the text; the last ones of Unicode stand for none.
        begin, end = _absent(plain, 2)
        marked = template.render(**variables, **{_MARKS: (begin, end)})
    except jinja2.TemplateError as error:
        raise UserError(f"The chat template cannot render this conversation: {error}") from None
    except _OF_PYTHON as error:
        raise UserError(
            f"The chat template cannot render this conversation: {type(error).__name__}: {error}"
        ) from None
    return _unmarked(marked, begin, end)


def _absent(text: str, number: int) -> list[str]:
    found = (character for i in range(0x10FFFF, 0, -1) if (character := chr(i)) not in text)
    return [next(found) for _ in range(number)]


def _unmarked(marked: str, begin: str, end: str) -> Rendered:
    text, written = "", []
    for i, part in enumerate(marked.split(begin)):
        inside, _, after = part.partition(end) if i else ("", "", part)
        if i:
            written.append((len(text), len(text) + len(inside)))
        text += inside + after
    return Rendered(text, written)


@functools.lru_cache(maxsize=64)
def _compiled(source: str):
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """The block `{% generation %} … {% endgeneration %}`, marked where marks are given."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        @jinja2.pass_context
        def _mark(self, context, caller):
            begin, end = context.get(_MARKS, ("", ""))
            return begin + caller() + end

    class Namespace(jinja2.utils.Namespace):
        """Without names by which Python's own attributes could be reached."""

        def __init__(self, *args, **kwargs):
            super().__init__()
            for name, value in dict(*args, **kwargs).items():
                self[name] = value

        def __setitem__(self, name, value):
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")
            super().__setitem__(name, value)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "namespace": Namespace,
        "dict": _dict,
    }
    return environment.from_string(source)


def _dict(*args, **kwargs):
    """`dict` without the methods of the class, which would change what is given to them."""
    return dict(*args, **kwargs)


def _refuse(message):
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form):
    return datetime.datetime.now().strftime(form)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """Jinja's own escapes what HTML needs, which no language model has learned."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
