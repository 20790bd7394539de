"""The configuration: settings that make no model are refused by name, and JSON gives back what it
was given.
"""

import json

import pytest

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
