"""Configs name things: plain mappings checked against the signature of what they name, before anything is built."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin


class ConfigError(ValueError):
    """A config that cannot be right; one line that names the key and says what would be."""


def refuse_targets(config: Any, where: str = "") -> None:
    """Raise ConfigError for a ``_target_`` anywhere: a config names things, it never names code to run."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            path = f"{where}.{key}" if where else str(key)
            if key == "_target_":
                raise ConfigError(f"{path}: _target_ is refused in every config; use `name:` with a name this project "
                                  "knows")
            refuse_targets(value, path)
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            refuse_targets(value, f"{where}[{index}]")


def build(registry: Mapping[str, Callable], spec: Any, where: str, **facts: Any) -> Any:
    """Build what a config names.

    Args:
        registry: name -> class or function.
        spec: mapping with ``name`` and keyword arguments; they are checked against the signature.
        where: the key of the spec, for error messages.
        facts: what the run knows and no config says (seed, run length, ...); passed where the signature asks for it.

    Raises:
        ConfigError: an unknown name or key, a wrong type, or a value that the constructor refuses.
    """
    maker, arguments = check(registry, spec, where, *facts, nested=lambda spec, where: build(registry, spec, where,
                                                                                             **facts))
    known = {key: value for key, value in facts.items() if key in inspect.signature(maker).parameters}
    try:
        return maker(**arguments, **known)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(named(error, where, maker)) from error


def named(error: Exception, where: str, maker: Callable) -> str:
    """An error of what a config names, with its key: ``model.base: ...``, or ``model: ...`` where it names none."""
    message = str(error) or type(error).__name__
    if message.startswith(f"{where}."):
        return message
    return f"{where}.{message}" if _names_key(message, maker) else f"{where}: {message}"


def check(registry: Mapping[str, Callable], spec: Any, where: str, *facts: str,
          nested: Callable[[Any, str], Any] | None = None) -> tuple[Callable, dict[str, Any]]:
    """Check a spec against the signature of what it names; returns that and its keyword arguments.

    Args:
        registry: name -> class or function.
        spec: mapping with ``name`` and keyword arguments; an argument that is itself of the registry's kind (a monitor
            inside a monitor) is a spec again.
        where: the key of the spec, for error messages.
        facts: arguments that no config sets.
        nested: what becomes of a spec inside; default it is checked too.

    Raises:
        ConfigError: an unknown name or key, or a wrong type.
    """
    nested = nested or (lambda spec, where: check(registry, spec, where, *facts) and spec)
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{where}={spec!r}: must be one of conf/{where}/ or a mapping with a name")
    name = spec.get("name")
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"{where}.name={name!r}: {_choices(str(name), list(registry))}")
    maker = registry[name]
    parameters = {key: parameter for key, parameter in inspect.signature(maker).parameters.items()
                  if key not in facts}
    hints = typing.get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    arguments = {}
    for key, value in spec.items():
        if key == "name":
            continue
        if key not in parameters:
            raise ConfigError(f"{where}.{key}: unknown key of {name}; {_choices(key, list(parameters))}")
        arguments[key] = convert(value, hints.get(key, Any), f"{where}.{key}", kind_of(registry), nested)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ConfigError(f"{where}.{key} is missing; {name} needs it")
    return maker, arguments


def check_keys(config: Mapping, known: list[str]) -> None:
    """Raise ConfigError for a top-level key that is not known."""
    for key in config:
        if key not in known:
            raise ConfigError(f"{key}: unknown key; {_choices(str(key), known)}")


def kind_of(registry: Mapping[str, Callable]) -> type:
    """The class that everything in a registry is one of; `object` where there is none."""
    ancestries = [inspect.getmro(maker) if inspect.isclass(maker) else (object,) for maker in registry.values()]
    return next(kind for kind in ancestries[0] if all(kind in ancestry for ancestry in ancestries))


def convert(value: Any, hint: Any, where: str, kind: type = object,
            nested: Callable[[Any, str], Any] | None = None) -> Any:
    """A config value as its annotated type; an int where a float is asked for, a list where a tuple is.

    Args:
        value: plain value.
        hint: the annotation.
        where: its key, for error messages.
        kind: the class whose annotation asks for a spec.
        nested: what becomes of such a spec.

    Raises:
        ConfigError: any other type, naming the key and what would be right.
    """
    if hint is Any:
        return value
    if hint is kind and nested and kind is not object:
        return nested(value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return convert(value, option, where, kind, nested)
            except ConfigError:
                continue
    elif origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif origin in (tuple, list):
        fixed = origin is tuple and arguments[-1] is not ...
        if isinstance(value, list | tuple) and (not fixed or len(value) == len(arguments)):
            return origin(convert(item, arguments[index if fixed else 0], f"{where}[{index}]", kind, nested)
                          for index, item in enumerate(value))
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint is type(None):
        if value is None:
            return None
    elif isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{where}={value!r}: must be {_described(hint)}")


def _described(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null",
             dict: "a mapping"}
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_described(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple and get_args(hint)[-1] is not ...:
        return f"a list of {len(get_args(hint))}: {', '.join(map(_described, get_args(hint)))}"
    if get_origin(hint) in (tuple, list):
        return f"a list, each item {_described(get_args(hint)[0])}"
    return names.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


def _choices(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose one of {', '.join(known)}" if known else "it takes no arguments"


def _names_key(message: str, maker: Callable) -> bool:
    """Whether an error already opens with the argument it is about (``k=0: ...``, ``path is missing``)."""
    head = message.split("=")[0].split(" ")[0].split(".")[0].split(":")[0]
    return head in inspect.signature(maker).parameters
