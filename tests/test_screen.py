"""The screen in int8 against the product with all items: the same items, the same scores."""

import pytest
import torch
from helpers import random_embedding

from tgdt_mini.retrieval import best_by_global, two_stage
from tgdt_mini.search import gallery as gallery_module
from tgdt_mini.search import screen as screen_module
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.search.screen import Screen, is_useful

pytest.importorskip("faiss")
WIDTH = 16


def tokens(seed, items, width=WIDTH):
    return random_embedding(seed, items, 1, width, torch.float32).global_token


def assert_exact(queries, items, count, screen):
    exact, ids = best_by_global(queries, items, count)
    scores, screened = best_by_global(queries, items, count, screen)
    assert torch.equal(screened, ids)
    torch.testing.assert_close(scores, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("count", [1, 10, 400])
def test_a_screen_finds_the_exact_best(dtype, count):
    items = tokens(1, 400).to(dtype)
    assert_exact(tokens(0, 20), items, count, Screen(items))


@pytest.mark.parametrize("scale", [0, 1e-8, 1e4])
def test_it_does_so_for_numbers_of_any_size(scale):
    items = tokens(1, 300) * scale
    items[::2] *= 1e-3
    exact = best_by_global(tokens(0, 5), items, 10)[0].sort().values
    scores = best_by_global(tokens(0, 5), items, 10, Screen(items))[0].sort().values
    torch.testing.assert_close(scores, exact, atol=1e-6 * max(scale, 1), rtol=0)


def test_where_int8_cannot_tell_items_apart_all_are_scored(monkeypatch):
    """Items that differ by less than a step of int8; the best one comes last."""
    query = tokens(0, 1)
    items = tokens(2, 1).repeat(300, 1) + torch.linspace(0, 1e-5, 300)[:, None] * query
    screen = Screen(items)
    _, near = screen._int8.search((query / query.abs().max() * 127).round().numpy(), 40)
    best = (items.double() @ query[0].double()).topk(10).indices
    assert not set(best.tolist()) <= set(near[0].tolist()), "int8 alone finds them: no test"
    assert set(best_by_global(query, items, 10, screen)[1][0].tolist()) == set(best.tolist())


def test_a_large_gallery_is_screened_and_its_hits_are_the_same(monkeypatch):
    images, queries = (
        random_embedding(seed, n, 3, WIDTH, torch.float32) for seed, n in ((1, 200), (0, 3))
    )
    gallery = Gallery.build(images, list(range(200)))
    plain = gallery.search(queries, 5, 20)
    assert not is_useful(200, WIDTH) and "screen" not in vars(gallery)
    monkeypatch.setattr(gallery_module, "is_useful", lambda *shape: True)
    screened = gallery.search(queries, 5, 20)
    assert "screen" in vars(gallery) and torch.equal(plain.indices, screened.indices)
    torch.testing.assert_close(plain.scores, screened.scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize("query_is", ["image", "caption"])
def test_two_stages_in_memory_may_be_screened_too(query_is):
    gallery, queries = (
        random_embedding(seed, n, 3, WIDTH, torch.float32) for seed, n in ((1, 200), (0, 3))
    )
    screen, asked = Screen(gallery.global_token), []
    screen.search, search = lambda *args: asked.append(args) or search(*args), screen.search
    screened = two_stage(queries, gallery, 20, 0.7, query_is, screen)
    plain = two_stage(queries, gallery, 20, 0.7, query_is)
    torch.testing.assert_close(screened, plain, atol=1e-6, rtol=0)
    assert asked and (screened > -float("inf")).sum() == 60
    for index in (Screen(gallery.global_token[:199]), Screen(gallery.global_token[:, :15]), 5):
        with pytest.raises(ValueError, match=r"index is .*, not \[200, 16, 0\]; make one"):
            two_stage(queries, gallery, 20, 0.7, query_is, index)


@pytest.mark.parametrize("row", [0, 4999])
def test_tokens_that_are_no_numbers_are_refused(row):
    for value in (float("nan"), float("inf")):
        items = tokens(1, 5000)
        items[row, 3] = value
        with pytest.raises(ValueError, match="global_tokens hold NaN or infinity"):
            Screen(items)


@pytest.mark.parametrize("items", [10, 300, 3000, 3003])
@pytest.mark.parametrize("count", [1, 10, 60])
@pytest.mark.parametrize("queries", [1, 9])
def test_one_product_finds_what_faiss_finds(monkeypatch, items, count, queries):
    count = min(count, items)
    screen = Screen(tokens(1, items))
    levels = (tokens(0, queries) * 127).round().numpy()
    values, ids = screen._near(levels, count)
    with monkeypatch.context() as patched:
        patched.setattr(screen_module, "is_exact", lambda kind: False)
        patched.setattr(screen_module, "_top", None)  # the product is not asked
        expected, _ = screen._near(levels, count)
    values, expected = torch.from_numpy(values).double(), torch.from_numpy(expected).double()
    assert torch.equal(values.sort().values, expected.sort().values)  # whole numbers
    exact = torch.from_numpy(levels).double() @ (screen._codes().double() - 128).T
    assert torch.equal(exact.gather(1, torch.from_numpy(ids)), values)
    assert all(len(set(row)) == count for row in ids.tolist())
    assert_exact(tokens(0, queries), tokens(1, items), count, screen)


def test_several_queries_are_screened_in_large_galleries_only():
    assert is_useful(100_000, 256) and is_useful(100_000, 256, 2) and is_useful(100_000, 256, 999)
    assert is_useful(10_000, 256) and not is_useful(10_000, 256, 2)
    assert not is_useful(8_000, 256)


def test_without_faiss_nothing_is_screened(monkeypatch):
    assert is_useful(2**20, 256)
    monkeypatch.setattr("tgdt_mini.search.screen.find_spec", lambda name: None)
    assert not is_useful(2**20, 256)
