"""How pytest runs here: the whole of it in several processes, everything on one thread each.

`python -m pytest` without paths starts a process for each processor core, up to four, if
pytest-xdist is there; with paths, with -n 0 or with -p no:xdist all runs in one. Each file, a
notebook too, stays in one process and in its order; those that take longest come first, so that all
processes end at about the same time.

One thread: small tensors gain nothing from a second one, which costs processor time while it waits.
The stored outputs of the notebooks come from a run on all cores with all instructions that the
processor has. So an output that depends on the number of threads is found here, and in some
chapters one that depends on the instructions. What the environment says already is kept.
"""

import os
import platform
import signal
import threading

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported; kernels and programs inherit it

# a shell's background job begins with Ctrl-C ignored, one under nohup with SIGHUP, and so would all
# that the tests start
if threading.current_thread() is threading.main_thread():
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

MOST_PROCESSES = 4
WORKER = "PYTEST_XDIST_WORKER"  # pytest-xdist sets it in the processes that it starts
LONGEST = """
test_coursework_round test_scenes test_notebooks test_coursework 09_opening_the_model
test_distributed test_training 14_scaling_out test_cli test_commands_extract 06_training
08_honest_evaluation 05_cmc_loss 13_photographs_measured 07_two_stage_inference a4 a3
test_towers test_types test_own_data test_workbook
""".split()  # begin with these; test_scenes draws what others then find in the cache
OLDER = ("04_similarity", "05_cmc_loss", "07_two_stage_inference")  # as an older processor runs
INSTRUCTIONS = "ATEN_CPU_CAPABILITY"
FREE = INSTRUCTIONS not in os.environ and platform.machine() in ("x86_64", "AMD64")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config):
    """Ask for several processes where everything runs and nothing else was asked for."""
    option = config.option
    if WORKER in os.environ or not hasattr(option, "numprocesses"):
        return  # one of several processes already, which must not start more; or no pytest-xdist
    everything = config.args_source == config.ArgsSource.TESTPATHS
    free = option.numprocesses is None and option.dist == "no" and not option.tx
    if everything and free and not (option.usepdb or option.collectonly):
        option.numprocesses = min(MOST_PROCESSES, _cores())
        option.dist, option.loadscopereorder = "loadfile", False


def pytest_collection_modifyitems(config, items):
    """In each of several processes: the files that take longest first."""
    if WORKER in os.environ:
        items.sort(key=lambda item: _place(item.path.stem))


@pytest.hookimpl(tryfirst=True)  # before nbval starts the notebook's kernel
def pytest_runtest_setup(item):
    """Some chapters run without the newest instructions."""
    if FREE and item.path.suffix == ".ipynb" and item.path.stem in OLDER:
        os.environ[INSTRUCTIONS] = "avx2"
    elif FREE:
        os.environ.pop(INSTRUCTIONS, None)


def _cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _place(name):
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)
