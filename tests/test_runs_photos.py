"""Whole runs with tiny pretrained encoders: a model of their features, judged and gone on with."""

import json
import os
import shutil
import signal

import pytest
import torch
from helpers import save_encoder, text_encoder, tokenizer, vision_encoder
from safetensors.torch import load_file
from test_feature_folder import PICTURES, data, encoders, records, saved_sources

from tgdt_mini.checkpoint import load_model
from tgdt_mini.encoders.cutting import layers_of
from tgdt_mini.encoders.load import load_encoders
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.encoding import encode, encode_texts, validate
from tgdt_mini.photos.encoding import encode_split
from tgdt_mini.photos.feature_folder import extract, open_features
from tgdt_mini.photos.features import Features
from tgdt_mini.reports import report as reporting
from tgdt_mini.runs import fit
from tgdt_mini.runs import photos as photo_experiments
from tgdt_mini.runs.fit import augmentation
from tgdt_mini.runs.photos import PHOTO_DEFAULTS, assess_on_photos, train_on_photos
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

SIZES = dict(width=32, feedforward=64, heads=2, image_hidden=32, own_maps=False)
SIZES |= dict(image_width=32, image_heads=2, text_width=32, text_heads=2)
QUICK = dict(epochs=2, batch=8, learning_rate=1e-3, mirror=True, hide_regions=0.25, hide_words=0.2)


def a_run(features, out, settings=None, **options):
    """A short run with everything on, but for other settings of the training."""
    config = TrainingConfig(**(settings or QUICK))
    return train_on_photos(features, config, out, "cpu", progress=False, **options, **SIZES)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return saved_sources(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def features(tmp_path_factory, sources):
    """The features of a small data set, the encoders' last layers to be trained."""
    out = tmp_path_factory.mktemp("photos") / "features"
    extract(data(), *encoders(sources), out, progress=False)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory, features):
    """The folder of a short run with everything on, and what it returned."""
    out = tmp_path_factory.mktemp("run")
    return out, a_run(features, out)


def encoders_of(features):
    return json.loads((features / "encoders.json").read_text(encoding="utf-8"))


def largest_gap(one, other):
    """The largest difference of two Embeddings' real tokens, local and global."""
    assert torch.equal(one.mask, other.mask)
    local = (one.local_tokens - other.local_tokens)[one.mask].abs().max()
    return float(torch.maximum(local, (one.global_token - other.global_token).abs().max()))


def test_a_run_trains_and_judges_a_model_that_can_be_loaded(features, run):
    out, model = run
    again = load_model(out / "model")
    assert [row["epoch"] for row in again.notes["history"]] == [1, 2]
    assert again.config.reader_settings["image_source"] == encoders_of(features)["vision"]
    report = assess_on_photos(again, features)
    assert report == {**assess_on_photos(model, features), "milliseconds": report["milliseconds"]}
    assert report["images"] == 12
    assert set(report["rows"]) == {"global", "local", "full mixed", "two-stage"}
    game, found = report["pointing"], records("test", 12)
    assert game["phrases"]["count"] == sum(len(phrases) for phrases in found["phrases"])
    assert 0 < game["words"]["random"] < 100 and 0 <= game["words"]["right"] <= 100
    assert -1 <= report["score_correlation"] <= 1
    json.dumps(report)


def test_the_recipe_itself_trains_a_model_that_is_kept_in_half_of_the_room(
    tmp_path, sources, monkeypatch
):
    """Frozen encoders, the closed form, maps of their own, the mixed term: all but its length."""
    extract(data(), *encoders(sources, 0), tmp_path / "features", progress=False)
    recipe, judged = TrainingConfig(**(PHOTO_DEFAULTS | dict(epochs=2, batch=8))), []
    noted = lambda model, tokens: judged.append(model) or encode(model, tokens)  # noqa: E731
    monkeypatch.setattr(fit, "encode", noted)
    sizes = dict(width=16, image_width=16, text_width=16)
    whole = train_on_photos(
        tmp_path / "features", recipe, tmp_path / "run", "cpu", progress=False, **sizes
    )
    settings = whole.config.reader_settings
    assert settings["own_maps"] and settings["stop_ids"] and not whole.config.global_residual
    assert all(row["inter_mixed"] > 0 == row["inter_local"] for row in whole.notes["history"])
    # weights are kept in half of the room, and judged as they are kept
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {weights.dtype for weights in kept.values()} == {torch.float16}
    assert all(torch.equal(w, kept[n].float()) for n, w in whole.state_dict().items())
    assert all(torch.equal(w, w.half().float()) for w in judged[0].parameters())
    assert len(judged) == 1 and whole.notes["validation_rsum"] > 0


def test_a_split_is_encoded_once_to_be_judged(features, run, monkeypatch):
    calls, encode_all = [], reporting.encode
    noted = lambda *every: calls.append(every) or encode_all(*every)  # noqa: E731
    monkeypatch.setattr(reporting, "encode", noted)
    assert "pointing" in assess_on_photos(run[1], features) and len(calls) == 1


def test_features_on_the_fly_give_what_features_from_disk_give(features, run):
    out, _ = run
    model, (_, tokens) = load_model(out / "model"), open_features(features, "test")
    load_encoders(model)
    images, captions = encode(model, tokens)
    pictures = [record["image"] for record in records("test", 12)]
    with torch.no_grad():
        direct = model.encode_images(model.image_reader.encoder(pictures))
    assert largest_gap(images, direct) < 1e-3
    assert largest_gap(captions, encode_texts(model, list(tokens.captions))) < 1e-3


def test_only_what_is_above_the_cut_learns(features, sources, run):
    _, model = run
    readers = {"vision": model.image_reader, "text": model.text_reader}
    for (name, reader), end in zip(readers.items(), encoders(sources)):
        mine, pretrained = reader.top.state_dict(), end.top.state_dict()
        weights = [part for part, value in mine.items() if value.dim() > 1]
        assert not any(torch.equal(mine[part], pretrained[part]) for part in weights)
        assert set(mine) == set(pretrained)
        assert all(part.startswith(("layers.0.", "norm.")) for part in mine)
        # the encoder itself is as it was before the run
        assert end.metadata == encoders_of(features)[name]
        assert not any(parameter.requires_grad for parameter in end.model.parameters())


def trainer_of(features, out, **settings):
    """A trainer of a model as `train_on_photos` makes it, stopped before its first step."""
    made = []

    def keep(model, train, validation, tokenizer, config, out, device, resume, progress):
        made.append(Trainer(model, train, validation, config, out, device, tokenizer, progress))
        made[0].augment = augmentation(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_experiments, "fit", keep)
        a_run(features, out, QUICK | settings)
    return made[0]


def test_gradients_reach_every_layer_above_the_cut(features, tmp_path):
    trainer = trainer_of(features, tmp_path)
    model, rows = trainer.model.train(), torch.arange(8)
    images, texts = model(trainer.train_set.images(rows), trainer.train_set.text[5 * rows])
    trainer.loss(images, texts, rows, 0).total.backward()
    for top in (model.image_reader.top, model.text_reader.top):
        for name, parameter in top.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            # softmax does not see what is added to all keys
            if ".k_proj.bias" not in name and "key.bias" not in name:
                assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_top_learns_at_its_share_of_the_rate(features, tmp_path, share):
    """The first step of Adam moves each weight by the rate, whatever its gradient."""
    trainer = trainer_of(features, tmp_path, top_rate=share, weight_decay=0.0)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer._step()
    for name, value in trainer.model.named_parameters():
        moved, top = float((value.detach() - before[name]).abs().max()), ".top." in name
        rate = QUICK["learning_rate"] * 1.01 * (share if top else 1)
        assert moved <= rate * 1.001, name
        if not top and value.dim() > 1 and value.grad.abs().max() > 1e-6:
            assert moved > 0.9 * rate, name
    tops = [name for name in before if ".top." in name and before[name].dim() > 1]
    largest = max(
        float((trainer.model.get_parameter(name) - before[name]).detach().abs().max())
        for name in tops
    )
    assert largest == 0 if share == 0 else largest > 0.9 * share * QUICK["learning_rate"]


def test_validation_may_read_the_first_captions_of_each_picture_only(
    features, tmp_path, monkeypatch
):
    tokens, trainers = open_features(features, "validation")[1], []

    def keep(*arguments, **options):
        trainers.append(Trainer(*arguments, **options))
        return trainers[0]

    monkeypatch.setattr(fit, "Trainer", keep)
    model = a_run(features, tmp_path, QUICK | {"epochs": 1, "validation_captions": 2})
    judged, kept = trainers[0].validation, [row for row in range(60) if row % 5 < 2]
    assert judged.captions == tuple(tokens.captions[row] for row in kept)
    assert judged.caption_image.tolist() == [row // 5 for row in kept]
    features_of = tokens.text[[kept[3], kept[0]]].features
    assert torch.equal(judged.text[[3, 0]].features, features_of)
    assert model.notes["history"][0]["rsum_mixed"] > 0


def test_a_share_below_zero_is_an_error():
    with pytest.raises(ValueError, match="top_rate is -0.1"):
        TrainingConfig(top_rate=-0.1)


def test_tops_begin_with_the_pretrained_weights(features, sources, tmp_path):
    model = trainer_of(features, tmp_path).model
    for reader, source in (
        (model.image_reader, vision_encoder()),
        (model.text_reader, text_encoder()),
    ):
        (mine,), layer = reader.top.layers, layers_of(source)[-1].state_dict()
        assert all(torch.equal(value, layer[name]) for name, value in mine.state_dict().items())
    assert model.config.most_tokens == 40


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit_with_everything_on(
    tmp_path, features, run, monkeypatch, at
):
    out, model = run
    step = Trainer._step

    def interrupted(trainer):
        if trainer.step == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            a_run(features, tmp_path)
    torch.manual_seed(99)
    again = a_run(features, tmp_path, resume=True)
    known = model.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in again.state_dict().items())
    for one, other in zip(again.notes["history"], model.notes["history"]):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_run_does_not_go_on_with_another_encoders_features(tmp_path, sources, features, run):
    """They have the same width: nothing else would tell."""
    other = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    extract(data(), *encoders((other, sources[1])), tmp_path / "features", progress=False)
    shutil.copytree(run[0], tmp_path / "run")
    with pytest.raises(ValueError, match="is of a model with another image_source"):
        a_run(tmp_path / "features", tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="another vision encoder .*source .*, not .*vision"):
        assess_on_photos(run[1], tmp_path / "features")
    with pytest.raises(ValueError, match="another vision encoder .*source .*, not .*vision"):
        encode_split(run[1], tmp_path / "features", "test")


def test_a_run_needs_the_encoder_that_the_features_are_of(tmp_path, sources):
    text = shutil.copytree(sources[1], tmp_path / "text")
    ends = VisionBackbone(sources[0]), TextBackbone(text)
    extract(data(8, 4), *ends, tmp_path / "features", progress=False)
    save_encoder(text_encoder(seed=1), text, tokenizer())
    with pytest.raises(ValueError, match="is not the encoder it was"):
        a_run(tmp_path / "features", tmp_path / "run")


def test_a_model_learns_a_few_pictures_by_heart(tmp_path, sources):
    few = records("train", 16)
    first = [own[:1] for own in few["captions"]]
    few = few.remove_columns("captions").add_column("captions", first)
    sets = {"train": few, "validation": few}
    extract(sets, *encoders(sources, 2), tmp_path / "features", progress=False)
    settings = dict(epochs=30, batch=16, learning_rate=3e-3, weight_decay=0.0, top_rate=0.3)
    off = dict(image_feature_dropout=0.0, text_feature_dropout=0.0)
    model = a_run(tmp_path / "features", tmp_path / "run", settings, **off)
    fresh = trainer_of(tmp_path / "features", tmp_path / "fresh").model
    tokens = open_features(tmp_path / "features", "train")[1]
    began, ended = (validate(each, tokens, 1.0)["rsum_mixed"] for each in (fresh, model))
    assert began < 300 and ended > 380  # chance is 200 of 600


def test_a_model_without_tops_reads_features_of_whole_encoders(tmp_path, sources):
    extract(data(8, 8), *encoders(sources, 0), tmp_path / "features", progress=False)
    model = a_run(tmp_path / "features", tmp_path / "run")
    assert model.image_reader.top is None and model.text_reader.top is None
    assert Features(tmp_path / "features/test/images").metadata["trained_layers"] == 0
    assert assess_on_photos(model, tmp_path / "features")["rows"]["two-stage"]["rsum"] > 0
