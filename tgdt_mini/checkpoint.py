"""Models and runs on disk: safetensors for numbers, JSON for the rest, nothing that is unpickled.

A folder holds model.safetensors, config.json and tokenizer.json; a run's folder adds
state.safetensors and state.json. Each file's SHA-256 is kept in config.json or state.json, so a
truncated or mixed-up checkpoint is refused by name. Loading is strict: a weight too many, too few
or of another shape is an error.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

from tgdt_mini.config import TGDTConfig, pick_device
from tgdt_mini.files.check import typed
from tgdt_mini.files.manifest import read_json, read_whole, write_sealed
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.model import TGDT
from tgdt_mini.text_tokens import TextTokenizer

CURE = "name a folder that holds a model, or a shipped one: scenes, photographs"
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "gallery", "encoders"}


@typed
def save_model(
    model: TGDT,
    folder: Path | str,
    tokenizer: TextTokenizer | None = None,
    notes: dict | None = None,
    dtype: torch.dtype | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write a model, its tokenizer and notes (any JSON values) to a folder, whole or not at all.

    dtype: of the weights on disk; None: as they are. also(folder) writes more before it appears.
    ValueError for a folder that holds other files.
    """
    with whole_folder(Path(folder), marker="config.json", ours=MODEL_FILES) as staging:
        _write_model(staging, model, tokenizer, notes, dtype)
        if also is not None:
            also(staging)


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> TGDT:
    """The model of a folder, in eval mode. ValueError names a file that is missing or damaged.

    Its tokenizer, if one was saved, is model.tokenizer; the notes are model.notes.
    """
    return read_whole(folder, "config.json", _load_model).to(pick_device(device)).eval()


def _load_model(folder):
    from safetensors.torch import load_file

    saved = _read(folder / "config.json", model=dict, notes=dict)
    try:
        model = TGDT(TGDTConfig.from_dict(saved["model"]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / 'config.json'} describes no model: {error}") from error
    with _fitting(weights := folder / "model.safetensors", saved):
        model.load_state_dict(load_file(weights), strict=True)
    model.notes, words = saved["notes"], folder / "tokenizer.json"
    if words.exists() or words.name in saved["sha256"]:
        with _fitting(words, saved):
            text = words.read_text(encoding="utf-8")
            model.tokenizer = TextTokenizer.from_json(text, model.config.most_tokens)
    model.fingerprint = fingerprint(model)
    return model


@typed
def fingerprint(model: torch.nn.Module, settings: str | None = None) -> str:
    """Sixteen hex digits that change with a module's weights and settings: a gallery keeps them.

    settings: by default a TGDT's configuration and its tokenizer.
    """
    if settings is None:
        tokenizer = getattr(model, "tokenizer", None)
        settings = json.dumps([model.config.to_dict(), tokenizer and tokenizer.to_json()])
    digest = hashlib.sha256(settings.encode("utf-8"))  # other heads, other embeddings
    for name, tensor in sorted(model.state_dict().items()):  # in one order everywhere
        digest.update(name.encode("utf-8"))
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def random_state(device: torch.device | str) -> dict[str, torch.Tensor]:
    """The state of the generators that a model on `device` draws from: uint8 tensors by name."""
    state = {"random": torch.get_rng_state()}  # dropout on the CPU
    if torch.device(device).type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device | str) -> None:
    """Put back what `random_state` returned; a generator that is not in it is left alone."""
    if "random" in state:
        torch.set_rng_state(state["random"])
    if torch.device(device).type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], device)


def save_state(folder: Path, model, tokenizer, optimizer, scaler, progress: dict, states=None):
    """Write a run to go on with later: model, optimizer, progress (JSON values), random states.

    states: `random_state` of each process of the run, by rank; None: there is this one only.
    """
    from safetensors.torch import save  # `save_file` lets no other user read it

    states = states or [random_state(next(model.parameters()).device)]
    tensors: dict[str, torch.Tensor] = {}
    for rank, state in enumerate(states):
        tensors |= {f"{name}{rank_suffix(rank)}": value for name, value in state.items()}
    for index, moments in optimizer.state_dict()["state"].items():  # running means of gradients
        tensors |= {f"optimizer.{index}.{name}": t.contiguous() for name, t in moments.items()}
    with whole_folder(folder, marker="state.json") as staging:
        _write_model(staging, model, tokenizer, None)
        path = staging / "state.safetensors"
        path.write_bytes(save(tensors))
        state = {"progress": progress, "scaler": scaler.state_dict()}
        write_sealed(staging / "state.json", state | {"sha256": {path.name: _sha(path)}})


def load_state(folder: Path, model, optimizer, scaler, rank: int = 0) -> dict:
    """Put a run's model, optimizer and random state back; returns its progress.

    ValueError as in `load_model`. A process (of number `rank`) that had no part in the run finds no
    random state of its own: it keeps its present one.
    """
    parts = (model, optimizer, scaler, rank)
    return read_whole(folder, "config.json", lambda folder: _load_state(folder, *parts))


def _load_state(folder, model, optimizer, scaler, rank):
    from safetensors.torch import load_file

    config = _read(folder / "config.json", model=dict)
    saved = _read(folder / "state.json", progress=dict, scaler=dict)
    with _fitting(weights := folder / "model.safetensors", config):
        model.load_state_dict(load_file(weights), strict=True)
    before = _settings(TGDTConfig.from_dict(config["model"], f"{folder / 'config.json'}: "))
    for name, value in _settings(model.config).items():
        if before.get(name) != value:  # such as another encoder, with features as wide
            raise ValueError(f"{folder} is of a model with another {name}; use another folder")
    with _fitting(folder / "state.safetensors", saved):
        tensors = load_file(folder / "state.safetensors")
        moments = {}  # {number of the parameter: {name: tensor}}, as torch keeps them
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]  # rates are those of this run
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        names = {name: name + rank_suffix(rank) for name in ("random", "random_cuda")}
        state = {name: tensors[stored] for name, stored in names.items() if stored in tensors}
        set_random_state(state, next(model.parameters()).device)
    if saved["scaler"]:  # empty after a run that scaled nothing: float16 then starts again
        scaler.load_state_dict(saved["scaler"])
    return saved["progress"]


def rank_suffix(rank: int) -> str:
    """What the names of a process's random states end with; nothing in the first process."""
    return f".{rank}" if rank else ""


def _settings(config):
    """All settings of a model, those of its readers among them, by name."""
    settings = config.to_dict()
    return settings | (settings.pop("reader_settings") or {})


def _write_model(folder, model, tokenizer, notes, dtype=None):
    from safetensors.torch import save

    state = model.state_dict().items()
    weights = {name: t.detach().cpu().to(dtype or t.dtype).contiguous() for name, t in state}
    (folder / "model.safetensors").write_bytes(save(weights))
    if tokenizer is not None:
        path = folder / "tokenizer.json"
        path.write_text(tokenizer.to_json(), encoding="utf-8", newline="\n")
    shas = {path.name: _sha(path) for path in sorted(folder.iterdir())}  # of all but config.json
    content = {"model": model.config.to_dict(), "notes": notes or {}, "sha256": shas}
    write_sealed(folder / "config.json", content)


@contextmanager
def _fitting(path, saved):
    """ValueError, by name, unless a file has its checksum, and all goes well inside the block."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; train a model or name another folder")
    if saved["sha256"].get(path.name) != _sha(path):
        raise ValueError(f"{path} is damaged or from another model: its SHA-256 differs")
    try:
        yield
    except Exception as error:  # each library has its own kind
        why = " ".join(str(error).split())[:300]  # torch names every weight, on many lines
        raise ValueError(f"{path} does not fit this model: {why}") from error


def _sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path, **keys):
    return read_json(path, keys | {"sha256": dict}, "checkpoint", CURE)
