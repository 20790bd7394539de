"""How a submission is run: in a temporary folder of its own, with limits, to the end.

nbgrader runs a submission in the folder where the notebook with the hidden tests lies, beside all
others, and gives up the notebook when its kernel dies. Here it runs where nothing lies but what was
handed in besides the notebook; `belt.py` keeps the kernel to that folder; and after the death of a
kernel the cells before it run again in a new one, so that one crash costs one question.
"""

import asyncio
import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import from_dict
from nbformat.v4 import new_output
from nbgrader.preprocessors import ClearHiddenTests, Execute, OverwriteCells
from nbgrader.utils import is_grade
from traitlets import Int, List, Unicode

from tgdt_mini.files.paths import cache

BELT = Path(__file__).with_name("belt.py").read_text(encoding="utf-8")
DOWN = (DeadKernelError, CellTimeoutError, asyncio.TimeoutError)
PASSED = {  # what a submission sees of the environment, where passwords and tokens may stand
    "CONDA_PREFIX",
    "DYLD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NBGRADER_EXECUTION",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "SYSTEMROOT",
    "TZ",
    "VIRTUAL_ENV",
    "WINDIR",
}
MOST_TEXT = 200_000  # characters that a cell may print


class ConfinedExecute(Execute):
    """nbgrader's execution of a notebook, confined to a folder and to limits."""

    closed = List(Unicode(), help="more folders that submissions may not read").tag(config=True)
    notebook_seconds = Int(900, help="seconds for all cells together").tag(config=True)
    memory = Int(6 * 2**30, help="bytes that the kernel may ask for").tag(config=True)

    def preprocess(self, nb, resources, km=None):
        course = Path(resources["metadata"]["path"]).resolve()
        package = Path(find_spec("tgdt_mini").origin).resolve().parent
        self.walls = [str(_root_of(course)), *self.closed]
        if (package.parent / "notebooks").is_dir():  # a checkout, with the solutions in it
            self.walls.append(str(package.parent))
        self.doors = [str(package), str(package.parent / "data"), sys.prefix]
        self.deadline = time.monotonic() + self.notebook_seconds
        self.printed = {}
        with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as home:
            self.home = Path(home)
            for path in course.iterdir():
                if path.suffix != ".ipynb":
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, self.home / path.name)
            resources["metadata"]["path"] = home
            try:
                return super().preprocess(nb, resources, km)
            finally:
                resources["metadata"]["path"] = str(course)

    def preprocess_cell(self, cell, resources, index):
        """Run a cell; if that takes the kernel down, note it there and go on with a new kernel."""
        if cell.cell_type == "code" and time.monotonic() > self.deadline:
            cell.outputs = [
                _error(f"the notebook took longer than {self.notebook_seconds} seconds")
            ]
            return cell, resources
        try:
            return super().preprocess_cell(cell, resources, index)
        except DOWN as error:
            self.log.warning("cell %s took the kernel down: %s", index, type(error).__name__)
            cell.outputs = [_error(f"this cell took Python down ({type(error).__name__})")]
            self.begin_again(resources, index)
            return cell, resources

    def begin_again(self, resources, index):
        """A new kernel, in which the cells before `index` have run, without those that failed."""
        self._cleanup_kernel()
        self.km = self.create_kernel_manager()
        self.start_new_kernel()
        self.start_new_kernel_client()
        for place, cell in enumerate(self.nb.cells[:index]):
            failed = any(output.output_type == "error" for output in cell.get("outputs", []))
            if cell.cell_type == "code" and not is_grade(cell) and not failed:
                try:
                    super().preprocess_cell(from_dict(cell), resources, place)
                except DOWN:
                    cell.outputs = [_error("this cell took Python down when it ran again")]
                    return self.begin_again(resources, index)
                finally:
                    self.nb.cells[place] = cell

    async def async_start_new_kernel(self, **options):
        """Start Python in the submission's folder, with caches of its own and one thread."""
        caches = self.home / ".caches"
        shutil.rmtree(caches, ignore_errors=True)
        (caches / "matplotlib").mkdir(parents=True)
        for fonts in _fonts():
            shutil.copy(fonts, caches / "matplotlib")
        for scenes in _scenes():
            shutil.copytree(scenes, caches / "tgdt_mini" / scenes.name)
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        environment |= {
            name: str(caches) for name in ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP")
        }
        environment |= {
            "HF_HOME": str(caches / "hf"),
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": str(caches / "ipython"),
            "MPLCONFIGDIR": str(caches / "matplotlib"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUSERBASE": site.getuserbase(),  # packages of this user, though HOME is another
            "TGDT_MINI_CACHE": str(caches / "tgdt_mini"),
        }
        options |= {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await super().async_start_new_kernel(**options)

    async def async_start_new_kernel_client(self):
        """Fasten the belt before the submission says anything."""
        client = await super().async_start_new_kernel_client()
        call = f"fasten({str(self.home)!r}, {self.walls!r}, {self.doors!r}, {self.memory})"
        code = f"exec({BELT + call!r}, {{}})"
        reply = await client.execute_interactive(code, store_history=False, timeout=60)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the belt does not hold: {reply['content']}")
        return client

    # nbclient has made these of its own methods; they must call the ones above
    start_new_kernel = run_sync(async_start_new_kernel)
    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    def process_message(self, message, cell, cell_index):
        """As nbclient does it; what a cell prints beyond MOST_TEXT is let go."""
        if message["msg_type"] == "stream":
            said = self.printed.get(cell_index, 0)
            self.printed[cell_index] = said + len(message["content"]["text"])
            if said > MOST_TEXT:
                return None
        return super().process_message(message, cell, cell_index)


class PutBack(OverwriteCells):
    """nbgrader's repair of tests that were changed, and of those that are gone: they come last.

    Its own way looks for the cell before a test, and gives up the notebook if that is gone too.
    """

    def add_missing_grade_cells(self, nb, resources):
        source = self.gradebook.find_notebook(self.notebook_id, self.assignment_id)
        present = {cell.metadata.get("nbgrader", {}).get("grade_id") for cell in nb.cells}
        written = {cell.name for cell in source.solution_cells}
        points = {cell.name: cell.max_score for cell in source.grade_cells}
        for cell in source.source_cells:
            if cell.name in points and cell.name not in present:
                most, own = points[cell.name], cell.name in written
                back = self.missing_cell_transform(cell, most, is_solution=own)
                back["id"] = cell.name.replace(" ", "-")[:64]
                nb.cells.append(back)
        return nb, resources


class HideTests(ClearHiddenTests):
    """Feedback without the hidden tests: their lines leave the cells, and the traces of errors."""

    def preprocess_cell(self, cell, resources, index):
        cell, resources = super().preprocess_cell(cell, resources, index)
        if is_grade(cell):
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


def _error(words):
    return new_output("error", ename="Stopped", evalue=words, traceback=[f"Stopped: {words}"])


def _root_of(folder):
    """The course folder: of .../autograded/STUDENT/ASSIGNMENT the folder of autograded."""
    return next((path.parent for path in folder.parents if path.name == "autograded"), folder)


def _scenes():
    """The drawn scenes of this machine's cache that assignments use, and the tokens cut from them.

    Copies, so that no submission can change those of others. What is not there is drawn again.
    """
    for split in ("validation", "test"):
        for name in (f"scenes-{split}-*", f"tokens-scenes-{split}-*"):
            yield from cache().glob(name)


def _fonts():
    """matplotlib's list of this machine's fonts, which takes seconds to make."""
    import matplotlib

    return Path(matplotlib.get_cachedir()).glob("fontlist-*.json")
