"""A few faults of each kind; `python -m tests.faults` tries them by the hundred."""

import inspect
import os

import pytest

from tests.faults import artefacts, commands, doors, foreign, inputs, kills, options
from tests.faults.outcomes import REFUSED, RIGHT, Table, outcome

SEED = 7
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system copies no processes")


@pytest.fixture
def table(monkeypatch, tmp_path):
    monkeypatch.setenv("TGDT_MINI_CACHE", os.environ.get("TGDT_MINI_CACHE", ""))
    found = Table()
    yield found
    assert found.rows and not found.failures, "\n".join(found.failures)


def test_no_changed_file_is_read_in_silence_or_ends_in_a_traceback(table, tmp_path):
    artefacts.run(table, tmp_path, 2, SEED)
    foreign.run(table, tmp_path, 1, SEED, encoders=False)


@forks
def test_a_killed_writer_leaves_the_old_or_the_new_and_the_next_one_ends(table, tmp_path):
    kills.run(table, tmp_path, 9, 1, SEED)


@forks
def test_two_at_once_lose_nothing(table, tmp_path):
    kills.two_at_once(table, tmp_path, 1)


@forks
def test_a_disturbed_command_loses_nothing_and_ends_as_an_undisturbed_one(table, tmp_path):
    commands.kill_all(table, tmp_path, 1, SEED, ("index --append",))


def test_hostile_input_is_answered_or_refused_in_one_line(table, tmp_path):
    inputs.run(table, tmp_path, 8, SEED)


def test_hostile_values_of_public_names_are_answered_or_refused_in_one_line(table, tmp_path):
    assert not doors.unasked(), "write a door for these, in tests/faults/doors.py"
    doors.run(table, tmp_path / "doors", 1, SEED, most=50)


def test_doors_take_every_argument_by_its_name():
    """A wrong name would be refused whatever its value, and say nothing of the value."""
    for name, (door, right) in doors.doors().items():
        known = inspect.signature(door).parameters.values()
        named = {p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        assert not named or named == {*right}, name


def test_no_option_takes_what_is_no_number(table):
    options.parsed(table, 6, SEED)


def test_outcomes_tell_what_went_wrong():
    def fail(error):
        raise error

    assert outcome(lambda: 3, 3) == RIGHT and "silence" in outcome(lambda: 4, 3)
    assert outcome(lambda: fail(ValueError("a.npy is damaged")), 3, ("a.npy",)) == REFUSED
    assert "unnamed" in outcome(lambda: fail(ValueError("damaged")), 3, ("a.npy",))
    assert "one line" in outcome(lambda: fail(ValueError("a\nb")), 3)
    assert "traceback" in outcome(lambda: fail(KeyError("a")), 3)
    found = Table()
    found.add("files", "a.npy", "another answer, in silence", "cut at 3")
    assert found.failures == ["files, a.npy, cut at 3: another answer, in silence"]
    assert "| files | a.npy | 1 | 0 | 0 | 1 |" in str(found)


def test_the_summary_adds_up_what_belongs_together():
    table = Table()
    for kind in ("model: a.json", "model: b.npy", "model: b.npy", "train --seed", "train -k", "x"):
        table.add("changed", kind, RIGHT if kind == "x" else REFUSED)
    for number in range(13):
        table.add("names", f"f{number}", RIGHT)
    table.add("names", "f0", "a traceback")
    assert table.summary().splitlines()[2:] == [
        "| changed | model | 2 | 3 | 0 | 3 | 0 |",
        "| changed | train | 2 | 2 | 0 | 2 | 0 |",
        "| changed | x | 1 | 1 | 1 | 0 | 0 |",
        "| names | all | 13 | 14 | 13 | 0 | 1 |",
    ]
