"""Arguments are checked against their annotations by pydantic; what is wrong is one line that names the argument."""

import inspect
import re
import types
from collections.abc import Callable
from functools import cache, reduce, wraps
from operator import or_
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Checked = TypeVar("Checked", bound=Callable)
T = TypeVar("T")

# A whole number from 1 on; a number of 0 or more; shares of something.
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]

STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
PHRASES = {
    "int_type": "an integer", "int_from_float": "an integer", "float_type": "a number", "string_type": "text",
    "bool_type": "true or false", "dict_type": "a mapping", "list_type": "a list", "tuple_type": "a list",
    "none_required": "null", "finite_number": "a finite number", "literal_error": "one of {expected}",
    "greater_than_equal": "at least {ge:g}", "greater_than": "above {gt:g}", "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}", "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}", "is_instance_of": "a {class}",
}


def check_arguments(maker: Checked) -> Checked:
    """Decorate a class or function: whatever calls it, its arguments are checked against its annotations.

    An int is taken for a float and a list for a tuple, but no bool for a number and no text for anything else.
    """
    if inspect.isclass(maker):
        maker.__init__ = check_arguments(maker.__init__)
        return maker
    signature = inspect.signature(maker)

    @wraps(maker)
    def call(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        adapters = _adapters(maker)
        for name, value in bound.arguments.items():
            if name in adapters:
                bound.arguments[name] = _converted(value, *adapters[name], name)
        return maker(*bound.args, **bound.kwargs)

    return call


def convert(value: Any, hint: Any, where: str) -> Any:
    """A plain value as its annotated type.

    Args:
        value: of a config, or an argument.
        hint: the annotation; ``Annotated`` with a pydantic ``Field`` gives bounds, and its description the error.
        where: its name or key, which the error opens with.

    Raises:
        ValueError: another type, or out of bounds: ``WHERE=VALUE: must be ...``.
    """
    return _converted(value, _adapter(hint), hint, where)


@cache
def _adapters(function: Callable) -> dict[str, tuple[TypeAdapter, Any]]:
    hints = get_type_hints(function, include_extras=True)
    return {name: (_adapter(hint), hint) for name, hint in hints.items() if name != "return"}


def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(_lists_for_tuples(hint), config=STRICT)


def _lists_for_tuples(hint: Any) -> Any:
    """An annotation whose tuples may be given as lists, which are all that YAML has."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        annotation = _lists_for_tuples(parts[0]), *parts[1:]
        return Annotated[annotation]
    if origin in (Union, types.UnionType):
        return reduce(or_, map(_lists_for_tuples, parts))
    if origin is tuple:
        return Annotated[tuple[tuple(map(_lists_for_tuples, parts))], Field(strict=False)]
    return list[_lists_for_tuples(parts[0])] if origin is list else hint


def _converted(value: Any, adapter: TypeAdapter, hint: Any, where: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(one_line(error, hint, where)) from None


def one_line(error: ValidationError, hint: Any, where: str) -> str:
    """What pydantic found, as one line: ``WHERE=VALUE: must be at least 1``."""
    # Beside indices of items, a place holds the names of a union's members.
    found = [({**one, "loc": [part for part in one["loc"] if isinstance(part, int)]})
             for one in error.errors(include_url=False)]
    if found[0]["type"] == "missing":
        place, wanted = found[0]["loc"][:-1], f"a list of at least {found[0]['loc'][-1] + 1}"
    else:
        place = found[0]["loc"]
        wanted = " or ".join(dict.fromkeys(_phrase(one) for one in found if one["loc"] == place))
    if not place:
        wanted = _description(hint) or wanted
        if type(None) in get_args(hint) and "null" not in wanted:
            wanted += " or null"
    return f"{where}{''.join(f'[{index}]' for index in place)}={found[0]['input']!r}: must be {wanted}"


def _phrase(found: dict[str, Any]) -> str:
    context = dict(found.get("ctx", {}))
    if "expected" in context:
        context["expected"] = re.sub(" or ", ", ", context["expected"].replace("'", ""))
    return PHRASES[found["type"]].format(**context) if found["type"] in PHRASES else found["msg"]


def _description(hint: Any) -> str | None:
    """What an annotation, or a member of a union, says of itself."""
    if get_origin(hint) is Annotated:
        for item in get_args(hint)[1:]:
            if isinstance(item, FieldInfo) and item.description:
                return item.description
        return _description(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return next(filter(None, map(_description, get_args(hint))), None)
    return None
