"""JSON as the stock server reads and writes it, and the texts of what it says is wrong with it.

`NaN`, `Infinity` and `-Infinity` are numbers both ways. Bytes that are no UTF-8 pass through
strings unchanged. Of a key that comes twice in an object the first value counts.

Source:
    tensorflow_serving/util/json_tensor.cc and RapidJSON's error texts (rapidjson/error/en.h), read
    for the behaviour and the texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any

import numpy as np

from tfllm.serving.status import Code, ServingError

# A small body can ask for a large text: indentation grows with the depth.
MAX_QUOTED = 16 * 1024

_TYPES = {
    type(None): "Null",
    bool: "",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}
# How RapidJSON names what Python's parser complains of, by the start of Python's words.
_ERRORS = {
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':'": "Missing a colon after a name of object member.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX": "Incorrect hex digit after \\u escape in string.",
    "Extra data": "The document root must not be followed by other values.",
}
_TOO_BIG = "JSON Parse error: Number too big to be stored in double."


def invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def parse(body: bytes) -> dict[str, Any]:
    """The object that a request's body holds.

    Raises:
        ServingError: INVALID_ARGUMENT for what is no JSON, nests too deeply or is no object.
    """
    text = body.decode(errors="surrogateescape").removeprefix("\ufeff")
    if not text.strip(" \t\r\n"):
        raise invalid("JSON Parse error: The document is empty")
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode(errors="surrogatepass"))
        raise invalid(f"JSON Parse error: {_reason(error, text)} at offset: {offset}") from None
    except ValueError:  # an integer of more digits than Python reads
        raise invalid(_TOO_BIG) from None
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply.") from None
    if not isinstance(found, dict):
        raise invalid(f"JSON Value: {quoted(found)} Is not object")
    return found


def type_name(value: Any) -> str:
    """What the stock server calls the type of a value."""
    return str(value) if isinstance(value, bool) else _TYPES[type(value)]


def quoted(value: Any) -> str:
    """A value in an error's text: indented by four, cut at `MAX_QUOTED` characters."""
    if type(value) is float:
        return decimals(np.array([value]))[0]
    text, length = [], 0
    try:
        for piece in json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value):
            text.append(piece)
            length += len(piece)
            if length > MAX_QUOTED:
                return "".join(text)[:MAX_QUOTED] + "...TRUNCATED"
    except RecursionError:
        return "..."
    return "".join(text)


def string(value: bytes | str) -> str:
    """A string with its quotes; bytes that are no UTF-8 are surrogates, for `to_bytes`."""
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    return encode_basestring(text)


def utf8(value: str) -> bytes:
    """The bytes of a string that `parse` read.

    Raises:
        ServingError: INVALID_ARGUMENT for half of a surrogate pair.
    """
    try:
        return value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        message = "JSON Parse error: The surrogate pair in string is invalid."
        raise invalid(message) from None


def to_bytes(text: str) -> bytes:
    """The body of an answer."""
    return text.encode(errors="surrogateescape")


def decimals(values: np.ndarray) -> list[str]:
    """float32[n] or float64[n] as JSON numbers: six digits if they are exact, else all of them."""
    digits = 9 if values.dtype == np.float32 else 17
    short = [f"{value:g}" for value in values.tolist()]
    exact = np.array(short, values.dtype) == values
    texts = []
    for value, text, is_exact in zip(values.tolist(), short, exact.tolist(), strict=True):
        if text in _NOT_FINITE:
            texts.append(_NOT_FINITE[text])
            continue
        number = text if is_exact else f"{value:.{digits}g}"
        texts.append(number if "." in number or "e" in number else number + ".0")
    return texts


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def nested(values: list[str], shape: Sequence[int], first: int = 0) -> list[str]:
    """Values in row-major order as JSON arrays.

    Args:
        values: The texts of `prod(shape)` values.
        shape: The dimensions.
        first: The first dimension to write; one text is returned for each element of those before.
    """
    for axis in reversed(range(first, len(shape))):
        size = shape[axis]
        values = [
            "[" + ", ".join(values[i * size : (i + 1) * size]) + "]"
            for i in range(math.prod(shape[:axis]))
        ]
    return values


def too_big() -> ServingError:
    """For an integer that no float64 is near to."""
    return invalid(_TOO_BIG)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, value in reversed(pairs):
            found[key] = value
    return found


def _reason(error: json.JSONDecodeError, text: str) -> str:
    if error.msg.startswith("Expecting ',' delimiter"):
        return _missing_comma(text[: error.pos])
    for start, reason in _ERRORS.items():
        if error.msg.startswith(start):
            return reason
    return "Invalid value."


def _missing_comma(text: str) -> str:
    """Which bracket is open at the end of `text`, which lacks a comma there."""
    open_brackets = []
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        if token[0] in "[{":
            open_brackets.append(token[0])
        elif token[0] in "]}":
            open_brackets.pop()
    if open_brackets[-1] == "{":
        return "Missing a comma or } after an object member."
    return "Missing a comma or ] after an array element."
