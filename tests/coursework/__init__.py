"""Answers to the assignments, right and wrong, and a runner that tries them without a kernel.

Each assignment has a file here, such as a1.py, which holds an `Answers` of the same name:

    a1 = Answers()

    @a1.wrong("masked_mean", says="3 real words, not 5")
    def divides_by_the_padded_length(tokens, mask): ...

    @a1.right("masked_mean")
    def loops(tokens, mask): ...

The name says what the answer does. It is tried under the question's name, and knows what the
student's notebook knows: the imports, and the functions of the other questions.
"""

import ast
import contextlib
import inspect
import io
import textwrap
from functools import cached_property
from pathlib import Path
from types import FunctionType

import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "assignments"


class Answers:
    """The answers to one assignment, collected by its decorators."""

    def __init__(self):
        self.wrongs = []  # (question, function, what the message must say)
        self.rights = []  # (question, function)

    def wrong(self, question, says):
        return lambda function: self.wrongs.append((question, function, says)) or function

    def right(self, question):
        return lambda function: self.rights.append((question, function)) or function


class Assignment:
    """One assignment: its source, its release, and its tests as a student's function meets them."""

    def __init__(self, name):
        self.name = name
        self.source = self.read("source")

    def read(self, kind):
        return nbformat.read(self.path(kind), as_version=4)

    def path(self, kind):
        return FOLDER / kind / self.name / f"{self.name}.ipynb"

    @cached_property
    def questions(self):
        """{question: (the cell of its solution, the cell of its test)}, in order."""
        solutions = {grade_id(cell): cell for cell in self.source.cells if is_a("solution", cell)}
        tests = {grade_id(cell): cell for cell in self.source.cells if is_a("grade", cell)}
        written = {name for name in solutions if name in tests}  # written answers: no function
        return {
            name: (cell, tests[f"test_{name}"])
            for name, cell in solutions.items()
            if name not in written
        }

    @cached_property
    def names(self):
        """What a notebook knows after its imports and all solutions."""
        names = {"__name__": "__main__"}
        imports = next(cell for cell in self.source.cells if cell.cell_type == "code")
        for cell in [imports, *(solution for solution, _ in self.questions.values())]:
            exec(cell.source, names)
        return names

    def judge(self, question, function):
        """Run the question's test on another function; returns what the test prints."""
        names = dict(self.names)
        names[question] = FunctionType(
            function.__code__,
            function.__globals__ | names,
            question,
            function.__defaults__,
            function.__closure__,
        )
        names[question].__kwdefaults__ = function.__kwdefaults__
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(self.questions[question][1].source, f"test_{question}", "exec"), names)
        return said.getvalue()


def cell_of(function, question):
    """The text of a solution cell with this function in it, under the question's name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    definition.decorator_list, definition.name = [], question
    return ast.unparse(tree)


def is_a(kind, cell):
    """Whether nbgrader takes a cell for a "solution", a "grade" or a "locked" cell."""
    return bool(cell.metadata.get("nbgrader", {}).get(kind))


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")
