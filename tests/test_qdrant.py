"""Search in Qdrant finds what a search in memory finds, and a killed upload loses no item.

The client's stand-in for a server checks the requests, the engine in this process the results. No
server ran.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from helpers import call, random_embedding, refusal

from tgdt_mini import scenes
from tgdt_mini.files.manifest import write_sealed
from tgdt_mini.scaling import qdrant_engines, qdrant_folder
from tgdt_mini.scaling.qdrant import QdrantGallery
from tgdt_mini.search.gallery import Gallery

WIDTH = 16
# the stand-in has no index to leave out
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


def embedded(seed, count, most, width=WIDTH):
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, most + 1, (count,), generator=drawn).tolist()
    return random_embedding(seed, count, lengths, width, torch.float32)


def gallery_of(holds="image", count=60, width=WIDTH, model="a model", images=None, items=None):
    images = embedded(1, count, 6, width) if images is None else images
    items = [f"{holds} {i}" for i in range(count)] if items is None else items
    return Gallery.build(images, items, holds, model)


@pytest.fixture(params=["client", "folder"])
def where(request, tmp_path):
    """Both engines: an empty place for collections."""
    if request.param == "folder":
        pytest.importorskip("qdrant_edge")
        return tmp_path
    return pytest.importorskip("qdrant_client").QdrantClient(":memory:")


def upload(gallery, where, **options):
    return QdrantGallery.upload(gallery, where, "things", progress=False, **options)


def assert_same_hits(one, other, queries, *settings):
    """Two galleries give the same answers."""
    hits, known = (gallery.search(queries, *settings) for gallery in (one, other))
    assert hits.items == known.items and torch.equal(hits.indices, known.indices)
    torch.testing.assert_close(hits.scores, known.scores, atol=1e-5, rtol=0)


def assert_same_scores(hits, known, atol):
    """Each item that was found has the score that a search of everything gave it."""
    for row in range(len(hits.indices)):
        scores = dict(zip(known.indices[row].tolist(), known.scores[row].tolist()))
        for number, score in zip(hits.indices[row].tolist(), hits.scores[row].tolist()):
            assert score == pytest.approx(scores[number], abs=atol)


@pytest.mark.parametrize("holds", ["image", "caption"])
def test_a_search_finds_what_a_search_in_memory_finds(where, holds):
    gallery, queries = gallery_of(holds), embedded(2, 7, 9)
    remote = upload(gallery, where)
    assert (len(remote), remote.width, remote.holds, remote.model) == (60, WIDTH, holds, "a model")
    for settings in ((5, 20, 2.0), (10, 60, 0.5), (3, 1000, 1.0), (8, 2, 1.5)):
        assert_same_hits(remote, gallery, queries, *settings)
    stages = {"engine"} if holds == "image" else {"engine", "rerank"}
    assert set(remote.search(queries).seconds) == stages


def test_words_of_padding_do_not_matter(where):
    remote, short = upload(gallery_of(), where), embedded(2, 7, 9)[[1]]
    longest = int(short.mask.sum())
    bare = type(short)(short.global_token, short.local_tokens[:, :longest], short.mask[:, :longest])
    assert longest < short.mask.shape[1]
    assert remote.search(short).scores.equal(remote.search(bare).scores)


def test_an_item_that_ties_is_scored_like_the_others(where):
    """All global scores are equal, so the shortlist is any K, and all have both of their scores."""
    images, query = embedded(1, 30, 4), embedded(2, 1, 5)
    images.global_token[:] = images.global_token[0]
    gallery = gallery_of(images=images, count=30)
    hits = upload(gallery, where).search(query, 10, 10, 2.0)
    assert len(set(hits.indices[0].tolist())) == 10
    assert_same_scores(hits, gallery.search(query, 30, 30, 2.0), 1e-5)


def test_an_upload_is_taken_up_where_it_stopped_and_sends_nothing_twice(where, monkeypatch):
    from tgdt_mini.scaling import qdrant

    gallery = gallery_of()
    monkeypatch.setattr(qdrant, "FLOATS", 10 * gallery.stored.longest * WIDTH)  # ten items a batch
    one_item = gallery_of(images=embedded(1, 60, 6)[:1], count=1)
    remote, sent = upload(one_item, where), []
    put = type(remote.engine).put

    def stopping(engine, points):
        if sent == list(range(1, 21)):
            raise KeyboardInterrupt
        sent.extend(number for number, _, _ in points)
        put(engine, points)

    monkeypatch.setattr(type(remote.engine), "put", stopping)
    remote.close()
    with pytest.raises(KeyboardInterrupt) as caught:
        upload(gallery, where)
    assert sent == list(range(1, 21)), "the first item was there already"
    del caught  # it holds the frames, and they the folder
    sent.clear()
    finished = upload(gallery, where)
    assert sent == list(range(21, 60)) and len(finished) == 60
    finished.close()
    sent.clear()
    again = upload(gallery, where)
    assert not sent and len(again) == 60


def test_a_server_is_asked_to_acknowledge_every_batch(monkeypatch):
    client, asked = pytest.importorskip("qdrant_client").QdrantClient(":memory:"), []
    upsert = client.upsert

    def noted(*rest, **more):
        asked.append(more["wait"])
        return upsert(*rest, **more)

    monkeypatch.setattr(client, "upsert", noted)
    monkeypatch.setattr("tgdt_mini.scaling.qdrant.FLOATS", 1)  # an item a batch
    upload(gallery_of(count=3), client)
    assert asked == [True] * 3


def test_several_galleries_fill_one_collection(where):
    images, items = embedded(1, 60, 6), [f"image {i}" for i in range(60)]
    upload(gallery_of(images=images[:25], items=items[:25]), where).close()
    remote = upload(gallery_of(images=images[25:], items=items[25:]), where, first=25)
    assert_same_hits(remote, gallery_of(), embedded(2, 5, 9), 5, 20, 2.0)


OTHERS = {  # what another gallery's items and pictures are, and what the error says
    "other items": (["other 0"], 1, "'image 0' as number 0, where the gallery has 'other 0'"),
    "a longer gallery": ([f"other {i}" for i in range(90)], 1, "'image 0' as number 0"),
    "one more among them": (["image 0", "new", "image 1"], 1, "'image 1' as number 1, .* 'new'"),
    "other pictures of the same names": (
        ["image 0", "image 1"],
        5,
        "another image called 'image 0' as number 0",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_gallery_is_refused_and_the_collection_stays_as_it_was(where, what):
    items, seed, message = OTHERS[what]
    gallery, queries = gallery_of(), embedded(2, 5, 9)
    upload(gallery, where).close()
    embedding = embedded(seed, len(items), 6)
    with refusal(f"^collection 'things' .*{message}.*--collection.*--qdrant"):
        upload(gallery_of(images=embedding, items=items), where)
    remote = QdrantGallery.open(where, "things")
    assert len(remote) == 60
    assert_same_hits(remote, gallery, queries, 5, 20, 2.0)


def test_nothing_is_sent_to_a_collection_in_which_only_a_later_item_differs(where):
    """As after an upload that was stopped, here of numbers 30 to 59 only."""
    images, items = embedded(1, 60, 6), [f"image {i}" for i in range(60)]
    upload(gallery_of(images=images[30:], items=items[30:]), where, first=30).close()
    items[59] = "another"
    with pytest.raises(ValueError, match="'image 59' as number 59, where .* 'another'"):
        upload(gallery_of(images=images, items=items), where)
    assert len(QdrantGallery.open(where, "things")) == 30


def test_an_item_that_was_encoded_twice_is_the_same_item(where):
    """On another device numbers differ in their last digits."""
    images, items = embedded(1, 4, 6), [["a", i] for i in range(4)]
    upload(gallery_of(images=images, items=items), where).close()
    images.global_token[:] += 1e-4
    assert len(upload(gallery_of(images=images, items=items), where)) == 4


def test_half_precision_changes_scores_by_little(where):
    gallery, queries = gallery_of(), embedded(2, 5, 9)
    hits = upload(gallery, where, half=True).search(queries, 60, 60, 2.0)
    assert_same_scores(hits, gallery.search(queries, 60, 60, 2.0), 2e-3)


def test_what_does_not_fit_is_refused_in_one_line_that_names_it(where):
    remote, queries = upload(gallery_of(), where), embedded(2, 3, 4)
    for words, search in (
        ("queries are 8 wide, the collection 16", lambda: remote.search(embedded(2, 3, 4, 8))),
        ("k is 0 and shortlist 100", lambda: remote.search(queries, 0)),
        ("a model, not another", lambda: remote.search(queries, expect_model="another")),
    ):
        with refusal(words):
            search()
    remote.close()
    for words, other in (
        ("'things' has width 16, the gallery 8", dict(width=8)),
        ("'things' has holds image, the gallery caption", dict(holds="caption")),
        ("another model built the collection", dict(model="another")),
    ):
        with refusal(words):
            upload(gallery_of(**other), where)
    with refusal("another model built the collection"):
        QdrantGallery.open(where, "things", expect_model="another")


@pytest.mark.parametrize("width", [True, -1, 10**30])
def test_a_collection_of_an_impossible_width_is_damaged(tmp_path, width):
    upload(gallery_of(count=3), tmp_path).close()
    (about,) = tmp_path.glob("*/about.json")
    write_sealed(about, json.loads(about.read_text(encoding="utf-8")) | {"width": width})
    with refusal(f"{about} is damaged .width is {width}.; delete its folder and upload again"):
        QdrantGallery.open(tmp_path, about.parent.name)


def test_a_collection_that_is_not_there_or_not_ours_is_an_error(where, tmp_path):
    with pytest.raises(ValueError, match="collection.* upload"):
        QdrantGallery.open(where, "nothing")
    if where == tmp_path:
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "about.json").write_text(json.dumps({"width": 16}), encoding="utf-8")
        with pytest.raises(ValueError, match="shards is 2 and replicas None"):
            upload(gallery_of(), where, shards=2)
    else:
        from qdrant_client.models import Distance, VectorParams

        where.create_collection(
            "theirs", vectors_config={"global": VectorParams(size=16, distance=Distance.DOT)}
        )
        with pytest.raises(ValueError, match="there is: theirs"):
            QdrantGallery.open(where, "nothing")
    with pytest.raises(ValueError, match="was not made by tgdt_mini"):
        QdrantGallery.open(where, "theirs")


def test_a_server_that_does_not_answer_is_named():
    pytest.importorskip("qdrant_client")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    for connect in (
        lambda: QdrantGallery.open(address, "things"),
        lambda: upload(gallery_of(), address),
    ):
        with refusal(f"no Qdrant server answers at {address}", ConnectionError):
            connect()


@pytest.mark.parametrize(
    "package, where", [("qdrant_client", "http://localhost:6333"), ("qdrant_edge", "folder")]
)
def test_a_missing_package_is_named_with_the_cure(monkeypatch, tmp_path, package, where):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with refusal(r"needs the package qdrant.*pip install -e '.\[qdrant\]'"):
        upload(gallery_of(), where)
    assert not list(tmp_path.iterdir())


def test_the_engine_agrees_with_memory_at_two_thousand_images(tmp_path):
    pytest.importorskip("qdrant_edge")
    gallery, queries = gallery_of(count=2500), embedded(2, 64, 11)
    remote = upload(gallery, tmp_path)
    assert_same_hits(remote, gallery, queries, 10, 100, 2.0)


def test_an_index_is_built_when_asked_for_and_finds_nearly_all(tmp_path, monkeypatch):
    edge = pytest.importorskip("qdrant_edge")
    soon = edge.EdgeOptimizersConfig(indexing_threshold=10)  # kilobytes: 600 images are enough
    monkeypatch.setattr(edge, "EdgeConfig", partial(edge.EdgeConfig, optimizers=soon))
    gallery, queries = gallery_of(count=600), embedded(2, 16, 11)
    remote = upload(gallery, tmp_path)
    assert remote.engine.shard.info().indexed_vectors_count == 0
    remote.build_index()
    assert remote.engine.shard.info().indexed_vectors_count >= 600
    known = gallery.search(queries, 10, 100, 2.0)
    assert_same_hits(remote, gallery, queries, 10, 100, 2.0)
    by_index = remote.search(queries, 10, 100, 2.0, exact=False).indices
    assert (known.indices[:, :, None] == by_index[:, None]).any(2).double().mean() > 0.9


UPLOADING = """
import sys
sys.path[:0] = sys.argv[2:]
import test_qdrant
from tgdt_mini.scaling import qdrant
from tgdt_mini.scaling.qdrant_folder import Embedded

gallery = test_qdrant.gallery_of(count=2000)
qdrant.FLOATS = 50 * gallery.stored.longest * test_qdrant.WIDTH
put = Embedded.put
def put_and_print(engine, points):
    put(engine, points)
    print(points[-1][0] + 1, flush=True)  # so many are acknowledged
Embedded.put = put_and_print
test_qdrant.upload(gallery, sys.argv[1])
"""


def test_no_acknowledged_image_is_lost_when_the_process_is_killed(tmp_path):
    pytest.importorskip("qdrant_edge")
    here = os.path.dirname(os.path.abspath(__file__))
    program = subprocess.Popen(
        [sys.executable, "-c", UPLOADING, str(tmp_path), here, os.path.dirname(here)],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    acknowledged = 0
    for line in program.stdout:
        acknowledged = int(line)
        if acknowledged >= 500:
            break
    time.sleep(0.01)  # somewhere in a later batch
    program.kill()
    acknowledged = max([acknowledged, *map(int, program.stdout.read().split())])
    assert program.wait() != 0 and 500 <= acknowledged < 2000
    opened = QdrantGallery.open(tmp_path, "things")
    assert set(opened.engine.stored(list(range(acknowledged)))) == set(range(acknowledged))
    opened.close()
    gallery, queries = gallery_of(count=2000), embedded(2, 16, 11)
    finished = upload(gallery, tmp_path)
    assert len(finished) == 2000
    assert_same_hits(finished, gallery, queries, 10, 100, 2.0)


def test_pictures_are_indexed_and_searched_from_the_command_line(tmp_path, capsys):
    pytest.importorskip("qdrant_edge")
    pictures, folder = tmp_path / "pictures", tmp_path / "gallery"
    pictures.mkdir()
    for i in range(3):
        scenes.picture(f"test-000{i}").save(pictures / f"{i}.png")
    engine = "--qdrant", tmp_path / "engine", "--collection"
    index = "index", "--images", pictures, "--out", folder, *engine, "mine"
    assert call(capsys, *index)[0] == 0 and call(capsys, *index)[0] == 0
    scenes.picture("test-0009").save(pictures / "0 new.png")  # now the second of four
    code, _, error = call(capsys, *index)
    assert code == 2 and "where the gallery has" in error
    (pictures / "0 new.png").unlink()
    (pictures / "2.png").rename(tmp_path / "2.png")
    code, _, error = call(capsys, *index)
    assert code == 0 and "1 item more than the gallery" in error
    (tmp_path / "2.png").rename(pictures / "2.png")
    code, _, error = call(capsys, *index)
    assert code == 0 and not error
    search = "search", scenes.captions_of("test")[1][0], "-k", 3, "--out", tmp_path / "search"
    _, by_engine, _ = call(capsys, *search, *engine, "mine")
    _, by_gallery, _ = call(capsys, *search, "--gallery", folder)
    by_engine, by_gallery = (
        [line.split()[2] for line in out.splitlines() if re.search(r"\d\.png$", line)]
        for out in (by_engine, by_gallery)
    )
    assert by_engine == by_gallery and len(by_engine) == 3
    code, _, error = call(capsys, *search, *engine, "other")
    assert code == 2 and "holds no collection" in error


@pytest.mark.parametrize("place", ["localhost:6333", ":memory:", "qdrant:6333/x", "", " "])
def test_an_address_without_its_scheme_is_no_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refusal("such as http://localhost:6333, or a folder"):
        upload(gallery_of(), place)
    assert not list(tmp_path.iterdir())


def test_a_scheme_in_capitals_is_an_address():
    engine = qdrant_engines.engine_of("HTTP://localhost:6333", "pictures")
    assert isinstance(engine, qdrant_engines.Server)


@pytest.mark.parametrize("collection", ["../out", "a/b", "", "..", None, 3, "a\nb"])
def test_a_collection_s_name_leads_out_of_no_folder(collection, tmp_path):
    with refusal("^collection is .*; name it with letters"):
        QdrantGallery.open(tmp_path, collection)


def test_what_the_engine_refuses_is_one_line_that_names_the_folder(tmp_path):
    """Open elsewhere, or damaged: also what its language calls a panic."""
    held = upload(gallery_of(), tmp_path)
    len(held)
    with refusal(f"could not open {tmp_path}.*another process"):
        len(QdrantGallery.open(tmp_path, held.engine.folder.name))
    held.close()
    for path in tmp_path.rglob("status.dat"):
        path.write_bytes(b"")
    with refusal(f"could not open {tmp_path}.*damaged"):
        len(QdrantGallery.open(tmp_path, held.engine.folder.name))


def test_a_disk_that_is_nearly_full_is_told_before_the_engine_dies_of_it(tmp_path, monkeypatch):
    pytest.importorskip("qdrant_edge")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=qdrant_folder.ROOM - 1))
    with pytest.raises(OSError, match="less than 256 MB are left for Qdrant: .*things"):
        upload(gallery_of(), tmp_path)
    assert not list(tmp_path.iterdir())
