"""The training loop: it learns, repeats itself bit for bit, goes on, and tells of a collapse."""

import dataclasses
import math
import os
import signal
import threading
from contextlib import nullcontext

import pytest
import torch
from helpers import some_scenes, tiny_model, token_set, tokenizer
from torch._inductor import config as compiler_settings
from torch.utils._python_dispatch import TorchDispatchMode

from tgdt_mini import training, training_config
from tgdt_mini.batches import COMPILING, Batches
from tgdt_mini.checkpoint import load_model
from tgdt_mini.config import pick_device
from tgdt_mini.encoding import validate
from tgdt_mini.losses import cmc_loss
from tgdt_mini.runs.fit import augmentation, interrupt_later
from tgdt_mini.scaling.distributed import Processes
from tgdt_mini.scenes.tokens import build_token_set, with_hard_captions
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import LARGE, LIMITS, TrainingConfig, precision_of


def far_apart(model):
    """The same model with images and captions so unlike that the consistency term is above 0."""
    with torch.no_grad():
        model.text_branch.project.weight.mul_(0)
        model.text_branch.project.bias.fill_(1)
        model.image_branch.project.weight.mul_(20)
    return model


QUICK = {"epochs": 3, "batch": 8, "learning_rate": 1e-3}  # of 24 images: 3 steps an epoch


def trainer_of(out, model=None, train=None, validation=None, dropout=0.0, **settings):
    model, config = model or tiny_model(dropout=dropout), TrainingConfig(**(QUICK | settings))
    train, validation = train or token_set("train", 24), validation or token_set("validation", 12)
    parts = dict(engine=Processes(config.chunk), augment=augmentation(config))
    return Trainer(model, train, validation, config, out, "cpu", tokenizer(), False, **parts)


def run_until_told(trainer):
    """A run as `fit` has it: the first Ctrl-C ends the step."""
    with interrupt_later() as interrupts:
        trainer.stop = lambda: bool(interrupts)
        trainer.run()


def result(trainer):
    """Everything that a run leaves, but the time it took."""
    history = [row | {"seconds": 0} for row in trainer.history]
    states = trainer.optimizer.state_dict()["state"]
    moments = [state[name].clone() for _, state in sorted(states.items()) for name in sorted(state)]
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}, moments, history


def assert_same_result(one, other):
    assert all(torch.equal(part, other[0][name]) for name, part in one[0].items())
    assert all(torch.equal(*pair) for pair in zip(one[1], other[1], strict=True))
    assert one[2] == other[2]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    trainer = trainer_of(tmp_path_factory.mktemp("run"), dropout=0.2)
    trainer.run()
    return result(trainer)


def go_on(out, never_stopped, at):
    """Another process, whose weights and random state differ, goes on to the same result."""
    torch.manual_seed(12345)
    again = trainer_of(out, model=tiny_model(seed=7, dropout=0.2)).resume()
    assert again.step == at
    again.run()
    assert_same_result(result(again), never_stopped)


def interrupt(trainer, when, monkeypatch):
    """Ctrl-C while pictures are encoded and when() is true; the trainer stops if told."""
    encode_images = trainer.model.encode_images

    def interrupted(*args, **options):
        if when():
            os.kill(os.getpid(), signal.SIGINT)
        return encode_images(*args, **options)

    monkeypatch.setattr(trainer.model, "encode_images", interrupted)
    before = signal.getsignal(signal.SIGINT)
    run_until_told(trainer)
    assert signal.getsignal(signal.SIGINT) is before and trainer.stopped


def test_progress_is_kept_within_an_epoch_too(never_stopped, tmp_path, monkeypatch):
    """Every few minutes: a killed run loses no more, and goes on to the same result."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)  # whenever it may
    trainer = trainer_of(tmp_path, dropout=0.2)
    trainer.run(max_steps=3)  # of 3 an epoch
    take_step = trainer._step

    def killed():
        if trainer.step == 5:
            raise KeyboardInterrupt
        take_step()

    monkeypatch.setattr(trainer, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    go_on(tmp_path, never_stopped, 4)


def with_hard():
    return with_hard_captions(token_set("train", 24), tokenizer(), lexicon())


def tokens_of(records, captions):
    """The same pictures with other captions."""
    records = records.remove_columns("captions").add_column("captions", captions)
    return build_token_set(records, tokenizer())


def pairs(count):
    """Images with one caption each."""
    records = some_scenes("train", count)
    return tokens_of(records, [own[:1] for own in records["captions"]])


def test_a_tiny_model_learns_32_pairs_by_heart(tmp_path):
    few = pairs(32)
    settings = {"epochs": 60, "batch": 32, "learning_rate": 3e-3, "weight_decay": 0.0}
    settings |= {"contrastive": "curriculum", "warm_negatives": 0.7}
    trainer = trainer_of(tmp_path, train=few, validation=few, **settings)
    trainer.run()
    assert set(validate(trainer.model, few, 1.0).values()) == {600.0}
    assert validate(load_model(tmp_path / "best"), few, 1.0)["rsum_mixed"] == 600
    assert trainer.history[-1]["loss"] < 0.1 * trainer.history[0]["loss"]
    assert not any(row["warning"] for row in trainer.history)


def test_the_same_seed_gives_the_same_result_bit_for_bit_and_another_seed_another(
    tmp_path, never_stopped
):
    again = trainer_of(tmp_path / "again", dropout=0.2)
    torch.manual_seed(99)  # whatever was drawn before the run does not matter
    again.run()
    assert_same_result(result(again), never_stopped)
    other = trainer_of(tmp_path / "other", dropout=0.2, seed=1)
    other.run()
    name = "image_branch.project.weight"
    assert not torch.equal(result(other)[0][name], never_stopped[0][name])


@pytest.mark.parametrize("steps", [1, 3, 4, 8, 9])
def test_a_run_stopped_at_any_step_goes_on_as_if_never_stopped(tmp_path, never_stopped, steps):
    trainer_of(tmp_path, dropout=0.2).run(max_steps=steps)
    go_on(tmp_path, never_stopped, steps)


def test_a_run_may_stop_at_every_step(tmp_path, never_stopped):
    trainer = trainer_of(tmp_path, dropout=0.2)
    for _ in range(9):
        trainer.run(max_steps=1)
        trainer = trainer_of(tmp_path, model=tiny_model(seed=7, dropout=0.2)).resume()
    assert_same_result(result(trainer), never_stopped)


@pytest.mark.parametrize("settings", [{"schedule": "staged"}, {"optimizer": "muon"}])
def test_other_recipes_go_on_as_if_never_stopped(tmp_path, settings):
    settings = settings | {"dropout": 0.2}
    whole = trainer_of(tmp_path / "whole", **settings)
    whole.run()
    trainer_of(tmp_path / "parts", **settings).run(max_steps=7)
    again = trainer_of(tmp_path / "parts", **settings).resume()
    again.run()
    assert_same_result(result(again), result(whole))


@pytest.mark.parametrize("at", [2, 3, 5])
def test_ctrl_c_in_a_step_ends_the_step_keeps_the_place_and_can_be_gone_on_from(
    tmp_path, never_stopped, at, monkeypatch
):
    trainer = trainer_of(tmp_path, dropout=0.2)
    interrupt(trainer, lambda: trainer.step == at - 1 and trainer.model.training, monkeypatch)
    assert trainer.step == at
    go_on(tmp_path, never_stopped, at)


def test_ctrl_c_while_an_epoch_is_validated_loses_nothing(tmp_path, never_stopped, monkeypatch):
    trainer, asked = trainer_of(tmp_path, dropout=0.2), []

    def validating():
        if trainer.model.training or asked:
            return False
        asked.append(trainer.step)
        return True

    interrupt(trainer, validating, monkeypatch)
    assert asked == [3] and len(trainer.history) == 1
    go_on(tmp_path, never_stopped, 3)


def test_an_interrupt_in_the_middle_of_a_step_leaves_the_last_whole_epoch(
    tmp_path, never_stopped, monkeypatch
):
    trainer = trainer_of(tmp_path, dropout=0.2)
    step = trainer.optimizer.step

    def interrupted(*args, **options):
        if trainer.step == 4:
            with torch.no_grad():
                trainer.model.text_reader.word_embedding.weight.add_(1)  # half a step
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(trainer.optimizer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    go_on(tmp_path, never_stopped, 3)


def test_a_run_works_outside_the_main_thread(tmp_path, never_stopped):
    trainer = trainer_of(tmp_path, dropout=0.2)
    thread = threading.Thread(target=run_until_told, args=(trainer,))
    thread.start()
    thread.join()
    assert_same_result(result(trainer), never_stopped)


def test_a_full_disk_stops_the_run_and_leaves_the_last_place(tmp_path, monkeypatch):
    from tgdt_mini import checkpoint

    trainer = trainer_of(tmp_path)
    trainer.run(max_steps=3)
    place = result(trainer)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_sealed", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    monkeypatch.undo()
    again = trainer_of(tmp_path).resume()
    assert again.step == 3
    assert_same_result(result(again), place)
    assert {folder.name for folder in tmp_path.iterdir()} == {"last", "best"}


@pytest.mark.parametrize(
    "change", [{"learning_rate": 2e-3}, {"seed": 1}, {"epochs": 4}, {"use_intra": False}]
)
def test_going_on_with_other_settings_is_an_error_that_names_the_setting(tmp_path, change):
    trainer_of(tmp_path).run(max_steps=1)
    with pytest.raises(ValueError, match=f"last: {next(iter(change))} was .*, now "):
        trainer_of(tmp_path, **change).resume()


def test_going_on_with_another_model_or_without_a_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"last.config\.json is missing"):
        trainer_of(tmp_path).resume()
    trainer_of(tmp_path).run(max_steps=1)
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit this model"):
        trainer_of(tmp_path, model=tiny_model(width=16)).resume()


def test_the_best_model_by_validation_rsum_is_kept(tmp_path):
    trainer = trainer_of(tmp_path, epochs=6, learning_rate=5e-3)
    history = trainer.run()
    rsums = [row["rsum_mixed"] for row in history]
    best, most = load_model(tmp_path / "best"), max(rsums)
    assert best.notes == {"epoch": rsums.index(most) + 1, "rsum": most} and trainer.best == most
    found = validate(best, token_set("validation", 12), 1.0)
    assert found["rsum_mixed"] == pytest.approx(most)
    assert best.tokenizer.to_json() == tokenizer().to_json()


def test_the_history_has_one_row_an_epoch_with_the_parts_of_its_loss(tmp_path):
    history = trainer_of(tmp_path).run()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row in history:
        parts = ("inter_global", "inter_local", "intra", "hard_caption_loss")
        assert row["loss"] == pytest.approx(sum(row.get(part, 0) for part in parts), rel=1e-4)
        assert {"rsum_global", "rsum_local", "rsum_mixed", "learning_rate", "seconds"} <= set(row)


def test_the_curriculum_begins_with_all_negatives_and_goes_on_to_the_hardest(tmp_path):
    history = trainer_of(tmp_path, epochs=4, contrastive="curriculum", warm_negatives=0.5).run()
    assert [row["contrastive"] for row in history] == ["info_nce"] * 2 + ["hardest"] * 2

    def planned(epochs, **settings):
        config = TrainingConfig(epochs=epochs, **settings)
        return [(config.stage_at(i), config.contrastive_at(i)) for i in range(epochs)]

    easy, hard = "info_nce", "hardest"
    assert [kind for _, kind in planned(10, warm_negatives=0.3)] == [easy] * 3 + [hard] * 7
    assert (
        planned(10, schedule="staged", warm_negatives=0.5)
        == ([("local", easy)] * 3 + [("local", hard)] * 3)
        + [("global", easy)] * 2
        + [("global", hard)] * 2
    )
    assert {kind for _, kind in planned(3, contrastive="hardest")} == {hard}


@pytest.mark.parametrize("inter", ["mean", "hardest", "info_nce"])
def test_an_epoch_learns_from_the_loss_that_its_name_says(tmp_path, inter):
    limits, rows, few = (
        {"margin": 0.25, "temperature": 0.1},
        torch.arange(8),
        token_set("train", 24),
    )
    trainer = trainer_of(tmp_path, contrastive=inter, **limits)
    images, captions = trainer.model(few.images(rows), few.text[5 * rows])
    options = {"contrastive": "info_nce"} if inter == "info_nce" else {"negatives": inter}
    known = cmc_loss(images, captions, rows, **limits, **options)
    assert torch.equal(trainer.loss(images, captions, rows, 0).total, known.total)


@pytest.mark.parametrize("off", ["use_global", "use_local", "use_intra"])
def test_each_term_can_be_switched_off(tmp_path, off):
    trainer = trainer_of(tmp_path, epochs=1, **{off: False})
    trainer.model = far_apart(trainer.model)
    row = trainer.run()[0]
    name = {"use_global": "inter_global", "use_local": "inter_local", "use_intra": "intra"}[off]
    assert {part for part in ("inter_global", "inter_local", "intra") if row[part] == 0} == {name}


def test_captions_of_the_same_image_are_told_to_the_loss(tmp_path, monkeypatch):
    trainer, seen = trainer_of(tmp_path), []
    loss = trainer.loss

    def spy(images, captions, image_ids, epoch):
        seen.append(image_ids.tolist())
        return loss(images, captions, image_ids, epoch)

    monkeypatch.setattr(trainer, "loss", spy)
    trainer.run()
    for epoch in range(3):
        rows = sorted(row for batch in seen[3 * epoch : 3 * epoch + 3] for row in batch)
        assert rows == list(range(24))  # each image once an epoch
    assert seen[:3] != seen[3:6]


def test_every_caption_of_an_image_has_its_turn(tmp_path):
    trainer, read = trainer_of(tmp_path, epochs=5), []
    owner = token_set("train", 24).caption_image
    for epoch in range(5):
        for rows, captions in trainer.batches.of(epoch):
            assert torch.equal(owner[captions], rows)
            read += captions.tolist()
    assert sorted(read) == list(range(24 * 5))


def copied(model):
    return {name: part.detach().clone() for name, part in model.named_parameters()}


def changed(before, model):
    return {name for name, part in model.named_parameters() if not torch.equal(part, before[name])}


def test_the_staged_recipe_trains_everything_but_the_global_layers_and_then_nothing_else(tmp_path):
    settings = {"epochs": 4, "schedule": "staged", "contrastive": "mean", "margin": 0.5}
    trainer = trainer_of(tmp_path, **settings)
    start = copied(trainer.model)
    global_names = {name for name in start if "global_layers" in name}
    trainer.run(max_steps=6)
    assert changed(start, trainer.model) == set(start) - global_names
    middle = copied(trainer.model)
    trainer.run()
    assert changed(middle, trainer.model) == global_names
    assert [row["stage"] for row in trainer.history] == ["local", "local", "global", "global"]


def test_joint_training_changes_every_parameter(tmp_path):
    trainer = trainer_of(tmp_path, contrastive="mean", margin=0.5)
    start = copied(trainer.model)
    trainer.run()
    assert changed(start, trainer.model) == set(start)


def collapsed(out, contrastive, equal=None):
    """The history of a model whose embeddings, and so scores, are all the same: 0, or `equal`."""
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for branch in (model.image_branch, model.text_branch) if equal else ():
            branch.project.bias.fill_(equal)
            for layers in (branch.local_layers, branch.global_layers):
                if hasattr(layers.norm, "weight"):
                    layers.norm.bias.fill_(equal)
    settings = dict(contrastive=contrastive, learning_rate=1e-12, epochs=2)
    return trainer_of(out, model=model, **settings).run()


@pytest.mark.parametrize(
    "inter, flat", [("hardest", 0.4), ("mean", 0.4), ("info_nce", math.log(8))]
)
def test_a_collapsed_run_is_told_so_in_one_sentence(tmp_path, inter, flat):
    history = collapsed(tmp_path, inter)
    assert history[0]["inter_global"] == pytest.approx(flat, rel=1e-3) and not history[0]["warning"]
    warning = history[1]["warning"]
    assert f"epoch 2: inter_global stands at {flat:.3f}" in warning and "collapsed" in warning
    assert len(warning.splitlines()) == 1


def test_equal_scores_that_are_not_zero_are_a_collapse_too(tmp_path):
    assert "collapsed" in collapsed(tmp_path, "hardest", equal=1)[1]["warning"]


@pytest.mark.parametrize("inter", ["mean", "info_nce"])
def test_a_healthy_run_is_not_called_collapsed(tmp_path, inter):
    few = pairs(24)
    settings = {"epochs": 25, "batch": 24, "learning_rate": 3e-3, "contrastive": inter}
    history = trainer_of(tmp_path, train=few, validation=few, margin=0.2, **settings).run()
    assert history[-1]["rsum_mixed"] > 300 and not any(row["warning"] for row in history)


def test_a_loss_of_twice_the_margin_is_no_collapse_where_the_ranking_is_good():
    config = TrainingConfig(contrastive="hardest", margin=0.2)
    row = {"stage": "joint", "contrastive": "hardest", "inter_global": 0.4, "inter_local": 0.0}
    rows = [row | {"epoch": epoch, "rsum_local": 0.0} for epoch in (8, 9)]
    for rsum, told in ((330.0, False), (13.0, False), (12.7, True), (0.0, True)):  # chance is 3.2
        before, row = (each | {"rsum_global": rsum} for each in rows)
        assert bool(config.collapse_warning(before, row, images=1000)) == told, rsum


def test_training_stops_early_when_validation_does_not_improve(tmp_path):
    history = trainer_of(tmp_path, epochs=9, learning_rate=1e-12, patience=2).run()
    assert len(history) == 3
    assert len(trainer_of(tmp_path / "patient", epochs=4, learning_rate=1e-12).run()) == 4


def test_gradients_are_clipped(tmp_path):
    norms = []
    for clip in (1e9, 0.01):
        trainer = trainer_of(tmp_path / str(clip), clip=clip)
        trainer.run(max_steps=1)
        grads = [part.grad for part in trainer.model.parameters() if part.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))
    assert norms[0] > 0.02 and norms[1] == pytest.approx(0.01, rel=1e-3)


def test_the_learning_rate_warms_up_and_decays(tmp_path, monkeypatch):
    monkeypatch.setattr(training_config, "WARMUP", 0.3)
    trainer, rates = trainer_of(tmp_path, epochs=6), []
    while trainer.step < trainer.total_steps:
        trainer.run(max_steps=1)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    top = rates.index(max(rates))
    assert rates[0] < 0.3e-3 and 2 <= top <= 6 and max(rates) <= 1.01e-3
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.1e-3


RECIPES = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"contrastive": "hardest", "chunk": 3},
        {"schedule": "staged"},
        {"hard_captions": 0.5, "chunk": 3},
        {"mirror": True, "hide_regions": 0.3, "hide_words": 0.2},
        {"optimizer": "muon"},
    ],
)


@RECIPES
def test_a_step_never_waits_for_a_gpu(tmp_path, monkeypatch, settings):
    """The device "meta" has no numbers: who asks for one gets an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it has none
    train, config = with_hard(), TrainingConfig(batch=8, **settings)
    trainer = Trainer(tiny_model(), train, train, config, tmp_path, "meta", progress=False)
    trainer._step()
    trainer._step()
    assert trainer.step == 2 and trainer.sums.device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        trainer.sums.tolist()


class NoLists(TorchDispatchMode):
    """Inside, no list of Python's numbers becomes a tensor, as in x[..., [0, 1, 1]]."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        a_list = function == torch.ops.aten.lift_fresh.default and args[0].dim()
        assert not a_list, f"made of a list: {args[0]}"
        return function(*args, **(kwargs or {}))


@RECIPES
def test_a_step_brings_no_list_of_numbers_to_a_gpu(tmp_path, settings):
    """It would wait there. The numbers of an epoch's batches are brought at its beginning."""
    train = with_hard()
    trainer = trainer_of(tmp_path, train=train, validation=train, **settings)
    trainer._step()
    with NoLists():
        trainer._step()
    assert trainer.step == 2


def test_a_plan_knows_the_sizes_of_its_batches():
    train = with_hard()
    batches = Batches(train, 8, seed=0)
    for share in (0.0, 0.4, 1.0):
        for (rows, captions), (same, owned, some, longest) in zip(
            batches.of(1), batches.epoch_batches(1, share), strict=True
        ):
            assert torch.equal(rows, same) and torch.equal(captions, owned)
            real = [i for i, row in enumerate(captions) if train.hard.word_mask[row].any()]
            assert some.tolist() == real[: round(share * 8)]
            read = train.images(rows), train.text[captions], train.hard[captions[some]]
            assert longest == tuple(part.mask.shape[1] for part in read)


def test_half_precision_on_a_cpu_keeps_embeddings_in_full(tmp_path, monkeypatch):
    trainer, seen = trainer_of(tmp_path, precision="bf16", epochs=1), []
    loss = trainer.loss

    def spy(images, *rest):
        seen.append(images.global_token.dtype)
        return loss(images, *rest)

    monkeypatch.setattr(trainer, "loss", spy)
    assert math.isfinite(trainer.run()[0]["loss"]) and set(seen) == {torch.float32}


def test_a_batch_larger_than_the_data_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="batch is 25, but there are 24 images"):
        trainer_of(tmp_path, batch=25)


def test_an_image_without_a_caption_is_named(tmp_path):
    records = some_scenes("train", 4)
    captions = [own if i != 2 else [] for i, own in enumerate(records["captions"])]
    with pytest.raises(ValueError, match="image 'train-0002' has no caption to train on"):
        trainer_of(tmp_path, train=tokens_of(records, captions), batch=2)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"schedule": "both"}, "schedule is 'both'.* joint, staged"),
        ({"contrastive": "easy"}, "contrastive is 'easy'.* curriculum"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"chunk": -1}, "chunk is -1"),
        ({"use_global": False, "use_local": False}, "use_global, use_local and use_mixed"),
        ({"schedule": "staged", "use_local": False}, "'staged' without use_local"),
        (
            {"schedule": "staged", "use_global": False, "use_intra": False},
            "'staged' without use_global and use_intra",
        ),
        ({"patience": -1}, "patience is -1"),
        ({"validation_captions": -1}, "validation_captions is -1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"warm_negatives": 1.1}, "warm_negatives is 1.1"),
        ({"hard_captions": 2.0}, "hard_captions is 2.0"),
        ({"hide_words": 1.0}, "hide_words is 1.0.* below 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"clip": float("inf")}, "clip is inf"),
        ({"epochs": 2.5}, "epochs is 2.5.* whole number"),
        ({"seed": "3"}, "seed is '3'.* whole number"),
    ],
)
def test_settings_that_cannot_be_are_errors_that_name_them(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**values)


def test_every_number_of_the_settings_has_its_limits():
    numbers = {
        name for name, value in vars(TrainingConfig()).items() if type(value) in (int, float)
    }
    assert set(LIMITS) == numbers


def test_shares_may_be_none_or_all_of_it():
    TrainingConfig(warm_negatives=0, hard_captions=1, hide_regions=0, margin=0)


def test_the_staged_recipe_needs_layers_for_its_second_stage(tmp_path):
    with pytest.raises(ValueError, match="schedule is 'staged', but global_layers is 0"):
        trainer_of(tmp_path, model=tiny_model(global_layers=0), schedule="staged")


def test_a_device_that_is_not_there_is_an_error():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")
    missing = ["abacus"] + ([] if torch.cuda.is_available() else ["cuda"])
    for name in missing + ([] if torch.backends.mps.is_available() else ["mps"]):
        with pytest.raises(ValueError, match=f"^device is '{name}'.*; try cpu[^\n]*$"):
            pick_device(name)
    for name in (None, 0, [1]):
        with pytest.raises(
            ValueError, match="^device is .*; it must be auto, or a name such as cpu"
        ):
            pick_device(name)


def test_apples_device_is_taken_when_asked_for_and_with_a_warning(monkeypatch):
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)  # as if every device were there
    with pytest.warns(UserWarning, match="mps: results were not verified there"):
        assert pick_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cpu")


def test_half_precision_on_a_gpu_is_the_kind_that_it_has_and_for_large_models_only(monkeypatch):
    gpu = torch.device("cuda")
    for has_it, expected in ((True, torch.bfloat16), (False, torch.float16)):
        supported = lambda including_emulation=True, h=has_it: h or including_emulation  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        large, small = (torch.empty(size, device="meta") for size in (LARGE - 10, 9))
        assert precision_of("auto", gpu) == expected
        assert precision_of("auto", gpu, iter([large, torch.empty(10)])) == expected
        assert precision_of("auto", gpu, iter([large, small])) == torch.float32
    assert precision_of("fp32", gpu) == torch.float32
    assert precision_of("fp16", gpu, iter([small])) == torch.float16


def test_a_run_asks_for_the_precision_of_its_own_model(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "precision_of", lambda *of: asked.append(of) or torch.float32)
    model = tiny_model()
    trainer_of(tmp_path, model, precision="auto")
    ((name, device, parameters),) = asked
    assert (name, device) == ("auto", torch.device("cpu"))
    assert [id(weights) for weights in parameters] == [
        id(weights) for weights in model.parameters()
    ]


def test_a_compiled_model_learns_the_same(tmp_path, monkeypatch):
    """Without torch.compile's code generator, which takes minutes and adds rounding only."""
    compile, asked = torch.nn.Module.compile, []

    def traced(model, **options):
        asked.append(options)
        compile(model, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    plain = trainer_of(tmp_path / "plain")
    compiled = trainer_of(tmp_path / "compiled", compile=True)
    assert asked == [COMPILING] and COMPILING["dynamic"]
    for option in COMPILING["options"]:  # a name that torch does not know would be an error
        assert option in compiler_settings.get_config_copy()
    for trainer in (plain, compiled):
        trainer.run(max_steps=2)
    assert compiled.sums.tolist() == pytest.approx(plain.sums.tolist(), rel=1e-4)
    assert trainer_of(tmp_path / "compiled").resume().step == 2


def test_a_run_with_hard_captions_learns_from_them_and_resumes_with_the_same_result(tmp_path):
    train = with_hard()
    straight = trainer_of(tmp_path / "straight", train=train, hard_captions=1.0)
    history = straight.run()
    assert 0 < history[-1]["hard_caption_loss"] < 10 * math.log(2)
    trainer_of(tmp_path / "cut", train=train, hard_captions=1.0).run(max_steps=4)
    resumed = trainer_of(tmp_path / "cut", train=train, hard_captions=1.0).resume()
    resumed.run()
    assert_same_result(result(straight), result(resumed))
    light = trainer_of(tmp_path / "light", train=train, hard_captions=1.0, hard_weight=0.25)
    row = light.run(max_steps=light.steps_an_epoch)[0]
    parts = sum(row[name] for name in ("inter_global", "inter_local", "intra", "inter_mixed"))
    assert row["loss"] == pytest.approx(parts + 0.25 * row["hard_caption_loss"], rel=1e-4)
    without = trainer_of(tmp_path / "without", train=train)
    assert all(row["hard_caption_loss"] == 0 for row in without.run())
    with pytest.raises(ValueError, match="--foils"):
        trainer_of(tmp_path / "none", hard_captions=1.0)


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    trainer_of(tmp_path, train=token_set("train", 24)).run(max_steps=1)
    with pytest.raises(ValueError, match="images was 24, now 16"):
        trainer_of(tmp_path, train=token_set("train", 16)).resume()
    other = token_set("train", 24)
    other = dataclasses.replace(other, captions=(*other.captions[:-1], "another caption"))
    with pytest.raises(ValueError, match="checksums was .*, now .*; use another --out"):
        trainer_of(tmp_path, train=other).resume()
