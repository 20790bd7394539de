"""The index of a folder of pictures: what is taken, left out, refused, added and gone on with."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from helpers import call, refusal, tiny_model, tokenizer
from PIL import Image, features

from tgdt_mini import Gallery, load_model, save_model, scenes
from tgdt_mini.commands.index import use_bfloat16
from tgdt_mini.encoding import encode_pictures
from tgdt_mini.files.locks import only_writer
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.photos.picture_folder import find_pictures
from tgdt_mini.runs import indexing


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    choice = {"local_weight": 1.0, "shortlist": {"caption": 100, "image": 100}}
    save_model(tiny_model(), folder, tokenizer(), {"choice": choice})
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Five pictures, in two folders, among other things."""
    folder = tmp_path / "pictures"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for place, name in enumerate(("a.png", "B.JPG", "c.TIFF", "sub/d.jfif", "sub/deep/e.webp")):
        picture = scenes.picture(f"test-{place:04d}")
        form = {"jfif": "JPEG"}.get(name.rsplit(".")[-1])
        picture.save(folder / name, form)
    shutil.copy(folder / "a.png", folder / ".hidden" / "h.png")
    shutil.copy(folder / "a.png", folder / "no_ending")
    (folder / "._a.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("words", encoding="utf-8")
    (folder / "README").write_text("words", encoding="utf-8")
    return folder


def index(capsys, saved, pictures, out, *more):
    arguments = ("--model", saved, "--images", pictures, "--out", out, *more)
    return call(capsys, "index", *arguments)


def names(gallery):
    return [os.path.basename(item) for item in gallery.items]


def test_pictures_are_known_by_their_endings_or_bytes_and_the_rest_is_told(pictures):
    found = find_pictures(pictures)
    assert [os.path.basename(path) for path in found.paths] == [
        "B.JPG",
        "a.png",
        "c.TIFF",
        "no_ending",
    ]
    assert {kind: set(left) for kind, left in found.left_out.items()} == {
        "hidden": {"._a.png", ".hidden"},
        "a folder, which only --recursive enters": {"sub"},
        "no picture by its name": {"README", "notes.txt"},
    }
    assert str(found).startswith("5 left out: ")
    assert "README, notes.txt (no picture by its name)" in str(found)
    deep = find_pictures(pictures, recursive=True)
    assert len(deep.paths) == 6 and "sub" not in str(deep)
    assert all(os.path.isabs(path) for path in deep.paths) and deep.paths == sorted(deep.paths)
    for number in range(5):
        (pictures / f"x{number}.doc").write_text("x", encoding="utf-8")
    (pictures / "IMG_1.HEIC").write_bytes(b"x")
    assert "IMG_1.HEIC (.heic, which Pillow does not read: save it as .jpg)" in str(
        find_pictures(pictures)
    )
    many = "README, notes.txt, x0.doc, x1.doc, x2.doc and 2 more (no picture by its name)"
    assert many in str(find_pictures(pictures))


def test_formats_that_pillow_may_lack_are_taken_where_it_has_them(pictures, monkeypatch):
    if features.check("avif"):
        Image.new("RGB", (40, 40), "red").save(pictures / "f.avif")
        assert any(path.endswith("f.avif") for path in find_pictures(pictures).paths)
    (pictures / "g.avif").write_bytes(b"x")
    monkeypatch.setattr(features, "check", lambda name: False)
    assert ".avif, which this Pillow cannot read" in find_pictures(pictures).left_out


def test_links_and_what_is_no_file_are_told(pictures):
    (pictures / "link").symlink_to(pictures / "sub")
    (pictures / "lost.png").symlink_to(pictures / "nowhere.png")
    os.mkfifo(pictures / "pipe.png")
    found = find_pictures(pictures, recursive=True)
    assert found.left_out["a link to a folder"] == ["link"] and len(found.paths) == 6
    assert found.left_out["no file"] == ["lost.png", "pipe.png"]


def test_index_says_what_it_leaves_out_and_searches_the_rest(saved, pictures, tmp_path, capsys):
    code, out, err = index(capsys, saved, pictures, tmp_path / "g")
    assert code == 0 and not err and "4 pictures are in" in out
    assert "left out: " in out and "README" in out and "--recursive" in out
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--recursive", "--quiet")
    assert code == 0 and out == ""
    gallery = Gallery.load(tmp_path / "g")
    assert names(gallery) == ["B.JPG", "a.png", "c.TIFF", "no_ending", "d.jfif", "e.webp"]
    model = load_model(saved)
    known = encode_pictures(model, [open_image(path) for path in gallery.items])
    torch.testing.assert_close(gallery.global_tokens, known.global_token)
    assert not (tmp_path / "g" / indexing.PARTIAL).exists()


def test_a_broken_picture_does_not_lose_the_rest(saved, pictures, tmp_path, capsys):
    whole = (pictures / "a.png").read_bytes()
    (pictures / "a.png").write_bytes(whole[:300])
    code, out, err = index(capsys, saved, pictures, tmp_path / "g")
    assert code == 3 and "3 pictures are in" in out
    lines = err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: ") for line in lines)
    assert "a.png cannot be read" in lines[0] and "1 of 4 pictures" in lines[1]
    assert names(Gallery.load(tmp_path / "g")) == ["B.JPG", "c.TIFF", "no_ending"]
    code, _, err = index(capsys, saved, pictures, tmp_path / "g", "--skip-broken")
    assert code == 0 and "a.png cannot be read" in err
    (pictures / "a.png").write_bytes(whole)  # mended, and then added
    code, out, err = index(capsys, saved, pictures, tmp_path / "g", "--append")
    assert code == 0 and not err and "1 pictures are new, 3 were there already" in out
    assert names(Gallery.load(tmp_path / "g"))[-1] == "a.png"


def test_a_folder_of_broken_pictures_is_an_error_and_nothing_is_written(saved, tmp_path, capsys):
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(b"no picture")
    for more in ((), ("--skip-broken",)):
        code, out, err = index(capsys, saved, folder, tmp_path / "g", *more)
        assert code == 2 and not out and err.startswith("error: image ")
        assert "a.png cannot be read" in err and "none of the 2 pictures" in err
        assert not (tmp_path / "g").exists()


def test_a_vision_encoder_multiplies_in_bfloat16_if_asked_and_where_there_is_one(
    saved, pictures, tmp_path, capsys
):
    code, _, err = index(capsys, saved, pictures, tmp_path / "g", "--bfloat16")
    assert (
        code == 2 and "--bfloat16 is for a vision encoder" in err and not (tmp_path / "g").exists()
    )
    model = SimpleNamespace(image_reader=SimpleNamespace(encoder=SimpleNamespace(bfloat16=False)))
    use_bfloat16(model)
    assert model.image_reader.encoder.bfloat16


def test_append_adds_what_is_new_and_keeps_the_rest(saved, pictures, tmp_path, capsys):
    index(capsys, saved, pictures / "sub", tmp_path / "g")
    before = Gallery.load(tmp_path / "g")
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--append", "--recursive")
    gallery = Gallery.load(tmp_path / "g")
    assert code == 0 and "5 pictures are new, 1 were there already" in out
    assert gallery.items[:1] == before.items and len(gallery) == 6 == len({*gallery.items})
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--append", "--recursive")
    assert code == 0 and "0 pictures are new, 6 were" in out
    assert index(capsys, saved, pictures, tmp_path / "new", "--append")[0] == 0  # there is none yet
    save_model(tiny_model(seed=5), tmp_path / "other", tokenizer())
    code, _, err = index(capsys, tmp_path / "other", pictures, tmp_path / "g", "--append")
    assert code == 2 and "another model" in err and len(Gallery.load(tmp_path / "g")) == 6


def test_append_again_is_no_error_and_tells_what_is_old(saved, pictures, tmp_path, capsys):
    (pictures / "broken.png").write_text("no picture", encoding="utf-8")
    code, _, _ = index(capsys, saved, pictures, tmp_path / "g")
    size = len(Gallery.load(tmp_path / "g"))
    for options, expected in (((), 3), (("--skip-broken",), 0)):  # nothing new but the broken one
        code, out, err = index(capsys, saved, pictures, tmp_path / "g", "--append", *options)
        assert code == expected and f"0 pictures are new, {size} were" in out
        assert "broken.png cannot be read" in err and "in the gallery, but" not in err
    gallery = tmp_path / "g" / "gallery.json"
    old, new = pictures / "B.JPG", pictures / "a.png"
    os.utime(new, (later := gallery.stat().st_mtime + 10, later))
    old.unlink()
    code, out, err = index(capsys, saved, pictures, tmp_path / "g", "--append", "--skip-broken")
    assert code == 0 and len(Gallery.load(tmp_path / "g")) == size
    assert f"in the gallery, but changed since: 1, such as {new}" in err
    assert f"in the gallery, but gone: 1, such as {old}" in err


def test_what_a_killed_run_had_done_already_is_swept_by_the_next(
    saved, pictures, tmp_path, capsys, monkeypatch
):
    with monkeypatch.context() as killed:  # after the gallery was written, before it was swept
        killed.setattr(indexing.shutil, "rmtree", lambda *_, **__: None)
        index(capsys, saved, pictures, tmp_path / "g", "--append")
    assert (tmp_path / "g" / ".partial").is_dir()
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--append")
    assert code == 0 and "0 pictures are new" in out
    assert not (tmp_path / "g" / ".partial").exists()


def test_append_takes_the_model_of_the_gallery(saved, pictures, tmp_path, capsys):
    index(capsys, saved, pictures / "sub", tmp_path / "g")
    code, out, _ = call(capsys, "index", "--images", pictures, "--append", "--out", tmp_path / "g")
    assert code == 0 and "4 pictures are new, 0 were" in out and "--model photographs" not in out
    code, out, _ = call(capsys, "index", "--images", pictures, "--out", tmp_path / "drawn")
    assert code == 0 and "knows drawn scenes; for photographs add --model photographs" in out


def test_an_index_that_is_stopped_goes_on_where_it_was(
    saved, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(indexing, "GROUP", 2)
    index(capsys, saved, pictures, tmp_path / "whole", "--recursive")
    seen, encode = [], indexing.encode_pictures

    def counted(model, images):
        if len(seen) == 2:
            raise KeyboardInterrupt
        images = list(images)
        seen.append(len(images))
        return encode(model, images)

    monkeypatch.setattr(indexing, "encode_pictures", counted)
    code, _, err = index(capsys, saved, pictures, tmp_path / "g", "--recursive")
    assert code == 130 and "go on with the same command" in err
    assert not (tmp_path / "g" / "gallery.json").exists(), "a part is no gallery"
    (pictures / "B.JPG").touch()  # it has changed, and is encoded again
    seen[:] = [0]
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--recursive")
    assert code == 130 and seen == [0, 2] and "going on with" in out and "3 of 6" in out
    seen.clear()
    code, out, _ = index(capsys, saved, pictures, tmp_path / "g", "--recursive")
    assert code == 0 and seen == [1] and "5 of 6" in out
    whole, parts = Gallery.load(tmp_path / "whole"), Gallery.load(tmp_path / "g")
    assert parts.items == whole.items and torch.equal(parts.offsets, whole.offsets)
    near = {"atol": 1e-3, "rtol": 0}  # of other batches, in float16
    torch.testing.assert_close(parts.global_tokens, whole.global_tokens, **near)
    torch.testing.assert_close(parts.local_tokens, whole.local_tokens, **near)
    assert len(list((tmp_path / "g").glob("shard-*"))) == 1


@pytest.mark.parametrize("option", ["--recursive", "--skip-broken", "--append"])
def test_options_of_folders_need_a_folder(option, tmp_path, capsys):
    code, _, err = call(capsys, "index", option, "--out", tmp_path / "g")
    assert code == 2 and err.startswith(f"error: {option} ") and "--images" in err


def test_json_and_quiet_of_a_search(saved, pictures, tmp_path, capsys):
    index(capsys, saved, pictures, tmp_path / "g")
    arguments = ("search", "a red star", "--gallery", tmp_path / "g", "--out", tmp_path / "s")
    code, out, err = call(capsys, *arguments, "--json", "-k", 3)
    assert code == 0, err
    found = json.loads(out)
    assert not err and found["caption"] == "a red star" and found["searched"] == 4
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert not (tmp_path / "s").exists()
    code, table, _ = call(capsys, *arguments, "--quiet", "-k", 3)
    lines = table.splitlines()
    assert code == 0 and len(lines) == 4 and lines[0].split() == ["rank", "score", "image"]
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        hit["item"] for hit in found["hits"]
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system copies no processes")
def test_two_processes_do_not_index_into_one_folder(saved, pictures, tmp_path):
    (ready, begun), (end, stop) = os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        with only_writer(tmp_path / "gallery"):
            os.write(begun, b"x")
            os.read(end, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        with refusal("gallery is being written to by another process; wait until it has ended"):
            indexing.index_pictures(
                load_model(saved), [str(pictures / "a.png")], tmp_path / "gallery"
            )
    finally:
        os.write(stop, b"x")
        os.waitpid(process, 0)
    assert not (tmp_path / "gallery").exists()
