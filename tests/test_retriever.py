"""The object that does it all: the same answers as its parts, kind to whatever it is handed."""

import json
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refusal, tiny_model, tokenizer
from PIL import Image

import tgdt_mini
from tgdt_mini import Gallery, Retriever, encoding, image_tokens, load_model, save_model, scenes
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.runs import retriever as module

CAPTIONS = ["a red star", "two hearts above a blue ring", "a purple moon on the grass"]
NAMES = [f"test-{number:04d}" for number in range(6)]


@pytest.fixture(scope="module")
def shipped():
    return Retriever.from_pretrained("scenes")


@pytest.fixture
def own(tmp_path):
    """A retriever of a small model with notes, loaded from a folder."""
    save_model(tiny_model(), tmp_path / "model", tokenizer(), {"seed": 3})
    return Retriever.from_pretrained(tmp_path / "model", device="cpu")


@pytest.fixture
def pictures(tmp_path):
    """A folder of six drawn pictures, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in NAMES:
        scenes.picture(name).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    return folder


def same(one, other):
    return torch.equal(one.global_token, other.global_token) and torch.equal(one.mask, other.mask)


def test_one_line_searches_the_shipped_gallery(shipped):
    hits = shipped.search("a yellow star above a pink square", k=5)
    parts = encode_texts(shipped.model, ["a yellow star above a pink square"])
    known = Gallery.load(module.shipped() / "gallery").search(parts, 5)
    assert hits.items == known.items and torch.equal(hits.scores, known.scores)
    assert hits.items[0][0] == "test-0644"


def test_embeddings_are_those_of_the_functions(own):
    assert same(own.encode_texts(CAPTIONS), encode_texts(own.model, CAPTIONS))
    assert same(own.encode_texts(CAPTIONS[0]), encode_texts(own.model, CAPTIONS[:1]))
    drawn = [scenes.picture(name) for name in NAMES]
    assert same(own.encode_images(drawn), encode_pictures(own.model, drawn))


def test_a_picture_may_come_in_any_form(own, pictures):
    drawn, path = scenes.picture(NAMES[0]), pictures / f"{NAMES[0]}.png"
    pixels = np.asarray(drawn)
    known = encode_pictures(own.model, [drawn])
    one_by_one = (drawn, path, str(path), pixels, torch.from_numpy(pixels.copy()))
    for image in (*one_by_one, [path], (drawn,), (image for image in [pixels])):
        assert same(own.encode_images(image), known), type(image)
    assert len(own.encode_images(np.stack([pixels, pixels]))) == 2
    assert len(own.encode_images(Image.new("L", (20, 30)))) == 1


@pytest.mark.parametrize(
    "images, error, message",
    [
        (None, TypeError, "images is None; give a PIL picture"),
        ([], ValueError, "images is empty"),
        (3, TypeError, "images is a int; give"),
        ([scenes.picture("test-0000"), None], TypeError, "an image is a NoneType; give"),
        (np.zeros((4, 4, 3)), ValueError, r"array \(4, 4, 3\) of float64"),
        (np.zeros((4, 4, 7), np.uint8), ValueError, r"array \(4, 4, 7\)"),
        ("no such file.png", ValueError, "no such file.png"),
    ],
)
def test_other_pictures_are_refused_with_what_is_taken(own, images, error, message):
    with pytest.raises(error, match=message):
        own.encode_images(images)


@pytest.mark.parametrize(
    "texts, error, message",
    [
        (None, TypeError, "texts is None; give a string"),
        ([], ValueError, "texts is empty"),
        (7, TypeError, "texts is a int"),
        (["a star", 7], TypeError, "texts holds 7"),
    ],
)
def test_other_texts_are_refused_with_what_is_taken(own, texts, error, message):
    with pytest.raises(error, match=message):
        own.encode_texts(texts)


def test_a_name_that_no_file_can_have_and_a_switch_that_is_none_are_refused(own, pictures):
    with refusal("image a+ cannot be read"):
        own.index("a" * 9999, progress=False)
    with refusal(r"progress is tensor\(\[1., 2.\]\); it must be True or False$"):
        own.index(pictures, progress=torch.tensor([1.0, 2.0]))


def test_a_folder_is_indexed_and_searched_and_saved_and_found_again(own, pictures, tmp_path):
    with pytest.raises(ValueError, match="no gallery to search yet; call index"):
        own.search("a star")
    hits = own.index(pictures).search("a star", k=3)
    paths = [str(pictures / f"{name}.png") for name in NAMES]
    assert own.gallery.items == paths and set(hits.items[0]) < set(paths)
    own.save(tmp_path / "saved")
    again = Retriever.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.search("a star", k=3).items == hits.items
    assert again.model.notes == {"seed": 3} and again.model.fingerprint == own.model.fingerprint
    again.save(tmp_path / "saved")  # in place of itself
    (tmp_path / "saved" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="holds thesis.txt, which is not ours"):
        again.save(tmp_path / "saved")
    assert Retriever.from_pretrained(tmp_path / "saved").search("a star", k=3).items == hits.items
    (lost := tmp_path / "saved" / "gallery" / "gallery.json").unlink()
    with refusal(f"^{lost} is missing"):
        Retriever.from_pretrained(tmp_path / "saved")


def test_a_gallery_of_another_model_is_refused(own, shipped):
    with pytest.raises(ValueError, match="built by another model"):
        Retriever(own.model, shipped.gallery)


def test_a_save_that_fails_keeps_model_and_gallery(own, pictures, tmp_path, monkeypatch):
    own.index(pictures).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="items must be JSON values"):
        own.index([scenes.picture(NAMES[0])], items=[Path("a")])
    with pytest.raises(ValueError, match="items must be JSON values"):
        own.index(["not-there.png"], items=[("a", 1)])  # told before a picture is read

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Gallery, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        own.index([scenes.picture(NAMES[0])]).save(tmp_path / "saved")
    again = Retriever.from_pretrained(tmp_path / "saved", device="cpu")
    assert len(again.gallery) == len(NAMES)


def test_a_name_means_what_is_shipped_and_a_path_a_folder(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own.save("scenes")
    known = Retriever.from_pretrained("scenes")
    assert known.model.fingerprint != own.model.fingerprint and len(known.gallery) == 1000
    folder = Retriever.from_pretrained(Path("scenes"), device="cpu")
    assert folder.model.fingerprint == own.model.fingerprint and folder.gallery is None
    (tmp_path / "a").mkdir()
    own.save("a/b")
    (tmp_path / "a" / "b").rename(tmp_path / "a" / ".b.tgdt-old")  # a writer was killed
    again = Retriever.from_pretrained("a/b", device="cpu")
    assert again.model.fingerprint == own.model.fingerprint


def test_pictures_are_indexed_under_their_names_or_numbers(own, pictures):
    drawn = [scenes.picture(name) for name in NAMES]
    assert own.index(drawn).gallery.items == [0, 1, 2, 3, 4, 5]
    assert own.index(drawn, items=NAMES).gallery.items == NAMES
    assert own.index([drawn[0], str(pictures / "test-0001.png")]).gallery.items[0] == 0
    with pytest.raises(ValueError, match="2 items for 6 images"):
        own.index(drawn, items=NAMES[:2])
    with pytest.raises(ValueError, match="holds no picture"):
        (pictures / "empty").mkdir()
        own.index(pictures / "empty")


def test_captions_are_searched_with_a_picture(own):
    hits = own.index_texts(CAPTIONS).search(scenes.picture("test-0000"), k=2)
    known = own.gallery.search(encode_pictures(own.model, [scenes.picture("test-0000")]), 2)
    assert own.gallery.holds == "caption" and hits.items == known.items


def test_hits_are_a_table_and_json_and_pictures(own, pictures):
    hits = own.index(pictures).search(CAPTIONS[:2], k=2)
    lines = str(hits).splitlines()
    assert lines[0] == "query 1" and lines[1].split() == ["rank", "score", "item"]
    assert len(lines) == 8 and lines[2].endswith(hits.items[0][0])
    rows = json.loads(hits.to_json())
    assert [[row["item"] for row in row_of] for row_of in rows] == hits.items
    assert rows[0][0] == {"rank": 1, "item": hits.items[0][0], "score": rows[0][0]["score"]}
    assert hits._repr_html_().count("<img ") == 4
    (pictures / "test-0000.png").unlink()  # a picture that is there no more is not shown
    assert own.search(CAPTIONS[0], k=6)._repr_html_().count("<img ") == 5
    named = own.index([scenes.picture(name) for name in NAMES], items=["<b>"] * 6)
    assert "&lt;b&gt;" in named.search("a star")._repr_html_()


def test_many_threads_get_what_one_gets(own, pictures):
    own.index(pictures)
    captions = [caption for texts in scenes.captions_of("test")[:40] for caption in texts]
    captions += ["a star " * 60]  # longer than the model reads
    with pytest.warns(UserWarning, match="tokens"):
        known = [own.search(caption, k=3).scores for caption in captions]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda caption: own.search(caption, k=3).scores, captions))
    assert all(torch.equal(one, other) for one, other in zip(known, found))


def test_a_name_on_the_hub_is_downloaded(own, tmp_path, monkeypatch):
    import huggingface_hub

    own.save(tmp_path / "there")
    asked = []

    def download(name):
        asked.append(name)
        return str(tmp_path / "there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    again = Retriever.from_pretrained("someone/tgdt")
    assert asked == ["someone/tgdt"] and again.model.fingerprint == own.model.fingerprint

    def offline(name):
        raise OSError("no network\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"someone/tgdt is no folder.*no network.*; check"):
        Retriever.from_pretrained("someone/tgdt")
    with pytest.raises(ValueError, match="nowhere.config.json is missing"):
        Retriever.from_pretrained("nowhere")


def test_pushing_uploads_what_save_writes(own, pictures, monkeypatch):
    import huggingface_hub

    seen = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, name, exist_ok, **options):
            seen.update(name=name, options=options)
            return f"https://huggingface.co/{name}"

        def upload_folder(self, repo_id, folder_path, delete_patterns):
            seen["files"] = {path.name for path in Path(folder_path).rglob("*") if path.is_file()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    address = own.index(pictures).push_to_hub("someone/tgdt", private=True, token="t")
    assert address == "https://huggingface.co/someone/tgdt"
    assert seen["name"] == "someone/tgdt" and seen["options"] == {"private": True}
    assert seen["token"] == "t" and {"model.safetensors", "gallery.json"} < seen["files"]


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    save_model(tiny_model(), tmp_path / "model")
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        Retriever(load_model(tmp_path / "model"))


def test_words_and_regions_are_compared_by_their_tokens(own, pictures, monkeypatch):
    picture = scenes.picture(NAMES[2])
    for given in (picture, pictures / f"{NAMES[2]}.png"):
        words, similarities, boxes = own.word_regions(CAPTIONS[1], given)
        assert words == [piece for piece, _, _ in tokenizer().pieces(CAPTIONS[1])]
        regions, told = own.encode_images(picture), own.encode_texts(CAPTIONS[1])
        known = told.local_tokens[told.mask] @ regions.local_tokens[0].T
        torch.testing.assert_close(similarities, known)
        assert np.array_equal(boxes, image_tokens.regions(picture)[1])
    with pytest.raises(ValueError, match="no such file.png"):
        own.word_regions("a star", "no such file.png")
    told.mask[0, 1] = False  # as a stop word of a model for photographs
    monkeypatch.setattr(own, "encode_texts", lambda caption: told)
    fewer, similarities, _ = own.word_regions(CAPTIONS[1], picture)
    assert fewer == [words[0], *words[2:]]
    torch.testing.assert_close(similarities, torch.cat([known[:1], known[2:]]))


def test_a_caption_that_is_called_like_a_file_is_no_picture(own, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    own.index_texts(["a star", f"{NAMES[0]}.png"])
    hits = own.search(scenes.picture(NAMES[0]), k=2)
    assert [hits.picture_of(item) for item in hits.items[0]] == hits.items[0]
    assert "<img" not in hits._repr_html_()


def test_broken_pictures_are_left_out_where_that_is_asked_for(own, pictures, tmp_path):
    whole = own.index(pictures, progress=False).gallery
    broken = [pictures / "test-0000x.png", pictures / "zz.jpg"]
    broken[0].write_bytes(b"no picture")
    broken[1].write_bytes((pictures / f"{NAMES[1]}.png").read_bytes()[:90])
    with pytest.raises(ValueError, match="test-0000x.png cannot be read"):
        own.index(pictures, progress=False)
    assert own.gallery is whole and not own.refused
    with pytest.warns(UserWarning, match="2 of 8 pictures cannot be read .*test-0000x.png"):
        own.index(pictures, progress=False, skip_broken=True)
    assert own.gallery.items == whole.items and list(own.refused) == [1, 7]
    assert torch.equal(own.gallery.global_tokens, whole.global_tokens)
    mixed = [scenes.picture(NAMES[0]), broken[0], np.zeros((3, 4, 5)), pictures / f"{NAMES[2]}.png"]
    with pytest.warns(UserWarning, match="2 of 4 pictures"):
        own.index(mixed, items=list("abcd"), progress=False, skip_broken=True)
    assert own.gallery.items == ["a", "d"] and list(own.refused) == [1, 2]
    assert own.index(pictures / f"{NAMES[2]}.png", progress=False).refused == {}
    with pytest.raises(ValueError, match="zz.jpg cannot be read.*; none of 2 pictures"):
        own.index(broken[::-1], progress=False, skip_broken=True)
    with pytest.raises(TypeError, match="an image is a NoneType"):
        own.index([None], progress=False, skip_broken=True)
    with pytest.raises(ValueError, match="skip_broken is 'no'; it must be True or False"):
        own.index(pictures, skip_broken="no")
    with pytest.raises(ValueError, match="encoders is 1; it must be True or False"):
        own.save(pictures / "model", encoders=1)
    with pytest.raises(TypeError, match="items is 'x'; give a list"):
        own.index(pictures / f"{NAMES[0]}.png", items="x")
    with pytest.raises(ValueError, match="cannot be read.*; skip_broken=True leaves out"):
        own.index(broken, progress=False)
    with pytest.raises(TypeError, match="texts holds .*; give a string"):
        own.encode_texts([np.array(["a", "b"])])
    with pytest.raises(TypeError, match="folder is None; give a folder's name"):
        own.save(None)
    for empty in (Image.new("RGB", (0, 0)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="0 x 0 pixels shows nothing|array .0, 5, 3. of uint8"):
            own.encode_images(empty)


def test_what_a_gallery_is_asked_with_is_told(own, pictures):
    own.index(pictures, progress=False)
    picture = scenes.picture(NAMES[0])
    with pytest.raises(TypeError, match="^query: .*the gallery holds pictures: ask it with capti"):
        own.search(picture)
    own.index_texts(["a star", "a moon"])
    assert repr(own).endswith("2 captions)")
    with pytest.raises(ValueError, match="^query: image a dog does not exist .*ask it with a pict"):
        own.search("a dog")
    with pytest.raises(ValueError, match="picture is 2 pictures; give one"):
        own.word_regions("a star", [picture, picture])
    with pytest.raises(TypeError, match="caption is .*; give one string"):
        own.word_regions(["a star", "a moon"], picture)


def test_hits_are_counted_and_taken_by_query(own, pictures):
    hits = own.index(pictures, progress=False).search(["a star", "a moon"], k=2)
    assert len(hits) == 2 and list(hits) == hits.rows() and hits[1] == hits.rows()[1]
    assert json.loads(hits.to_json()) == hits.rows() and [h["rank"] for h in hits[0]] == [1, 2]


def test_another_gallery_can_be_named(own, shipped, tmp_path, pictures):
    own.index(pictures).gallery.save(tmp_path / "gallery")
    again = Retriever.from_pretrained(tmp_path / "model", "cpu", gallery=tmp_path / "gallery")
    assert again.search("a star").items == own.search("a star").items
    with pytest.raises(ValueError, match="built by another model"):
        Retriever.from_pretrained("scenes", "cpu", gallery=tmp_path / "gallery")
    with pytest.raises(ValueError, match="nothing"):
        Retriever.from_pretrained("scenes", "cpu", gallery=tmp_path / "nothing")


def test_the_public_names_are_listed():
    assert {*tgdt_mini.__all__, "scenes", "plots", "__version__"} <= set(dir(tgdt_mini))
    assert all(getattr(tgdt_mini, name) for name in tgdt_mini.__all__)


def test_hits_can_be_pickled_and_own_pictures_are_no_scenes(own, tmp_path):
    colours = [Image.new("RGB", (112, 112), colour) for colour in ("red", "blue")]
    own.index(colours, ["test-0000", "test-0001"], progress=False)
    hits = pickle.loads(pickle.dumps(own.search("a red star", k=2)))
    assert sorted(hits.items[0]) == ["test-0000", "test-0001"] and "<img" not in hits._repr_html_()
    own.save(tmp_path / "saved")
    again = Retriever.from_pretrained(tmp_path / "saved").search("a red star", k=2)
    assert again.items == hits.items and "<img" not in again._repr_html_()


def test_pictures_are_read_a_few_at_a_time(own, monkeypatch):
    """However many there are, those of 50 MB are in memory, and one more."""
    monkeypatch.setattr(encoding, "PIXELS", 3 * 112 * 112)
    references, most = [], []

    def drawn():
        for name in NAMES + NAMES:
            picture = scenes.picture(name)
            references.append(weakref.ref(picture))
            most.append(sum(reference() is not None for reference in references))
            yield picture

    found = encode_pictures(own.model, drawn())
    assert len(found) == 12 and max(most) <= 5
    whole = encode_pictures(own.model, [scenes.picture(name) for name in NAMES])
    torch.testing.assert_close(found.global_token[:6], whole.global_token)
