"""Whole commands that are killed, or asked to stop, and then given again.

Each command runs in a process of its own, over what an earlier one has left in the same place. It
is killed (SIGKILL) at a change of a file or at a random moment, or asked to stop (SIGTERM, SIGHUP)
at a random moment. Then nothing old may be lost, and the same command again must end as an
undisturbed one does. A small model, tiny data: a run takes a second or less.
"""

import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers import saved_encoders, some_scenes, tiny_model, tokenizer

from tests.faults import kills
from tests.faults.outcomes import RIGHT, Table
from tgdt_mini import cli, scenes
from tgdt_mini.checkpoint import load_model, save_model
from tgdt_mini.commands import common
from tgdt_mini.files.whole import standing
from tgdt_mini.photos import feature_folder
from tgdt_mini.runs import indexing
from tgdt_mini.scaling import qdrant
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.training import Trainer

COUNTS = {"train": 24, "validation": 12, "test": 8}
STOPPED = 130
TIMES = ("seconds", "milliseconds", "seal")  # and the checksum of these
STEPS_AN_EPOCH = COUNTS["train"] // 8
MOST = 2**31
# what the process of a command tells: steps of the optimizer, changes of files, whether it hears
_counts = memoryview(mmap.mmap(-1, 24)).cast("q")


@dataclass(frozen=True)
class Command:
    """What is run, before and now, and how its end is read.

    read(place): what it has made, None if it has not come to its end. keeps(place): whether what
    was there before still is. again: options of the same command, given again.
    """

    before: tuple
    now: tuple
    read: Callable
    keeps: Callable
    again: tuple = ()


def world(root: Path, only=None) -> dict[str, Command]:
    """{name: Command} of eight commands, or of some, on pictures and models in `root`."""
    pictures, entries = root / "pictures", []
    pictures.mkdir(parents=True)
    for split, count in COUNTS.items():
        for place, scene in enumerate(some_scenes(split, count)):
            name = f"{split}-{place:02d}.png"
            scene["image"].save(pictures / name)
            sentences = [{"raw": text} for text in scene["captions"]]
            mark = {"filename": name, "split": split.replace("validation", "val")}
            entries.append(mark | {"imgid": len(entries), "sentences": sentences})
    (root / "data.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    some = root / "some"
    some.mkdir()
    for path in sorted(pictures.iterdir())[:10]:
        shutil.copy2(path, some)
    save_model(tiny_model(), root / "model", tokenizer())
    extract = ("extract", "--data", root / "data.json", "--images", pictures)
    extract += ("--vision", root / "vision", "--text", root / "text")
    features, photos = root / "features", root / "photos"
    train = ("train", "--quick", "--batch", "8", "--seed")
    photo_train = ("train", "--features", features, "--batch", "8", "--epochs", "1")
    if not only or {"extract", "evaluate", "ablate"} & set(only):
        saved_encoders(root)
        for line in ((*extract, "--out", features), (*photo_train, "--out", photos)):
            assert run(line) == 0, line
    index, where = ("index", "--model", root / "model", "--images"), "{out}/vectors"
    upload = ("--qdrant", where, "--out", "{out}/gallery", "--collection")
    ablate = ("ablate", "--features", features, "--quick", "--batch", "6", "--variants")
    evaluate = ("evaluate", "--features", features, "--model", photos / "model", "--split")
    commands = {
        "train": Command((*train, "1"), (*train, "0"), _trained, _keeps_models, ("--resume",)),
        "extract": Command((*extract, "--splits", "test"), extract, _files, _keeps_split),
        "index": Command((*index, some), (*index, pictures), _gallery, _is_one_of(_gallery)),
        "index --append": Command(
            (*index, some), (*index, pictures, "--append"), _gallery, _is_one_of(_gallery)
        ),
        "index, drawn scenes": Command(
            ("index", "--model", root / "model", "--split", "validation"),
            ("index", "--model", root / "model"),
            _gallery,
            _is_one_of(_gallery),
        ),
        "index --qdrant": Command(
            (*index, some, *upload, "old"),
            (*index, pictures, *upload, "new"),
            _vectors,
            _keeps_vectors,
        ),
        "evaluate": Command(
            (*evaluate, "validation"), (*evaluate, "test"), _reports, _is_one_of(_reports)
        ),
        "ablate": Command(
            (*ablate, "default"),
            (*ablate, "default", "InfoNCE", "random start"),
            _reports,
            _has_its_report,
        ),
    }
    return {name: command for name, command in commands.items() if not only or name in only}


def run(line, out: Path | None = None, how=None, prepare=lambda: None) -> int | None:
    """The exit code of a command in a process of its own, after prepare(); None if it was killed.

    how: {"changes": N}, SIGKILL at the N-th change of a file; {"seconds": S, "signal": ...} a
    signal after a time. What it prints goes to a file beside `out`, which takes ASCII only.
    """
    _counts[0] = _counts[1] = _counts[2] = 0
    how, words = how or {}, [str(word).replace("{out}", str(out)) for word in line]
    if out is not None and "--out" not in words:
        words += ["--out", str(out)]
    said = os.open(f"{out}.said" if out else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    process = os.fork()
    if not process:
        code = 99
        try:
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = (open(n, "w", encoding="ascii", closefd=False) for n in (1, 2))
            _make_small()
            prepare()
            if "changes" in how:
                sys.addaudithook(kills._count)
                kills._left.append(how["changes"])
            code = cli.main([*words, "--quiet", "--device", "cpu"])
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            _counts[1] = MOST - kills._left.pop() if kills._left else 0
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(said)
    if "signal" in how:
        while not _counts[2]:
            time.sleep(0.001)
        time.sleep(how["seconds"])
        os.kill(process, how["signal"])
    status = os.waitpid(process, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def _make_small():
    """Few scenes, small shards, small groups; and each step of the optimizer is counted."""
    common.QUICK |= {"epochs": 2, "train": 24, "other": 8}
    feature_folder.CAPTION_SHARD, indexing.GROUP, qdrant.FLOATS = 20, 8, 2**12
    scenes.SPLITS["test"], scenes.SPLITS["validation"] = _FEW["test"], _FEW["validation"]
    step, check_out = Trainer._step, common.check_out

    def counted(trainer):
        step(trainer)
        _counts[0] = trainer.step

    def begun(out):  # signals are heard from here on
        _counts[2] = 1
        check_out(out)

    Trainer._step, common.check_out = counted, begun


_FEW = {split: (scenes.SPLITS[split][0], 40) for split in ("test", "validation")}


def kill_all(table: Table, root: Path, tries: int, seed: int = 0, only=None) -> None:
    """Disturb each command, or some of them, `tries` times in each of three ways."""
    draw = random.Random(seed)
    for name, command in world(root / "world", only).items():
        old = root / name / "old"
        old.parent.mkdir()
        assert run(command.before, old) == 0, _said(old)
        wanted, changes, took = _undisturbed(command, old)
        for kind in ("killed at a change of a file", "killed at random", "asked to stop"):
            for number in range(tries):
                moment = {"seconds": draw.uniform(0, 1.1 * took), "signal": signal.SIGKILL}
                if kind == "asked to stop":
                    moment["signal"] = draw.choice((signal.SIGTERM, signal.SIGHUP))
                elif kind != "killed at random":  # spread over all changes
                    moment = {"changes": 1 + int(changes * (number + draw.random()) / tries)}
                try:
                    ended = _disturbed(command, old, moment, wanted)
                except ValueError as error:  # nobody can read what is there
                    ended = f"{error}"
                table.add(f"a command {kind}", name, ended, str(moment))


def _undisturbed(command, old):
    """(what it makes, how many changes of files it takes, its seconds)."""
    out = _copy(old, "undisturbed")
    began = time.perf_counter()
    assert run(command.now, out, {"changes": MOST}) == 0, _said(out)
    return command.read(out), _counts[1], time.perf_counter() - began


def _copy(old, name):
    out = old.with_name(name)
    shutil.rmtree(out, ignore_errors=True)
    return shutil.copytree(old, out, symlinks=True)


def _disturbed(command, old, moment, wanted) -> str:
    """RIGHT, or what went wrong with a command that was disturbed, or with the same one again."""
    out = _copy(old, "disturbed")
    code = run(command.now, out, moment)
    asked, done = moment.get("signal") not in (None, signal.SIGKILL), _counts[0]
    if code not in (0, STOPPED if asked else None):
        return f"it ended with {code}: {_said(out)}"
    if not command.keeps(out, old):
        return "what was there before is lost"
    kept = _kept_steps(out)
    if command.again and done - kept > (0 if asked else STEPS_AN_EPOCH):
        return f"{done} steps were made, and {kept} are kept"
    resumed = command.again if kept else ()
    if run((*command.now, *resumed), out) != 0:  # of an earlier run perhaps, so without --resume
        if not resumed or run(command.now, out) != 0:
            return f"it does not go on: {_said(out)}"
    if not command.keeps(out, old):
        return "what was there before is lost afterwards"
    if command.read(out) != wanted:
        return "it ends with something else"
    left = [path.name for path in out.rglob(".*") if not path.name.startswith(".lock")]
    return f"left behind: {sorted(left)[:3]}" if left else RIGHT


def _kept_steps(out):
    """How many steps the run knows that `train --resume` would go on with."""
    path = standing(out / "last") / "state.json"
    if not path.is_file():
        return 0
    return json.loads(path.read_text(encoding="utf-8"))["progress"]["step"]


def _said(out):
    path = Path(f"{out}.said")
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " | ".join(lines[-3:])[-300:]


# what the commands have made, and whether the old is there


def _trained(out):
    model = load_model(out / "model")
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in model.notes["history"]]
    return model.fingerprint, {**model.notes, "seconds": 0, "history": history}


def _fingerprint(folder):
    try:
        return load_model(folder).fingerprint
    except ValueError:
        return None


def _keeps_models(out, old):
    """Whether the old model is there, under its name or put aside."""
    known = _fingerprint(old / "model")
    places = [out / "model", *out.glob("earlier-*/model")]
    return known in [_fingerprint(place) for place in places]


def _files(out):
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def _keeps_split(out, old):
    """Whether the split is there; where it came from may be told anew."""
    try:
        tokens = [feature_folder.open_features(place, "test", True)[1] for place in (out, old)]
    except ValueError:
        return False
    parts = (each.text[torch.arange(len(each.captions))].features for each in tokens)
    return tokens[0].captions == tokens[1].captions and torch.equal(*parts)


def _gallery(out):
    gallery = Gallery.load(out, check_all=True)
    parts = gallery.items, gallery.offsets.tolist(), gallery.local_tokens.tolist()
    return *parts, gallery.global_tokens.tolist(), gallery.model, gallery.settings


def _is_one_of(read):
    """Whether the old is there, or the new is already."""

    def keeps(out, old):
        return read(out) in (read(old), read(old.with_name("undisturbed")))

    return keeps


def _vectors(out):
    return _gallery(out / "gallery"), _points(out, "new")


def _points(out, collection):
    remote = qdrant.QdrantGallery.open(str(out / "vectors"), collection)
    stored = remote.engine.stored(list(range(len(remote))))
    remote.close()
    return sorted((number, item, *map(float, token)) for number, (item, token) in stored.items())


def _keeps_vectors(out, old):
    gallery = _is_one_of(lambda place: _gallery(place / "gallery"))
    return gallery(out, old) and _points(out, "old") == _points(old, "old")


def _reports(out):
    """The reports in a folder, without the times that they tell."""
    found = {path.name: json.loads(path.read_text("utf-8")) for path in out.glob("*.json")}
    return {name: _timeless(report) for name, report in found.items()}


def _timeless(value):
    if not isinstance(value, dict):
        return value
    return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}


def _has_its_report(out, old):
    name = "default-0.json"
    return (out / name).read_bytes() == (old / name).read_bytes()
