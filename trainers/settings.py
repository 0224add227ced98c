"""Frozen dataclasses of plain values: read from text and JSON, with words for what is wrong."""

import ast
import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar, get_origin, get_type_hints

from tfllm.errors import UserError

Config = TypeVar("Config")


def with_setting(config: Config, setting: str) -> Config:
    """A copy of the dataclass `config` with one value replaced.

    Args:
        config: A dataclass of numbers, strings, tuples, dicts and further dataclasses.
        setting: A dotted name, "=" and the value, such as "optimizer.beta_2=0.99". Values are
            written as in Python; strings go without quotes.

    Raises:
        UserError: for a name that does not exist and for a value of the wrong type.
    """
    path, equals, text = setting.partition("=")
    if not equals:
        raise UserError(f"A setting looks like steps=100 or model.num_layers=2: got {setting!r}.")
    return _replaced(config, path.split("."), text, "")


def from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
    """The dataclass that `dataclasses.asdict` took apart.

    Raises:
        UserError: for a field that the class has not, one that is missing, and whatever the
            class itself refuses.
    """
    if not isinstance(values, dict):
        _refuse(cls.__name__, "an object of named values", values)
    types = get_type_hints(cls)
    for name in values:
        check_name(name, types, cls.__name__)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f"{cls.__name__} needs the field {field.name!r}.")
    nested = {
        name: from_dict(types[name], value)
        for name, value in values.items()
        if dataclasses.is_dataclass(types[name]) and isinstance(value, dict)
    }
    return cls(**values | nested)


def check_name(name: str, known: Iterable[str], where: str) -> None:
    """Refuses a name that is not among the known ones and offers the nearest.

    Raises:
        UserError: as in "no 'step' in Recipe; did you mean 'steps'?".
    """
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}."
        raise UserError(f"no {name!r} in {where}; {hint}")


def check(config: object, name: str, fine: bool, expected: str) -> None:
    """Refuses the value of one field.

    Raises:
        UserError: unless `fine`, saying what was expected and what came.
    """
    if not fine:
        _refuse(f"{type(config).__name__}.{name}", expected, getattr(config, name))


def check_types(config: object) -> None:
    """Refuses a field whose value has not the annotated type; ints pass as floats, lists as tuples.

    Raises:
        UserError: naming the field.
    """
    for name, hint in get_type_hints(type(config)).items():
        expected = get_origin(hint) or hint
        value = _coerced(getattr(config, name), expected)
        if type(value) is not expected:
            _refuse(f"{type(config).__name__}.{name}", f"of type {expected.__name__}", value)
        object.__setattr__(config, name, value)  # frozen, and this is still its construction


def _coerced(value: object, expected: type) -> object:
    if expected is float and type(value) is int:
        return float(value)
    if expected is tuple and isinstance(value, list):
        return tuple(value)
    return value


def _refuse(name: str, expected: str, got: object) -> NoReturn:
    raise UserError(f"{name} must be {expected}: got {got!r}.")


def _replaced(config: Any, path: list[str], text: str, parents: str) -> Any:
    name, *rest = path
    if dataclasses.is_dataclass(config):
        fields = [field.name for field in dataclasses.fields(config)]
        check_name(name, fields, type(config).__name__)
        old = getattr(config, name)
    elif isinstance(config, dict):
        old = config.get(name)  # a name without a value so far: whoever reads the dict knows it
    else:
        raise UserError(f"{parents} is a value and has no field {name!r}.")
    dotted = f"{parents}.{name}" if parents else name
    new = _replaced(old, rest, text, dotted) if rest else _read(text, old, dotted)
    if isinstance(config, dict):
        return config | {name: new}
    return dataclasses.replace(config, **{name: new})


def _read(text: str, old: object, name: str) -> object:
    """The value that `text` writes, of the type of the one it replaces."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    value = _coerced(value, type(old))
    if old is not None and type(value) is not type(old):
        _refuse(name, f"of type {type(old).__name__}", text)
    return value
