"""nbgrader's settings for this course. `nbgrader` reads this file in the folder that it runs in.

`make.py` and `grade.py` use it too; the latter copies it, with `confine.py`, into the course folder
that it makes. How a submission is run, and what it may not do meanwhile: see `confine.py`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from confine import ConfinedExecute, HideTests, PutBack

c = get_config()  # noqa: F821 - nbgrader provides it

c.CourseDirectory.course_id = "tgdt-mini"

# In place of a solution: nothing. The line after it, which no solution reaches, says what to do.
c.ClearSolutions.code_stub = {"python": "# Your code here, instead of the next line."}
c.ClearSolutions.text_stub = "Your answer here, instead of this line."

c.ConfinedExecute.timeout = 60  # seconds for one cell; a loop that never ends gets no points
c.ConfinedExecute.notebook_seconds = 900  # for a whole notebook
c.ConfinedExecute.startup_timeout = 300  # for Python to start on a busy machine
c.ConfinedExecute.memory = 6 * 2**30  # bytes, where the operating system keeps to it (Linux does)

c.PutBack.add_missing_cells = True  # a test that was deleted; one that was changed always is
c.Autograde.sanitize_preprocessors = [
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    PutBack,
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    ConfinedExecute,
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    HideTests,
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
