"""Faults, tried by the hundred: changed files, killed writers, hostile input, two at once.

    python -m tests.faults --page       the long form: all kinds, and docs/reliability.md anew
    python -m tests.faults --tries 20   fewer of each kind, and nothing is written

Each try ends in one of three ways. "right": the answer is what it would have been. "refused": an
error of one line that names what is wrong. Everything else is a failure: another answer in silence,
a traceback, an error without a name. `tests/test_faults.py` runs a few of each kind.
"""
