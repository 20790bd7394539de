"""Scores against loops in float64, and what must not change them, such as padding and order."""

import pytest
import torch
from examples import few, pairs
from helpers import random_embedding
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pad
from torch.testing import assert_close

from tgdt_mini import retrieval, similarity
from tgdt_mini.embedding import Embedding
from tgdt_mini.retrieval import paired_similarity
from tgdt_mini.similarity import (
    global_similarity,
    local_similarity,
    local_similarity_plain,
    mixed_similarity,
    shortlist_similarity,
)

REGIONS, WORDS = (3, 1, 5, 2), (4, 1, 2, 6, 3)
PRODUCTS = (1, 7, 40, similarity.PRODUCTS["cpu"])


@pytest.fixture(params=PRODUCTS)
def products(request, monkeypatch):
    """How many products are held at once; captions are taken two at a time where they are few."""
    monkeypatch.setitem(similarity.PRODUCTS, "cpu", request.param)
    monkeypatch.setattr(similarity, "CAPTIONS", 2 if request.param < 100 else 64)
    return request.param


def pair(width=8, **options):
    images = random_embedding(0, len(REGIONS), REGIONS, width, **options)
    return images, random_embedding(1, len(WORDS), WORDS, width, **options)


def local_by_loops(images, captions):
    """The definition, one image, one caption, one word, one region at a time."""
    scores = torch.zeros(len(images), len(captions), dtype=torch.float64)
    for i in range(len(images)):
        for c in range(len(captions)):
            best = []
            for word, real_word in zip(captions.local_tokens[c], captions.mask[c], strict=True):
                if real_word:
                    regions = zip(images.local_tokens[i], images.mask[i], strict=True)
                    best.append(max(float(word @ region) for region, real in regions if real))
            scores[i, c] = sum(best) / len(best)
    return scores


def embed(*token_rows):
    """One item whose local tokens are the rows given, all real; its global token is the first."""
    tokens = torch.tensor([token_rows], dtype=torch.float64)
    return Embedding(tokens[:, 0], tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def padded(embedding, extra, filler):
    tokens = pad(embedding.local_tokens, (0, 0, 0, extra), value=filler)
    tokens = tokens.masked_fill(~pad(embedding.mask, (0, extra))[..., None], filler)
    return Embedding(embedding.global_token, tokens, pad(embedding.mask, (0, extra)))


def test_worked_values():
    image, caption = embed((1.0, 0.0), (0.6, 0.8)), embed((1.0, 0.0), (0.0, 1.0))
    assert local_similarity(image, caption).item() == pytest.approx(0.9)
    assert global_similarity(image, caption).item() == pytest.approx(1.0)
    assert mixed_similarity(image, caption, 2.0).item() == pytest.approx(2.8)


@few
@given(both=pairs(), held=st.sampled_from(PRODUCTS), weight=st.floats(-9, 9))
def test_scores_are_those_of_loops_however_many_products_are_held(both, held, weight):
    images, captions = both
    by_global = [[float(v @ t) for t in captions.global_token] for v in images.global_token]
    by_global, by_local = torch.tensor(by_global, dtype=torch.float64), local_by_loops(*both)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarity.PRODUCTS, "cpu", held)
        patch.setattr(similarity, "CAPTIONS", 2 if held < 100 else 64)
        assert_close(global_similarity(*both), by_global)
        assert_close(local_similarity(*both), by_local)
        assert_close(local_similarity_plain(*both), by_local)
        assert_close(mixed_similarity(*both, weight), by_global + weight * by_local)


@few
@given(both=pairs(), data=st.data())
def test_neither_order_nor_neighbours_nor_padding_change_a_score(both, data):
    images, captions = both
    whole = local_similarity(images, captions)
    rows, columns = (
        data.draw(st.lists(st.integers(0, len(side) - 1), min_size=1, max_size=7)) for side in both
    )
    fillers = st.sampled_from([0.0, 1e4, -1e4, float("nan"), float("inf")])
    one, other = (
        padded(side[chosen], data.draw(st.integers(0, 3)), data.draw(fillers))
        for side, chosen in zip(both, (rows, columns))
    )
    assert_close(local_similarity(one, other), whole[rows][:, columns])
    assert_close(global_similarity(one, other), global_similarity(*both)[rows][:, columns])
    assert whole.abs().max() <= 1 + 1e-9


def test_a_padded_region_never_beats_a_negative_cosine():
    """Released code, row 5: padding of 0 wins the max whenever all real cosines are below 0."""
    image = padded(embed((-1.0, 0.0)), 1, 0.0)
    assert local_similarity(image, embed((1.0, 0.0))).item() == -1.0


def test_every_real_word_counts():
    """Released code, row 6: the last word piece is dropped, and one piece alone scores 0."""
    image = embed((1.0, 0.0))
    assert local_similarity(image, embed((0.8, 0.6))).item() == pytest.approx(0.8)
    assert local_similarity(image, embed((1.0, 0.0), (-1.0, 0.0))).item() == pytest.approx(0.0)


def test_length_does_not_change_the_score():
    """Released code, row 7: a sum over words grows with the caption. Said twice is the same."""
    images, captions = pair()
    twice = Embedding(
        captions.global_token, captions.local_tokens.repeat(1, 2, 1), captions.mask.repeat(1, 2)
    )
    assert_close(local_similarity(images, twice), local_similarity(images, captions))


@pytest.mark.parametrize("filler", [0.0, 1e4, float("nan")])
@pytest.mark.parametrize("width", [2, 64])
def test_padding_changes_neither_scores_nor_gradients(width, filler):
    def scores_and_gradients(images, captions):
        leaves = [images.local_tokens.requires_grad_(), captions.local_tokens.requires_grad_()]
        scores = local_similarity(images, captions)
        return scores, *torch.autograd.grad(scores.square().sum(), leaves)

    images, captions = pair(width)
    expected = scores_and_gradients(images, captions)
    got = scores_and_gradients(padded(images, 3, filler), padded(captions, 2, filler))
    assert_close(got[0], expected[0])
    for padded_gradient, gradient in zip(got[1:], expected[1:], strict=True):
        length = gradient.shape[1]
        assert_close(padded_gradient[:, :length], gradient)
        assert (padded_gradient[:, length:] == 0).all()
    with torch.no_grad():
        scores = local_similarity(padded(images, 3, filler), padded(captions, 2, filler))
    assert_close(scores, expected[0])


@pytest.mark.parametrize("width", [2, 64])
def test_gradients(width, products):
    images, captions = pair(width)

    def scores(regions, words):
        some_images = Embedding(images.global_token, regions, images.mask)
        return local_similarity(some_images, Embedding(captions.global_token, words, captions.mask))

    leaves = [side.local_tokens.clone().requires_grad_() for side in (images, captions)]
    assert torch.autograd.gradcheck(scores, leaves, fast_mode=True)


@pytest.mark.parametrize("most", [5_000, 50_000, 2**20])
def test_the_products_held_at_once_are_bounded(most, monkeypatch):
    held, best_region = [], similarity._best_region

    def watched(words, images):
        held.append(len(words) * images.mask.numel())
        return best_region(words, images)

    monkeypatch.setattr(similarity, "_best_region", watched)
    monkeypatch.setitem(similarity.PRODUCTS, "cpu", most)
    images, captions = random_embedding(0, 50, 9), random_embedding(1, 60, 7)
    local_similarity(images, captions)
    assert max(held) <= most and sum(held) == 50 * 9 * 60 * 7
    if most == 2**20:
        assert len(held) == 1, "what fits is one product"


@pytest.mark.parametrize("most", [1_000, 2**20])
def test_with_many_items_the_products_of_one_turn_are_bounded(most, monkeypatch):
    held, in_turns = [], similarity._in_turns

    def watched(words, images):
        held.append(len(words) * len(images))
        return in_turns(words, images)

    monkeypatch.setattr(similarity, "_in_turns", watched)
    monkeypatch.setattr(similarity, "CAPTIONS", 20)
    monkeypatch.setitem(similarity.PRODUCTS, "cpu", most)
    images, captions = random_embedding(0, 50, 9), random_embedding(1, 60, 7)
    local_similarity(images, captions)
    assert max(held) <= most and sum(held) == 50 * 60 * 7
    assert len(held) == 3 or most < 2**20, "what fits is one block for each twenty captions"


@pytest.mark.parametrize("captions_at_once", [2, 64])
@pytest.mark.parametrize("score", [global_similarity, local_similarity])
def test_float32_scores_under_autocast_and_for_half_precision(score, captions_at_once, monkeypatch):
    monkeypatch.setattr(similarity, "CAPTIONS", captions_at_once)
    images, captions = pair(dtype=torch.float32)
    expected = score(images, captions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(score(images, captions), expected)
    half = score(images.to(torch.bfloat16), captions.to(torch.bfloat16))
    assert half.dtype == torch.float32
    rounded = [side.to(torch.bfloat16).to(torch.float32) for side in (images, captions)]
    assert torch.equal(half, score(*rounded)), "only the inputs may be rounded, not the scores"


@pytest.mark.parametrize("query_is", ["image", "caption"])
@pytest.mark.parametrize("filler", [0.0, float("nan")])
def test_shortlist_equals_the_full_matrix(query_is, filler):
    images, captions = pair()
    full = local_similarity(images, captions)
    images, captions = padded(images, 1, filler), padded(captions, 1, filler)
    queries, gallery = (images, captions) if query_is == "image" else (captions, images)
    full = full if query_is == "image" else full.T
    ids = torch.stack([torch.randperm(len(gallery))[:3] for _ in range(len(queries))])  # (Q, K)
    got = shortlist_similarity(queries, gallery.local_tokens[ids], gallery.mask[ids], query_is)
    assert_close(got, full.gather(1, ids))


@pytest.mark.parametrize("query_is", ["image", "caption"])
def test_shortlist_without_a_mask_means_all_real(query_is):
    queries, gallery = random_embedding(0, 3, (2, 4, 3)), random_embedding(1, 5, 4)
    ids = torch.arange(5).expand(3, 5)
    masked, bare = (
        shortlist_similarity(queries, gallery.local_tokens[ids], mask, query_is)
        for mask in (gallery.mask[ids], None)
    )
    assert_close(bare, masked)


@pytest.mark.parametrize("tokens", [1, 3, retrieval.TOKENS])
@pytest.mark.parametrize("filler", [0.0, float("nan")])
@pytest.mark.parametrize(
    "swapped", [False, True], ids=["fewer words than regions", "fewer regions than words"]
)
def test_pairs_equal_the_full_matrix(tokens, filler, swapped, monkeypatch):
    monkeypatch.setattr(retrieval, "TOKENS", tokens)  # the blocks must not show
    monkeypatch.setattr(retrieval, "START", 0)
    images, captions = pair()[::-1] if swapped else pair()
    full = local_similarity(images, captions)
    images, captions = padded(images, 1, filler), padded(captions, 2, filler)
    # in any order; nobody asks for image 1
    image = torch.tensor([2, 4, 2, 0, 2] if swapped else [0, 3, 0, 2, 2, 0])
    caption = torch.tensor([2, 2, 0, 2, 2] if swapped else [3, 2, 1, 0, 3, 1])
    words, regions = captions.mask.sum(1)[caption].sum(), images.mask.sum(1)[image].sum()
    assert (words > regions) == swapped, "both ways round are tried"
    assert_close(paired_similarity(images, captions, image, caption), full[image, caption])
    # as a device without a CPU's caches does it: two pairs at a time, and all of them
    for most in (2 * images.local_tokens[0].numel(), 2**24):
        monkeypatch.setattr(retrieval, "PRODUCTS", {})
        monkeypatch.setattr(retrieval, "PRODUCTS_ELSEWHERE", most)
        elsewhere = paired_similarity(images, captions, image, caption)
        assert_close(elsewhere, full[image, caption])


@pytest.mark.parametrize("filler", [0.0, float("nan")])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("tokens", [1, 12, retrieval.TOKENS])  # one image at a time, two, all
def test_pairs_with_whole_images_equal_the_full_matrix(filler, half, tokens, monkeypatch):
    """No image that is asked for has padding; captions have. Caption 2, not asked for, is blank."""
    monkeypatch.setattr(retrieval, "TOKENS", tokens)
    images, captions = pair()
    images = Embedding.cat([images, whole := random_embedding(5, 4, 6)])
    image = torch.arange(len(images) - 4, len(images))[[3, 0, 0, 2, 1, 3]]
    caption = torch.tensor([3, 1, 0, 3, 0, 0])
    cut = Embedding(images.global_token, images.local_tokens[:, :6], images.mask[:, :6])
    assert whole.mask.all() and cut.mask[image].all()
    full = local_similarity(cut, captions)
    if half:
        cut, captions = cut.to(torch.float16), captions.to(torch.float32)
    captions.mask[2] = False
    sides = cut, padded(captions, 2, filler)
    scores = paired_similarity(*sides, image, caption)
    torch.testing.assert_close(
        scores.double(), full[image, caption], **({"atol": 2e-3, "rtol": 0} if half else {})
    )


def test_pairs_are_in_float32_under_autocast_and_for_half_precision():
    images, captions = pair(dtype=torch.float32)
    image, caption = torch.tensor([0, 1, 3]), torch.tensor([2, 2, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = paired_similarity(images, captions, image, caption)
    assert_close(scores, local_similarity(images, captions)[image, caption])
    half = paired_similarity(images.to(torch.bfloat16), captions.to(torch.bfloat16), image, caption)
    assert half.dtype == torch.float32


def test_late_interaction_of_another_library_is_the_same():
    """maxsim-cpu sums over the words, so its scores are divided by their number."""
    maxsim = pytest.importorskip("maxsim_cpu")
    images, captions = pair(64, dtype=torch.float32)
    regions = [own[mask].numpy() for own, mask in zip(images.local_tokens, images.mask)]
    for c in range(len(captions)):
        words = captions.local_tokens[c][captions.mask[c]].numpy()
        theirs = torch.tensor(maxsim.maxsim_scores_variable(words, regions)) / len(words)
        assert_close(local_similarity(images, captions)[:, c], theirs, atol=1e-6, rtol=0)


def test_training_never_waits_for_a_gpu():
    """Tensors on "meta" have no numbers: whatever would have to wait for one raises."""
    images, captions = (side.to("meta") for side in pair())
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        local_similarity(images, captions)  # outside of training masks are looked at
    images.local_tokens.requires_grad_()
    scores = local_similarity(images, captions)
    scores.sum().backward()
    assert scores.shape == (4, 5) and images.local_tokens.grad.shape == (4, 5, 8)


@pytest.mark.parametrize("filler", [0.0, float("nan")])
def test_words_that_nobody_counted_give_the_same_scores(filler, monkeypatch):
    """What training on a GPU does, done on the CPU."""
    images, captions = pair()
    expected = local_similarity(images, captions)
    words = similarity._words
    monkeypatch.setattr(similarity, "_words", lambda part, may_look: words(part, False))
    assert_close(local_similarity(images, padded(captions, 2, filler)), expected)


def test_bad_input_is_named():
    images, captions = pair()
    captions.mask[2] = False
    with pytest.raises(ValueError, match="caption 2 has no real word"):
        local_similarity(images, captions)
    images.mask[1] = False
    with pytest.raises(ValueError, match="image 1 has no real region"):
        local_similarity(images, random_embedding(1, 2, 2))
    with pytest.raises(ValueError, match="images are 8 wide, captions 4"):
        global_similarity(images, random_embedding(1, 2, 2, width=4))
    with pytest.raises(ValueError, match="empty"):
        local_similarity(images, captions[[]])
    with pytest.raises(ValueError, match="query_is is 'text'"):
        shortlist_similarity(captions, images.local_tokens[None], None, "text")
