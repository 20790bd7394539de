"""Encoders of the field, small and random, from a folder to a search; pairs of towers as they are.

What each library's own model gives is what the features must hold.
"""

import json
import shutil

import datasets
import pytest
import torch
from helpers import (
    PICTURES,
    done,
    photographs,
    save_encoder,
    saved_encoders,
    some_scenes,
    text_encoder,
    tokenizer,
    vision_encoder,
)
from torch.nn.functional import normalize

from tgdt_mini.checkpoint import load_model
from tgdt_mini.encoders.load import rebuild
from tgdt_mini.encoders.pretrained import preprocessing, transformer_folder
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.encoders.vision import VisionBackbone
from tgdt_mini.evaluation import both_ways
from tgdt_mini.photos.feature_folder import open_features
from tgdt_mini.photos.features import Features

CAPTIONS = ["a red star", "two moons", "a tiny golden circle"]
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SIGHT = dict(image_size=32, patch_size=8, num_patches=16)


def end_of(words, **special):
    """What a model needs to know of the tokenizer that its captions come through."""
    ids = {name: words.engine.token_to_id(token) for name, token in special.items()}
    return dict(vocab_size=words.vocabulary, **ids)


def pair(kind, folder, seed=0):
    """A small random model with two towers, saved with its tokenizer and processor."""
    import transformers

    words = tokenizer()
    special = end_of(words, bos_token_id="[CLS]", eos_token_id="[SEP]", pad_token_id="[PAD]")
    text = SIZES | special | {"projection_size": 16, "max_position_embeddings": 48}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=SIZES | SIGHT, initializer_range=0.5
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for parameter in model.parameters():  # large, so that attention tells tokens apart
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model, save_encoder(model, folder, words, PICTURES)


def siglip_tokenizer(folder):
    """A tokenizer with an end token and no start token, as SigLIP has one."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    engine = type(tokenizer()).from_json(tokenizer().to_json()).engine
    end = "[SEP]"
    engine.post_processor = processors.TemplateProcessing(
        f"$A {end}", None, [(end, engine.token_to_id(end))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=engine,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token=end,
        padding_side="right",  # as the published ones have it
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=["CLIP", "Siglip", "Siglip2"])
def towers(request, tmp_path_factory):
    """(kind, the library's model, its folder)"""
    folder = tmp_path_factory.mktemp(request.param)
    model, source = pair(request.param, folder)
    if request.param != "CLIP":
        siglip_tokenizer(folder)
    return request.param, model, source


@torch.no_grad()
def theirs(kind, model, captions):
    """(states of the words, what stands for the caption, in both towers' space), as documented."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(model)
    full = {} if kind == "CLIP" else {"padding": "max_length", "max_length": 48}
    found = []
    for caption in captions:
        inputs = words(caption, return_tensors="pt", **full)
        inputs.pop("token_type_ids", None)
        if kind != "CLIP":
            inputs.pop("attention_mask", None)
        found.append(inputs)
    return found


@torch.no_grad()
def test_the_text_tower_gives_what_the_library_s_own_gives(towers):
    kind, model, source = towers
    backbone = TextBackbone(source)
    tokens, aligned = backbone.read(CAPTIONS)
    assert backbone.width == 16 and bool((tokens.mask.sum(1) == tokens.word_mask.sum(1) + 2).all())
    for row, inputs in enumerate(theirs(kind, source, CAPTIONS)):
        out = model.text_model(**inputs)
        known = normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
        torch.testing.assert_close(aligned[row : row + 1], known, atol=1e-5, rtol=1e-5)
        words = int(tokens.word_mask[row].sum())
        states = out.last_hidden_state[0, int(kind == "CLIP") :][:words]
        torch.testing.assert_close(tokens.features[row, 1 : 1 + words], states, atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens.features[row, 0], out.pooler_output[0], atol=1e-5, rtol=0)
    alone = backbone(CAPTIONS[:1])  # other captions of a batch change nothing
    size = alone.mask.shape[1]
    torch.testing.assert_close(alone.features, tokens.features[:1, :size], atol=1e-5, rtol=0)
    again = rebuild(TextBackbone, json.loads(json.dumps(backbone.metadata)))
    assert torch.equal(again(CAPTIONS).features, tokens.features)


@torch.no_grad()
def test_the_vision_tower_gives_what_the_library_s_own_gives(towers):
    kind, model, source = towers
    backbone = VisionBackbone(source)
    batch, aligned = backbone.see(photographs())
    inputs = backbone._inputs_of(backbone.pixels(photographs()))
    if kind == "Siglip2":
        inputs = patches_of(backbone, photographs())
    out = model.vision_model(**inputs)
    known = normalize(model.get_image_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(aligned, known, atol=1e-5, rtol=1e-5)
    assert batch.features.shape == (3, 16, 16)
    cells = out.last_hidden_state[:, int(kind == "CLIP") :]
    torch.testing.assert_close(batch.features, cells, atol=1e-5, rtol=1e-5)
    text = TextBackbone(source).metadata
    assert backbone.metadata["aligned"] == text["aligned"] != backbone.metadata["key"]


def patches_of(backbone, images):
    """What SigLIP 2's own processor makes of pictures of the encoder's size."""
    from PIL import Image
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    processor = Siglip2ImageProcessorPil(
        patch_size=8, max_num_patches=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    small = [image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC) for image in images]
    return dict(processor(small, return_tensors="pt"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"trained_layers": 1}, "--text-layers is 1.*use 0"),
        ({"layers": 1}, "--text-depth is 1.*use 0"),
        ({"states": 2}, "--text-states is 2.*use 1"),
    ],
)
def test_a_text_tower_is_taken_whole(towers, options, message):
    with pytest.raises(ValueError, match=message):
        TextBackbone(towers[2], **options)


def test_half_of_a_pair_is_no_pair(tmp_path):
    """A tower saved alone, or the towers of two models, have no space in common."""
    model, source = pair("CLIP", tmp_path / "both")
    _, other = pair("CLIP", tmp_path / "other", seed=1)
    keys = [TextBackbone(place).metadata["aligned"] for place in (source, other)]
    assert keys[0] != keys[1]
    alone = save_encoder(model.text_model, tmp_path / "alone", tokenizer())
    backbone = TextBackbone(alone)
    assert "aligned" not in backbone.metadata and backbone.read(CAPTIONS)[1] is None
    assert torch.equal(backbone(CAPTIONS).features, TextBackbone(source)(CAPTIONS).features)


# from a folder to a search


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of twenty pictures, a caption a row."""
    home = tmp_path_factory.mktemp("data")
    lines = ["image,caption"]
    for place, scene in enumerate(some_scenes("validation", 20)):
        scene["image"].save(home / f"{place}.png")
        lines += [f'{place}.png,"{caption}"' for caption in scene["captions"]]
    (home / "all.csv").write_text("\n".join(lines), encoding="utf-8")
    return home


@pytest.fixture
def walked(data, tmp_path, capsys, monkeypatch):
    """A function that walks all the way with two encoders; it returns what evaluate printed."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets cache")

    def walk(vision, text):
        extract = f"extract --data {data}/all.csv --divide 50/25/25 --vision {vision} --text {text}"
        done(capsys, f"{extract} --device cpu --out {tmp_path}/f")
        train = f"train --features {tmp_path}/f --epochs 1 --batch 5 --device cpu"
        done(capsys, f"{train} --out {tmp_path}/run")
        model = f"--model {tmp_path}/run/model"
        told = done(capsys, f"evaluate --features {tmp_path}/f {model} --out {tmp_path}/e")
        done(capsys, f"index --images {data} {model} --out {tmp_path}/g")
        found = done(capsys, f"search 'a star' --gallery {tmp_path}/g --out {tmp_path}/s")
        assert "20 searched" in found
        return told

    return walk


VISION = {
    "DINOv2": lambda: vision_encoder("Dinov2"),
    "DINOv2 with registers": lambda: vision_encoder("Dinov2WithRegisters"),
    "ViT": lambda: vision_encoder("ViT"),
    "SigLIP's tower": lambda: vision_encoder("SiglipVision"),
}
TEXT = {
    "BERT": "Bert",
    "DistilBERT": "DistilBert",
    "ELECTRA": "Electra",
    "RoBERTa": "Roberta",
}


@pytest.mark.parametrize("vision, text", list(zip(VISION, TEXT)))
def test_an_encoder_of_the_field_goes_all_the_way(walked, tmp_path, vision, text):
    sight = save_encoder(VISION[vision](), tmp_path / "vision", pictures=PICTURES)
    sizes = dict(dim=16, n_layers=3, n_heads=2, hidden_dim=32) if text == "DistilBERT" else {}
    words = save_encoder(text_encoder(TEXT[text], **sizes), tmp_path / "text", tokenizer())
    assert "two-stage" in walked(sight, words) and not (tmp_path / "nothing").exists()


def test_a_pair_of_towers_goes_all_the_way_and_has_a_row_without_training(towers, walked, tmp_path):
    told = walked(towers[2], towers[2])
    report = json.loads((tmp_path / "e" / "results.json").read_text(encoding="utf-8"))
    embedded = [
        Features(tmp_path / "f" / "test" / name).array("aligned").float()
        for name in ("images", "captions")
    ]
    _, tokens = open_features(tmp_path / "f", "test")
    _, aligned = TextBackbone(towers[2]).read(list(tokens.captions))
    torch.testing.assert_close(embedded[1], aligned, atol=1e-3, rtol=0)  # each in its own row
    known = both_ways(embedded[0] @ embedded[1].T, torch.arange(5).repeat_interleave(5))
    assert report["zero_shot"]["rsum"] == pytest.approx(known.rsum)
    assert len([line for line in told.splitlines() if line.startswith("zero-shot ")]) == 1
    model = load_model(tmp_path / "run" / "model")  # its tokenizer is the tower's
    assert model.tokenizer.to_json() == TextBackbone(towers[2]).to_json()


def test_two_encoders_that_are_no_pair_have_no_such_row(walked, tmp_path):
    source = saved_encoders(tmp_path)
    assert "zero-shot" not in walked(source["vision"], source["text"])
    report = json.loads((tmp_path / "e" / "results.json").read_text(encoding="utf-8"))
    assert "zero_shot" not in report


def test_a_folder_of_sentence_transformers_names_the_place_of_its_encoder(tmp_path):
    inner = save_encoder(text_encoder(), tmp_path / "st" / "0_Transformer", tokenizer())
    parts = [
        {"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    modules = tmp_path / "st" / "modules.json"
    modules.write_text(json.dumps(parts), encoding="utf-8")
    whole, alone = TextBackbone(str(tmp_path / "st")), TextBackbone(inner)
    assert torch.equal(whole(CAPTIONS).features, alone(CAPTIONS).features)
    flat = shutil.copytree(inner, tmp_path / "flat")  # newer ones have it at the top
    modules.write_text(json.dumps([parts[0] | {"path": ""}]), encoding="utf-8")
    shutil.copy(modules, flat)
    assert transformer_folder(str(flat)) == str(flat)
    for wrong in ("[]", "no json", '{"a": 1}'):
        modules.write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="modules.json names no transformer"):
            TextBackbone(str(tmp_path / "st"))


def test_a_model_of_timm_says_itself_how_it_wants_pictures(tmp_path):
    """Its settings lie in its configuration. (The library timm needs torchvision to run.)"""
    import transformers

    config = transformers.PretrainedConfig()
    config.pretrained_cfg = {"input_size": [3, 48, 48], "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}
    side, mean, std = preprocessing(str(tmp_path), config)
    assert side == 48
    torch.testing.assert_close(mean, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(std, torch.full((3,), 0.5))


@pytest.mark.parametrize("cells, expected", [(197, 196), (201, 196), (196, 196), (20, 16)])
def test_where_no_patch_size_is_told_the_cells_are_the_square_at_the_end(cells, expected):
    from tgdt_mini.encoders.vision import _count_cells

    assert _count_cells(torch.zeros(1, cells, 8), 224, object()) == expected


def test_timm_goes_all_the_way(walked, tmp_path):
    timm = pytest.importorskip("timm")
    from transformers import TimmWrapperConfig, TimmWrapperModel

    assert timm
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", model_args={"depth": 1, "img_size": 32}
    )
    TimmWrapperModel(config).save_pretrained(tmp_path / "timm")
    text = save_encoder(text_encoder(), tmp_path / "text", tokenizer())
    assert "two-stage" in walked(str(tmp_path / "timm"), text)
