"""Two-stage scores against full scoring; a gallery against `two_stage`, in memory and on disk,
whole and damaged.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import random_embedding

from tgdt_mini import retrieval
from tgdt_mini.embedding import Embedding
from tgdt_mini.files import whole
from tgdt_mini.retrieval import two_stage
from tgdt_mini.search import files
from tgdt_mini.search.faiss_index import faiss_index
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import global_similarity, mixed_similarity

REGIONS, WORDS = (3, 1, 5, 2, 4, 2, 3), (4, 1, 2, 6, 3, 5)
HOLDS = {"image": "caption", "caption": "image"}
BOTH = pytest.mark.parametrize("query_is", ["image", "caption"])


def sides(query_is, ragged=True):
    """Queries and gallery, float32, the local tokens exact in float16 so that storing them loses
    nothing.
    """
    images = random_embedding(0, len(REGIONS), REGIONS if ragged else 3)
    captions = random_embedding(1, len(WORDS), WORDS if ragged else 4)
    images, captions = (
        Embedding(side.global_token.float(), side.local_tokens.half().float(), side.mask)
        for side in (images, captions)
    )
    return (images, captions) if query_is == "image" else (captions, images)


def gallery_of(embedding, query_is, **options):
    names = [f"item {i}" for i in range(len(embedding))]
    return Gallery.build(embedding, names, holds=HOLDS[query_is], **options)


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
def test_scores_in_the_shortlist_are_full_scores_and_minus_inf_outside(
    query_is, floats, monkeypatch
):
    monkeypatch.setattr(retrieval, "FLOATS", floats)  # the batching must not show
    queries, gallery = sides(query_is)
    scores = two_stage(queries, gallery, 3, 0.7, query_is)
    shortlist = torch.zeros_like(scores, dtype=torch.bool)
    shortlist.scatter_(1, global_similarity(queries, gallery).topk(3).indices, True)
    torch.testing.assert_close(
        scores[shortlist], full_scores(queries, gallery, query_is, 0.7)[shortlist]
    )
    assert (scores[~shortlist] == -float("inf")).all() and shortlist.sum() == 3 * len(queries)


@pytest.mark.parametrize("meetings", [0, 10**9], ids=["pair by pair", "query by query"])
@pytest.mark.parametrize("floats", [1, 2**22])
def test_both_ways_of_going_through_a_shortlist_give_the_same(meetings, floats, monkeypatch):
    monkeypatch.setattr(retrieval, "MEETINGS", meetings)
    monkeypatch.setattr(retrieval, "FLOATS", floats)
    queries, gallery = sides("caption")
    scores = two_stage(queries, gallery, 3, 0.7, "caption")
    scored = scores > -float("inf")
    assert scored.sum() == 3 * len(queries)
    torch.testing.assert_close(
        scores[scored], full_scores(queries, gallery, "caption", 0.7)[scored]
    )


@BOTH
@pytest.mark.parametrize("part", ["global_token", "local_tokens"])
def test_a_score_that_is_nan_is_an_error_not_a_rank(query_is, part):
    queries, gallery = sides(query_is)
    getattr(queries, part)[2] = float("nan")
    with pytest.raises(ValueError, match="query 2 scores NaN with item"):
        two_stage(queries, gallery, 3, 0.7, query_is)
    with pytest.raises(ValueError, match="query 2 scores NaN with item"):
        gallery_of(gallery, query_is).search(queries, k=2)
    queries, gallery = sides(query_is)
    getattr(gallery, part)[1] = float("nan")
    with pytest.raises(ValueError, match="query 0 scores NaN with item 1"):
        two_stage(queries, gallery, len(gallery), 0.7, query_is)


@BOTH
def test_padding_and_neighbours_change_nothing(query_is):
    queries, gallery = sides(query_is)
    scores = two_stage(queries, gallery, 3, 0.7, query_is)
    longer = Embedding.cat([gallery, random_embedding(5, 1, 9).to(torch.float32)])[: len(gallery)]
    longer = Embedding(
        longer.global_token,
        longer.local_tokens.masked_fill(~longer.mask[..., None], 9.0),
        longer.mask,
    )
    torch.testing.assert_close(two_stage(queries, longer, 3, 0.7, query_is), scores)
    torch.testing.assert_close(
        two_stage(queries[[4, 2]], gallery, 3, 0.7, query_is), scores[[4, 2]]
    )


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
def test_search_gives_the_best_of_two_stage(
    query_is, ragged, stored, floats, monkeypatch, tmp_path
):
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
        gallery.search(queries, k=5, shortlist=2).scores,
        gallery.search(queries, k=5, shortlist=5).scores,
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
    local_tokens = np.load(
        tmp_path / "gallery" / "local_tokens.npy", mmap_mode="r", allow_pickle=False
    )
    offsets = np.load(tmp_path / "gallery" / "offsets.npy", allow_pickle=False)
    assert local_tokens.dtype == np.float16 and local_tokens.shape == (sum(REGIONS), 8)
    assert offsets.tolist() == [0, *np.cumsum(REGIONS).tolist()]
    assert np.array_equal(
        local_tokens[offsets[2] : offsets[3]], embedding.local_tokens[2, :5].half().numpy()
    )
    assert np.load(tmp_path / "gallery" / "global_tokens.npy").dtype == np.float32
    about = json.loads((tmp_path / "gallery" / "gallery.json").read_text(encoding="utf-8"))
    assert about["items"][1] == "item 1" and about["model"] == "abc" and about["holds"] == "image"


@BOTH
@pytest.mark.parametrize("local_precision", ["float16", "int8"])
@pytest.mark.parametrize("global_precision", ["float32", "float16"])
def test_a_stored_precision_changes_scores_by_its_rounding_only(
    query_is, local_precision, global_precision, tmp_path, monkeypatch
):
    queries, embedding = sides(query_is)
    options = {"local_precision": local_precision, "global_precision": global_precision}
    gallery_of(embedding, query_is, **options).save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery")
    assert gallery.local_tokens.dtype == getattr(torch, local_precision)
    assert gallery.global_tokens.dtype == getattr(torch, global_precision)
    assert (tmp_path / "gallery" / "scales.npy").exists() == (local_precision == "int8")
    hits = gallery.search(queries, k=1000, local_weight=0.7)
    exact = full_scores(queries, embedding, query_is, 0.7)
    error = (hits.scores - exact.gather(1, hits.indices)).abs().max()
    most = (
        1e-6 + 2e-3 * (global_precision == "float16") + 8e-3 * (local_precision == "int8")
    )  # D = 8: large steps
    assert error <= most
    if (local_precision, global_precision) != ("float16", "float32"):
        assert error > 1e-6, "something was rounded"


def grown(folder, embedding, query_is, cuts, **options):
    """A gallery on disk, built of the items before the first cut and appended to at each of
    them.
    """
    names, edges = [f"item {i}" for i in range(len(embedding))], [*cuts, len(embedding)]
    Gallery.build(embedding[: cuts[0]], names[: cuts[0]], HOLDS[query_is], **options).save(folder)
    for start, end in zip(edges, edges[1:]):
        Gallery.build(embedding[start:end], names[start:end], HOLDS[query_is], **options).append(
            folder
        )
    return Gallery.load(folder)


def assert_same_hits(one, other):
    assert torch.equal(one.indices, other.indices) and one.items == other.items
    torch.testing.assert_close(one.scores, other.scores)


@BOTH
@pytest.mark.parametrize("local_precision", ["float16", "int8"])
def test_an_appended_gallery_answers_as_one_built_at_once(query_is, local_precision, tmp_path):
    queries, embedding = sides(query_is)
    whole = gallery_of(embedding, query_is, local_precision=local_precision)
    gallery = grown(
        tmp_path / "gallery", embedding, query_is, (2, 3), local_precision=local_precision
    )
    assert gallery.items == whole.items and torch.equal(gallery.offsets, whole.offsets)
    assert torch.equal(gallery.local_tokens, whole.local_tokens)
    assert torch.equal(gallery.global_tokens, whole.global_tokens)
    assert_same_hits(gallery.search(queries, 4, 5), whole.search(queries, 4, 5))
    gallery.save(tmp_path / "copy")
    assert_same_hits(
        Gallery.load(tmp_path / "copy").search(queries, 4, 5), whole.search(queries, 4, 5)
    )


def test_a_segment_looks_like_a_gallery_and_appending_leaves_all_other_files_alone(tmp_path):
    queries, embedding = sides("caption")
    grown(tmp_path / "gallery", embedding[:5], "caption", (2, 3))
    before = {
        path: path.read_bytes() for path in (tmp_path / "gallery").rglob("*") if path.is_file()
    }
    gallery_of(embedding[5:], "caption").append(tmp_path / "gallery")
    after = {path: path.read_bytes() for path in before}
    assert [path.name for path in before if before[path] != after[path]] == ["gallery.json"]
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir() if path.is_dir()) == [
        "segment-0001",
        "segment-0002",
        "segment-0003",
    ]
    alone = Gallery.load(tmp_path / "gallery" / "segment-0003")
    assert_same_hits(
        alone.search(queries, 2), gallery_of(embedding[5:], "caption").search(queries, 2)
    )


def test_an_append_that_stops_anywhere_leaves_what_was_there(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    grown(folder, embedding[:5], "caption", (4,))
    steps = {
        "np.save": (np, "save"),
        "rename": (whole.Path, "rename"),
        "json": (files, "write_whole"),
    }
    for place in steps.values():
        for killed in (False, True):  # a killed writer cannot tidy up behind itself
            with monkeypatch.context() as patch:
                patch.setattr(*place, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
                if killed:
                    patch.setattr(whole.shutil, "rmtree", lambda *_, **__: None)
                with pytest.raises(KeyboardInterrupt):
                    gallery_of(embedding[5:], "caption").append(folder)
            assert len(Gallery.load(folder)) == 5
    assert [path for path in folder.iterdir() if path.name.startswith(".segment")], (
        "something was left behind"
    )
    gallery_of(embedding[5:], "caption").append(folder)
    assert len(Gallery.load(folder)) == len(embedding)
    names = {
        "gallery.json",
        "global_tokens.npy",
        "local_tokens.npy",
        "offsets.npy",
        "segment-0001",
        "segment-0002",
    }
    assert {path.name for path in folder.iterdir()} == names


def test_a_gallery_whose_writer_was_killed_between_two_renames_is_the_old_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(whole, "MOMENT", 0.01)
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    for work in (lambda: None, lambda: gallery_of(embedding[5:], "caption").append(folder)):
        grown(folder, embedding[:5], "caption", (4,))
        shutil.copytree(folder, tmp_path / ".gallery-abcd1234")
        folder.rename(tmp_path / ".gallery-abcd1234-old")
        work()
        assert len(Gallery.load(folder)) >= 5 and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "name", ["global_tokens.npy", "local_tokens.npy", "offsets.npy", "scales.npy", "gallery.json"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_segment_is_named(name, damage, tmp_path):
    _, embedding = sides("caption")
    grown(tmp_path / "gallery", embedding, "caption", (2, 3), local_precision="int8")
    path = tmp_path / "gallery" / "segment-0002" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            content[:-9] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
        )
    with pytest.raises(ValueError, match=f"segment-0002.{name}"):
        Gallery.load(tmp_path / "gallery")


def test_what_does_not_belong_to_a_gallery_is_not_appended(tmp_path):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    with pytest.raises(ValueError, match="gallery.json does not exist"):
        gallery_of(embedding, "caption").append(folder)
    gallery_of(embedding, "caption", model="abc").save(folder)
    names = [f"item {i}" for i in range(7)]
    for other, message in (
        (gallery_of(embedding, "caption", model="xyz"), "another model .abc, not xyz"),
        (gallery_of(embedding, "image", model="abc"), "another kind of item .image, not caption"),
        (
            gallery_of(embedding, "caption", model="abc", global_precision="float16"),
            "precision of global tokens",
        ),
        (
            Gallery.build(random_embedding(0, 7, 2, width=4), names, model="abc"),
            "another width .8, not 4",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            other.append(folder)
    with pytest.raises(ValueError, match="JSON"):
        Gallery.build(embedding, [tmp_path] * 7, model="abc").append(folder)
    assert {path.name for path in folder.iterdir()} == {
        "gallery.json",
        "global_tokens.npy",
        "local_tokens.npy",
        "offsets.npy",
    }


@BOTH
def test_an_exact_index_changes_nothing(query_is):
    pytest.importorskip("faiss")
    queries, embedding = sides(query_is)
    gallery = gallery_of(embedding, query_is)
    index = faiss_index(gallery.global_tokens)
    assert_same_hits(gallery.search(queries, 2, 4, index=index), gallery.search(queries, 2, 4))
    with pytest.raises(
        ValueError, match="index holds 7 items of width 8, metric 0; the gallery has 2 of width 8"
    ):
        gallery_of(embedding[:2], query_is).search(
            queries, index=faiss_index(embedding.global_token[:1].expand(7, 8))
        )


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
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"], (
        "nothing half-written stays behind"
    )
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


@pytest.mark.parametrize(
    "name", ["global_tokens.npy", "local_tokens.npy", "offsets.npy", "gallery.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_a_damaged_file_is_named(name, damage, tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding, "caption").save(tmp_path / "gallery")
    path = tmp_path / "gallery" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        damaged = {
            "empty": b"",
            "truncated": content[:-9],
            "flipped": bytes([content[0] ^ 1]) + content[1:],
        }[damage]
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
    monkeypatch.setattr(files, "CHECKED", 0)
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
        (
            lambda q, g: two_stage(random_embedding(0, 2, 2, 4), g, 3, 1.0, "caption"),
            "4 wide, the gallery 8",
        ),
        (lambda q, g: gallery_of(g, "caption").search(q, k=0), "k is 0"),
        (lambda q, g: gallery_of(g, "caption").search(q, shortlist=0), "shortlist is 0"),
        (lambda q, g: Gallery.build(g, ["a"]), "1 items for 7"),
        (lambda q, g: Gallery.build(g, [0] * 7, holds="video"), "holds is 'video'"),
        (
            lambda q, g: Gallery.build(g, [0] * 7, local_precision="int4"),
            "local_precision is 'int4'",
        ),
        (
            lambda q, g: Gallery.build(g, [0] * 7, global_precision="int8"),
            "global_precision is 'int8'",
        ),
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
