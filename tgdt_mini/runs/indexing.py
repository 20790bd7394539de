"""A folder of pictures becomes a gallery, which can be stopped, gone on with and added to.

What is encoded is kept in GALLERY/.partial, a gallery of its own, until all is there. Its items are
marks: a path with the file's size and time of change, so that a file that has changed meanwhile is
encoded again.
"""

import json
import shutil
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.encoding import encode_pictures
from tgdt_mini.files.locks import only_writer
from tgdt_mini.files.progress import progress_bar, remark
from tgdt_mini.files.rows import MappedRows, RaggedRows
from tgdt_mini.files.store import check_ours
from tgdt_mini.runs.pictures import GROUP, readable
from tgdt_mini.runs.retriever import built
from tgdt_mini.search.gallery import NAME, Gallery

PARTIAL = ".partial"


@dataclass(frozen=True)
class Indexed:
    """What `index_pictures` has done.

    gallery: as it is in the folder now. added: pictures that are new. known: those that were there.
    refused: {path: why it could not be read}. changed, gone: known pictures whose file is newer
    than the gallery was, or no longer there; what it holds of them is old.
    """

    gallery: Gallery
    added: int
    known: int
    refused: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def index_pictures(
    model, paths: list[str], out: Path, source: str | None = None, append: bool = False
) -> Indexed:
    """Encode pictures into the gallery of a folder, in place of what it holds, or behind it.

    A run that was stopped goes on where it was. A picture that cannot be read is left out and told.
    append: keep what the gallery holds; pictures whose path it has are not encoded again.
    Raises ValueError if no picture can be read, where another model made the gallery, and while
    another process writes to the folder.
    """
    with only_writer(out):
        return _index(model, paths, Path(out), source, append)


def _index(model, paths, out, source, append):
    known, changed, gone = set(), [], []
    check_ours(out, NAME)
    if append and (out / NAME).is_file():
        present = Gallery.load(out, expect_model=model.fingerprint)
        if present.holds != "image":
            raise ValueError(f"{out} is a gallery of captions; choose another folder")
        known = {item for item in present.items if isinstance(item, str)}
        written = (out / NAME).stat().st_mtime
        changed = [path for path in paths if path in known and _time_of(path) > written]
        gone = [item for item in sorted(known) if Path(item).is_absolute() and not _time_of(item)]
    marks = {_mark(path): path for path in paths if path not in known}
    done = _begun(out / PARTIAL, model, marks)
    wanted, refused = [mark for mark in marks if mark not in done], {}
    if done:
        remark(f"going on with {out}: {len(done)} of {len(marks)} pictures are encoded")
    options = {"total": len(marks), "initial": len(done), "desc": "encoding", "unit": " images"}
    with progress_bar(**options) as bar:
        for start in range(0, len(wanted), GROUP):
            group = wanted[start : start + GROUP]
            items = []
            pictures = readable({mark: marks[mark] for mark in group}, items, refused)
            if (first := next(pictures, None)) is not None:
                embedding = encode_pictures(model, chain([first], pictures))
                _add(built(model, embedding, items, "image"), out / PARTIAL)
            bar.update(len(group))
    if marks and len(refused) == len(marks) and not known:
        more = f"; none of the {len(refused)} pictures can be read" if len(refused) > 1 else ""
        raise ValueError(f"{next(iter(refused.values()))}{more}")
    if len(refused) < len(marks):
        new = _finished(out / PARTIAL, marks, source)
        if len(new) != len(marks) - len(refused):
            raise ValueError(f"{out / PARTIAL} is not what this index wrote; delete it, and index")
        _add(new, out, append=bool(known))
        shutil.rmtree(out / PARTIAL)
    added, known_count = len(marks) - len(refused), len(paths) - len(marks)
    by_path = {str(marks[mark]): why for mark, why in refused.items()}
    return Indexed(Gallery.load(out), added, known_count, by_path, changed, gone)


def _time_of(path):
    """When a file was changed, in seconds; 0 where there is none."""
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0


def _mark(path):
    try:
        stat = Path(path).stat()
        return json.dumps([path, stat.st_size, stat.st_mtime_ns])
    except OSError:  # it is gone already, and will be refused
        return json.dumps([path, None, None])


def _begun(partial, model, marks):
    """The marks of what a stopped run has encoded; what does not fit to this run is removed."""
    if not partial.is_dir():
        return set()
    try:
        done = set(Gallery.load(partial, expect_model=model.fingerprint).items) & set(marks)
        if done:
            return done
    except ValueError:  # damaged, or of another model
        pass
    shutil.rmtree(partial)
    return set()


def _add(gallery, folder, append=True):
    if append and (folder / NAME).is_file():
        gallery.append(folder)
    else:
        gallery.save(folder)


def _finished(partial, marks, source):
    """The gallery of a run that came to its end: in one shard, its items the paths of the marks.

    A file that has changed since a part of it was encoded has another mark, and its old tokens are
    left out. The order is that of the marks.
    """
    new = Gallery.load(partial)
    rows, counts, place = new.stored.rows, new.offsets.diff(), dict(zip(new.items, range(len(new))))
    order = torch.tensor([place[mark] for mark in marks if mark in place], dtype=torch.long)
    numbers = np.concatenate(rows.arrays)
    scales = None if rows.scales[0] is None else np.concatenate(rows.scales)
    if len(order) < len(new) or not (order.diff() > 0).all():
        spans = zip(new.offsets[order].tolist(), new.offsets[order + 1].tolist())
        take = np.concatenate([np.arange(*span) for span in spans])
        numbers, scales = numbers[take], None if scales is None else scales[take]
    paths = [json.loads(new.items[row])[0] for row in order.tolist()]
    stored = RaggedRows.of(MappedRows([numbers], [scales]), counts[order])
    tokens = new.global_tokens[order]
    return replace(new, global_tokens=tokens, stored=stored, items=paths, source=source)
