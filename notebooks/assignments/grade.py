"""Grade what students handed in: `python notebooks/assignments/grade.py SUBMITTED --out FOLDER`.

SUBMITTED/STUDENT/a1/a1.ipynb is where nbgrader expects a submission; with --assignment a1 also
SUBMITTED/STUDENT.ipynb will do. FOLDER becomes a course folder of nbgrader outside this repository:
grades.csv, feedback/STUDENT/a1/a1.html, and gradebook.db, in which written answers can be graded by
hand (`jupyter lab` in FOLDER, menu Nbgrader, Formgrader). The same command again grades again, and
keeps grades given by hand.

What is handed in is another person's program, and runs on this machine: see confine.py and belt.py.
Exit code 1 if a submission could not be graded; the others are. Needs nbgrader:
`pip install -e ".[instructor]"`.
"""

import argparse
import re
import shutil
import sys
import warnings
from pathlib import Path

from make import HERE, SOURCE, course

REPOSITORY = HERE.parents[1]


def submissions(folder: Path, assignment: str | None) -> dict[tuple[str, str], Path]:
    """{(assignment, student): the notebook handed in}. ValueError if there is none."""
    known = [path.name for path in sorted(SOURCE.iterdir()) if path.is_dir()]
    names = [assignment] if assignment else known
    found = {}
    for name in names:
        for path in sorted(folder.glob(f"*/{name}/{name}.ipynb")):
            found[name, path.parts[-3]] = path
    if assignment:
        found |= {(assignment, path.stem): path for path in sorted(folder.glob("*.ipynb"))}
    if not found:
        wanted = f"STUDENT/{names[0]}/{names[0]}.ipynb"
        raise ValueError(f"{folder} holds no submission; it needs files such as {wanted}")
    return found


def prepare(out: Path, found: dict[tuple[str, str], Path]) -> None:
    """Lay out the course folder: settings, sources, and the submissions beside their own files."""
    for name in ("nbgrader_config.py", "confine.py", "belt.py"):
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / name, out / name)
    for assignment, student in found:
        path = found[assignment, student]
        shutil.copytree(SOURCE / assignment, out / "source" / assignment, dirs_exist_ok=True)
        target = out / "submitted" / student / assignment
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copy(path, target / f"{assignment}.ipynb")
        if path.name == f"{assignment}.ipynb" and path.parent.name == assignment:
            for extra in path.parent.iterdir():
                if extra.is_file() and extra.suffix != ".ipynb":
                    shutil.copy(extra, target / extra.name)


def grade(out: Path, found: dict, closed: list[Path], seconds: int | None) -> list[str]:
    """Grade, and write feedback and grades.csv. Returns a line for each submission that could not
    be graded. closed: folders that submissions may not read, besides the course folder.
    """
    api, failed = course(out), []
    from nbgrader.api import Gradebook
    from nbgrader.plugins import CsvExportPlugin
    from sqlalchemy.exc import SAWarning

    warnings.simplefilter("ignore", SAWarning)  # nbgrader 0.9.6 with SQLAlchemy 2.1: harmless
    api.config.ConfinedExecute.closed = [str(folder) for folder in closed]
    if seconds:
        api.config.ConfinedExecute.timeout = seconds
    for assignment in sorted({name for name, _ in found}):
        done = api.generate_assignment(assignment, force=True)
        if not done["success"]:
            raise RuntimeError(f"nbgrader cannot prepare {assignment}:\n{done['log']}")
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
        for assignment, student in found:
            done = api.autograde(assignment, student, force=True)
            if done["success"]:
                done = api.generate_feedback(assignment, student, force=True)
            if not done["success"]:
                failed.append(f"{assignment} {student}: not graded. {_reason(done)}")
                continue
            book.db.expire_all()
            score = book.find_submission(assignment, student)
            by_hand = ", written answers to be read" if score.needs_manual_grade else ""
            print(f"{assignment} {student}: {score.score:g} of {score.max_score:g}{by_hand}")
        CsvExportPlugin(to=str(out / "grades.csv")).export(book)
    return failed


def _reason(done):
    """The error in nbgrader's log, in one line."""
    text = (done["log"] or "") + (done["error"] or "")
    errors = re.findall(r"^\s*([\w.]*Error\w*: .+)$", text, re.M)
    return errors[-1] if errors else text.strip().rpartition("\n")[2] or "nbgrader gives no reason"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submitted", type=Path, help="the folder with the submissions")
    parser.add_argument("--out", type=Path, required=True, help="the course folder to make")
    parser.add_argument("--seconds", type=int, help="for one cell (default: nbgrader_config.py's)")
    parser.add_argument("--assignment", help="such as a1 (default: all that were handed in)")
    args = parser.parse_args()
    out = args.out.resolve()
    if out.is_relative_to(REPOSITORY):
        parser.error(f"--out {args.out} lies in the repository, beside the solutions; take another")
    try:
        found = submissions(args.submitted.resolve(), args.assignment)
    except ValueError as error:
        parser.error(str(error))
    prepare(out, found)
    failed = grade(out, found, [REPOSITORY, args.submitted], args.seconds)
    for line in failed:
        print(line, file=sys.stderr)
    print(f"grades: {out / 'grades.csv'}, feedback: {out / 'feedback'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
