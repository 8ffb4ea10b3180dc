"""The dataclasses that a config is a tree of: declared here, and checked as a whole.

Standard library only. Types that a config file sets are checked by nobody on the way, and
the command line overrides single fields later, so `check_tree` looks at the whole tree after both.
"""

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tfopt.errors import ConfigError, nearest

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    from typing_extensions import dataclass_transform

_Class = TypeVar("_Class", bound=type)
_READ = 50  # items of one list, by people


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
def spec(cls: _Class) -> _Class:
    """Make `cls` a slotted, keyword-only dataclass that says what is wrong with its fields."""
    made = dataclasses.dataclass(slots=True, kw_only=True)(cls)
    init = made.__init__
    names = [field.name for field in dataclasses.fields(made)]
    needed = [field.name for field in dataclasses.fields(made) if _has_no_default(field)]

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **values: Any) -> None:
        for value in args:
            raise ConfigError(
                f"{cls.__name__}: expected each field by its name, received {value!r} without one; "
                f"it has: {', '.join(names)}."
            )
        for name in values:
            if name not in names:
                raise ConfigError(f"{cls.__name__} has no field {name!r}; {nearest(name, names)}")
        for name in needed:
            if name not in values:
                raise ConfigError(f"{cls.__name__}: expected its field {name!r}, received none.")
        init(self, **values)

    made.__init__ = checked_init
    return made


def _has_no_default(field: Any) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def bounded(
    default: Any = dataclasses.MISSING,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """Declare a numeric field whose value `validate` holds to the given bounds."""
    bounds = [
        (f"of at least {least:g}", least, lambda value: value >= least),
        (f"above {above:g}", above, lambda value: value > above),
        (f"of at most {most:g}", most, lambda value: value <= most),
        (f"below {below:g}", below, lambda value: value < below),
    ]
    stated = [(limit, test) for limit, bound, test in bounds if abs(bound) < math.inf]
    return dataclasses.field(default=default, metadata={"bounds": stated})


def having(method: str, default: Callable) -> Any:
    """Declare a field whose value `validate` holds to having `method`; `default` makes one."""
    return dataclasses.field(default_factory=default, metadata={"method": method})


def check_tree(node: Any, at: str) -> None:
    """Raise ConfigError for the first wrong field of the tree `node`, which stands `at` a path."""
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value, where = getattr(node, field.name), f"{at}.{field.name}"
        children = list(_children(value, where))
        # First of all, since a class passes for a function and its type says little.
        for child, path in children:
            if isinstance(child, type):
                raise ConfigError(
                    f"{path}: expected an object, received the class {child.__name__}; "
                    f"write {child.__name__}()."
                )
        hint = hints[field.name]
        if not _fits(value, hint):
            # A word where words were expected, or a lone object: forgotten are only the brackets.
            alone = f"; write ({value!r},)" if _fits((value,), hint) else ""
            alone = "; write it in brackets" if _fits([value], hint) and not alone else alone
            raise ConfigError(f"{where}: expected {words(hint)}, received {value!r}{alone}.")
        method = field.metadata.get("method")
        if method and not callable(getattr(value, method, None)):
            known = [f"{name}()" for name in _having(method, field.default_factory)]
            expected = " or ".join([*known, f"an object with {method}()"])
            raise ConfigError(f"{where}: expected {expected}, received {value!r}.")
        stated = field.metadata.get("bounds", [])
        if value is not None and not all(test(value) for _, test in stated):
            limits = " and ".join(limit for limit, _ in stated)
            share = value / 100
            percent = f"; write {share:g}" if value > 1 and all(t(share) for _, t in stated) else ""
            raise ConfigError(f"{where}: expected a number {limits}, received {value!r}{percent}.")
        for child, path in children:
            check_tree(child, path)
    rules: Callable[[], Iterator[tuple[str, str]]] | None = getattr(node, "rules", None)
    for name, expected in rules() if rules else ():
        raise ConfigError(f"{at}.{name}: expected {expected}, received {getattr(node, name)!r}.")


def _having(method: str, default: Any) -> list[str]:
    """Return the names of the specs with `method` in the module of `default`, but for bases."""
    there = vars(sys.modules[default.__module__])
    specs = {name: each for name, each in there.items() if dataclasses.is_dataclass(each)}
    own = [name for name, each in specs.items() if name[0] != "_" and hasattr(each, method)]
    bases = {base.__name__ for name in own for base in specs[name].__mro__[1:]}
    return [name for name in own if name not in bases]


def _children(value: Any, at: str) -> Iterator[tuple[Any, str]]:
    items = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
    for index, item in items:
        if dataclasses.is_dataclass(item):
            yield item, at if index is None else f"{at}[{index}]"


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple and isinstance(value, (tuple, list)):
        inner = args[:1] * len(value) if args[-1] is ... else args
        return len(inner) == len(value) and all(map(_fits, value, inner))
    if origin is list and isinstance(value, list):
        return all(_fits(item, args[0]) for item in value)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and not math.isinf(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Callable:
        return callable(value)
    return isinstance(value, origin or hint)


def words(hint: Any) -> str:
    """Return the type `hint` in a user's words."""
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "True or False"}
    plain |= {Any: "anything"}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, args))
    if hint is type(None):
        return "None"
    if origin is tuple and args[-1] is not ...:
        return f"a tuple of {len(args)}: {', '.join(map(words, args))}"
    if origin in (list, tuple):
        return f"a {origin.__name__} of {words(args[0])}"
    if dataclasses.is_dataclass(hint) and not dataclasses.fields(hint):
        # What others are made of; a class with slots is made twice, under one name.
        return " or ".join(dict.fromkeys(each.__name__ for each in hint.__subclasses__()))
    return plain.get(hint) or getattr(hint, "__name__", str(hint))


def shortened(tree: Any) -> Any:
    """Return plain JSON values for who reads them: of long lists the first items, and a count."""
    if isinstance(tree, dict):
        return {name: shortened(child) for name, child in tree.items()}
    if not isinstance(tree, list):
        return tree
    items, more = [shortened(item) for item in tree[:_READ]], len(tree) - _READ
    return [*items, f"… and {more:,} more"] if more > 0 else items


def plain(value: Any) -> Any:
    """Return `value` as plain JSON values, each spec with its class as `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "arguments": value.args, **value.keywords}
        return {"type": "functools.partial", **{k: plain(v) for k, v in parts.items()}}
    if isinstance(value, (str, int, float, type(None))):
        return value
    # Not its repr, which may hold an address: two runs of one config must be equal.
    named = value if hasattr(value, "__qualname__") else type(value)
    return {"type": f"{named.__module__}.{named.__qualname__}"}
