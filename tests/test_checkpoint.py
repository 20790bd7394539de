"""Models on disk: the same after loading, and by name what is missing, damaged or another's."""

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import safetensors.torch
import torch
from examples import json_values, on_disk, seeds
from helpers import refusal, tiny_config, tiny_model, token_set, tokenizer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tgdt_mini
from tgdt_mini import TGDT, checkpoint
from tgdt_mini.checkpoint import fingerprint, load_model, save_model
from tgdt_mini.encoding import encode
from tgdt_mini.files.manifest import write_sealed


@pytest.fixture
def saved(tmp_path):
    model = tiny_model()
    save_model(model, tmp_path / "model", tokenizer(), {"seed": 3, "figures": [1.5, None]})
    return model, tmp_path / "model"


def weights_of(model):
    """The fingerprint of the weights alone: a tokenizer may be there or not."""
    return fingerprint(model, settings="")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder, name, content):
    """Another file in a model's folder, with its checksum: a wrong model, not a damaged one."""
    (folder / name).write_bytes(content)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    about["sha256"][name] = checkpoint._sha(folder / name)
    write_sealed(folder / "config.json", about)


def test_a_loaded_model_is_the_saved_one(saved):
    model, folder = saved
    again = load_model(folder)
    assert again.config == model.config and not again.training
    assert again.notes == {"seed": 3, "figures": [1.5, None]}
    known, found = model.state_dict(), again.state_dict()
    assert list(known) == list(found)
    assert all(torch.equal(part, found[name]) for name, part in known.items())
    assert again.tokenizer.to_json() == tokenizer().to_json()
    assert again.tokenizer.most_tokens == model.config.most_tokens
    for one, other in zip(encode(model, token_set()), encode(again, token_set())):
        assert torch.equal(one.global_token, other.global_token)
        assert torch.equal(one.local_tokens, other.local_tokens)


@on_disk
@given(
    seed=seeds,
    widths=st.tuples(st.sampled_from([4, 8, 12]), st.integers(0, 2), st.integers(0, 2)),
    notes=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    progress=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)
def test_any_model_and_any_notes_and_any_place_in_a_run_come_back(seed, widths, notes, progress):
    width, layers, global_layers = widths
    sizes = {"width": width, "text_layers": layers, "global_layers": global_layers}
    model = tiny_model(seed, **sizes)
    optimizer, scaler = run_state(model)
    with TemporaryDirectory() as name:
        save_model(model, Path(name, "model"), tokenizer(), notes)
        again = load_model(Path(name, "model"))
        torch.manual_seed(seed)
        checkpoint.save_state(Path(name, "last"), model, None, optimizer, scaler, progress)
        known, resumed = torch.rand(4), tiny_model(seed + 1, **sizes)
        fresh = torch.optim.AdamW(resumed.parameters(), lr=1e-3)
        assert checkpoint.load_state(Path(name, "last"), resumed, fresh, scaler) == progress
    assert torch.equal(torch.rand(4), known)
    assert again.notes == notes and again.config == model.config
    assert fingerprint(again, "") == fingerprint(resumed, "") == fingerprint(model, "")
    moments = [optim.state_dict()["state"] for optim in (optimizer, fresh)]
    assert set(moments[0]) == set(moments[1])
    assert all(
        torch.equal(value, moments[1][index][part])
        for index, state in moments[0].items()
        for part, value in state.items()
    )


def test_a_model_without_tokenizer_and_notes_is_saved_too(tmp_path):
    save_model(tiny_model(), str(tmp_path / "deep" / "model"))
    again = load_model(str(tmp_path / "deep" / "model"))
    assert again.tokenizer is None and again.notes == {}


def test_a_folder_holds_safetensors_and_json_only(saved):
    assert set(contents(saved[1])) == {"model.safetensors", "config.json", "tokenizer.json"}
    config = json.loads((saved[1] / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == saved[0].config.to_dict()


def test_saving_again_replaces_the_old_model(saved):
    other = tiny_model(seed=1)
    save_model(other, saved[1])
    assert load_model(saved[1]).tokenizer is None
    assert fingerprint(load_model(saved[1])) == fingerprint(other) != fingerprint(saved[0])
    assert [path.name for path in saved[1].parent.iterdir()] == ["model"]


def test_the_fingerprint_changes_with_any_weight(saved):
    model, folder = saved
    model.tokenizer = load_model(folder).tokenizer
    assert load_model(folder).fingerprint == fingerprint(model) != fingerprint(tiny_model())
    model.tokenizer = None
    assert fingerprint(model) == fingerprint(tiny_model())
    for name, part in model.state_dict().items():
        before = fingerprint(model)
        part.view(-1)[0] += 1e-3
        assert fingerprint(model) != before, name


@pytest.mark.parametrize("change", [{"heads": 4}, {"global_residual": 0.5}])
def test_the_fingerprint_changes_with_settings_that_no_weight_shows(saved, change):
    other = TGDT(replace(saved[0].config, **change))
    other.load_state_dict(saved[0].state_dict())
    assert fingerprint(other) != fingerprint(saved[0])


def test_no_value_of_a_config_can_change_in_silence(saved):
    path = saved[1] / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for part, name, value in (
        ("model", "heads", 4),
        ("model", "global_residual", float("nan")),
        ("notes", "rsum", 600),
        ("sha256", "tokenizer.json", "0"),
    ):
        changed = content | {part: content[part] | {name: value}}
        path.write_text(json.dumps(changed), encoding="utf-8")
        with refusal(r"config\.json is damaged: its seal"):
            load_model(saved[1])


WORDS = "text_reader.word_embedding.weight"


@pytest.mark.parametrize(
    "change, name",
    [
        (lambda weights: weights.pop(WORDS), WORDS),
        (lambda weights: weights.update({"another.weight": torch.zeros(2)}), "another.weight"),
        (lambda weights: weights.update({WORDS: weights[WORDS][:-1].contiguous()}), WORDS),
    ],
)
def test_a_weight_missing_too_many_or_of_another_shape_is_named(saved, change, name):
    weights = load_file(saved[1] / "model.safetensors")
    change(weights)
    rewrite(saved[1], "model.safetensors", safetensors.torch.save(weights))
    with refusal(rf"model\.safetensors does not fit this model: .*{re.escape(name)}"):
        load_model(saved[1])


def test_weights_that_are_no_safetensors_are_an_error_even_if_their_checksum_is_right(saved):
    rewrite(saved[1], "model.safetensors", b"not weights")
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit this model"):
        load_model(saved[1])


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "one byte"])
def test_a_damaged_file_is_named(saved, name, damage):
    path = saved[1] / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "one byte":
        content[len(content) // 2 if name != "config.json" else 0] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    with refusal(rf"{re.escape(name)}.* (is missing|is damaged)"):
        load_model(saved[1])


def test_weights_of_another_model_in_the_folder_are_refused(saved, tmp_path):
    save_model(tiny_model(seed=1), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(saved[1] / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or from another model"):
        load_model(saved[1])


def test_no_folder_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.config\.json is missing; name a folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "about, message",
    [
        ({"model": tiny_config().to_dict() | {"widht": 3}}, "unknown model setting 'widht'"),
        ({"model": tiny_config().to_dict() | {"width": 33}}, "width is 33"),
        ({"model": tiny_config().to_dict() | {"width": "wide"}}, "config.json"),
        ({"notes": {}}, r"config\.json.*name a folder that holds a model"),
        ([1, 2], r"config\.json.*name a folder that holds a model"),
        ({"model": None}, r"config\.json.*name a folder that holds a model"),
    ],
)
def test_a_config_that_describes_no_model_is_an_error(saved, about, message):
    if isinstance(about, dict):
        write_sealed(saved[1] / "config.json", {"notes": {}, "sha256": {}} | about)
    else:
        (saved[1] / "config.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_model(saved[1])


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["save", "write_sealed", "rename"])
@pytest.mark.parametrize("trouble, error", [(full_disk, OSError), (interrupted, KeyboardInterrupt)])
def test_a_save_that_fails_leaves_the_old_model_whole(saved, where, trouble, error, monkeypatch):
    before = contents(saved[1])
    if where == "save":
        monkeypatch.setattr(safetensors.torch, "save", trouble)
    elif where == "write_sealed":
        monkeypatch.setattr(checkpoint, "write_sealed", trouble)
    else:
        rename = Path.rename

        def second_fails(path, target):
            if Path(target) == saved[1] and not path.name.endswith(".tgdt-old"):
                trouble()
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(error):
        save_model(tiny_model(seed=1), saved[1], tokenizer())
    monkeypatch.undo()
    assert contents(saved[1]) == before
    assert weights_of(load_model(saved[1])) == weights_of(saved[0])
    assert [path.name for path in saved[1].parent.iterdir()] == ["model"]


def moved_aside(folder):
    """As a process leaves it that is killed between moving the old files and the new ones."""
    folder.rename(folder.with_name(f".{folder.name}.tgdt-old"))


def test_a_model_and_a_run_are_found_again_after_the_process_was_killed_between_renames(
    saved, tmp_path
):
    moved_aside(saved[1])
    assert weights_of(load_model(saved[1])) == weights_of(saved[0])
    optimizer, scaler = run_state(saved[0])
    checkpoint.save_state(tmp_path / "last", saved[0], None, optimizer, scaler, {"step": 7})
    moved_aside(tmp_path / "last")
    assert checkpoint.load_state(tmp_path / "last", saved[0], optimizer, scaler) == {"step": 7}
    assert {path.name for path in tmp_path.iterdir()} == {".model.tgdt-old", ".last.tgdt-old"}


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write_sealed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny_model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_not_replaced(tmp_path):
    notes, thesis = tmp_path / "notes.txt", tmp_path / "thesis" / "chapter.txt"
    thesis.parent.mkdir()
    for path in (notes, thesis):
        path.write_text("mine", encoding="utf-8")
    for place in (notes, notes / "model", thesis.parent):
        name = "thesis" if place == thesis.parent else "notes.txt"
        with pytest.raises((ValueError, OSError), match=name):
            save_model(tiny_model(), place)
    assert [path.read_text(encoding="utf-8") for path in (notes, thesis)] == ["mine", "mine"]
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "empty").mkdir()
    save_model(tiny_model(), tmp_path / "empty")
    load_model(tmp_path / "empty")


def run_state(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(part.square().sum() for part in model.parameters()).backward()
    optimizer.step()
    return optimizer, torch.amp.GradScaler("cuda", enabled=False)


def test_a_run_on_disk_gives_back_optimizer_random_state_and_place(tmp_path):
    model = tiny_model()
    optimizer, scaler = run_state(model)
    torch.manual_seed(5)
    torch.rand(3)
    checkpoint.save_state(tmp_path / "last", model, tokenizer(), optimizer, scaler, {"step": 7})
    known = torch.rand(4)
    again = tiny_model(seed=9)
    fresh = torch.optim.AdamW(again.parameters(), lr=1e-3)
    assert checkpoint.load_state(tmp_path / "last", again, fresh, scaler) == {"step": 7}
    assert torch.equal(torch.rand(4), known) and fingerprint(again) == fingerprint(model)
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, fresh.state_dict()["state"][index][name])


def test_a_run_that_scaled_no_loss_goes_on_where_float16_has_to_and_the_other_way_round(tmp_path):
    model = tiny_model()
    optimizer, never = run_state(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    checkpoint.save_state(tmp_path / "plain", model, None, optimizer, never, {"step": 7})
    checkpoint.load_state(tmp_path / "plain", model, optimizer, scaler)
    assert scaler.get_scale() == 8
    checkpoint.save_state(tmp_path / "scaled", model, None, optimizer, scaler, {"step": 7})
    checkpoint.load_state(tmp_path / "scaled", model, optimizer, never)
    other = torch.amp.GradScaler("cpu")
    checkpoint.load_state(tmp_path / "scaled", model, optimizer, other)
    assert other.state_dict()["scale"] == 8


@pytest.mark.parametrize(
    "name", ["state.safetensors", "state.json", "model.safetensors", "config.json"]
)
def test_a_truncated_run_is_refused_by_name(tmp_path, name):
    model = tiny_model()
    optimizer, scaler = run_state(model)
    checkpoint.save_state(tmp_path / "last", model, None, optimizer, scaler, {"step": 7})
    path = tmp_path / "last" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{re.escape(name)}.* is damaged"):
        checkpoint.load_state(tmp_path / "last", model, optimizer, scaler)


def test_nothing_in_the_package_is_unpickled():
    unsafe = r"^\s*(import|from) (pickle|joblib|dill)|torch\.save\(|allow_pickle=True"
    unsafe += r"|torch\.load\((?!.*weights_only=True)"
    for path in Path(tgdt_mini.__file__).parent.rglob("*.py"):
        assert not re.search(unsafe, path.read_text(encoding="utf-8"), re.M), path


def test_weights_on_disk_are_float32_and_on_the_cpu(saved):
    weights = load_file(saved[1] / "model.safetensors")
    assert {(part.dtype, part.device.type) for part in weights.values()} == {(torch.float32, "cpu")}
