"""Bars, lines and remarks: what is said on a terminal, without one, and in silence."""

import io

import pytest
from helpers import refusal

from tgdt_mini.files import progress
from tgdt_mini.files.progress import progress_bar, remark, silence


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(steps=3, **options):
    """What the steps of a bar were."""
    return list(progress_bar(range(steps), desc="walking", unit=" steps", **options))


def test_a_bar_moves_on_a_terminal_only(monkeypatch):
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        assert work() == [0, 1, 2]
        assert ("walking" in stream.getvalue() and "3/3" in stream.getvalue()) == shown
        assert work(progress=False) == [0, 1, 2]
        assert stream.getvalue().count("3/3") == shown


def test_a_switch_is_true_or_false():
    with refusal("progress is 'yes'; it must be True or False"):
        progress_bar([], "yes")


def test_elsewhere_a_line_comes_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress_bar(total=9, initial=4, desc="encoding", unit=" images") as bar:
        bar.update(2)
        bar.set_postfix(loss="0.12")
        bar.write("a word")
    said = capsys.readouterr()
    assert said.err == "encoding: 6 of 9 images\nencoding: 6 of 9 images, loss 0.12\n"
    assert said.out == "a word\n"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_silence_has_no_bars_and_no_remarks(monkeypatch, capsys, stream):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", stream())
    with silence(), silence(False):  # a silence inside is none the less one
        assert work() == [0, 1, 2]
        remark("hello")
    import sys

    assert sys.stderr.getvalue() == "" and capsys.readouterr().out == ""
    remark("hello")
    assert capsys.readouterr().out == "hello\n"
