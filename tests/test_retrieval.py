"""Two-stage scores against full scoring; a gallery against `two_stage`, in memory and on disk, whole and damaged."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import random_embedding

from tgdt_mini import retrieval
from tgdt_mini.embedding import Embedding
from tgdt_mini.retrieval import Gallery, two_stage
from tgdt_mini.similarity import global_similarity, mixed_similarity

REGIONS, WORDS = (3, 1, 5, 2, 4, 2, 3), (4, 1, 2, 6, 3, 5)
BOTH = pytest.mark.parametrize("query_is", ["image", "caption"])


def sides(query_is, ragged=True):
    """Queries and gallery, float32, the local tokens exact in float16 so that storing them loses nothing."""
    images = random_embedding(0, len(REGIONS), REGIONS if ragged else 3)
    captions = random_embedding(1, len(WORDS), WORDS if ragged else 4)
    images, captions = (
        Embedding(side.global_token.float(), side.local_tokens.half().float(), side.mask) for side in (images, captions)
    )
    return (images, captions) if query_is == "image" else (captions, images)


def gallery_of(embedding, query_is, **options):
    names = [f"item {i}" for i in range(len(embedding))]
    return Gallery.build(embedding, names, holds="caption" if query_is == "image" else "image", **options)


def full_scores(queries, gallery, query_is, local_weight):
    if query_is == "image":
        return mixed_similarity(queries, gallery, local_weight)
    return mixed_similarity(gallery, queries, local_weight).T


@BOTH
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_a_shortlist_of_everything_is_full_scoring(query_is, ragged, extra):
    queries, gallery = sides(query_is, ragged)
    scores = two_stage(queries, gallery, len(gallery) + extra, 0.7, query_is)
    torch.testing.assert_close(scores, full_scores(queries, gallery, query_is, 0.7))


@BOTH
@pytest.mark.parametrize("floats", [1, 100, 2**22])
def test_scores_in_the_shortlist_are_full_scores_and_minus_inf_outside(query_is, floats, monkeypatch):
    monkeypatch.setattr(retrieval, "FLOATS", floats)  # the batching must not show
    queries, gallery = sides(query_is)
    scores = two_stage(queries, gallery, 3, 0.7, query_is)
    shortlist = torch.zeros_like(scores, dtype=torch.bool)
    shortlist.scatter_(1, global_similarity(queries, gallery).topk(3).indices, True)
    torch.testing.assert_close(scores[shortlist], full_scores(queries, gallery, query_is, 0.7)[shortlist])
    assert (scores[~shortlist] == -float("inf")).all() and shortlist.sum() == 3 * len(queries)


@BOTH
def test_padding_and_neighbours_change_nothing(query_is):
    queries, gallery = sides(query_is)
    scores = two_stage(queries, gallery, 3, 0.7, query_is)
    longer = Embedding.cat([gallery, random_embedding(5, 1, 9).to(torch.float32)])[: len(gallery)]
    longer = Embedding(longer.global_token, longer.local_tokens.masked_fill(~longer.mask[..., None], 9.0), longer.mask)
    torch.testing.assert_close(two_stage(queries, longer, 3, 0.7, query_is), scores)
    torch.testing.assert_close(two_stage(queries[[4, 2]], gallery, 3, 0.7, query_is), scores[[4, 2]])


@BOTH
def test_float32_under_autocast(query_is):
    queries, gallery = sides(query_is)
    expected = two_stage(queries, gallery, 3, 0.7, query_is)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(two_stage(queries, gallery, 3, 0.7, query_is), expected)


@BOTH
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "from disk"])
@pytest.mark.parametrize("floats", [1, 2**22])
def test_search_gives_the_best_of_two_stage(query_is, ragged, stored, floats, monkeypatch, tmp_path):
    monkeypatch.setattr(retrieval, "FLOATS", floats)
    queries, embedding = sides(query_is, ragged)
    gallery = gallery_of(embedding, query_is)
    if stored:
        gallery.save(tmp_path / "gallery")
        gallery = Gallery.load(tmp_path / "gallery")
    hits = gallery.search(queries, k=2, shortlist=4, local_weight=0.7)
    best = two_stage(queries, embedding, 4, 0.7, query_is).topk(2)
    assert torch.equal(hits.indices, best.indices)
    torch.testing.assert_close(hits.scores, best.values)
    assert hits.items == [[f"item {i}" for i in row] for row in best.indices.tolist()]
    assert set(hits.seconds) == {"shortlist", "rerank"} and min(hits.seconds.values()) > 0


@BOTH
def test_search_clamps_k_and_shortlist(query_is):
    queries, embedding = sides(query_is)
    gallery = gallery_of(embedding, query_is)
    everything = gallery.search(queries, k=1000, shortlist=1000, local_weight=0.7)
    full = full_scores(queries, embedding, query_is, 0.7).sort(descending=True)
    torch.testing.assert_close(everything.scores, full.values)
    assert gallery.search(queries, k=5, shortlist=2).indices.shape == (len(queries), 5)
    torch.testing.assert_close(
        gallery.search(queries, k=5, shortlist=2).scores, gallery.search(queries, k=5, shortlist=5).scores
    )


def test_search_reads_the_shortlist_only():
    queries, embedding = sides("caption")
    gallery = gallery_of(embedding, "caption")
    expected = gallery.search(queries[:1], k=3, shortlist=3)
    for item in set(range(len(embedding))) - set(expected.indices[0].tolist()):
        gallery.local_tokens[gallery.offsets[item] : gallery.offsets[item + 1]] = float("nan")
    assert torch.equal(gallery.search(queries[:1], k=3, shortlist=3).scores, expected.scores)


def test_saved_arrays_are_ragged_float16_that_numpy_can_map(tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption", model="abc").save(tmp_path / "gallery")
    local_tokens = np.load(tmp_path / "gallery" / "local_tokens.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(tmp_path / "gallery" / "offsets.npy", allow_pickle=False)
    assert local_tokens.dtype == np.float16 and local_tokens.shape == (sum(REGIONS), 8)
    assert offsets.tolist() == [0, *np.cumsum(REGIONS).tolist()]
    assert np.array_equal(local_tokens[offsets[2] : offsets[3]], embedding.local_tokens[2, :5].half().numpy())
    assert np.load(tmp_path / "gallery" / "global_tokens.npy").dtype == np.float32
    about = json.loads((tmp_path / "gallery" / "gallery.json").read_text(encoding="utf-8"))
    assert about["items"][1] == "item 1" and about["model"] == "abc" and about["holds"] == "image"


def test_load_maps_the_local_tokens_and_leaves_the_file_alone(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption").save(tmp_path / "gallery")
    path, opened, load = tmp_path / "gallery" / "local_tokens.npy", {}, np.load

    def watched(path, **options):
        opened[path.name] = load(path, **options)
        return opened[path.name]

    monkeypatch.setattr(np, "load", watched)
    gallery, before = Gallery.load(tmp_path / "gallery"), path.read_bytes()
    assert isinstance(opened[path.name], np.memmap)
    assert opened[path.name].ctypes.data == gallery.local_tokens.data_ptr(), "mapped, not copied"
    gallery.local_tokens[0] = 7.0
    assert path.read_bytes() == before


def test_items_may_be_any_json_in_any_language(tmp_path):
    _, embedding = sides("caption")
    items = [{"file": "日本.png", "page": i} for i in range(len(embedding))]
    Gallery.build(embedding, items).save(tmp_path / "gallery")
    assert Gallery.load(tmp_path / "gallery").items == items
    with pytest.raises(ValueError, match="JSON"):
        Gallery.build(embedding, [tmp_path] * len(embedding)).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_save_that_fails_leaves_the_old_gallery(tmp_path, monkeypatch):
    queries, embedding = sides("caption")
    folder = tmp_path / "gallery"
    gallery_of(embedding[:4], "caption").save(folder)
    write = np.save

    def full_disk(path, array, **options):
        write(path, array[:1], **options)
        if path.name == "local_tokens.npy":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        gallery_of(embedding, "caption").save(folder)
    with pytest.raises(OSError, match="No space"):
        gallery_of(embedding, "caption").save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"], "nothing half-written stays behind"
    assert len(Gallery.load(folder)) == 4
    monkeypatch.undo()
    gallery_of(embedding, "caption").save(folder)
    assert len(Gallery.load(folder)) == len(embedding)
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_save_spares_a_folder_that_is_not_a_gallery(tmp_path):
    _, embedding = sides("caption")
    (tmp_path / "thesis.txt").write_text("three years", encoding="utf-8")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="not ours|is a file"):
            gallery_of(embedding, "caption").save(place)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "three years"
    (tmp_path / "empty").mkdir()
    gallery_of(embedding, "caption").save(tmp_path / "empty")


@pytest.mark.parametrize("name", ["global_tokens.npy", "local_tokens.npy", "offsets.npy", "gallery.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_a_damaged_file_is_named(name, damage, tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption").save(tmp_path / "gallery")
    path = tmp_path / "gallery" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        damaged = {"empty": b"", "truncated": content[:-9], "flipped": bytes([content[0] ^ 1]) + content[1:]}[damage]
        if damage == "flipped" and name != "gallery.json":
            damaged = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(damaged)
    with pytest.raises(ValueError, match=name):
        Gallery.load(tmp_path / "gallery")


def test_large_files_are_checksummed_on_request(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption").save(tmp_path / "gallery")
    path = tmp_path / "gallery" / "local_tokens.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    monkeypatch.setattr(retrieval, "CHECKED", 0)
    Gallery.load(tmp_path / "gallery")
    with pytest.raises(ValueError, match="local_tokens.npy"):
        Gallery.load(tmp_path / "gallery", check_all=True)


def test_files_of_two_galleries_do_not_mix(tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption").save(tmp_path / "a")
    gallery_of(embedding[[1, 0, 2, 3, 4, 5, 6]], "caption").save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "local_tokens.npy", tmp_path / "b")
    with pytest.raises(ValueError, match="local_tokens.npy"):
        Gallery.load(tmp_path / "b")
    about = json.loads((tmp_path / "a" / "gallery.json").read_text(encoding="utf-8"))
    about["items"].pop()
    (tmp_path / "a" / "gallery.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ValueError, match="6 items"):
        Gallery.load(tmp_path / "a")


def test_another_model_is_refused(tmp_path):
    queries, embedding = sides("caption")
    gallery_of(embedding, "caption", model="abc").save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery", expect_model="abc")
    gallery.search(queries, expect_model="abc")
    for refused in (
        lambda: Gallery.load(tmp_path / "gallery", expect_model="xyz"),
        lambda: gallery.search(queries, expect_model="xyz"),
        lambda: gallery_of(embedding, "caption").search(queries, expect_model="xyz"),
        lambda: gallery.search(random_embedding(0, 2, 2, width=4)),
    ):
        with pytest.raises(ValueError, match="another model.*re-index"):
            refused()


def test_a_query_may_still_carry_a_gradient():
    queries, embedding = sides("caption")
    queries.local_tokens.requires_grad_()
    hits = gallery_of(embedding, "caption").search(queries, k=2)
    assert not hits.scores.requires_grad


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda q, g: two_stage(q, g, 0, 1.0, "caption"), "shortlist is 0"),
        (lambda q, g: two_stage(q, g, -3, 1.0, "caption"), "shortlist is -3"),
        (lambda q, g: two_stage(q, g, 3, 1.0, "text"), "query_is is 'text'"),
        (lambda q, g: two_stage(random_embedding(0, 2, 2, 4), g, 3, 1.0, "caption"), "4 wide, the gallery 8"),
        (lambda q, g: gallery_of(g, "caption").search(q, k=0), "k is 0"),
        (lambda q, g: gallery_of(g, "caption").search(q, shortlist=0), "shortlist is 0"),
        (lambda q, g: Gallery.build(g, ["a"]), "1 items for 7"),
        (lambda q, g: Gallery.build(g, [0] * 7, holds="video"), "holds is 'video'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sides("caption"))


def test_items_and_queries_without_real_tokens_are_named():
    queries, gallery = sides("caption")
    gallery.mask[3] = False
    with pytest.raises(ValueError, match="image 3 has no real region"):
        two_stage(queries, gallery, 2, 1.0, "caption")
    with pytest.raises(ValueError, match="image 3 has no real region"):
        two_stage(gallery, queries, 2, 1.0, "image")
    with pytest.raises(ValueError, match="image 3 has no real region"):
        gallery_of(gallery, "caption")
    queries.mask[1] = False
    with pytest.raises(ValueError, match="caption 1 has no real word"):
        two_stage(sides("image")[0], queries, 2, 1.0, "image")
    with pytest.raises(ValueError, match="caption 1 has no real word"):
        gallery_of(sides("caption")[1], "caption").search(queries)
