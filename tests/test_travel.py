"""Models that travel: encoders that have moved, files that others may read."""

import os
import shlex
import shutil
import stat

import datasets
import pytest
import torch
from helpers import CAPTIONS, call, saved_encoders, some_scenes

from tgdt_mini import Retriever
from tgdt_mini.encoders.load import place_of


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model that was trained on encoders whose folders were given by relative names."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets cache")
        saved_encoders(home / "encoders")
        (home / "pictures").mkdir()
        lines = ["image,caption"]
        for place, scene in enumerate(some_scenes("validation", 12)):
            scene["image"].save(home / "pictures" / f"{place}.png")
            lines += [f'{place}.png,"{caption}"' for caption in scene["captions"]]
        (home / "pictures" / "all.csv").write_text("\n".join(lines), encoding="utf-8")
        from tgdt_mini import cli

        data = "--data pictures/all.csv --divide 6/3/3 --device cpu --out f"
        extract = f"extract {data} --vision encoders/vision --text encoders/text"
        before = os.umask(0o022)
        try:
            assert cli.main(shlex.split(extract)) == 0
            assert cli.main(shlex.split("train --features f --epochs 1 --batch 6 --out run")) == 0
            assert cli.main(shlex.split("index --images pictures --model run/model --out g")) == 0
        finally:
            os.umask(before)
    return home


@pytest.fixture
def moved(home, tmp_path):
    """A copy of everything elsewhere, without the encoders, which nobody finds at home then."""
    shutil.copytree(home / "run" / "model", tmp_path / "model")
    shutil.copytree(home / "f", tmp_path / "f")
    (home / "encoders").rename(home / "gone")
    yield tmp_path
    (home / "gone").rename(home / "encoders")


def same(one, other):
    return torch.equal(one.encode_texts(CAPTIONS).global_token, other)


@pytest.fixture(scope="module")
def known(home):
    """What the model makes of captions and of a picture."""
    retriever = Retriever.from_pretrained(home / "run" / "model", device="cpu")
    picture = retriever.encode_images(home / "pictures" / "3.png")
    return retriever.encode_texts(CAPTIONS).global_token, picture.global_token


def test_a_model_finds_its_encoders_from_any_folder(home, known, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert same(Retriever.from_pretrained(home / "run" / "model", device="cpu"), known[0])


def test_encoders_that_are_not_there_are_named_with_the_option_that_helps(moved, capsys):
    for command in (
        f"search 'a star' --model {moved}/model --features {moved}/f",
        f"index --images {moved} --model {moved}/model",
        f"train --features {moved}/f --epochs 1",
    ):
        code, _, err = call(capsys, *shlex.split(f"{command} --out {moved}/out"))
        assert code == 2 and err.startswith("error: ") and "--text-path FOLDER" in err, err


def test_encoders_may_be_anywhere_if_it_is_said(home, known, moved, capsys):
    gone = home / "gone"
    places = f"--vision-path {gone}/vision --text-path {gone}/text --device cpu"
    pictures = f"index --images {home}/pictures --model {moved}/model --out {moved}/g {places}"
    assert call(capsys, *shlex.split(pictures))[0] == 0
    search = f"search 'a star' --model {moved}/model --gallery {moved}/g {places} --out {moved}/s"
    assert call(capsys, *shlex.split(search))[0] == 0
    train = f"train --features {moved}/f --epochs 1 --batch 6 --out {moved}/run {places}"
    assert call(capsys, *shlex.split(train))[0] == 0
    paths = {"vision_path": gone / "vision", "text_path": gone / "text"}
    assert same(Retriever.from_pretrained(moved / "model", device="cpu", **paths), known[0])
    swapped = paths | {"vision_path": home / "pictures"}
    with pytest.raises(ValueError, match="pictures"):
        Retriever.from_pretrained(moved / "model", device="cpu", **swapped)


@pytest.mark.parametrize("place", ["model/encoders", "model", "."])
def test_encoders_beside_a_model_are_found(home, known, moved, place):
    for kind in ("vision", "text"):
        shutil.copytree(home / "gone" / kind, moved / place / kind)
    retriever = Retriever.from_pretrained(moved / "model", device="cpu")
    assert same(retriever, known[0])
    found = retriever.encode_images(home / "pictures" / "3.png").global_token
    assert torch.equal(found, known[1])


def test_a_retriever_takes_its_encoders_with_it(home, known, tmp_path):
    Retriever.from_pretrained(home / "run" / "model", device="cpu").save(tmp_path / "m", True)
    (home / "encoders").rename(home / "gone")
    try:
        again = Retriever.from_pretrained(tmp_path / "m", device="cpu")
        assert same(again, known[0])
        again.save(tmp_path / "m")  # in its own place: the encoders stay
        assert same(Retriever.from_pretrained(tmp_path / "m", device="cpu"), known[0])
        again.save(tmp_path / "light")
        assert not (tmp_path / "light" / "encoders").exists()
    finally:
        (home / "gone").rename(home / "encoders")


def test_names_of_wheels_and_of_the_hub_stay_as_they_are(tmp_path):
    (tmp_path / "minilm").mkdir()
    assert place_of("text", "minilm", beside=tmp_path) == "minilm"
    assert place_of("text", "someone/bert", beside=tmp_path) == "someone/bert"


@pytest.mark.skipif(os.name == "nt", reason="other permissions there")
def test_files_are_as_readable_as_the_umask_says(home):
    files = [path for part in ("run", "f", "g") for path in (home / part).rglob("*")]
    assert len(files) > 20
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o044 == 0o044, f"{path} has mode {mode:o}"
