"""The configuration: settings that make no model are refused by name, and JSON gives back what it
was given.
"""

import json
from dataclasses import fields

import pytest
from helpers import refusal

from tgdt_mini.config import TGDTConfig
from tgdt_mini.photos.reader import photo_config


@pytest.mark.parametrize(
    "values, message",
    [
        ({"widht": 3}, "unknown model setting 'widht'; known are .*width"),
        ({"width": 33, "heads": 2}, "width is 33; it must be a multiple of heads, 2"),
        ({"image_width": 30, "image_heads": 4}, "image_width is 30"),
        ({"text_width": 30, "text_heads": 4}, "text_width is 30"),
        ({"image_slot": "mean"}, "image_slot is 'mean'; it must be one of whole, zero"),
        ({"image_tokens": "pixels"}, "image_tokens is 'pixels'; it must be one of"),
    ],
)
def test_settings_that_make_no_model_are_errors_that_name_them(values, message):
    with pytest.raises(ValueError, match=message):
        TGDTConfig.from_dict(values)


@pytest.mark.parametrize("config", [TGDTConfig.mini(), TGDTConfig.paper()])
def test_a_configuration_survives_json(config):
    assert TGDTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_share_of_lonely_items_that_is_no_share_is_an_error():
    with pytest.raises(ValueError, match="neighbour_dropout is 1.5"):
        TGDTConfig(neighbour_dropout=1.5)
    with pytest.raises(ValueError, match="global_residual is -1"):
        TGDTConfig(global_residual=-1)


def test_a_power_of_features_is_above_0():
    with pytest.raises(ValueError, match="image_power is 0; it must be above 0"):
        photo_config(text_features=4, image_power=0)


SIZES = [f.name for f in fields(TGDTConfig) if f.type in (int, int | None)]


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), 1e300, "4", True, [4], -1])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_no_whole_number_is_named(name, value):
    with refusal(f"^{name} is .*; it must be a whole number, at least [01]"):
        TGDTConfig.mini(**{name: value})


@pytest.mark.parametrize("name", [f.name for f in fields(TGDTConfig) if f.type in (float, bool)])
def test_a_share_or_a_switch_of_another_type_is_named(name):
    for value in (float("nan"), float("inf"), "0.5", None, [1]):
        with refusal(f"^{name} is "):
            TGDTConfig.mini(**{name: value})


def test_absurd_sizes_are_refused_before_memory_is_asked_for():
    for name in SIZES:
        heads = {f"{name.removesuffix('width')}heads": 1} if name.endswith("width") else {}
        if name in ("heads", "image_heads", "text_heads", "image_side"):
            continue  # they have no weights
        values = {"image_layers": 1, "text_layers": 1} | heads | {name: 10**12}
        with refusal(f"{name} is 10+; |a model of these sizes has more than [0-9,]+ parameters"):
            TGDTConfig.mini(**values)
