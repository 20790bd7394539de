"""Models and runs on disk: safetensors for numbers, JSON for everything else, nothing that is
unpickled.

A folder holds model.safetensors, config.json and tokenizer.json; a run's folder adds
state.safetensors and state.json. Each file's SHA-256 is kept in config.json or state.json, so a
truncated or mixed-up checkpoint is refused by name.
Loading is strict: a weight too many, too few or of another shape is an error.
"""

import hashlib
import json
from pathlib import Path

import torch

from tgdt_mini.config import TGDTConfig
from tgdt_mini.files.manifest import read_whole
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.model import TGDT
from tgdt_mini.text_tokens import TextTokenizer


def save_model(
    model: TGDT,
    folder: Path | str,
    tokenizer: TextTokenizer | None = None,
    notes: dict | None = None,
):
    """Write a model, its tokenizer and notes (any JSON values, such as figures) to a folder, whole
    or not at all.
    """
    with whole_folder(Path(folder), marker="config.json") as beside:
        _write_model(beside, model, tokenizer, notes)


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> TGDT:
    """The model of a folder, in eval mode. ValueError for a missing, corrupt or unfitting file, by
    name.

    Its tokenizer, if one was saved, is model.tokenizer; the notes are model.notes.
    """
    return read_whole(folder, "config.json", _load_model).to(device).eval()


def _load_model(folder):
    about = _read_json(folder / "config.json")
    try:
        model = TGDT(TGDTConfig.from_dict(about["model"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a model ({error!r})"
        ) from error
    _load_weights(model, folder / "model.safetensors", about)
    model.notes, model.tokenizer, model.fingerprint = (
        about.get("notes", {}),
        None,
        fingerprint(model),
    )
    if (folder / "tokenizer.json").exists() or "tokenizer.json" in about.get("sha256", {}):
        _check(folder / "tokenizer.json", about)
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        model.tokenizer = TextTokenizer.from_json(text, model.config.most_tokens)
    return model


def fingerprint(model: TGDT) -> str:
    """Sixteen hex digits that change when any weight does: what a gallery remembers of the model
    that made it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def random_state(device: torch.device | str) -> dict[str, torch.Tensor]:
    """The state of the random generators that a model on `device` draws from, uint8 tensors by
    name.
    """
    state = {"random": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device | str) -> None:
    """Put back what `random_state` returned. A generator that it does not tell of is left alone."""
    if "random" in state:
        torch.set_rng_state(state["random"])
    if torch.device(device).type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], device)


def save_state(
    folder: Path,
    model,
    tokenizer,
    optimizer,
    scaler,
    place: dict,
    randoms: list[dict] | None = None,
):
    """Write a run, to go on with later: model, optimizer, `place` (JSON values) and random states.

    randoms: `random_state` of each process of the run; None: there is this one only.
    """
    from safetensors.torch import save_file

    randoms = randoms or [random_state(next(model.parameters()).device)]
    tensors = {
        f"{name}{_of(rank)}": value
        for rank, state in enumerate(randoms)
        for name, value in state.items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": value.contiguous() for name, value in state.items()
        }
    with whole_folder(folder, marker="state.json") as beside:
        _write_model(beside, model, tokenizer, None)
        save_file(tensors, beside / "state.safetensors")
        shas = {"state.safetensors": _sha(beside / "state.safetensors")}
        _write_json(
            beside / "state.json", {"place": place, "scaler": scaler.state_dict(), "sha256": shas}
        )


def load_state(folder: Path, model, optimizer, scaler, rank: int = 0) -> dict:
    """Put a run's model, optimizer and random state back; returns its `place`. ValueError as in
    `load_model`.

    A process (of number `rank`) that had no part in the run finds no random state of its own: it
    keeps its present one.
    """
    return read_whole(
        folder, "config.json", lambda path: _load_state(path, model, optimizer, scaler, rank)
    )


def _load_state(folder, model, optimizer, scaler, rank):
    from safetensors.torch import load_file

    config, about = _read_json(folder / "config.json"), _read_json(folder / "state.json")
    _load_weights(model, folder / "model.safetensors", config)
    before = TGDTConfig.from_dict(config["model"])
    changed = [name for name, value in vars(model.config).items() if getattr(before, name) != value]
    if changed:  # such as another encoder, whose features have the same width
        raise ValueError(
            f"{folder} is of a model with another {changed[0]}; use the same, or another folder"
        )
    _check(folder / "state.safetensors", about)
    tensors = load_file(folder / "state.safetensors")
    state = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    if about[
        "scaler"
    ]:  # empty in a run that scaled nothing, such as one begun on a CPU: float16 begins afresh
        scaler.load_state_dict(about["scaler"])
    own = {
        name: tensors[name + _of(rank)]
        for name in ("random", "random_cuda")
        if name + _of(rank) in tensors
    }
    set_random_state(own, next(model.parameters()).device)
    return about["place"]


def _of(rank):
    return f".{rank}" if rank else ""


def _write_model(beside, model, tokenizer, notes):
    from safetensors.torch import save_file

    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    save_file(weights, beside / "model.safetensors")
    if tokenizer is not None:
        (beside / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8", newline="\n")
    shas = {path.name: _sha(path) for path in sorted(beside.iterdir())}
    _write_json(
        beside / "config.json",
        {"model": model.config.to_dict(), "notes": notes or {}, "sha256": shas},
    )


def _load_weights(model, path, about):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check(path, about)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit this model: {' '.join(str(error).split())[:300]}"
        ) from error


def _check(path, about):
    if not path.is_file():
        raise ValueError(f"{path} is missing; train a model or name another folder")
    if about.get("sha256", {}).get(path.name) != _sha(path):
        raise ValueError(
            f"{path} is damaged or from another model: its SHA-256 is not the one noted beside it"
        )


def _sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path, values):
    path.write_text(
        json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; name a folder that holds a model") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
