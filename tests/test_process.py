"""What a command's process owes to its surroundings: streams, signals, final messages."""

import io
import os
import signal
import subprocess
import sys

import pytest
from helpers import call

from tgdt_mini import cli
from tgdt_mini.commands import index, process
from tgdt_mini.files.stopping import on_stop

START = "import sys; from tgdt_mini.cli import main; "


def start(code, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen([sys.executable, "-c", code], **(pipes | options))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_asks_to_stop_is_heard_and_what_is_ignored_stays_so(name):
    number, heard = getattr(signal, name), []
    before = signal.getsignal(number)
    with on_stop(lambda number, _: heard.append(number)):
        signal.raise_signal(number)
    assert heard == [number] and signal.getsignal(number) == before
    signal.signal(number, signal.SIG_IGN)
    try:
        with on_stop(lambda number, _: heard.append(number)):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert heard == [number]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_a_scheduler_ends_says_how_to_go_on(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(index, "run", lambda args: signal.raise_signal(getattr(signal, name)))
    code, _, errors = call(capsys, "index", "--out", tmp_path)
    assert code == 130 and f"{tmp_path} is kept, go on with the same command" in errors


def test_while_torch_is_being_imported_the_process_ends_at_once():
    """The import may be anywhere, also in code of C++ that an exception would tear apart."""
    code = """
import sys, importlib.util
from tgdt_mini.commands import process
class Finder:
    def find_spec(name, path, target=None):
        return importlib.util.spec_from_loader(name, Finder) if name == 'torch' else None
    def create_module(spec):
        return None
    def exec_module(module):
        import time
        print('here', flush=True)
        time.sleep(60)
sys.meta_path.insert(0, Finder)
with process.stoppable():
    import torch
"""
    running = start(code)
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130 and errors == "\nstopped\n"


def test_an_error_that_nobody_foresaw_names_the_command_and_keeps_its_traceback(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(index, "run", lambda args: {}["here"])
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))
    code, _, errors = call(capsys, "index", "--out", tmp_path / "out")
    (file,) = tmp_path.glob("tgdt-mini-*.txt")
    assert code == 1 and str(file) in errors and len(errors.splitlines()) == 1
    assert "index ended with KeyError" in errors
    assert "test_process.py" in file.read_text(encoding="utf-8")
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(KeyError) as unforeseen:
        {}["here"]
    words = process.explained("index", unforeseen.value)
    assert "no file could be written" in words and "test_process.py" in words


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(28, "No space left on device"), "error: the disk is full"),
        (RuntimeError("I/O error: (os error 28)"), "error: the disk is full"),
        (MemoryError("Unable to allocate 7 TiB"), "error: there is not enough memory"),
        (ValueError("one\ntwo"), "error: one\n"),
        (OSError(), "error: OSError"),
    ],
)
def test_an_error_is_one_line(error, words, monkeypatch, tmp_path, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(index, "run", fail)
    code, _, errors = call(capsys, "index", "--out", tmp_path)
    assert code == 2 and errors.startswith(words) and len(errors.splitlines()) == 1


def test_a_name_that_the_output_cannot_write_is_printed_with_its_number(tmp_path):
    code = START + "from tgdt_mini.commands import index; "
    code += "index.run = lambda args: print('\N{CJK UNIFIED IDEOGRAPH-661F}.png \\udcff'); main()"
    code = code.replace("main()", f"main(['index', '--out', {str(tmp_path)!r}])")
    running = start(code, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    printed, errors = running.communicate(timeout=60)
    assert (printed, errors) == ("\\u661f.png \\udcff\n", "")


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-"])
def test_a_closed_stream_ends_nothing(closed, tmp_path):
    code = START + "from tgdt_mini.commands import index; import sys; path = sys.argv[1]; "
    code += "index.run = lambda args: [print('a'), print('b', file=sys.stderr), "
    code += "open(path, 'w').write('done')] and 0; sys.exit(main(['index', '--out', path + '.d']))"
    shell = f'exec "$0" -c "$1" "$2" {closed}'
    done = subprocess.run(["sh", "-c", shell, sys.executable, code, tmp_path / "file"], timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text(encoding="utf-8") == "done"


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = START + "from tgdt_mini.commands import index; "
    code += "index.run = lambda args: [print('x' * 9999) for _ in range(99)] and 0; "
    code += f"sys.exit(main(['index', '--out', {str(tmp_path)!r}]))"
    running = start(code)
    running.stdout.close()
    assert running.stderr.read() == "" and running.wait(60) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system sends no such signals")
def test_a_signal_cuts_no_last_words(monkeypatch):
    class Stream(io.StringIO):
        def write(self, text):
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does to the others of a run
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", said := Stream())
    with process.stoppable():
        cli.say_last("error: the disk is full")
        assert said.getvalue() == "error: the disk is full\n"
        with pytest.raises(KeyboardInterrupt):  # afterwards it is heard again
            os.kill(os.getpid(), signal.SIGTERM)
