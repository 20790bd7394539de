"""The same function for many items on several cores gives what one core gives."""

import math
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import pytest

from tgdt_mini.files import cores

ITEMS = range(1000)


@pytest.fixture
def helpers(monkeypatch):
    """The helpers that are started, at most two; a machine has three cores here."""
    started, start = [], cores._start
    monkeypatch.setattr(cores, "_cores", lambda: 3)
    monkeypatch.setattr(cores, "_start", lambda *all: started.append(start(*all)) or started[-1])
    return started


def test_results_come_in_the_order_of_the_items(helpers):
    assert cores.map_on_cores(math.hypot, ITEMS, 3.0) == [math.hypot(i, 3) for i in ITEMS]
    assert len(helpers) == 1 and helpers[0].returncode == 0  # 400 items a process, at least
    assert cores.map_on_cores(math.sqrt, range(10)) == [math.sqrt(i) for i in range(10)]
    assert cores.map_on_cores(math.sqrt, []) == [] and len(helpers) == 1


def test_this_process_has_a_head_start_and_every_item_is_done_once():
    for count, items in ((1, 900), (2, 1000), (2, 6000), (4, 6000), (3, 0), (2, 500)):
        parts = cores._parts(range(items), count)
        assert [item for part in parts for item in part] == list(range(items))
        own, *others = (len(part) for part in parts)
        if others:
            assert max(others) - min(others) <= 1
            assert abs(own - min(cores.HEAD_START, items) - others[0]) <= 1


def test_the_bar_ends_when_this_process_has_done_its_part(helpers, monkeypatch):
    told = []
    bar = SimpleNamespace(update=told.append)
    monkeypatch.setattr(cores, "progress_bar", lambda *_, **__: nullcontext(bar))
    cores.map_on_cores(math.sqrt, ITEMS)
    assert sum(told) == len(ITEMS) and len(told) < len(ITEMS) and min(told) >= 1


@pytest.mark.parametrize("fault", ["killed", "no program", "no answer"])
def test_what_a_helper_does_not_do_is_done_here(helpers, monkeypatch, fault):
    if fault == "killed":
        start = cores._start
        monkeypatch.setattr(cores, "_start", lambda *all: dead(start(*all)))
    elif fault == "no program":
        monkeypatch.setattr(sys, "executable", "")
    else:
        monkeypatch.setattr(cores, "__name__", "math")  # no program that can be run
    assert cores.map_on_cores(math.sqrt, ITEMS) == [math.sqrt(i) for i in ITEMS]


def test_what_is_no_plain_value_is_done_here(helpers):
    items = [complex(i, 1) for i in range(900)], [Fraction(i, 3) for i in range(900)]
    assert cores.map_on_cores(abs, items[0]) == [abs(item) for item in items[0]]
    assert cores.map_on_cores(math.floor, items[1]) == [i // 3 for i in range(900)]
    assert [helper is None for helper in helpers] == [False, True]


def dead(helper):
    helper.kill()
    helper.wait()
    return helper


def test_an_error_is_raised_and_no_helper_stays(helpers):
    with pytest.raises(ValueError):
        cores.map_on_cores(math.sqrt, [1.0] * 700 + [-1.0] * 300)
    assert helpers and all(helper.returncode is not None for helper in helpers)
    with pytest.raises(ValueError):  # at the first item, and a helper would sleep for a minute
        cores.map_on_cores(time.sleep, [-1.0] + [0.1] * 999)
    assert helpers[-1].returncode == -signal.SIGKILL


def test_a_script_without_a_guard_may_call_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\nfrom tgdt_mini.files import cores\ncores._cores = lambda: 2\n"
        "print(sum(cores.map_on_cores(math.floor, range(1000))))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout == "499500\n", done.stderr
