"""While a student's function is tested, the package's function of the same purpose raises.

The package is the answer key: without this, a submission that calls it would get all points. Python
tells a watcher about each function that is entered; one of those named here is refused, whatever
the way to it was: an import inside a function, importlib, an alias, its code object, or its source,
executed again. So is starting another program, which could ask the package in our place. All the
rest of the package stays usable.

What this does not do: student and test share one process. Who sets out to deceive can switch the
watcher off for a while, change these helpers, look at the test that calls, or type the package's
function in, in other words. The first is mostly noticed; against the rest only a reader helps.
"""

import contextlib
import dis
import functools
import inspect
import pkgutil
import sys
import threading
import warnings
from types import CodeType, FunctionType

LONG = (
    40  # instructions: a shorter function, typed into a cell, may be like the package's by chance
)
ADVICE = "Write the steps yourself; the rest of the package may be used"
PROGRAMS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "subprocess.Popen",
}


class NotOwnCode(AssertionError):
    """A student's function did not do the work itself."""


@contextlib.contextmanager
def only_own_code(*names: str, libraries: tuple[str, ...] = ()):
    """A context in which the functions `names` raise NotOwnCode, and copies of them too.

    names: such as "tgdt_mini.image_tokens.geometry" or "tgdt_mini.data.ImageTokens.pad"; ValueError
    for one that does not exist. libraries: packages of which nothing may be called, such as
    "tokenizers". A refusal that the student's code swallows is raised again at the end. Warnings
    and what goes to stderr cost no points here, though nbgrader takes both for an error.
    """
    watch = _Watch(names, libraries)
    before, before_threads = sys.getprofile(), threading.getprofile()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(sys.stdout),
        contextlib.ExitStack() as ends,
    ):
        warnings.simplefilter("ignore")
        ends.callback(threading.setprofile, before_threads)
        ends.callback(sys.setprofile, before)
        ends.enter_context(_no_programs(watch))
        threading.setprofile(watch.event)
        sys.setprofile(watch.event)
        try:
            yield
        finally:
            # Python itself takes a watcher away that has raised: then `refusal` says why
            if sys.getprofile() != watch.event and watch.refusal is None:
                watch.refusal = NotOwnCode("the watch over this test was switched off")
            if watch.refusal is not None and sys.exc_info()[1] is not watch.refusal:
                raise watch.refusal


class _Watch:
    """Looks at each call while a test runs, and refuses those that are another's work."""

    def __init__(self, names, libraries):
        self.libraries = libraries
        self.refusal = None
        self.names = {}  # code object -> the function's name
        self.copies = {}  # what the code does -> the function's name
        for name in names:
            code = _code(name)
            self.names[code] = self.copies[fingerprint(code)] = name
        self.attributes = {code.co_names for code in self.names}
        self.seen = {}  # id of a code object -> (the object, so that its id stays taken; a verdict)

    def event(self, frame, event, argument):
        """Python calls this at each call and return, of Python functions and of C functions."""
        if event == "call":
            code = frame.f_code
            if id(code) not in self.seen:
                self.seen[id(code)] = code, self.verdict(code, frame.f_globals.get("__name__", ""))
            if self.seen[id(code)][1]:
                self.refuse(self.seen[id(code)][1])
        elif event == "c_call" and self.libraries:
            owner = getattr(argument, "__self__", None)
            module = type(owner).__module__ if owner is not None else argument.__module__
            if self.is_library(module):
                self.refuse(f"{module} does what you are asked to write")

    def verdict(self, code, module):
        """Why this code may not run, or an empty string."""
        if code in self.names:
            return f"{self.names[code]} does what you are asked to write"
        if self.is_library(module):
            return f"{module} does what you are asked to write"
        if code.co_names in self.attributes:  # a cheap look before the thorough one
            instructions = fingerprint(code)
            typed = "ipykernel" in code.co_filename or code.co_filename.startswith("<ipython")
            if instructions in self.copies and (not typed or len(instructions) >= LONG):
                return f"{code.co_name} is a copy of {self.copies[instructions]}"
        return ""

    def is_library(self, module):
        return (module or "").partition(".")[0] in self.libraries

    def refuse(self, why):
        self.refusal = NotOwnCode(f"{why}: it may not run while your function is tested. {ADVICE}")
        raise self.refusal


def fingerprint(code: CodeType) -> tuple:
    """What a function does, instruction by instruction, whatever its names and docstring are."""
    variables = code.co_varnames + code.co_cellvars + code.co_freevars
    numbers = {name: str(number) for number, name in enumerate(variables)}
    steps = []
    for step in dis.get_instructions(code):
        value = step.argval
        if step.opname in ("NOP", "PRECALL", "PUSH_NULL", "RESUME"):
            continue
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            value = None
        elif isinstance(value, CodeType):
            value = fingerprint(value)
        elif any(kind in step.opname for kind in ("FAST", "DEREF", "CLOSURE", "CELL")):
            value = [numbers[name] for name in ((value,) if isinstance(value, str) else value)]
        # `torch.cat(x)` is compiled in two ways: does `import torch` stand in the same text?
        steps.append((step.opname.replace("LOAD_METHOD", "LOAD_ATTR"), repr(value)))
    return tuple(steps)


def _code(name):
    """The code object of a function; of a decorated one that of the innermost function.

    What a decorator puts around it is often shared with functions that may be used.
    """
    try:
        function = pkgutil.resolve_name(name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(f"there is no function {name!r} to keep away from students") from error
    inner = inspect.unwrap(getattr(function, "__func__", function))
    if not isinstance(inner, FunctionType):
        raise ValueError(f"{name} is no Python function; name one, such as a method of a class")
    return inner.__code__


_watching = []  # the test that runs just now, if any


@contextlib.contextmanager
def _no_programs(watch):
    _listen()
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.remove(watch)


@functools.cache  # an audit hook can be added, never removed
def _listen():
    def hook(event, arguments):
        if _watching and event in PROGRAMS:
            _watching[-1].refuse(f"{event} starts another program")

    sys.addaudithook(hook)
