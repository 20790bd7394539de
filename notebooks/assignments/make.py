"""Make what students get out of the sources: `python notebooks/assignments/make.py [a1 ...]`.

nbgrader takes the solutions and the hidden tests out of source/aN/aN.ipynb and writes the rest to
release/aN/aN.ipynb. Each file is named with a word: changed, or the same. The same source gives the
same bytes. Needs nbgrader: `pip install -e ".[instructor]"`.

--check changes nothing; exit code 1 if a release is stale. --run executes the sources first and
stores what they print: after a change of a source, before a commit.
"""

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
SOURCE, RELEASE = HERE / "source", HERE / "release"
sys.path.insert(0, str(HERE.parent))
from refresh import METADATA, execute, parser_of  # noqa: E402


def course(root: Path):
    """nbgrader's API in the course folder `root`, with the settings of nbgrader_config.py."""
    try:
        from nbgrader.apps import NbGraderAPI
    except ImportError:
        raise SystemExit('nbgrader is not installed: pip install -e ".[instructor]"') from None
    from traitlets.config import PyFileConfigLoader

    # nbgrader looks for one of its programs on the path, also where no environment is activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    config = PyFileConfigLoader("nbgrader_config.py", path=str(HERE)).load_config()
    config.CourseDirectory.root = str(root)
    config.NbGraderAPI.log_level = logging.ERROR
    return NbGraderAPI(config=config)


def released(name: str) -> dict[Path, bytes]:
    """The files that students get for an assignment, such as "a1": {path in release/: content}."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        shutil.copytree(SOURCE / name, root / "source" / name, ignore=shutil.ignore_patterns(".*"))
        done = course(root).generate_assignment(name)
        if not done["success"]:
            raise RuntimeError(f"nbgrader cannot release {name}:\n{done['log']}")
        files = sorted(path for path in (root / "release").rglob("*") if path.is_file())
        return {path.relative_to(root / "release"): path.read_bytes() for path in files}


def run(name: str) -> None:
    """Execute a source in place, and leave out of it what would differ the next time."""
    path = SOURCE / name / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    execute(book, path.parent)
    book.metadata = nbformat.from_dict(METADATA)
    for cell in book.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(book, path)


def main() -> int:
    parser = parser_of(__doc__, "names", "a1 a2")
    parser.add_argument("--run", action="store_true", help="execute the sources first")
    args = parser.parse_args()
    known = sorted(path.parent.name for path in SOURCE.glob("*/*.ipynb"))
    if unknown := set(args.names) - set(known):
        parser.error(f"there is no assignment {unknown.pop()!r}; there are {', '.join(known)}")
    stale = 0
    for name in args.names or known:
        if args.run and not args.check:
            run(name)
        for path, content in released(name).items():
            target = RELEASE / path
            same = target.is_file() and target.read_bytes() == content
            stale += not same
            print(
                f"{path.as_posix()}: {'the same' if same else 'stale' if args.check else 'changed'}"
            )
            if not same and not args.check:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
