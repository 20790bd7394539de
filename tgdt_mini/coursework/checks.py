"""One comparison for all tests of the assignments: a wrong answer is told what it misunderstood.

`check` calls the student's function once. It knows the right answer and the answers of well-known
mistakes, and compares with both.
"""

import contextlib
import copy
from dataclasses import is_dataclass

import numpy as np
import torch

from tgdt_mini.coursework.guard import NotOwnCode

NEAR = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 2e-2}
SHOWN = 12  # numbers: larger tensors are told by their shape


def check(
    function, *arguments, gives=None, raises=None, hint: str, mistakes=None, within=None, **named
):
    """Call `function` and compare; AssertionError with a message that teaches if it is wrong.

    gives: the right answer (tensors, numbers, strings, lists, or a tuple of such things); or
    raises: the exception that is right. hint: one sentence for a wrong answer of unknown cause;
    mistakes: {one sentence: the wrong answer that it explains}. A function that changes its inputs
    is wrong, too. A NumPy array counts as a tensor; floats may come back wider than they went in.
    within: numbers may be so far off, where luck has a part (default: a rounding error).
    """
    mistakes = mistakes or {}
    if any(_same(wrong, gives, within) for wrong in mistakes.values()):
        raise ValueError(f"a mistake of the test of {function.__name__} is the right answer")
    before = copy.deepcopy((arguments, named))
    call = _call(function.__name__, arguments, named)
    try:
        answer = function(*arguments, **named)
    except NotOwnCode:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and function.__name__ in str(error):
            raise  # the sentence of a cell that is still to be written
        if raises is not None and isinstance(error, raises):
            return
        raise AssertionError(
            f"{hint}. {call} stops with {type(error).__name__}: {error}"
        ) from error
    if not _same(before, (arguments, named)):
        raise AssertionError(
            f"{function.__name__} changes what it is given, which the caller still needs: copy it"
        )
    if raises is not None:
        raise AssertionError(f"{hint}. {call} gives {_told(answer)}, not a {raises.__name__}")
    if answer is None:
        raise AssertionError(f"{function.__name__} gives None: does it end with a return?")
    for message, wrong in mistakes.items():
        if _same(answer, wrong, within):
            raise AssertionError(f"{message}. {call} gives {_told(answer)}, not {_told(gives)}")
    if why := _difference(answer, gives, within):
        raise AssertionError(f"{hint}. {call} {why}")


@contextlib.contextmanager
def when_written():
    """A context for a picture that needs a function of the student's.

    While that is unwritten, the picture is left out, and one line says what is missing.
    """
    try:
        yield
    except NotImplementedError as unwritten:
        print(f"Comes later. {unwritten}")


def _difference(answer, gives, within=None):
    """How an answer differs from the right one, or an empty string."""
    if isinstance(gives, tuple):
        if not isinstance(answer, tuple) or len(answer) != len(gives):
            return f"gives {_told(answer)}, not {len(gives)} things: return a, b"
        parts = ((n, _difference(*pair, within)) for n, pair in enumerate(zip(answer, gives), 1))
        return next((f"(part {n}) {why}" for n, why in parts if why), "")
    if isinstance(gives, torch.Tensor):
        if not isinstance(answer, torch.Tensor | np.ndarray | np.generic):
            return f"gives {_told(answer)}: a tensor was asked for"
        answer = torch.as_tensor(answer)
        if answer.shape != gives.shape:
            return f"gives the shape {tuple(answer.shape)}, not {tuple(gives.shape)}"
        wider = answer.is_floating_point() and gives.is_floating_point()
        wider = wider and torch.promote_types(answer.dtype, gives.dtype) == answer.dtype
        if answer.dtype != gives.dtype and not wider:
            return f"gives numbers of type {answer.dtype}, not {gives.dtype}"
    elif isinstance(gives, float) and _is_number(answer) and not isinstance(answer, int):
        answer = float(answer)
    return "" if _same(answer, gives, within) else f"gives {_told(answer)}, not {_told(gives)}"


def _same(one, other, within=None):
    """Whether two answers are equal, floats but for rounding or `within`, nan equal to nan."""
    if isinstance(one, torch.Tensor | np.ndarray) and isinstance(other, torch.Tensor | np.ndarray):
        one, other = torch.as_tensor(one).detach(), torch.as_tensor(other).detach()
        near = max(NEAR.get(one.dtype, 0), NEAR.get(other.dtype, 0))
        if one.shape != other.shape or not near:
            return one.shape == other.shape and bool((one == other).all())
        off = max(near, within or 0)
        return torch.allclose(one.double(), other.double(), rtol=near, atol=off, equal_nan=True)
    if within is not None and _is_number(one) and _is_number(other):
        one, other = float(one), float(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b, within) for a, b in zip(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if is_dataclass(one):
        return _same(vars(one), vars(other))
    if isinstance(one, float):
        near = 1e-6 if within is None else within
        return bool(np.isclose(one, other, rtol=1e-6, atol=near, equal_nan=True))
    return bool(one == other)


def _is_number(value):
    """Whether a value is one number, in Python, NumPy or torch."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _call(name, arguments, named):
    parts = [_told(argument) for argument in arguments]
    parts += [f"{key}={_told(value)}" for key, value in named.items()]
    return f"{name}({', '.join(parts)})"


def _told(value):
    """A value in few words: its numbers if they are few, else its shape."""
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        if value.numel() > SHOWN:
            return f"a tensor {tuple(value.shape)}"
        return str(_rounded(value.tolist())) + ("" if value.numel() else f" {tuple(value.shape)}")
    if isinstance(value, tuple):
        return f"({', '.join(_told(part) for part in value)})"
    if is_dataclass(value):
        return f"{type(value).__name__}(...)"
    text = repr(sorted(value, key=str)) if isinstance(value, set) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _rounded(values):
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return round(values, 4) if isinstance(values, float) else values
