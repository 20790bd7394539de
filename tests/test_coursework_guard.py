"""Only own code: the package's function raises while a student's is tested, whatever way leads
to it. And what `check` says.
"""

import contextlib
import copy
import functools
import importlib
import inspect
import re
import sys
import threading
import types

import numpy as np
import pytest
import torch

from tgdt_mini import image_tokens
from tgdt_mini.coursework import NotOwnCode, check, only_own_code, when_written
from tgdt_mini.image_tokens import geometry as renamed

KEY = "tgdt_mini.image_tokens.geometry"
BOXES = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 1.0, 1.0]])
again = {}
exec("import torch\n" + inspect.getsource(renamed), again)
alone = {"torch": torch}
exec(inspect.getsource(renamed), alone)
shortened, source = {"torch": torch}, inspect.getsource(renamed)
for name, other in {"geometry": "place", "boxes": "b", "area": "a", "five": "f"}.items():
    source = re.sub(rf"\b{name}\b", other, source)
exec(source, shortened)


def own(boxes):
    sides = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes, sides.prod(dim=1, keepdim=True)], dim=1)


def imported_inside(boxes):
    from tgdt_mini.image_tokens import geometry

    return geometry(boxes)


def by_importlib(boxes):
    return importlib.import_module("tgdt_mini.image_tokens").geometry(boxes)


def by_alias(boxes):
    return renamed(boxes)


def by_partial(boxes):
    return functools.partial(image_tokens.geometry)(boxes)


def by_copy(boxes):
    return copy.deepcopy(renamed)(boxes)


def by_its_code(boxes):
    return types.FunctionType(renamed.__code__, {"torch": torch})(boxes)


def by_its_code_renamed(boxes):
    code = renamed.__code__.replace(co_name="own", co_filename="own.py", co_firstlineno=1)
    return types.FunctionType(code, {"torch": torch})(boxes)


def by_its_source(boxes):
    return again["geometry"](boxes)


def by_its_source_alone(boxes):
    return alone["geometry"](boxes)


def by_its_source_with_other_names(boxes):
    return shortened["place"](boxes)


def from_its_file(boxes):
    spec = importlib.util.spec_from_file_location("another", image_tokens.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.geometry(boxes)


def as_a_default(boxes, way=renamed):
    return way(boxes)


def in_a_thread(boxes):
    answers = [own(boxes)]

    def work():
        with contextlib.suppress(NotOwnCode):
            answers.append(renamed(boxes))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return answers[-1]


def swallowed(boxes):
    try:
        return renamed(boxes)
    except BaseException:
        return renamed(boxes)


def in_another_process(boxes):
    import subprocess

    subprocess.run([sys.executable, "-c", ""], check=True)
    return own(boxes)


WAYS = [
    imported_inside,
    by_importlib,
    by_alias,
    by_partial,
    by_copy,
    by_its_code,
    by_its_code_renamed,
    by_its_source,
    by_its_source_alone,
    by_its_source_with_other_names,
    from_its_file,
    as_a_default,
    in_a_thread,
    swallowed,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_package_is_refused_and_the_message_says_why(way):
    torch.testing.assert_close(way(BOXES), own(BOXES))
    with pytest.raises(NotOwnCode, match=KEY):
        with only_own_code(KEY):
            way(BOXES)
    torch.testing.assert_close(way(BOXES), own(BOXES))


def test_own_code_and_the_rest_of_the_package_pass():
    with only_own_code(KEY):
        assert image_tokens.overlap((0, 0, 1, 1), (0, 0, 1, 1)) == 1
        own(BOXES)


def test_starting_a_program_is_refused_while_a_function_is_tested():
    with pytest.raises(NotOwnCode, match="starts another program"):
        with only_own_code(KEY):
            in_another_process(BOXES)
    in_another_process(BOXES)


def test_a_watch_that_was_switched_off_is_noticed():
    with pytest.raises(NotOwnCode, match="switched off"):
        with only_own_code(KEY):
            sys.setprofile(None)
            renamed(BOXES)
    assert sys.getprofile() is None


def test_a_library_may_be_kept_away_too():
    from tokenizers import models

    word_piece = models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")
    with pytest.raises(NotOwnCode, match="tokenizers.models does"):
        with only_own_code(libraries=("tokenizers",)):
            word_piece.tokenize("a")


def test_a_name_that_the_package_does_not_have_is_an_error_of_the_test():
    with pytest.raises(ValueError, match="tgdt_mini.image_tokens.geometrie"):
        with only_own_code("tgdt_mini.image_tokens.geometrie"):
            pass
    with pytest.raises(ValueError, match="CROP"):
        with only_own_code("tgdt_mini.image_tokens.CROP"):
            pass


def test_warnings_and_stderr_cost_no_points(capsys):
    with only_own_code(KEY):
        torch.tensor(torch.ones(1))  # warns
        print("a note", file=sys.stderr)
    assert capsys.readouterr().err == ""


def test_check_names_the_mistake_the_call_and_both_answers():
    def double(x):
        return 2 * x

    check(double, 2, gives=4, hint="twice as much")
    check(double, torch.ones(2), gives=torch.full((2,), 2.0), hint="twice as much")
    with pytest.raises(AssertionError, match=r"you squared it. double\(3\) gives 6, not 5"):
        check(double, 3, gives=5, hint="", mistakes={"you squared it": 6})
    with pytest.raises(AssertionError, match=r"twice as much. double\(3\) gives 6, not 7"):
        check(double, 3, gives=7, hint="twice as much")
    with pytest.raises(AssertionError, match=r"gives the shape \(2,\), not \(3,\)"):
        check(double, torch.ones(2), gives=torch.ones(3), hint="")
    with pytest.raises(AssertionError, match="torch.float32, not torch.float64"):
        check(double, torch.ones(2), gives=torch.full((2,), 2.0, dtype=torch.float64), hint="")
    with pytest.raises(AssertionError, match="a tensor was asked for"):
        check(double, [1.0], gives=torch.ones(2), hint="")
    with pytest.raises(ValueError, match="a mistake of the test of double is the right answer"):
        check(double, 3, gives=6, hint="", mistakes={"none": 6})


def test_check_tells_of_changed_inputs_of_none_and_of_exceptions():
    def fills(x):
        x.fill_(0)
        return x

    def silent(x):
        x + 1

    def stops(x):
        raise KeyError(x)

    with pytest.raises(AssertionError, match="fills changes what it is given"):
        check(fills, torch.ones(2), gives=torch.zeros(2), hint="")
    with pytest.raises(AssertionError, match="does it end with a return"):
        check(silent, 1, gives=2, hint="")
    with pytest.raises(AssertionError, match="a number will do. stops.1. stops with KeyError: 1"):
        check(stops, 1, gives=2, hint="a number will do")
    check(stops, 1, raises=KeyError, hint="")
    with pytest.raises(AssertionError, match="gives 2, not a ValueError"):
        check(lambda x: 2, 1, raises=ValueError, hint="")


def test_check_lets_through_what_is_still_to_be_written_and_no_other_error_of_that_name():
    def later(x):
        raise NotImplementedError("later is to be written: return x")

    def unsupported(x):
        raise NotImplementedError("mean of Long")

    with pytest.raises(NotImplementedError, match="later is to be written"):
        check(later, 1, gives=1, hint="")
    with pytest.raises(AssertionError, match="mean of Long"):
        check(unsupported, 1, gives=1, hint="")


def test_floats_are_compared_within_their_precision_and_nan_is_equal_to_nan():
    def third(dtype):
        return torch.tensor([1 / 3, float("nan")], dtype=dtype)

    check(third, torch.float64, gives=third(torch.float64), hint="")
    with pytest.raises(AssertionError):
        check(lambda: third(torch.float32).double(), gives=third(torch.float64), hint="")
    check(lambda: 1 / 3, gives=0.33333333, hint="")
    check(lambda: torch.tensor(0.5), gives=0.5, hint="")
    with pytest.raises(AssertionError):
        check(lambda: "0.5", gives=0.5, hint="")


def test_within_lets_luck_pass_and_still_names_a_mistake():
    def near(value):
        return value

    check(near, (70.3, np.float32(81.0)), gives=(70.0, 81.4), within=0.5, hint="")
    check(
        near,
        torch.tensor([70.3, torch.inf]),
        gives=torch.tensor([70.0, torch.inf]),
        within=0.5,
        hint="",
    )
    check(near, torch.tensor(50.0), gives=50.0, within=0, hint="")
    for wrong in (70.6, torch.tensor([70.0, 70.0])):
        with pytest.raises(AssertionError, match="near 70"):
            check(near, wrong, gives=70.0, within=0.5, hint="near 70")
    with pytest.raises(AssertionError, match="a share"):
        check(near, torch.tensor(0.71), gives=70.0, within=0.5, hint="", mistakes={"a share": 0.7})


def test_a_picture_of_what_is_unwritten_is_left_out_with_a_word(capsys):
    with when_written():
        raise NotImplementedError("pad is to be written: return two tensors")
    assert capsys.readouterr().out == "Comes later. pad is to be written: return two tensors\n"
    with pytest.raises(ValueError):
        with when_written():
            raise ValueError
