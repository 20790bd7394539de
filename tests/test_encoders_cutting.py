"""Encoders cut in two: both parts, put together, are the whole encoder, or the cut is refused."""

import copy
import json

import pytest
import torch
from helpers import text_encoder, tokenizer, vision_encoder

from tgdt_mini.encoders.cutting import TopLayers, layers_of, run_lower, split_top

CAPTIONS = [
    "a red star",
    "two moons",
    "there is a tiny golden circle to the left of a big blue heart",
]
DISTIL = dict(dim=16, n_layers=3, n_heads=2, hidden_dim=32)
READERS = {
    "Bert": {},
    "Roberta": {},
    "Electra": {"embedding_size": 8},
    "DistilBert": DISTIL,
    "RobertaPreLayerNorm": {},
}
SEERS = ["ViT", "Dinov2", "CLIPVision", "SiglipVision", "Beit"]
FIRST = {"SiglipVision": 0}  # the others have a class token
REFUSED = {  # layers with relative positions, layers that are one layer, layers that take no mask
    "MPNet": {},
    "Deberta": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
    },
    "RoFormer": {},
    "ModernBert": {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "Albert": {"embedding_size": 8},
    "Data2VecVision": {},
}


def captions(some=CAPTIONS):
    tokens = tokenizer()(some)
    return {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}, tokens.mask


def pixels(count=2):
    return {
        "pixel_values": torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    }


def from_a_checkpoint(top):
    """The same layers built anew from JSON and weights, as `load_model` does it."""
    made = TopLayers.rebuild(json.loads(json.dumps(top.metadata)))
    made.load_state_dict(top.state_dict(), strict=True)
    return made.eval()


@pytest.mark.parametrize("trained", [1, 3])
@pytest.mark.parametrize("kind", READERS)
def test_a_cut_text_encoder_gives_what_the_whole_one_gives_for_captions_of_any_length(
    kind, trained
):
    model = text_encoder(kind, **READERS[kind])
    inputs, mask = captions()
    top = from_a_checkpoint(split_top(model, trained, inputs, mask))
    with torch.no_grad():
        whole, lower = model(**inputs).last_hidden_state, run_lower(model, trained, **inputs)
        found = top(lower, mask)
        assert (found - whole)[mask].abs().max() < 1e-5
        assert (lower - whole)[mask].abs().max() > 0.1  # else nothing was cut off
        for row, caption in enumerate(CAPTIONS):  # alone, without padding
            alone, real = captions([caption])
            assert (
                top(run_lower(model, trained, **alone), real)[0] - found[row, : real.shape[1]]
            ).abs().max() < 1e-5


@pytest.mark.parametrize("trained", [1, 3])
@pytest.mark.parametrize("kind", SEERS)
def test_a_cut_vision_encoder_gives_what_the_whole_one_gives(kind, trained):
    model = vision_encoder(kind)
    top = from_a_checkpoint(split_top(model, trained, pixels(), first=FIRST.get(kind, 1)))
    with torch.no_grad():
        whole, lower = model(**pixels()).last_hidden_state, run_lower(model, trained, **pixels())
        assert (
            top(lower, torch.ones(lower.shape[:2], dtype=torch.bool)) - whole
        ).abs().max() < 1e-5
        assert (lower - whole).abs().max() > 0.1
    assert top.first == FIRST.get(kind, 1)


def test_tokens_that_are_not_real_are_seen_by_none():
    model = vision_encoder()
    top, lower = split_top(model, 2, pixels(), first=1), run_lower(model, 2, **pixels())
    mask = torch.ones(lower.shape[:2], dtype=torch.bool)
    mask[:, 5:9] = False
    with torch.no_grad():
        found, without = top(lower, mask), top(lower[:, mask[0]], mask[:, mask[0]])
        assert (found[mask] - without.flatten(0, 1)).abs().max() < 1e-5
        assert (found - top(lower, torch.ones_like(mask)))[mask].abs().max() > 0.01


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_the_mask_holds_in_half_precision(precision):
    model = text_encoder()
    inputs, mask = captions()
    top, lower = split_top(model, 2, inputs, mask), run_lower(model, 2, **inputs)
    with torch.no_grad():
        exact = top(lower, mask)
        with torch.autocast("cpu", precision):
            found = top(lower, mask)
            changed = top(lower.masked_fill(~mask[..., None], 100), mask)
    assert found[mask].isfinite().all() and torch.equal(found[mask], changed[mask])
    assert (found[mask].float() - exact[mask]).abs().max() < 0.1


@pytest.mark.parametrize("kind", REFUSED)
def test_layers_that_need_more_than_tokens_and_a_mask_are_refused_when_cut_and_taken_whole(kind):
    if kind == "Data2VecVision":
        model, (inputs, mask) = vision_encoder(kind), (pixels(), None)
    else:
        model, (inputs, mask) = text_encoder(kind, **REFUSED[kind]), captions()
    for trained in (1, 3):
        with pytest.raises(
            ValueError, match=f"{kind}Model.*train none: --vision-layers 0"
        ) as error:
            split_top(model, trained, inputs, mask)
        assert "\n" not in str(error.value)
    assert split_top(model, 0, inputs, mask) is None
    with torch.no_grad():
        assert torch.equal(run_lower(model, 0, **inputs), model(**inputs).last_hidden_state)


@pytest.mark.parametrize("trained", [-1, 4])
def test_an_encoder_has_only_so_many_layers_to_train(trained):
    with pytest.raises(
        ValueError, match=f"trained_layers is {trained}; BertModel has 3, so use 0 to 3"
    ):
        split_top(text_encoder(), trained, *captions())


def test_what_is_above_the_cut_is_not_computed_and_the_encoder_stays_as_it_was():
    model, (inputs, _) = text_encoder(), captions()
    before, ran = model(**inputs).last_hidden_state, []
    hooks = [
        layer.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, layer in enumerate(layers_of(model))
    ]
    run_lower(model, 2, **inputs)
    assert ran == [0]
    for hook in hooks:
        hook.remove()
    assert torch.equal(model(**inputs).last_hidden_state, before)


def test_the_top_has_weights_of_its_own_that_learn_and_the_encoder_keeps_its():
    model, (inputs, mask) = text_encoder().requires_grad_(False), captions()
    before = copy.deepcopy(model.state_dict())
    top = split_top(model, 1, inputs, mask)
    assert all(parameter.requires_grad for parameter in top.parameters())
    top(run_lower(model, 1, **inputs), mask).sum().backward()
    torch.optim.SGD(top.parameters(), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not torch.equal(
        top.layers[0].output.dense.weight, layers_of(model)[2].output.dense.weight
    )


def test_what_describes_the_layers_is_json_and_does_not_tell_where_the_encoder_lay(tmp_path):
    from transformers import AutoModel

    text_encoder().save_pretrained(tmp_path)
    top = split_top(AutoModel.from_pretrained(tmp_path).eval(), 2, *captions())
    text = json.dumps(top.metadata)
    assert json.loads(text) == top.metadata and top.metadata["config"]["num_hidden_layers"] == 2
    assert str(tmp_path) not in text and tmp_path.name not in text
