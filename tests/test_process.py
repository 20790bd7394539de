"""What a command's process owes to its surroundings: streams, signals, final messages."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import call

from tgdt_mini import cli
from tgdt_mini.commands import endings, index, process, train
from tgdt_mini.files.stopping import on_stop
from tgdt_mini.files.whole import write_whole

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


def test_a_signal_while_the_options_are_read_is_told_in_one_word(monkeypatch, capsys):
    monkeypatch.setattr(cli, "parser", lambda: signal.raise_signal(signal.SIGINT))
    assert call(capsys, "index") == (130, "", "\nstopped\n")


def test_a_training_that_has_kept_nothing_does_not_ask_to_go_on(monkeypatch, tmp_path, capsys):
    state = tmp_path / "last" / "config.json"

    def stop(args):
        raise KeyboardInterrupt

    def keep_and_stop(args):
        write_whole(state, "new")
        raise KeyboardInterrupt

    nothing = "\nstopped; nothing was kept yet, start the same command again\n"
    progress = f"\nstopped; what was done is in {tmp_path}/last, go on with the same command and"
    for before, run, options, words in (
        (None, stop, (), nothing),
        (None, keep_and_stop, (), progress),
        ("an earlier run", stop, (), nothing),
        ("an earlier run", stop, ("--resume",), progress),
        ("an earlier run", keep_and_stop, (), progress),
    ):
        state.unlink(missing_ok=True)
        if before:
            write_whole(state, before)
        monkeypatch.setattr(train, "run", run)
        code, _, errors = call(capsys, "train", *options, "--out", tmp_path)
        assert code == 130 and errors.startswith(words), (before, run, options)


@pytest.mark.parametrize("count", ["", "abc"])
def test_a_number_of_processes_that_is_none_is_one_line(count, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", count)
    line = f"error: WORLD_SIZE is {count!r}; it must be a number, as torchrun sets it: unset it\n"
    monkeypatch.setattr(train, "run", lambda args: 0)
    for command in ("train", "index"):
        assert call(capsys, command, "--out", tmp_path) == (2, "", line)


@pytest.mark.skipif(os.name == "nt", reason="there a folder in use cannot be deleted")
def test_a_working_folder_that_was_deleted_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.setenv("PWD", str(tmp_path / "gone"))
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, errors = call(capsys, "index", "--out", tmp_path / "out")
    words = f"error: the working folder {tmp_path / 'gone'} is not there any more"
    assert code == 2 and errors.startswith(words) and errors.count("\n") == 1


def test_a_full_disk_is_named_by_a_file_or_by_the_folders_that_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path / "cache"))
    for error in (
        OSError(28, "No space left on device", "a.npy"),
        OSError(28, "No space left on device", "a.npy", None, "b.npy"),
    ):
        line = endings.error_line(error, tmp_path)
        assert "'a.npy'" in line and "cache" not in line
    for error in (OSError(28, "No space left on device"), RuntimeError("I/O (os error 28)")):
        line = endings.error_line(error, tmp_path / "out")
        places = f"that of --out {tmp_path / 'out'} or of the cache {tmp_path / 'cache'}; make room"
        assert places in line


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


def test_a_stop_that_a_library_turned_into_an_error_is_still_a_stop(monkeypatch, capsys):
    def run(args, stops=True):
        try:
            if stops:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
        raise ValueError("could not determine the shape")

    monkeypatch.setattr(cli.doctor, "run", run)
    assert cli.main(["doctor"]) == process.STOPPED
    assert "stopped" in (said := capsys.readouterr().err) and "shape" not in said
    monkeypatch.setattr(cli.doctor, "run", lambda args: run(args, stops=False))
    assert cli.main(["doctor"]) == 2 and "could not determine the shape" in capsys.readouterr().err
