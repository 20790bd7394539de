"""A gallery against `two_stage`, in memory and on disk; what is appended, replaced and damaged."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from examples import embeddings, json_values, on_disk
from helpers import random_embedding, refusal
from hypothesis import given
from hypothesis import strategies as st
from test_retrieval import BOTH, REGIONS, full_scores, sides

from tgdt_mini.embedding import Embedding
from tgdt_mini.files import store
from tgdt_mini.files.manifest import write_sealed
from tgdt_mini.retrieval import two_stage
from tgdt_mini.search import gallery as gallery_module
from tgdt_mini.search.faiss_index import faiss_index
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import mixed_similarity

HOLDS = {"image": "caption", "caption": "image"}
FILES = ("items.json", "counts.npy", "global_tokens.npy", "local_tokens.npy", "scales.npy")


def gallery_of(embedding, query_is="caption", start=0, **options):
    names = [f"item {i}" for i in range(start, start + len(embedding))]
    return Gallery.build(embedding, names, holds=HOLDS[query_is], **options)


def grown(folder, embedding, query_is, cuts, **options):
    """A gallery on disk of the items before the first cut, to which the others were appended."""
    edges = [*cuts, len(embedding)]
    gallery_of(embedding[: cuts[0]], query_is, **options).save(folder)
    for start, end in zip(edges, edges[1:]):
        gallery_of(embedding[start:end], query_is, start, **options).append(folder)
    return Gallery.load(folder)


def assert_same_hits(one, other):
    assert torch.equal(one.indices, other.indices) and one.items == other.items
    torch.testing.assert_close(one.scores, other.scores)


def change_manifest(folder, **changes):
    manifest = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    write_sealed(folder / "gallery.json", manifest | changes)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# searching


@BOTH
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "from disk"])
@pytest.mark.parametrize("floats", [1, 2**22])
def test_search_gives_the_best_of_two_stage(
    query_is, ragged, stored, floats, monkeypatch, tmp_path
):
    monkeypatch.setattr("tgdt_mini.search.rerank.GATHERED", floats)
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
    longer = gallery.search(queries, k=5, shortlist=2)
    assert longer.indices.shape == (len(queries), 5)
    torch.testing.assert_close(longer.scores, gallery.search(queries, k=5, shortlist=5).scores)


def test_search_reads_the_shortlist_only():
    queries, embedding = sides("caption")
    gallery = gallery_of(embedding)
    expected = gallery.search(queries[:1], k=3, shortlist=3)
    for item in set(range(len(embedding))) - set(expected.indices[0].tolist()):
        gallery.local_tokens[gallery.offsets[item] : gallery.offsets[item + 1]] = float("nan")
    assert torch.equal(gallery.search(queries[:1], k=3, shortlist=3).scores, expected.scores)


@pytest.mark.parametrize("part", ["global_token", "local_tokens"])
def test_a_score_that_is_nan_is_an_error_not_a_rank(part):
    queries, embedding = sides("caption")
    getattr(queries, part)[2] = float("nan")
    with pytest.raises(ValueError, match="query 2 scores NaN with item"):
        gallery_of(embedding).search(queries, k=2)


def test_a_query_may_still_carry_a_gradient():
    queries, embedding = sides("caption")
    queries.local_tokens.requires_grad_()
    assert not gallery_of(embedding).search(queries, k=2).scores.requires_grad


@BOTH
def test_an_exact_index_changes_nothing(query_is):
    pytest.importorskip("faiss")
    queries, embedding = sides(query_is)
    gallery = gallery_of(embedding, query_is)
    index = faiss_index(gallery.global_tokens)
    assert_same_hits(gallery.search(queries, 2, 4, index=index), gallery.search(queries, 2, 4))
    other = faiss_index(embedding.global_token[:1].expand(7, 8))
    with pytest.raises(ValueError, match=r"index is .*\[7, 8, 0\], not \[2, 8, 0\]; make"):
        gallery_of(embedding[:2], query_is).search(queries, index=other)


@pytest.mark.parametrize("settings", [None, {"shortlist": 2}, {"local_weight": 0.3}])
def test_a_search_takes_the_settings_of_its_gallery(tmp_path, settings):
    queries, embedding = sides("caption")
    built = gallery_of(embedding, settings=settings)
    built.save(tmp_path / "gallery")
    for gallery in (built, Gallery.load(tmp_path / "gallery")):
        assert gallery.settings == settings
        chosen = {"shortlist": 100, "local_weight": 1.0} | (settings or {})
        assert_same_hits(gallery.search(queries, 2), gallery.search(queries, 2, **chosen))
        assert_same_hits(
            gallery.search(queries, 2, 3, 0.7), gallery_of(embedding).search(queries, 2, 3, 0.7)
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 0},
        {"k": "5"},
        {"k": 2.5},
        {"k": True},
        {"shortlist": 2.5},
        {"shortlist": 0},
        {"local_weight": float("nan")},
        {"local_weight": float("inf")},
        {"local_weight": 1e300},
        {"local_weight": "1"},
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_name(settings):
    queries, embedding = sides("caption")
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
        gallery_of(embedding).search(queries, **({"k": 2} | settings))


def test_an_array_that_the_manifest_does_not_name_is_refused(tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding).save(tmp_path / "gallery")
    stray = tmp_path / "gallery" / "shard-00000" / "scales.npy"
    np.save(stray, np.ones(int(embedding.mask.sum()), np.float32))
    with pytest.raises(ValueError, match="scales.npy does not belong there"):
        Gallery.load(tmp_path / "gallery")


@pytest.mark.parametrize("settings", [{"shortlist": 2.5}, {"local_weight": "1"}, {"k": 3}, [3]])
def test_wrong_settings_are_named_when_they_are_given_and_when_they_are_read(tmp_path, settings):
    _, embedding = sides("caption")
    with pytest.raises(ValueError, match="settings are .*they must be None, or hold"):
        gallery_of(embedding, settings=settings)
    gallery_of(embedding).save(tmp_path / "gallery")
    change_manifest(tmp_path / "gallery", settings=settings)
    with pytest.raises(ValueError, match="gallery.json is damaged.*settings "):
        Gallery.load(tmp_path / "gallery")


# on disk


def test_saved_arrays_are_ragged_float16_that_numpy_can_map(tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding).save(tmp_path / "gallery")
    shard = tmp_path / "gallery" / "shard-00000"
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in shard.glob("*.npy")}
    assert set(arrays) == {"counts", "global_tokens", "local_tokens"}
    assert arrays["local_tokens"].dtype == np.float16 and arrays["counts"].tolist() == [*REGIONS]
    assert arrays["local_tokens"].shape == (sum(REGIONS), 8)
    own = embedding.local_tokens[2, :5].half().numpy()
    assert np.array_equal(arrays["local_tokens"][4:9], own)
    assert arrays["global_tokens"].dtype == np.float32


def test_load_maps_the_local_tokens_and_leaves_the_file_alone(tmp_path):
    _, embedding = sides("caption")
    gallery_of(embedding).save(tmp_path / "gallery")
    before, gallery = content(tmp_path), Gallery.load(tmp_path / "gallery")
    array = gallery.stored.rows.arrays[0]
    assert isinstance(array, np.memmap)
    assert array.ctypes.data == gallery.local_tokens.data_ptr(), "mapped, not copied"
    gallery.local_tokens[0] = 7.0
    assert content(tmp_path) == before


@BOTH
@pytest.mark.parametrize("local_precision", ["float16", "int8"])
@pytest.mark.parametrize("global_precision", ["float32", "float16"])
def test_a_stored_precision_changes_scores_by_its_rounding_only(
    query_is, local_precision, global_precision, tmp_path
):
    queries, embedding = sides(query_is)
    options = {"local_precision": local_precision, "global_precision": global_precision}
    gallery_of(embedding, query_is, **options).save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery")
    assert gallery.local_tokens.dtype == getattr(torch, local_precision)
    assert gallery.global_tokens.dtype == getattr(torch, global_precision)
    hits = gallery.search(queries, k=1000, local_weight=0.7)
    exact = full_scores(queries, embedding, query_is, 0.7)
    error = (hits.scores - exact.gather(1, hits.indices)).abs().max()
    rounding = 2e-3 * (global_precision == "float16") + 8e-3 * (local_precision == "int8")  # D = 8
    assert error <= 1e-6 + rounding
    assert error > 1e-6 or not rounding, "something was rounded"


@on_disk
@given(
    parts=st.lists(embeddings(dtype=torch.float32), min_size=1, max_size=4),
    precision=st.sampled_from(["float16", "int8"]),
    queries=embeddings(dtype=torch.float32),
    data=st.data(),
)
def test_what_is_saved_and_appended_comes_back_as_if_built_at_once(parts, precision, queries, data):
    """Items may be any JSON in any language."""
    whole, options = Embedding.cat(parts), {"local_precision": precision}
    items = data.draw(st.lists(json_values, min_size=len(whole), max_size=len(whole)))
    built, left = Gallery.build(whole, items, **options), list(items)
    with TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            own = Gallery.build(part, [left.pop(0) for _ in range(len(part))], **options)
            own.append(folder) if number else own.save(folder)
        again = Gallery.load(folder, check_all=True)
        assert json.dumps(again.items) == json.dumps(items)  # 1.0 is no 1, and True neither
        assert torch.equal(again.global_tokens, built.global_tokens)
        assert torch.equal(again.offsets, built.offsets)
        assert torch.equal(again.local_tokens, built.local_tokens)
        k, shortlist = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
        assert_same_hits(again.search(queries, k, shortlist), built.search(queries, k, shortlist))


def test_an_item_that_is_no_json_is_refused(tmp_path):
    _, embedding = sides("caption")
    with pytest.raises(ValueError, match="JSON"):
        Gallery.build(embedding, [tmp_path] * len(embedding)).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_model_is_refused(tmp_path):
    queries, embedding = sides("caption")
    gallery_of(embedding, model="abc").save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery", expect_model="abc")
    gallery.search(queries, expect_model="abc")
    with pytest.raises(ValueError, match=f"gallery {tmp_path / 'gallery'} was built by another"):
        Gallery.load(tmp_path / "gallery", expect_model="xyz")
    for refused in (
        lambda: gallery.search(queries, expect_model="xyz"),
        lambda: gallery_of(embedding).search(queries, expect_model="xyz"),
        lambda: gallery.search(random_embedding(0, 2, 2, width=4)),
    ):
        with pytest.raises(ValueError, match="another model.*re-index"):
            refused()


@pytest.mark.parametrize("part", ["global_token", "local_tokens"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e6])
def test_tokens_that_are_no_numbers_or_too_large_are_named_when_a_gallery_is_built(part, value):
    _, embedding = sides("caption")
    getattr(embedding, part)[3, ..., 0] = value
    names = [f"{row}.png" for row in range(len(embedding))]
    options = {"global_precision": "float16"}
    with pytest.raises(ValueError, match="a token of item '3.png' holds NaN, or a number .* large"):
        Gallery.build(embedding, names, **options)
    if value == -1e6:  # which float32 and int8 can hold
        Gallery.build(embedding, names, local_precision="int8")


def test_a_folder_whose_name_no_system_takes_is_one_line():
    with pytest.raises(ValueError, match="gallery.json cannot be read .File name too long.; name"):
        Gallery.load("a" * 400)


# appended


@BOTH
@pytest.mark.parametrize("local_precision", ["float16", "int8"])
def test_an_appended_gallery_answers_as_one_built_at_once(query_is, local_precision, tmp_path):
    queries, embedding = sides(query_is)
    whole = gallery_of(embedding, query_is, local_precision=local_precision)
    options = {"local_precision": local_precision}
    gallery = grown(tmp_path / "gallery", embedding, query_is, (2, 3), **options)
    assert gallery.items == whole.items and torch.equal(gallery.offsets, whole.offsets)
    assert torch.equal(gallery.local_tokens, whole.local_tokens)
    assert torch.equal(gallery.global_tokens, whole.global_tokens)
    assert_same_hits(gallery.search(queries, 4, 5), whole.search(queries, 4, 5))
    for folder in ("copy", "gallery"):  # the second one is what it was read from
        gallery.save(tmp_path / folder)
        again = Gallery.load(tmp_path / folder).search(queries, 4, 5)
        assert_same_hits(again, whole.search(queries, 4, 5))
    assert len(list((tmp_path / "gallery").iterdir())) == 4, "three shards and gallery.json"


def test_appending_leaves_all_other_files_alone(tmp_path):
    _, embedding = sides("caption")
    grown(tmp_path / "gallery", embedding[:5], "caption", (2, 3))
    before = content(tmp_path)
    gallery_of(embedding[5:]).append(tmp_path / "gallery")
    changed = [path for path in before if path.read_bytes() != before[path]]
    assert changed == [tmp_path / "gallery" / "gallery.json"]


def test_what_does_not_belong_to_a_gallery_is_not_appended(tmp_path):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    with pytest.raises(ValueError, match="gallery.json is missing; build and save one first"):
        gallery_of(embedding).append(folder)
    alike = {"model": "abc", "settings": {"shortlist": 3}}
    gallery_of(embedding, **alike).save(folder)
    before = content(folder)
    names = [f"item {i}" for i in range(7)]
    narrow = Gallery.build(random_embedding(0, 7, 2, width=4), names, **alike)
    for other, message in (
        (gallery_of(embedding, **alike | {"model": "xyz"}), "another model .abc, not xyz"),
        (gallery_of(embedding, "image", **alike), "another holds .image, not caption"),
        (gallery_of(embedding, global_precision="float16", **alike), "another global_precision"),
        (gallery_of(embedding, model="abc", settings={"shortlist": 4}), "another settings"),
        (narrow, "another width .8, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            other.append(folder)
    assert content(folder) == before
    gallery_of(embedding, model="abc").append(folder)  # settings of None are any
    assert Gallery.load(folder).settings == {"shortlist": 3} and len(Gallery.load(folder)) == 14


@pytest.mark.parametrize(
    "item",
    [("a", 1), {1: "a"}, float("nan"), {"a": float("inf")}, b"a", np.int64(3), object(), [()]],
)
def test_an_item_that_would_come_back_as_another_is_refused(item):
    _, embedding = sides("caption")
    with refusal("^items must be JSON values, such as names, but item 2 is "):
        Gallery.build(embedding, ["a", {"b": [1, 2.5, None, True]}, item, *"defg"])


def test_items_may_come_from_any_list():
    _, embedding = sides("caption")
    for items in (tuple("abcdefg"), np.array(list("abcdefg")), (name for name in "abcdefg")):
        assert Gallery.build(embedding, items).items == list("abcdefg")


@pytest.mark.parametrize("value", [0, -1, 2.5, float("inf"), float("nan"), 1e300, "3", True, [3]])
def test_numbers_of_a_search_are_checked(value):
    queries, embedding = sides("caption")
    gallery = gallery_of(embedding)
    for name in ("k", "shortlist"):
        with refusal(f"^{name} is .*; it must be a whole number, at least 1$"):
            gallery.search(queries, **{name: value})
    if not isinstance(value, (int, float)) or value is True or not abs(value) < 1e7:
        with refusal(
            "^local_weight is .*; it must be a number, at least -1e.06 and at most 1e.06$"
        ):
            gallery.search(queries, local_weight=value)
        with refusal("^local_weight is "):
            two_stage(embedding, queries, 3, value, "image")
        with refusal("^local_weight is "):
            mixed_similarity(embedding, queries, value)


def test_a_line_break_in_a_name_breaks_no_table():
    queries, embedding = sides("caption")
    items = ["a\nb", "c\x00\x1b[2Jd", "\u202ee", "dog \ud83d", *"efg"]
    hits = Gallery.build(embedding, items).search(queries[:1], 7)
    assert len(str(hits).splitlines()) == 8
    str(hits).encode("utf-8")  # half of a sign too is printed as its number
    assert hits.items[0] == [items[row] for row in hits.indices[0]]


# replaced: the old gallery or the new one, whatever happens


class Killed(BaseException):
    """The end of a writer, which tidies nothing up."""


def then_killed(function=None):
    """A function that is the last thing that its process does."""

    def last(*values, **options):
        if function:
            function(*values, **options)
        raise Killed

    return last


POINTS = {  # where the writer is killed, and whether the new items are there then
    "before the first file": (store, "save_array", None, False),
    "after the first file": (store, "save_array", store.save_array, False),
    "before the manifest": (store, "write_manifest", None, False),
    "in the manifest": (Path, "replace", None, False),
    "after the manifest": (store, "write_manifest", store.write_manifest, True),
    "tidying": (store, "_remove_unnamed", None, True),
}


@pytest.mark.parametrize("step", ["save", "append"])
@pytest.mark.parametrize("point", POINTS)
def test_a_writer_that_is_killed_anywhere_leaves_the_old_gallery_or_the_new_one(
    tmp_path, step, point, monkeypatch
):
    queries, embedding = sides("caption")
    folder, (owner, name, function, done) = tmp_path / "gallery", POINTS[point]
    reader = grown(folder, embedding[:5], "caption", (4,))
    before = reader.search(queries, 2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(store, "_remove_unnamed", lambda *_: None)
        patch.setattr(owner, name, then_killed(function))
        getattr(gallery_of(embedding[5:], start=5), step)(folder)
    new = {"save": [5, 6], "append": list(range(7))}[step]
    assert Gallery.load(folder).items == [f"item {i}" for i in (new if done else range(5))]
    assert_same_hits(reader.search(queries, 2), before)  # whoever was reading goes on
    gallery_of(embedding[:1]).save(folder)
    assert len(Gallery.load(folder)) == 1
    assert len(list(folder.iterdir())) == 2, "what the killed writer left is removed"


def test_a_first_save_that_was_killed_is_done_again(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(store, "_remove_unnamed", lambda *_: None)
        patch.setattr(store, "write_manifest", then_killed())
        gallery_of(embedding).save(folder)
    with pytest.raises(ValueError, match="gallery.json is missing"):
        Gallery.load(folder)
    gallery_of(embedding).save(folder)
    assert len(Gallery.load(folder)) == 7 and len(list(folder.iterdir())) == 2


def test_a_gallery_that_is_replaced_while_it_is_opened_is_the_new_one(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    gallery_of(embedding[:4]).save(tmp_path / "gallery")
    read_store, reads = store.read_store, []

    def meanwhile(*values):
        reads.append(len(reads))
        if len(reads) == 1:
            gallery_of(embedding).save(tmp_path / "gallery")
        return read_store(*values)

    monkeypatch.setattr(gallery_module.store, "read_store", meanwhile)
    assert len(Gallery.load(tmp_path / "gallery")) == len(embedding) and len(reads) == 2


def test_a_save_that_fails_leaves_the_old_gallery(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    gallery_of(embedding[:4]).save(folder)
    before, save = content(tmp_path), store.save_array

    def full_disk(path, array):
        save(path, array[:1])
        if path.name == "local_tokens.npy":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_array", full_disk)
    for work in (gallery_of(embedding).save, gallery_of(embedding).append):
        with pytest.raises(OSError, match="No space"):
            work(folder)
    with pytest.raises(OSError, match="No space"):
        gallery_of(embedding).save(tmp_path / "new")
    assert content(tmp_path) == before and [*tmp_path.iterdir()] == [folder]
    monkeypatch.setattr(store, "read_json", lambda *_: (_ for _ in ()).throw(ValueError))
    with pytest.raises(OSError, match="No space"):
        gallery_of(embedding).append(folder)  # and its manifest cannot be read at that moment
    monkeypatch.undo()
    assert len(Gallery.load(folder)) == 4
    gallery_of(embedding).save(folder)
    assert len(Gallery.load(folder)) == len(embedding) and len(list(folder.iterdir())) == 2


def test_save_spares_a_folder_that_is_not_a_gallery(tmp_path):
    _, embedding = sides("caption")
    (tmp_path / "thesis.txt").write_text("three years", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="not ours|is a file"):
            gallery_of(embedding).save(folder)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "three years"
    (tmp_path / "empty").mkdir()
    gallery_of(embedding).save(tmp_path / "empty")


# damaged


@pytest.mark.parametrize("name", [*FILES, "gallery.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_a_damaged_file_is_named(name, damage, tmp_path):
    _, embedding = sides("caption")
    folder = tmp_path / "gallery"
    grown(folder, embedding, "caption", (2, 3), local_precision="int8")
    path = (folder / "shard-00002" if name in FILES else folder) / name
    text = path.read_bytes()
    flipped = bytes([text[0] ^ 1]) + text[1:]
    path.write_bytes({"truncated": text[:-9], "flipped": flipped}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=f"{name} is (missing|damaged).*(re-index|mini index)"):
        Gallery.load(folder)


@pytest.mark.parametrize(
    "shards",
    [{}, [], {"shard-00000": []}, {"shard-00000": {"counts.npy": 3}}]
    + [{"shard-00000": {"counts.npy": ["a", 3]}}, {"shard-00009": {"counts.npy": [1, 2]}}],
)
def test_a_manifest_that_tells_nonsense_is_an_error(tmp_path, shards):
    _, embedding = sides("caption")
    gallery_of(embedding).save(tmp_path / "gallery")
    change_manifest(tmp_path / "gallery", shards=shards)
    with pytest.raises(ValueError, match="gallery.*re-index"):
        Gallery.load(tmp_path / "gallery")


def test_large_files_are_checksummed_on_request(tmp_path, monkeypatch):
    _, embedding = sides("caption")
    gallery_of(embedding).save(tmp_path / "gallery")
    path = tmp_path / "gallery" / "shard-00000" / "local_tokens.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    monkeypatch.setattr(gallery_module, "CHECKED", 700)  # counts, global tokens and items
    Gallery.load(tmp_path / "gallery")
    with pytest.raises(ValueError, match="local_tokens.npy"):
        Gallery.load(tmp_path / "gallery", check_all=True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda q, g: gallery_of(g).search(q, k=0), "k is 0"),
        (lambda q, g: gallery_of(g).search(q, shortlist=0), "shortlist is 0"),
        (lambda q, g: Gallery.build(g, ["a"]), "1 items for 7"),
        (lambda q, g: Gallery.build(g, [0] * 7, holds="video"), "holds is 'video'"),
        (lambda q, g: gallery_of(g, local_precision="int4"), "local_precision is 'int4'"),
        (lambda q, g: gallery_of(g, global_precision="int8"), "global_precision is 'int8'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sides("caption"))


def test_items_and_queries_without_real_tokens_are_named():
    queries, embedding = sides("caption")
    embedding.mask[3] = False
    with pytest.raises(ValueError, match="image 3 has no real region"):
        gallery_of(embedding)
    queries.mask[1] = False
    with pytest.raises(ValueError, match="caption 1 has no real word"):
        gallery_of(sides("caption")[1]).search(queries)
