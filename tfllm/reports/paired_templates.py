"""Sentences in pairs: templates with a place for the words of each group."""

import itertools
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfllm.errors import UserError

GROUP = "group"
_SLOT = re.compile(r"\{(\w+)\}")
_BRACES = re.compile(r"\{[^{}]*\}?|\}")
_EXAMPLE = (
    '{"templates": ["{group} is a good {role}."], "groups": {"women": ["She"], "men": ["He"]}, '
    '"terms": {"role": ["doctor", "nurse"]}}'
)


class PairedTemplates(NamedTuple):
    """Templates and the words for their places.

    Attributes:
        templates: Each with `{group}`, and with other names in braces for `terms`.
        groups: Words by group, in two groups or more; the words in one place belong together.
        terms: Words by name: every combination of them makes another sentence.
    """

    templates: list[str]
    groups: dict[str, list[str]]
    terms: dict[str, list[str]]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "PairedTemplates":
        """Checks what a file or a program gives.

        Raises:
            UserError: it is nothing of this form.
        """
        unknown = set(value) - set(cls._fields)
        if unknown:
            raise UserError(f"No {', '.join(sorted(unknown))} here: expected {_EXAMPLE}.")
        templates = _words(value.get("templates"), "templates")
        groups = _lists(value.get("groups"), "groups")
        terms = _lists(value.get("terms", {}), "terms")
        if len(groups) < 2:
            raise UserError(f"groups must be two or more to compare, got {len(groups)}.")
        if len({len(words) for words in groups.values()}) > 1:
            sizes = ", ".join(f"{len(words)} of {name}" for name, words in groups.items())
            raise UserError(
                f"The words of the groups are paired by their place, so each needs as many: {sizes}"
                "."
            )
        for template in templates:
            slots = set(_SLOT.findall(template))
            if GROUP not in slots:
                raise UserError(f"A template needs a place {{{GROUP}}}, got {template!r}.")
            if odd := [place for place in _BRACES.findall(template) if not _SLOT.fullmatch(place)]:
                raise UserError(
                    f"{template!r} has {', '.join(odd)}: a place is a name of letters, digits and "
                    "_ in braces, without spaces."
                )
            if missing := slots - {GROUP, *terms}:
                raise UserError(
                    f"{template!r} has a place {', '.join(sorted(missing))} that has no list in "
                    "terms."
                )
        return cls(templates, groups, terms)

    def rows(self) -> list[tuple[int, str]]:
        """Each template with each combination of terms: its number, and the text with {group}."""
        found = []
        for i, template in enumerate(self.templates):
            names = list(dict.fromkeys(_SLOT.findall(template)))
            names.remove(GROUP)
            for words in itertools.product(*(self.terms[name] for name in names)):
                text = template
                for name, word in zip(names, words, strict=True):
                    text = text.replace(f"{{{name}}}", word)
                found.append((i, text))
        return found

    def sentences(self, group: str) -> list[list[str]]:
        """The sentences of a group: a list of one per word for each of `rows`."""
        return [
            [text.replace(f"{{{GROUP}}}", word) for word in self.groups[group]]
            for _, text in self.rows()
        ]


def read_paired_templates(path: str | os.PathLike[str]) -> PairedTemplates:
    """Templates from a file of JSON.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold an object: {_EXAMPLE}.")
    return PairedTemplates.of(value)


def _words(value: Any, name: str) -> list[str]:
    is_list = isinstance(value, list | tuple) and bool(value)
    if not is_list or not all(isinstance(word, str) and word for word in value):
        raise UserError(f"{name} must be a list of texts, not empty, as in {_EXAMPLE}.")
    return list(value)


def _lists(value: Any, name: str) -> dict[str, list[str]]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name} must be lists by name, as in {_EXAMPLE}.")
    return {key: _words(words, f"{name}.{key}") for key, words in value.items()}
