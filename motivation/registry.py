"""Configs name things: plain mappings checked against the signature of what they name, before anything is built."""

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import motivation.validation


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
    """An error of what a config names, with its key: ``schedule.k=0: ...``, or ``schedule: ...`` where it opens with no
    argument of the maker (``k=0: ...``, ``path is missing``).
    """
    message = str(error) or type(error).__name__
    if message.startswith(f"{where}."):
        return message
    opens = re.match(r"\w+(?=[\s=.:[])", message)
    argument = opens and opens[0] in inspect.signature(maker).parameters
    return f"{where}.{message}" if argument else f"{where}: {message}"


def check(registry: Mapping[str, Callable], spec: Any, where: str, *facts: str,
          nested: Callable[[Any, str], Any] | None = None) -> tuple[Callable, dict[str, Any]]:
    """Check a spec against the signature of what it names; returns that and its keyword arguments.

    Args:
        registry: name -> class or function.
        spec: mapping with ``name`` and keyword arguments; an argument that is itself of the registry's kind (a monitor
            inside a monitor) is a spec again.
        where: the key of the spec, for error messages.
        facts: arguments that no config sets.
        nested: replaces a nested spec; by default it is checked and kept.

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
    hints = typing.get_type_hints(maker.__init__ if inspect.isclass(maker) else maker, include_extras=True)
    kind, arguments = kind_of(registry), {}
    for key, value in spec.items():
        if key == "name":
            continue
        if key not in parameters:
            raise ConfigError(f"{where}.{key}: unknown key of {name}; {_choices(key, list(parameters))}")
        hint = hints.get(key, Any)
        # With parts inside, the constructor checks the rest.
        arguments[key] = (_with_parts(value, hint, f"{where}.{key}", kind, nested) if _mentions(hint, kind)
                          else convert(value, hint, f"{where}.{key}"))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ConfigError(f"{where}.{key} is missing; {name} needs it")
    return maker, arguments


def convert(value: Any, hint: Any, where: str) -> Any:
    """A config value as its annotated type, see `motivation.validation.convert`.

    Raises:
        ConfigError: another type, or out of bounds.
    """
    try:
        return motivation.validation.convert(value, hint, where)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_keys(config: Mapping, known: list[str]) -> None:
    """Raise ConfigError for a top-level key that is not known."""
    for key in config:
        if key not in known:
            raise ConfigError(f"{key}: unknown key; {_choices(str(key), known)}")


def kind_of(registry: Mapping[str, Callable]) -> type:
    """The class that everything in a registry is one of; `object` where there is none."""
    ancestries = [inspect.getmro(maker) if inspect.isclass(maker) else (object,) for maker in registry.values()]
    return next(kind for kind in ancestries[0] if all(kind in ancestry for ancestry in ancestries))


def _mentions(hint: Any, kind: type) -> bool:
    """Whether an annotation is a kind, or holds it, as ``list[tuple[Monitor, float]]`` does."""
    return kind is not object and (hint is kind or any(_mentions(part, kind) for part in get_args(hint)))


def _with_parts(value: Any, hint: Any, where: str, kind: type, nested: Callable[[Any, str], Any]) -> Any:
    """A value whose specs of a kind are replaced by what ``nested`` makes of them."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if hint is kind:
        return nested(value, where)
    if get_origin(hint) in (list, tuple) and isinstance(value, list | tuple):
        hints = get_args(hint) if get_origin(hint) is tuple else get_args(hint) * len(value)
        return [_with_parts(item, part, f"{where}[{index}]", kind, nested)
                for index, (item, part) in enumerate(zip(value, hints, strict=False))] + list(value[len(hints):])
    return value


def _choices(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose one of {', '.join(known)}" if known else "it takes no arguments"
