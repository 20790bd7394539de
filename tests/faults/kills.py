"""Writers that are killed at every change of a file, and at random moments, and two at once."""

import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from helpers import random_embedding, tiny_model, tokenizer

from tests.faults import artefacts
from tests.faults.outcomes import RIGHT, Table, outcome
from tgdt_mini.checkpoint import load_model, save_model, save_state
from tgdt_mini.files.whole import write_whole
from tgdt_mini.photos.features import Features, write_features
from tgdt_mini.search.gallery import Gallery

# what changes a file, as Python's audit tells it
EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
_left: list[int] = []  # changes until the process ends; empty: it does not


def _count(event, values):
    if not _left:
        return
    writes = (
        event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
    )
    if writes or event in EVENTS:
        _left[0] -= 1
        if _left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def child(work, changes: int | None = None, seconds: float | None = None) -> bool:
    """Whether work() came to its end in a process that is killed at a change, or after a time."""
    process = os.fork()
    if not process:
        try:
            if changes is not None:
                sys.addaudithook(_count)
                _left.append(changes)
            work()
            _left.clear()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1] == 0


def _gallery(start, stop):
    embedding = random_embedding(start, stop - start, 5, dtype=torch.float32)
    return Gallery.build(embedding, [f"picture {number}" for number in range(start, stop)])


def _append(folder):
    _gallery(20, 30).append(folder)


def _make_features(rows):
    draw = torch.Generator().manual_seed(rows.start)
    features = torch.randn(2 * len(rows), 8, generator=draw).numpy()
    return {"features": features, "counts": torch.full((len(rows),), 2).numpy()}


def _write_features(folder):
    items = [str(number) for number in range(120)]
    write_features(folder, "key", items, _make_features, shard=40, progress=False)


def _read_features(folder):
    features = Features(folder, check_all=True)
    rows = features.rows.index_select(0, torch.arange(len(features.rows)))
    return artefacts._digest(features.items, rows)


def _read_model(folder):
    model = load_model(folder)
    return artefacts._digest(model.fingerprint, model.notes)


def writers() -> dict:
    """{name: (write the old, write the new, read)}, functions of a path."""
    one, two = tiny_model(0), tiny_model(1)
    state = {name: artefacts._run() for name in ("old", "new")}

    def save_run(folder, name):
        model, optimizer, scaler = state[name]
        torch.manual_seed(len(name) + ord(name[0]))
        save_state(folder, model, tokenizer(), optimizer, scaler, {"step": name})

    return {
        "save_model": (
            partial(save_model, one, tokenizer=tokenizer(), notes={"n": 1}),
            partial(save_model, two, tokenizer=tokenizer(), notes={"n": 2}),
            _read_model,
        ),
        "save_state": (
            partial(save_run, name="old"),
            partial(save_run, name="new"),
            artefacts._state,
        ),
        "Gallery.save": (_gallery(0, 20).save, _gallery(3, 9).save, artefacts._gallery),
        "Gallery.append": (_gallery(0, 20).save, _append, artefacts._gallery),
        "write_whole": (
            lambda path: write_whole(path, "old" * 99),
            lambda path: write_whole(path, "new" * 9999),
            lambda path: path.read_text(encoding="utf-8"),
        ),
        "write_features": (None, _write_features, _read_features),
    }


def run(table: Table, root: Path, every: int = 1, random_kills: int = 0, seed: int = 0) -> None:
    """Kill each writer at every `every`-th change of a file, and so often at random moments.

    Afterwards the old is there, or the new; and a writer that comes next ends with the new.
    """
    draw = random.Random(seed)
    for name, (old, new, read) in writers().items():
        path = root / "kills" / name / "it"
        path.parent.mkdir(parents=True)
        answers = []
        for write in (old, new):
            if write:
                write(path)
                answers.append(read(path))
        began = time.perf_counter()
        _reset(path, old)
        new(path)
        took = time.perf_counter() - began
        moments = [{"seconds": draw.uniform(0, 1.2 * took)} for _ in range(random_kills)]
        changes = draw.randrange(every) + 1
        while True:
            _reset(path, old)
            where = moments.pop() if moments else {"changes": changes}
            ended = child(partial(new, path), **where)
            kind = "at random" if "seconds" in where else "at a change of a file"
            found = outcome(partial(_any_of, read, path, answers, old), True)
            table.add(f"a writer killed {kind}", name, found, str(where))
            if not ended and name != "Gallery.append":
                new(path)
                found = outcome(partial(read, path), answers[-1])
                beside = sorted(p.name for p in path.parent.iterdir() if p != path)
                found = f"left behind: {beside}" if found == RIGHT and beside else found
                table.add("the writer that comes next", name, found, str(where))
            if "changes" in where:
                changes += every
                if ended:
                    break


def _any_of(read, path, answers, old):
    if not old and not (path / "manifest.json").exists():
        return True  # nothing is there yet
    try:
        return read(path) in answers
    except ValueError as error:
        return not old and "was stopped" in str(error)  # begun, and said so


def _reset(path, old):
    for left in path.parent.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if old:
        old(path)


def two_at_once(table: Table, root: Path, tries: int) -> None:
    """Writers and readers of one folder at the same time."""
    home = root / "at once"
    home.mkdir(parents=True)
    for number in range(tries):
        folder = home / f"appended {number}"
        _gallery(0, 20).save(folder)
        _together([partial(_append, folder)] * 3)
        found = outcome(lambda folder=folder: len(Gallery.load(folder, check_all=True)), 50)
        table.add("two at once", "three appends to one gallery", found)
        folder = home / f"read {number}"
        _gallery(0, 20).save(folder)
        known = {artefacts._gallery(folder)}
        _gallery(3, 9).save(folder)
        known.add(artefacts._gallery(folder))
        done = _together([partial(_save_often, folder)], partial(_read_often, folder, known))
        table.add("two at once", "a gallery read while it is saved", RIGHT if done else "failed")
        folder, models = home / f"model {number}", [tiny_model(seed) for seed in range(2)]
        save_model(models[0], folder)
        ended = _together([partial(save_model, model, folder) for model in models])
        found = outcome(partial(_read_model, folder), None) if ended else "a writer failed"
        table.add("two at once", "a model saved by two processes", found)


def _save_often(folder):
    for _ in range(10):
        for part in (_gallery(0, 20), _gallery(3, 9)):
            part.save(folder)


def _read_often(folder, known):
    for _ in range(60):
        assert artefacts._gallery(folder) in known


def _together(writers, reader=None) -> bool:
    """Whether all of some functions came to their end, each in a process of its own."""
    processes = []
    for work in [*writers, *([reader] if reader else [])]:
        process = os.fork()
        if not process:
            try:
                work()
                os._exit(0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        processes.append(process)
    return all([os.waitpid(process, 0)[1] == 0 for process in processes])
