"""Whole runs with tiny pretrained encoders: features extracted, a model trained on them, judged, and gone on with."""

import json
import os
import shutil
import signal
from functools import cache

import numpy as np
import pytest
import torch
from helpers import save_encoder, some_scenes, text_encoder, tokenizer, vision_encoder

from tgdt_mini import assessment, photos
from tgdt_mini.backbones import attach
from tgdt_mini.checkpoint import load_model
from tgdt_mini.cutting import layers_of
from tgdt_mini.encoding import encode, encode_texts
from tgdt_mini.features import Features
from tgdt_mini.photos import assess_on_photos, extract, open_features, train_on_photos
from tgdt_mini.recipe import TrainingConfig
from tgdt_mini.text_backbone import TextBackbone
from tgdt_mini.training import Trainer, validate
from tgdt_mini.vision_backbone import VisionBackbone

PICTURES = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
SIZES = dict(width=32, feedforward=64, heads=2, image_hidden=32, image_width=32, image_heads=2, text_width=32,
             text_heads=2)  # fmt: skip
QUICK = dict(epochs=2, batch=8, learning_rate=1e-3, mirror=True, hide_regions=0.25, hide_words=0.2)


@cache
def records(split, count):
    """Scenes as records of photographs: their words that speak of an object are phrases, its boxes are theirs."""
    rows = []
    for scene in some_scenes(split, count):
        phrases = [
            {"caption": link["caption"], "text": scene["captions"][link["caption"]][link["start"] : link["end"]],
             "region": str(link["objects"][0]), "kind": ["object"]}
            for link in scene["links"]
        ]  # fmt: skip
        rows.append((scene["boxes"], phrases))
    boxes = [[{"region": str(i), "box": box} for i, box in enumerate(own)] for own, _ in rows]
    found = some_scenes(split, count).select_columns(["image", "image_id", "captions"])
    return found.add_column("boxes", boxes).add_column("phrases", [phrases for _, phrases in rows])


def data(train=24, other=12):
    return {"train": records("train", train), "validation": records("validation", other),
            "test": records("test", other)}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders of a tiny ViT and a tiny BERT."""
    root = tmp_path_factory.mktemp("encoders")
    return (save_encoder(vision_encoder(), root / "vision", pictures=PICTURES),
            save_encoder(text_encoder(), root / "text", tokenizer()))  # fmt: skip


def encoders(sources, trained=1):
    return VisionBackbone(sources[0], trained), TextBackbone(sources[1], trained)


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
    return out, train_on_photos(features, TrainingConfig(**QUICK), out, "cpu", progress=False, **SIZES)


def content(folder):
    """{path: bytes} of the features in a folder; the tables beside them carry the time they were written."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and "records" not in path.parts}  # fmt: skip


def largest_gap(one, other):
    """The largest difference of two Embeddings' real tokens, local and global."""
    assert torch.equal(one.mask, other.mask)
    local = (one.local_tokens - other.local_tokens)[one.mask].abs().max()
    return float(torch.maximum(local, (one.global_token - other.global_token).abs().max()))


# extraction


@pytest.mark.parametrize("trained", [0, 1])
def test_features_on_disk_are_those_of_the_encoders(tmp_path, sources, trained):
    vision, text = encoders(sources, trained)
    extract({"test": records("test", 12)}, vision, text, tmp_path, progress=False)
    found, tokens = open_features(tmp_path, "test")
    assert tokens.image_ids == tuple(records("test", 12)["image_id"])
    assert found["phrases"][:] == records("test", 12)["phrases"][:] and "image" not in found.column_names
    rows = torch.tensor([7, 2, 11])
    direct = vision([records("test", 12)[row]["image"] for row in rows.tolist()])
    stored = tokens.images(rows)
    assert torch.equal(stored.features, direct.features.half()) and torch.equal(stored.whole, direct.whole.half())
    assert torch.equal(stored.boxes, direct.boxes) and torch.equal(stored.mask, direct.mask)
    some = [31, 0, 59, 8]
    direct, stored = text([tokens.captions[row] for row in some]), tokens.text[some]
    for name in ("ids", "mask", "words"):
        assert torch.equal(getattr(stored, name), getattr(direct, name))
    assert (stored.features - direct.features.half())[stored.mask].abs().max() < 0.01  # a batch rounds in its own way
    assert [tokens.captions[row] for row in some] == [
        records("test", 12)["captions"][row // 5][row % 5] for row in some
    ]


def test_the_first_pictures_of_stored_features_are_read_from_the_disk_too(features):
    _, tokens = open_features(features, "train")
    cut, rows = tokens.first(7), torch.tensor([6, 0, 3])
    assert cut.image_count == 7 and cut.image_ids == tokens.image_ids[:7] and cut.captions == tokens.captions[:35]
    assert cut.text.features is tokens.text.features and all(isinstance(part, np.memmap) for part in cut.features.parts)
    for name, part in vars(cut.images(rows)).items():
        assert torch.equal(part, getattr(tokens.images(rows), name)), name
    assert torch.equal(cut.text[[34, 5]].features, tokens.text[[34, 5]].features)
    with pytest.raises(ValueError, match="images is 25; this set has 24"):
        tokens.first(25)


def test_int8_features_take_half_the_room_and_give_about_the_same(tmp_path, sources, features):
    extract(data(), *encoders(sources), tmp_path, precision="int8", progress=False)
    one, other = (open_features(folder, "train")[1] for folder in (features, tmp_path))
    exact, found = (tokens.images(torch.arange(24)).features.float() for tokens in (one, other))
    bound = exact.abs().amax(dim=2, keepdim=True) / 254
    assert ((found - exact).abs() <= 1.01 * bound + 0.01).all() and not torch.equal(found, exact)
    sizes = [(folder / "train/images/shard-00000/features.npy").stat().st_size for folder in (features, tmp_path)]
    assert sizes[1] < 0.6 * sizes[0]


def stop(*_, **__):
    raise KeyboardInterrupt


def test_a_stopped_extraction_goes_on_where_it_was_and_ends_with_the_same_bytes(
    tmp_path, sources, features, monkeypatch
):
    vision, text = encoders(sources)
    with monkeypatch.context() as patch:
        patch.setattr(photos, "_words", stop)
        with pytest.raises(KeyboardInterrupt):
            extract(data(), vision, text, tmp_path, progress=False)
    with pytest.raises(ValueError, match="is no finished features folder"):
        open_features(tmp_path, "train")
    seen, cells = [], photos._cells
    with monkeypatch.context() as patch:
        patch.setattr(
            photos, "_cells", lambda vision, records, rows: seen.append(len(records)) or cells(vision, records, rows)
        )
        extract(data(), vision, text, tmp_path, progress=False)
        assert seen == [12, 12]  # the training pictures were done
        extract(data(), vision, text, tmp_path, progress=False)
        assert seen == [12, 12]  # and now everything is
    assert content(tmp_path) == content(features)


def raw_pictures(dataset):
    """The pictures as they are stored: {bytes, path} each."""
    from datasets import Image

    return dataset.cast_column("image", Image(decode=False))["image"][:]


def with_pictures(dataset, changes):
    """The same records, some pictures (by row) exchanged for others."""
    from datasets import Dataset

    pictures = [changes.get(row, picture) for row, picture in enumerate(raw_pictures(dataset))]
    return Dataset.from_dict({**dataset.to_dict(), "image": pictures}, features=dataset.features)


STALE = ["weights", "preprocessing", "layers", "text weights", "caption", "picture", "order"]


@pytest.mark.parametrize("what", STALE)
def test_stale_features_are_refused(tmp_path, sources, features, what):
    out, images = shutil.copytree(features, tmp_path / "features"), data()
    vision, text = sources
    train = images["train"]
    if what == "weights":
        vision = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    elif what == "preprocessing":
        vision = save_encoder(vision_encoder(), tmp_path / "vision", pictures=PICTURES | {"image_mean": [0.4] * 3})
    elif what == "text weights":
        text = save_encoder(text_encoder(seed=1), tmp_path / "text", tokenizer())
    elif what == "caption":
        captions = train["captions"][:]
        captions[3] = [*captions[3][:4], "a red star"]
        images["train"] = train.remove_columns("captions").add_column("captions", captions)
    elif what == "picture":
        images["train"] = with_pictures(train, {3: raw_pictures(train)[4]})
    elif what == "order":
        images["train"] = train.select([1, 0, *range(2, 24)])
    before = content(out)
    with pytest.raises(ValueError, match="so its features are stale"):
        extract(images, *encoders((vision, text), 2 if what == "layers" else 1), out, progress=False)
    assert content(out) == before


def test_pictures_are_known_by_their_bytes_or_by_their_files(tmp_path, sources, features, monkeypatch):
    for part in ("_cells", "_words"):
        monkeypatch.setattr(photos, part, stop)
    copied = data() | {"train": with_pictures(records("train", 24), {})}
    extract(
        copied, *encoders(sources), shutil.copytree(features, tmp_path / "features"), progress=False
    )  # all is there
    monkeypatch.undo()
    place = tmp_path / "picture.png"
    place.write_bytes(raw_pictures(records("test", 12))[0]["bytes"])
    four = with_pictures(records("test", 12).select(range(4)), {0: {"bytes": None, "path": str(place)}})
    extract({"test": four}, *encoders(sources), tmp_path / "files", progress=False)
    place.write_bytes(raw_pictures(records("test", 12))[5]["bytes"])
    with pytest.raises(ValueError, match="so its features are stale"):
        extract({"test": four}, *encoders(sources), tmp_path / "files", progress=False)


def test_new_phrases_are_taken_over_without_extracting_again(tmp_path, sources, features, monkeypatch):
    out = shutil.copytree(features, tmp_path / "features")
    monkeypatch.setattr(photos, "_cells", stop)
    monkeypatch.setattr(photos, "_words", stop)
    bare = {split: each.remove_columns("phrases") for split, each in data().items()}
    extract(bare, *encoders(sources), out, progress=False)
    assert open_features(out, "test")[0].column_names == ["image_id", "captions", "boxes"]


def test_a_picture_that_cannot_be_read_is_named(tmp_path, sources):
    from datasets import Dataset, Image, List, Value
    from datasets import Features as Columns

    columns = Columns({"image": Image(), "image_id": Value("string"), "captions": List(Value("string"))})
    for image, message in (
        ({"bytes": b"no picture", "path": None}, "image two cannot be read"),
        ({"bytes": None, "path": str(tmp_path / "gone.png")}, "image two cannot be read"),
    ):
        whole = {
            "bytes": some_scenes("test", 1).cast_column("image", Image(decode=False))[0]["image"]["bytes"],
            "path": None,
        }
        broken = {"image": [whole, image], "image_id": ["one", "two"], "captions": [["a red star"], ["two moons"]]}
        with pytest.raises(ValueError, match=message):
            extract(
                {"test": Dataset.from_dict(broken, features=columns)},
                *encoders(sources),
                tmp_path / "out",
                progress=False,
            )


MIXED = {  # what was put in the place of a part, and what the error says
    "records of other captions": "holds records that are not those of its features",
    "records of other pictures": "holds records that are not those of its features",
    "no records": "records is missing or damaged",
    "another encoder's images": "holds features of another encoder than encoders.json says",
    "another encoder's captions": "holds records that are not those of its features",
    "another encoders.json": "extract them again",
    "no encoders.json": "is no finished features folder",
}


@pytest.mark.parametrize("what", MIXED)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, sources, features, what):
    out = shutil.copytree(features, tmp_path / "features")
    place = out / "test" / "records"
    if "records" in what:
        shutil.rmtree(place)
    if what == "records of other captions":
        swapped = [own[::-1] for own in records("test", 12)["captions"][:]]  # as many as before
        records("test", 12).select_columns(["image_id"]).add_column("captions", swapped).save_to_disk(place)
    elif what == "records of other pictures":
        records("validation", 12).select_columns(["image_id", "captions"]).save_to_disk(place)
    elif "another encoder" in what:
        extract({"test": records("test", 12)}, *encoders(sources, 2), tmp_path / "other", progress=False)
        part = {"another encoder's images": "test/images", "another encoder's captions": "test/captions"}.get(what)
        if part:
            shutil.rmtree(out / part)
            shutil.copytree(tmp_path / "other" / part, out / part)
        else:
            shutil.copy(tmp_path / "other" / "encoders.json", out)
    elif what == "no encoders.json":
        (out / "encoders.json").unlink()
    with pytest.raises(ValueError, match=MIXED[what]):
        open_features(out, "test")


# training


def test_a_run_trains_and_judges_a_model_that_can_be_loaded(features, run):
    out, model = run
    again = load_model(out / "model")
    assert [row["epoch"] for row in again.notes["history"]] == [1, 2]
    assert again.config.image_source == json.loads((features / "encoders.json").read_text(encoding="utf-8"))["vision"]
    report = assess_on_photos(again, features)
    assert report == {**assess_on_photos(model, features), "milliseconds": report["milliseconds"]}
    assert report["images"] == 12 and set(report["rows"]) == {"global", "local", "full mixed", "two-stage"}
    game, found = report["pointing"], records("test", 12)
    assert game["phrases with a box"] == sum(len(phrases) for phrases in found["phrases"])
    assert 0 < game["random"] < 100 and 0 <= game["words"] <= 100
    json.dumps(report)


def test_a_split_is_encoded_once_to_be_judged(features, run, monkeypatch):
    calls, encode_all = [], assessment.encode
    monkeypatch.setattr(assessment, "encode", lambda *every: calls.append(every) or encode_all(*every))
    monkeypatch.setattr(photos, "encode", lambda *every: pytest.fail("encoded again"))
    assert "pointing" in assess_on_photos(run[1], features) and len(calls) == 1


def test_features_on_the_fly_give_what_features_from_disk_give(features, run):
    out, _ = run
    model, (_, tokens) = load_model(out / "model"), open_features(features, "test")
    attach(model)
    images, captions = encode(model, tokens)
    with torch.no_grad():
        direct = model.encode_images(model.vision([record["image"] for record in records("test", 12)]))
    assert largest_gap(images, direct) < 1e-3
    assert largest_gap(captions, encode_texts(model, list(tokens.captions))) < 1e-3


def test_only_what_is_above_the_cut_learns(features, sources, run):
    _, model = run
    for name, end in zip(("image_top", "text_top"), encoders(sources)):
        mine, pretrained = getattr(model, name).state_dict(), end.top.state_dict()
        assert all(not torch.equal(value, pretrained[part]) for part, value in mine.items() if value.dim() > 1)
        assert set(mine) == set(pretrained) and all(part.startswith(("layers.0.", "norm.")) for part in mine)
        assert (
            end.about
            == json.loads((features / "encoders.json").read_text(encoding="utf-8"))[
                "vision" if name == "image_top" else "text"
            ]
        )  # the encoder itself is as it was before the run
        assert not any(parameter.requires_grad for parameter in end.model.parameters())


def trainer_of(features, out, **settings):
    """A trainer of a model as `train_on_photos` makes it, stopped before its first step."""
    made = []

    def keep(model, train, validation, tokenizer, config, out, device, resume, progress):
        made.append(Trainer(model, train, validation, config, out, device, tokenizer, progress))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "fit", keep)
        train_on_photos(features, TrainingConfig(**(QUICK | settings)), out, "cpu", progress=False, **SIZES)
    return made[0]


def test_gradients_reach_every_layer_above_the_cut(features, tmp_path):
    trainer = trainer_of(features, tmp_path)
    model, rows = trainer.model.train(), torch.arange(8)
    images, texts = model(trainer.train_set.images(rows), trainer.train_set.text[5 * rows])
    trainer.loss(images, texts, rows, 0).total.backward()
    for top in (model.image_top, model.text_top):
        for name, parameter in top.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            if ".k_proj.bias" not in name and "key.bias" not in name:  # softmax does not see what is added to all keys
                assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_top_learns_at_its_share_of_the_rate(features, tmp_path, share):
    """The first step of Adam moves each weight by the rate, whatever its gradient."""
    trainer = trainer_of(features, tmp_path, top_rate=share, weight_decay=0.0, warmup=0.0)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer._step()
    for name, value in trainer.model.named_parameters():
        moved, top = float((value.detach() - before[name]).abs().max()), "_top." in name
        rate = QUICK["learning_rate"] * 1.01 * (share if top else 1)
        assert moved <= rate * 1.001, name
        if not top and value.dim() > 1 and value.grad.abs().max() > 1e-6:
            assert moved > 0.9 * rate, name
    tops = [name for name in before if "_top." in name and before[name].dim() > 1]
    largest = max(float((trainer.model.get_parameter(name) - before[name]).detach().abs().max()) for name in tops)
    assert largest == 0 if share == 0 else largest > 0.9 * share * QUICK["learning_rate"]


def test_validation_may_read_the_first_captions_of_each_picture_only(features, tmp_path):
    tokens = open_features(features, "validation")[1]
    trainer = trainer_of(features, tmp_path, validation_captions=2)
    keep = [row for row in range(60) if row % 5 < 2]
    assert trainer.validation.captions == tuple(tokens.captions[row] for row in keep)
    assert trainer.validation.caption_image.tolist() == [row // 5 for row in keep]
    assert torch.equal(trainer.validation.text[[3, 0]].features, tokens.text[[keep[3], keep[0]]].features)
    trainer.run(max_steps=3)
    assert len(trainer.history) == 1 and trainer.history[0]["rsum_mixed"] > 0


def test_a_share_below_zero_is_an_error():
    with pytest.raises(ValueError, match="top_rate is -0.1"):
        TrainingConfig(top_rate=-0.1)


def test_tops_begin_with_the_pretrained_weights(features, sources, tmp_path):
    model = trainer_of(features, tmp_path).model
    for top, source in ((model.image_top, vision_encoder()), (model.text_top, text_encoder())):
        layer = layers_of(source)[-1].state_dict()
        assert len(top.layers) == 1
        assert all(torch.equal(value, layer[name]) for name, value in top.layers[0].state_dict().items())
    assert model.config.most_tokens == 40


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit_with_everything_on(tmp_path, features, run, monkeypatch, at):
    out, model = run
    step = Trainer._step

    def interrupted(trainer):
        if trainer.step == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_on_photos(features, TrainingConfig(**QUICK), tmp_path, "cpu", progress=False, **SIZES)
    torch.manual_seed(99)
    again = train_on_photos(features, TrainingConfig(**QUICK), tmp_path, "cpu", resume=True, progress=False, **SIZES)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    for one, other in zip(again.notes["history"], model.notes["history"]):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_run_does_not_go_on_with_another_encoders_features(tmp_path, sources, features, run):
    """They have the same width: nothing else would tell."""
    other = save_encoder(vision_encoder(seed=1), tmp_path / "vision", pictures=PICTURES)
    extract(data(), *encoders((other, sources[1])), tmp_path / "features", progress=False)
    shutil.copytree(run[0], tmp_path / "run")
    with pytest.raises(ValueError, match="is of a model with another image_source"):
        train_on_photos(tmp_path / "features", TrainingConfig(**QUICK), tmp_path / "run", "cpu", resume=True,
                        progress=False, **SIZES)  # fmt: skip
    with pytest.raises(ValueError, match="the model was trained on those of .*vision"):
        assess_on_photos(run[1], tmp_path / "features")
    with pytest.raises(ValueError, match="the model was trained on those of .*vision"):
        photos.encode_split(run[1], tmp_path / "features", "test")


def test_a_run_needs_the_encoder_that_the_features_are_of(tmp_path, sources):
    text = shutil.copytree(sources[1], tmp_path / "text")
    extract(data(8, 4), VisionBackbone(sources[0]), TextBackbone(text), tmp_path / "features", progress=False)
    save_encoder(text_encoder(seed=1), text, tokenizer())
    with pytest.raises(ValueError, match="is not the encoder it was"):
        train_on_photos(
            tmp_path / "features", TrainingConfig(**QUICK), tmp_path / "run", "cpu", progress=False, **SIZES
        )


def test_a_model_learns_a_few_pictures_by_heart(tmp_path, sources):
    few = records("train", 16)
    few = few.remove_columns("captions").add_column("captions", [own[:1] for own in few["captions"]])
    extract({"train": few, "validation": few}, *encoders(sources, 2), tmp_path / "features", progress=False)
    settings = dict(epochs=30, batch=16, learning_rate=3e-3, weight_decay=0.0, top_rate=0.3)
    model = train_on_photos(tmp_path / "features", TrainingConfig(**settings), tmp_path / "run", "cpu", progress=False,
                            image_feature_dropout=0.0, text_feature_dropout=0.0, **SIZES)  # fmt: skip
    fresh = trainer_of(tmp_path / "features", tmp_path / "fresh").model
    tokens = open_features(tmp_path / "features", "train")[1]
    began, ended = (validate(each, tokens, 1.0)["rsum_mixed"] for each in (fresh, model))
    assert began < 300 and ended > 380  # chance is 200 of 600


def test_a_model_without_tops_reads_features_of_whole_encoders(tmp_path, sources):
    extract(data(8, 8), *encoders(sources, 0), tmp_path / "features", progress=False)
    model = train_on_photos(
        tmp_path / "features", TrainingConfig(**QUICK), tmp_path / "run", "cpu", progress=False, **SIZES
    )
    assert model.image_top is None and model.text_top is None
    assert Features(tmp_path / "features/test/images").about["trained_layers"] == 0
    assert assess_on_photos(model, tmp_path / "features")["rows"]["two-stage"]["rsum"] > 0
