"""Numbers and texts are checked at the door: what is good passes as it is, the rest by name."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_embedding, refusal

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.check import real_number, shown, texts, typed, whole_number

NOT_WHOLE = (2.5, 2.0, float("nan"), float("inf"), 1e300, "3", None, True, [3], np.float64(3))
NOT_FINITE = (float("nan"), float("inf"), -float("inf"), "3", None, True, [1.0], 1j, 10**400)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_whole_number_of_any_library_is_an_int(value):
    assert whole_number("k", value, 3, 3) == 3 and type(whole_number("k", value)) is int


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_what_is_no_whole_number_is_named(value):
    with refusal("^k is .*; it must be a whole number, at least 1$"):
        whole_number("k", value, 1)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0)])
def test_a_number_of_any_library_is_a_float(value):
    assert real_number("weight", value, 2, 2) == 2 and type(real_number("weight", value)) is float


@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_is_no_finite_number_is_named(value):
    with refusal("^weight is .*; it must be a number$"):
        real_number("weight", value)


def test_limits_count():
    for value in (0, 11):
        with refusal(f"^k is {value}; it must be a whole number, at least 1 and at most 10$"):
            whole_number("k", value, 1, 10)
        with refusal(f"^weight is {value}; it must be a number, at least 1 and at most 10$"):
            real_number("weight", value, 1, 10)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        pd.Series(["a", "b"], index=[7, 9]),
        (text for text in "ab"),
        {"a": 1, "b": 2},
    ],
)
def test_texts_come_from_anything_that_holds_them(values):
    found = texts("caption", values)
    assert found == ["a", "b"] and all(type(text) is str for text in found)


@pytest.mark.parametrize("values", [None, 3, 2.5, object()])
def test_what_holds_nothing_is_a_type_error(values):
    with refusal("^captions is .*; it must be a list of text$", TypeError):
        texts("caption", values)


@pytest.mark.parametrize("value", [None, 7, float("nan"), b"a", "", " \n", ["a"]])
def test_what_is_no_text_is_named_by_its_number(value):
    with refusal("^caption 12 is .*; a caption must hold at least one word$"):
        texts("caption", ["a", "b", value], first=10)


def test_half_of_a_sign_is_refused():
    with refusal(r"caption 0 is 'dog \\ud83d', which holds half of a sign; read it as UTF-8"):
        texts("caption", ["dog \ud83d"])


def test_any_value_can_be_shown_in_one_short_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    for value in ("a" * 1000, "a\nb", np.zeros((50, 50)), 10**6000, Broken()):
        assert len(shown(value)) <= 80 and "\n" not in shown(value)


def test_an_argument_of_another_type_is_named():
    @typed
    def score(images: Embedding, scores: torch.Tensor | None = None, *, weight: float = 1.0):
        return weight

    images = random_embedding(0, 2, 3)
    assert score(images) == 1 and score(images, None, weight="any") == "any"
    for given, words in (
        (([3],), r"^images is \[3\]; it must be an Embedding$"),
        ((images, 2.5), "^scores is 2.5; it must be a Tensor or None$"),
    ):
        with refusal(words, TypeError):
            score(*given)
    with refusal("^scores is 'a'; it must be a Tensor or None$", TypeError):
        score(images, scores="a")
