"""The same function for many items on several cores gives what one core gives."""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from threading import Thread
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


def whose(item, folder=None, processes=1):
    """An item, and the process that it is done in; only when so many of them have begun."""
    until = time.monotonic() + 60
    if folder is not None:
        (Path(folder) / str(os.getpid())).touch()
        while len(os.listdir(folder)) < processes and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.002)
    return item, os.getpid()


def slow_elsewhere(item, here):
    """Twice the item, which is a number; in another process than `here` after a minute."""
    if os.getpid() != here:
        time.sleep(60)
    return 2 * int(item)


def test_results_come_in_the_order_of_the_items(helpers):
    assert cores.map_on_cores(math.hypot, ITEMS, 3.0) == [math.hypot(i, 3) for i in ITEMS]
    assert len(helpers) == 1  # 400 items a process, at least
    assert cores.map_on_cores(math.sqrt, range(10)) == [math.sqrt(i) for i in range(10)]
    assert cores.map_on_cores(math.sqrt, []) == [] and len(helpers) == 1
    assert cores.map_on_cores(math.sqrt, range(1203)) == [math.sqrt(i) for i in range(1203)]
    assert len(helpers) == 3


def test_helpers_take_a_part_as_soon_as_they_can(helpers, tmp_path):
    done = cores.map_on_cores(whose, range(1200), str(tmp_path), 3)
    assert [item for item, _ in done] == [*range(1200)]
    shares = [sum(who == process for _, who in done) for process in {who for _, who in done}]
    assert len(shares) == 3 and min(shares) >= cores.CHUNK


def test_nobody_waits_for_a_slow_helper(helpers):
    began = time.monotonic()
    assert cores.map_on_cores(slow_elsewhere, ITEMS, os.getpid()) == [2 * i for i in ITEMS]
    assert time.monotonic() - began < 30 and helpers[0].returncode == -signal.SIGKILL


def test_the_bar_ends_when_all_is_done(helpers, monkeypatch, tmp_path):
    told = []
    bar = SimpleNamespace(update=told.append)
    monkeypatch.setattr(cores, "progress_bar", lambda *_, **__: nullcontext(bar))
    cores.map_on_cores(whose, ITEMS, str(tmp_path), 2)
    # the last of the helper's parts may come after the last of this process
    assert len(ITEMS) - cores.CHUNK <= sum(told) <= len(ITEMS) and min(told) >= 1
    assert len(told) < len(ITEMS) / cores.CHUNK


def test_without_helpers_the_bar_moves_by_parts(monkeypatch):
    told = []
    bar = SimpleNamespace(update=told.append)
    monkeypatch.setattr(cores, "progress_bar", lambda *_, **__: nullcontext(bar))
    monkeypatch.setattr(cores, "_cores", lambda: 1)
    cores.map_on_cores(math.sqrt, range(cores.CHUNK + 3))
    assert told == [cores.CHUNK, 3]


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
    with cores.meanwhile(math.hypot, 3.0, 4.0, items=1000) as result:
        assert result() == 5.0
    assert len(helpers) == 2


def test_what_is_no_plain_value_is_done_here(helpers):
    items = [complex(i, 1) for i in range(900)], [Fraction(i, 3) for i in range(900)]
    assert cores.map_on_cores(abs, items[0]) == [abs(item) for item in items[0]]
    assert cores.map_on_cores(math.floor, items[1]) == [i // 3 for i in range(900)]
    assert cores.map_on_cores(Fraction, range(900)) == [Fraction(i) for i in range(900)]
    with cores.meanwhile(math.floor, Fraction(7, 3), items=1000) as result:
        assert result() == 2


def dead(helper):
    helper.kill()
    helper.wait()
    return helper


def test_an_error_is_raised_and_no_helper_stays(helpers):
    with pytest.raises(ValueError):
        cores.map_on_cores(math.sqrt, [1.0] * 700 + [-1.0] * 300)
    assert helpers and all(helper.returncode is not None for helper in helpers)
    with pytest.raises(ValueError):  # while a helper sleeps
        cores.map_on_cores(slow_elsewhere, [*range(990), *"no numbers"], os.getpid())
    assert helpers[-1].returncode == -signal.SIGKILL
    with pytest.raises(ValueError), cores.meanwhile(math.sqrt, -1.0, items=1000) as result:
        result()
    assert helpers[-1].returncode is not None


def test_another_process_works_meanwhile(helpers, tmp_path):
    with cores.meanwhile(whose, "a", items=1000) as result:
        asking = [Thread(target=result) for _ in range(3)]  # several may ask, and ask again
        for thread in asking:
            thread.start()
        assert result() == ("a", helpers[0].pid) == result()
        for thread in asking:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in asking)
    with cores.meanwhile(whose, "a", items=cores.LEAST - 1) as result:  # too little for a helper
        assert result() == ("a", os.getpid())
    assert len(helpers) == 1
    began = time.monotonic()
    with cores.meanwhile(time.sleep, 60.0, items=1000):  # nobody asks for it
        pass
    assert time.monotonic() - began < 30 and helpers[1].returncode == -signal.SIGKILL


@pytest.mark.parametrize("printed", ["setting up the site", "Fixed paths", "s" * 16])
def test_what_a_helper_prints_is_no_answer(helpers, monkeypatch, tmp_path, printed):
    """Read as an answer, the first would be a text of two gigabytes, and be waited for."""
    words = f"import sys\nsys.stdout.write({printed!r})\nsys.stdout.flush()\n"
    (tmp_path / "sitecustomize.py").write_text(words, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert cores.map_on_cores(math.sqrt, ITEMS) == [math.sqrt(i) for i in ITEMS]
    with cores.meanwhile(math.hypot, 3.0, 4.0, items=1000) as result:
        assert result() == 5.0


def talkative(item):
    print("True", item, flush=True)
    return item, os.getpid()


def test_a_function_may_print(helpers, capfd):
    assert [item for item, _ in cores.map_on_cores(talkative, ITEMS)] == [*ITEMS]
    with cores.meanwhile(talkative, "a", items=1000) as result:
        assert result() == ("a", helpers[-1].pid)


def test_without_threads_all_is_done_here(helpers, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", start)
    assert cores.map_on_cores(math.sqrt, ITEMS) == [math.sqrt(i) for i in ITEMS]
    assert helpers[0].returncode == -signal.SIGKILL


def test_on_one_core_it_is_computed_when_asked(helpers, monkeypatch):
    monkeypatch.setattr(cores, "_cores", lambda: 1)
    with cores.meanwhile(whose, 5, items=1000) as result:
        assert result() == (5, os.getpid())
    assert not helpers


def test_a_script_without_a_guard_may_call_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\nfrom tgdt_mini.files import cores\ncores._cores = lambda: 2\n"
        "print(sum(cores.map_on_cores(math.floor, range(1000))))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout == "499500\n", done.stderr


def test_helpers_run_this_package_wherever_the_user_is(tmp_path):
    (tmp_path / "tgdt_mini" / "files").mkdir(parents=True)
    for file in ("__init__", "files/__init__", "files/cores"):
        (tmp_path / "tgdt_mini" / f"{file}.py").write_text(
            "import time\ntime.sleep(60)\n", encoding="utf-8"
        )
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "import math\nfrom tgdt_mini.files import cores\ncores._cores = lambda: 2\n"
        "with cores.meanwhile(eval, '__import__(\"os\").getpid()', items=1000) as result:\n"
        "    print(result() not in (None, __import__('os').getpid()))\n",
        encoding="utf-8",
    )
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 30}
    done = subprocess.run([sys.executable, script], **options)
    assert done.stdout == "True\n", done.stderr


def test_helpers_find_what_lies_where_the_user_is(tmp_path):
    words = "import os\ndef who(item): return os.getpid()\n"
    (tmp_path / "mine.py").write_text(words, encoding="utf-8")
    line = (
        "import os, mine; from tgdt_mini.files import cores; cores._cores = lambda: 2\n"
        "with cores.meanwhile(mine.who, 1, items=1000) as result: print(result() != os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr
