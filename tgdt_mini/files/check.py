"""What a caller gives, checked at the door: types, numbers, and lists of text.

Every error is one line with the argument's name, its value and what it must be.
"""

import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterable
from functools import wraps
from types import UnionType
from typing import TypeVar, get_args

LARGEST = 2**63 - 1  # that a tensor holds
Door = TypeVar("Door", bound=Callable)


def typed(function: Door) -> Door:
    """The function, with TypeError for an argument that is not of its annotation.

    Looked at are only annotations that are bool, dict, or classes of torch, PIL or this project, or
    one of them or str `| None`: the rest is checked where it is used.
    """
    kinds = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = parameter.annotation
        classes = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        optional = type(None) in classes
        if all(isinstance(kind, type) and _is_checked(kind, optional) for kind in classes):
            kinds[name] = classes
    names = list(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args, **kwargs):
        for name, value in (*zip(names, args), *kwargs.items()):
            if name in kinds and not isinstance(value, kinds[name]):
                wanted = " or ".join(_word(kind) for kind in kinds[name])
                raise TypeError(f"{name} is {shown(value)}; it must be {wanted}")
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def _word(kind):
    name = kind.__name__
    known = {"NoneType": "None", "bool": "True or False"}
    return known.get(name) or f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _is_checked(kind, optional):
    plain = (bool, dict, type(None), *((str,) if optional else ()))
    return kind in plain or kind.__module__.startswith(("torch", "PIL", "tgdt_mini"))


def whole_number(name: str, value, least: int | None = None, most: int | None = None) -> int:
    """The value as an int, from an int of Python, NumPy or torch; not from 2.0 or True.

    Raises ValueError for another type, and for what is below `least` or above `most`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    most = LARGEST if most is None and number is not None and number > LARGEST else most
    if isinstance(value, bool) or not _inside(number, least, most):
        raise ValueError(f"{name} is {shown(value)}; it must be a whole number{_from(least, most)}")
    return number


def real_number(name: str, value, least: float | None = None, most: float | None = None) -> float:
    """The value as a float, from a number of Python, NumPy or torch that is finite.

    Raises ValueError for another type, NaN, infinity, and what is below `least` or above `most`.
    """
    single = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    number = value.item() if single else value
    is_number = isinstance(number, numbers.Real) and not isinstance(number, bool)
    if not is_number or not _inside(_finite(number), least, most):
        raise ValueError(f"{name} is {shown(value)}; it must be a number{_from(least, most)}")
    return float(number)


def check_scale(name: str, value, least: float, most: float) -> None:
    """ValueError unless a number, or a tensor of one number, is from `least` to `most`.

    A tensor that is not on the CPU may hold any number: to look would make its device wait.
    """
    if getattr(value, "numel", None) and value.numel() == 1:
        if value.device.type != "cpu":
            return
        value = value.detach().reshape(())
    real_number(name, value, least, most)


def texts(name: str, values: Iterable[str], first: int = 0) -> list[str]:
    """A list of texts, from any list, array, column or generator of str with a word in each.

    name: of one of them, such as "caption"; first: the number of the first in errors.
    Raises TypeError for what is no such thing, ValueError for none, and for one that is blank, no
    str, or holds half of a sign, which UTF-8 cannot write.
    """
    if isinstance(values, (str, bytes)):
        raise ValueError(f"{name}s is {shown(values)}; it must be a list of at least one {name}")
    try:
        items = list(values)
    except TypeError:
        raise TypeError(f"{name}s is {shown(values)}; it must be a list of text") from None
    if not items:
        raise ValueError(f"{name}s is {shown(values)}; it must be a list of at least one {name}")
    for number, value in enumerate(items, first):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{name} {number} is {shown(value)}; a {name} must hold at least one word"
            )
        if not writable(value):
            raise ValueError(
                f"{name} {number} is {shown(value)}, which holds half of a sign; read it as UTF-8"
            )
    return [str(value) for value in items]  # NumPy has a type of text of its own


def writable(text: str) -> bool:
    """Whether UTF-8 can write a text: it cannot write halves of a sign (surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(value) -> str:
    """A value in an error: at most 80 characters, in one line."""
    try:
        return f"{value!r:.80}" if "\n" not in repr(value) else f"a {type(value).__name__}"
    except Exception:  # a repr may fail in any way; that of a number of 5,000 digits does
        return f"a {type(value).__name__}"


def named(path) -> str:
    """A path in an error: as it is, or quoted where it holds a line break or the like."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def one_of(name: str, value, allowed: Iterable[str]) -> None:
    """ValueError for a value that is none of the allowed names."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; it must be one of {', '.join(allowed)}")


def true_or_false(name: str, value) -> None:
    """ValueError for what is no bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}; it must be True or False")


def one_line(error: Exception) -> str:
    """The text of an error, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def root_cause(error: Exception) -> str:
    """The innermost cause of an error with its type, in one line of at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _finite(number):
    try:
        return number if math.isfinite(number) else None
    except OverflowError:  # a whole number that no float can hold
        return None


def _inside(number, least, most):
    fits = number is not None
    return fits and (least is None or number >= least) and (most is None or number <= most)


def _from(least, most):
    """In words: ", at least 1"."""
    parts = [] if least is None else [f"at least {least:g}"]
    parts += [] if most is None else [f"at most {most:g}"]
    return f", {' and '.join(parts)}" if parts else ""
