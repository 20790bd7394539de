"""The two branches: unit vectors, masks, company that does not matter, and who learns when."""

import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from helpers import tiny_config, tiny_model, tiny_photo_config, token_set, tokenizer
from torch.nn.functional import normalize

import tgdt_mini
from tgdt_mini.config import TGDTConfig
from tgdt_mini.data import ImageTokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode
from tgdt_mini.losses import cmc_loss
from tgdt_mini.model import TGDT, TokenBranch
from tgdt_mini.similarity import mixed_similarity
from tgdt_mini.text_tokens import TextTokens

CLOSE = {"rtol": 0, "atol": 1e-5}
MODES = pytest.mark.parametrize("mode", ["training", "eval", "eval without gradient"])


@pytest.fixture
def mode_of(mode):
    def put(model):
        model.train(mode == "training")
        torch.set_grad_enabled(mode != "eval without gradient")
        return model

    yield put
    torch.set_grad_enabled(True)


def images_of(rows):
    return token_set().images(torch.tensor(rows))


def captions_of(rows):
    return token_set().text[torch.tensor(rows)]


def wider(tokens, extra):
    """The same batch with padding that holds numbers, not zeros: who reads it, differs."""
    batch = len(tokens)

    def longer(part, filler):
        more = torch.full((batch, extra, *part.shape[2:]), filler, dtype=part.dtype)
        return torch.cat([part, more], 1)

    mask = longer(tokens.mask, False)
    if isinstance(tokens, TextTokens):
        return TextTokens(longer(tokens.ids, 7), mask, longer(tokens.word_mask, False))
    return ImageTokens(longer(tokens.features, 200), longer(tokens.boxes, 0.7), mask, tokens.pooled)


def same(one, other):
    """Two embeddings of the same items agree: global tokens, and the local ones that are real."""
    torch.testing.assert_close(one.global_token, other.global_token, **CLOSE)
    assert torch.equal(one.mask.sum(dim=1), other.mask.sum(dim=1))
    mine, theirs = (each.local_tokens[each.mask] for each in (one, other))  # in the same order
    torch.testing.assert_close(mine, theirs, **CLOSE)


def both(model, images, captions):
    return model.encode_images(images_of(images)), model.encode_captions(captions_of(captions))


@MODES
def test_both_branches_give_unit_global_and_local_tokens_and_a_mask(mode_of):
    model = mode_of(tiny_model(dropout=0.1))
    images, captions = images_of([0, 3, 5]), captions_of([0, 1, 2, 3])
    for embedding, size, mask in (
        (model.encode_images(images), 3, images.mask),
        (model.encode_captions(captions), 4, captions.word_mask[:, 1:]),
    ):
        assert isinstance(embedding, tgdt_mini.Embedding)
        assert embedding.global_token.shape == (size, 32)
        assert embedding.local_tokens.shape == (*mask.shape, 32)
        assert torch.equal(embedding.mask, mask)
        for vectors in (embedding.global_token, embedding.local_tokens[mask]):
            torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))


def test_local_tokens_of_a_caption_are_its_word_pieces_the_last_one_too():
    embedding = tiny_model().encode_captions(tokenizer()(["star", "a red star"]))
    assert embedding.mask.sum(dim=1).tolist() == [1, 3]


def test_a_forward_is_both_encodings():
    model = tiny_model()
    found = model(images_of([1, 2]), captions_of([5, 10]))
    for one, other in zip(found, both(model, [1, 2], [5, 10])):
        same(one, other)


@MODES
def test_padding_does_not_change_an_embedding(mode_of):
    model = mode_of(tiny_model())
    for encoder, tokens in (
        (model.encode_images, images_of([0, 1, 2])),
        (model.encode_captions, captions_of([3, 9])),
    ):
        same(encoder(tokens), encoder(wider(tokens, 4)))


@MODES
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_company_in_a_batch_does_not_change_an_embedding(mode_of, norm_first):
    model = mode_of(tiny_model(norm_first=norm_first, local_layers=2, global_layers=2))
    branches = (model.encode_images, images_of), (model.encode_captions, captions_of)
    for encoder, rows_of in branches:
        rows = list(range(40))
        together = encoder(rows_of(rows))
        assert len(set(together.mask.sum(dim=1).tolist())) > 2  # ragged
        for row in (0, 7, 23):
            same(encoder(rows_of([row])), together[[row]])
        shuffled = rows[::-1]
        same(encoder(rows_of(shuffled)), together[shuffled])


@MODES
def test_encoding_apart_and_scoring_is_scoring_in_one_batch(mode_of):
    model = mode_of(tiny_model())
    owner = token_set().caption_image
    images, captions = encode(model, token_set(), batch=7)
    with torch.no_grad():
        at_once = mixed_similarity(*both(model, list(range(40)), list(range(len(owner)))), 0.7)
    torch.testing.assert_close(mixed_similarity(images, captions, 0.7), at_once, **CLOSE)


def test_encoding_leaves_the_model_in_the_mode_it_was_in():
    for training in (True, False):
        model = tiny_model(dropout=0.5).train(training)
        one, other = encode(model, token_set()), encode(model, token_set())
        assert model.training == training
        equal = (torch.equal(a.global_token, b.global_token) for a, b in zip(one, other))
        assert all(equal), "dropout is off"


def test_training_and_evaluation_score_the_same_local_tokens():
    model = tiny_model()
    trained = model.train()(images_of([0, 1, 2]), captions_of([0, 5, 10]))
    with torch.no_grad():
        tested = model.eval()(images_of([0, 1, 2]), captions_of([0, 5, 10]))
    for one, other in zip(trained, tested):
        same(one, other)


def test_local_tokens_are_those_before_the_global_layers():
    model = tiny_model()
    before = both(model, [0, 1], [0, 5])
    with torch.no_grad():
        for branch in (model.image_branch, model.text_branch):
            for parameter in branch.global_layers.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    for one, other in zip(before, both(model, [0, 1], [0, 5])):
        assert torch.equal(one.local_tokens, other.local_tokens)
        assert not torch.allclose(one.global_token, other.global_token, atol=1e-3)


def test_branches_are_one_class_and_share_no_weight():
    model = tiny_model()
    assert type(model.image_branch) is type(model.text_branch) is TokenBranch
    shapes = [
        {name: tuple(part.shape) for name, part in branch.state_dict().items()}
        for branch in (model.image_branch, model.text_branch)
    ]
    assert shapes[0] == shapes[1]  # homogeneous
    places = [part.data_ptr() for part in model.state_dict().values()]
    assert len(set(places)) == len(places)
    assert not torch.equal(model.image_branch.project.weight, model.text_branch.project.weight)


def gradients(use_global=True, use_local=True, use_intra=True, stop_gradient=False):
    """Names of the parameters that a batch's loss gives a gradient, and of all parameters."""
    model, owner = tiny_model(), list(range(0, 40, 2))
    images, captions = model(
        images_of(owner), captions_of([5 * row for row in owner]), stop_gradient
    )
    parts = {"use_global": use_global, "use_local": use_local, "use_intra": use_intra}
    limits = dict(negatives="mean", margin=0.5, consistency_margin=0.0)
    cmc_loss(images, captions, **limits, **parts).total.backward()
    named = dict(model.named_parameters())
    return {name for name, part in named.items() if part.grad is not None and part.grad.any()}, {
        *named
    }


WHO_LEARNS = {  # from which terms; the names with "global_layers" learn, and the others
    "joint": ({}, True, True),
    "local": ({"use_global": False, "use_intra": False}, False, True),
    "global, gradients stopped": ({"use_local": False, "stop_gradient": True}, True, False),
    "global": ({"use_local": False}, True, True),
}


@pytest.mark.parametrize("terms", WHO_LEARNS)
def test_each_term_reaches_the_parameters_that_it_should(terms):
    options, above, below = WHO_LEARNS[terms]
    learns, names = gradients(**options)
    assert learns == {name for name in names if (above if "global_layers" in name else below)}
    assert {"global_layers" in name for name in names} == {True, False}


def test_the_words_of_a_caption_matter_in_their_order():
    model = tiny_model().eval()
    words = ["a red star above a blue ring", "a blue star above a red ring"]
    embedding = model.encode_captions(tokenizer()(words))
    assert not torch.allclose(embedding.global_token[0], embedding.global_token[1], atol=1e-3)


@pytest.mark.parametrize("slot", ["whole", "zero"])
def test_the_image_slot_reads_the_whole_image_or_nothing(slot):
    model, tokens = tiny_model(image_slot=slot).eval(), images_of([0, 1])
    other = ImageTokens(tokens.features, tokens.boxes, tokens.mask, 255 - tokens.pooled)
    one, two = model.encode_images(tokens), model.encode_images(other)
    assert torch.equal(one.global_token, two.global_token) == (slot == "zero")


def test_boxes_matter():
    model, tokens = tiny_model().eval(), images_of([0, 1])
    other = ImageTokens(tokens.features, tokens.boxes.flip(-1), tokens.mask, tokens.pooled)
    one, two = (model.encode_images(each).local_tokens for each in (tokens, other))
    assert not torch.allclose(one, two, atol=1e-3)


def test_encoding_changes_no_input():
    features, boxes = [torch.rand(2, 6), torch.rand(1, 6)], [torch.zeros(2, 4), torch.ones(1, 4)]
    tokens = ImageTokens.pad(features, boxes)
    before = replace(tokens, **{name: part.clone() for name, part in vars(tokens).items()})
    for slot in ("zero", "whole"):
        tiny_model(image_features=6, image_slot=slot).encode_images(tokens)
    assert all(torch.equal(part, vars(tokens)[name]) for name, part in vars(before).items())


def test_features_of_another_width_are_an_error():
    tokens = ImageTokens.pad([torch.rand(2, 6)], [torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="regions have 6 features; this model was made for 1024"):
        tiny_model(image_features=1024).encode_images(tokens)


def test_a_caption_longer_than_the_model_reads_is_an_error():
    with pytest.raises(ValueError, match="a caption has 5 tokens; at most 4"):
        tiny_model(most_tokens=4).encode_captions(tokenizer()(["a red star"]))


def test_an_id_that_the_model_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="vocabulary"):
        tiny_model(vocabulary=10).encode_captions(tokenizer()(["a red star"]))


def test_the_mini_model_has_a_few_million_parameters_at_most():
    with torch.device("meta"):
        model = TGDT(TGDTConfig.mini())
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4e6


def test_the_paper_model_has_the_sizes_of_the_released_code():
    with torch.device("meta"):
        model = TGDT(TGDTConfig.paper())
    assert model.text_reader.word_embedding.num_embeddings == 30522
    linears = [part for part in model.image_reader.features if isinstance(part, torch.nn.Linear)]
    sizes = [(part.in_features, part.out_features) for part in linears]
    assert sizes == [(2048 + 5, 2048), (2048, 2048)]
    for branch, own in (
        (model.image_branch, (4, 2048, 4, 2048)),
        (model.text_branch, (6, 768, 12, 3072)),
    ):
        upper = (2, 1024, 4, 2048)
        for layers, (count, width, heads, feedforward) in (
            (branch.own, own),
            (branch.local_layers, upper),
            (branch.global_layers, upper),
        ):
            assert len(layers.layers) == count
            for layer in layers.layers:
                assert layer.self_attn.embed_dim == width and layer.self_attn.num_heads == heads
                assert layer.linear1.out_features == feedforward and not layer.norm_first
        assert branch.project.weight.shape == (1024, own[1])
    assert TGDTConfig.paper().image_slot == "zero" and TGDTConfig.paper().dropout == 0.1


def test_the_paper_model_takes_a_step():
    model = TGDT(TGDTConfig.paper(vocabulary=500))
    features = [torch.rand(3, 2048), torch.rand(2, 2048)]
    images = ImageTokens.pad(features, [torch.zeros(3, 4), torch.ones(2, 4)])
    real = torch.ones(2, 6, dtype=torch.bool)
    captions = TextTokens(torch.randint(4, 500, (2, 6)), real, real)
    before = model.image_branch.project.weight[:2].clone()
    loss = cmc_loss(*model(images, captions)).total
    loss.backward()
    torch.optim.AdamW(model.parameters(), lr=1e-5).step()
    assert torch.isfinite(loss) and not torch.equal(before, model.image_branch.project.weight[:2])
    assert all(torch.isfinite(part).all() for part in itertools.islice(model.parameters(), 10))


def test_encoding_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_model().eval()
        with torch.no_grad():
            both(model, [0, 1], [0, 1])


def test_embeddings_joined_are_the_items_in_order():
    model = tiny_model().eval()
    parts = [model.encode_captions(captions_of([row])) for row in (0, 1, 2, 3)]
    joined = Embedding.cat(parts)
    assert len(joined) == 4 and len(tiny_config().to_dict()) > 10
    for row, part in enumerate(parts):
        same(joined[[row]], part)


def test_an_item_left_alone_has_local_tokens_that_do_not_depend_on_their_neighbours():
    model = tiny_model(neighbour_dropout=1.0, text_layers=0, text_window=0)
    words = tokenizer()(["a red star", "a blue star"])
    alone = model.encode_captions(words).local_tokens
    torch.testing.assert_close(alone[0, 2], alone[1, 2])  # "star", after another colour
    seeing = model.eval().encode_captions(words).local_tokens
    assert not torch.allclose(seeing[0, 2], seeing[1, 2], atol=1e-3)


def test_context_adds_what_slot_0_is_to_each_local_token_and_leaves_the_global_one():
    tokens = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 4) > 0
    plain, mixed = (
        TokenBranch(
            tiny_config(global_residual=context, local_layers=0, global_layers=0), 32, 0, 2, 64
        )
        for context in (0.0, 2.0)
    )
    mixed.load_state_dict(plain.state_dict())
    before, after = plain(tokens, mask, mask), mixed(tokens, mask, mask)
    assert torch.equal(before.global_token, after.global_token)
    slots = plain.project(tokens)
    known = normalize(slots[:, 1:] + 2 * slots[:, :1], dim=-1)
    torch.testing.assert_close(after.local_tokens, known)


def test_the_mini_images_local_tokens_know_of_no_other_region():
    model = tiny_model(image_local_layers=0, image_layers=0)
    assert not len(model.image_branch.local_layers.layers)
    assert len(model.text_branch.local_layers.layers)
    images = token_set().images(torch.arange(2))
    changed = replace(images, features=images.features.clone())
    changed.features[:, 1] = 0
    before, after = (model.eval().encode_images(each) for each in (images, changed))
    torch.testing.assert_close(before.local_tokens[:, 0], after.local_tokens[:, 0])
    assert not torch.allclose(before.global_token, after.global_token)


def test_a_power_of_image_features_is_taken_before_anything_reads_them():
    def changed(images, function):
        parts = {name: function(getattr(images, name).float()) for name in ("features", "pooled")}
        return replace(images, **parts)

    images = changed(images_of([0, 1, 2]), lambda numbers: numbers - 100)
    rooted = changed(images, lambda numbers: numbers.sign() * numbers.abs().sqrt())
    plain, power = (photo_model(images, image_power=power).eval() for power in (1.0, 0.5))
    found, known = power.encode_images(images), plain.encode_images(rooted)
    torch.testing.assert_close(found.local_tokens, known.local_tokens)
    torch.testing.assert_close(found.global_token, known.global_token)
    assert not torch.allclose(found.global_token, plain.encode_images(images).global_token)


def photo_model(images, **changes):
    """A model that reads the pixels of regions as if they were features."""
    torch.manual_seed(0)
    return TGDT(tiny_photo_config(image_features=images.features.shape[2], **changes))


def test_features_that_are_0_have_a_gradient_under_a_power_too():
    images = images_of([0, 1])
    features = torch.zeros_like(images.features, dtype=torch.float32).requires_grad_()
    model = photo_model(images, image_power=0.5)
    model.encode_images(replace(images, features=features)).global_token[:, 0].sum().backward()
    assert features.grad.isfinite().all()
