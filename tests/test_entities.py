"""Flickr30k Entities: sentences and boxes from the official files, given to their captions."""

import os
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from helpers import refusal

from tgdt_mini.photos import entities
from tgdt_mini.photos.entities import add_phrases, phrases_of, read_boxes, read_sentences

FLICKR8K = os.environ.get("TGDT_MINI_FLICKR8K")
OBJECT = "<object>{names}{boxes}</object>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
NOWHERE = "<scene>1</scene><nobndbox>0</nobndbox>"
SENTENCES = [
    "[/EN#1/people Two men] carry [/EN#2/other a door] .",
    "[/EN#0/notvisual The work] is hard for [/EN#1/people men] on [/EN#3/vehicles/scene a boat] .",
]
OBJECTS = [  # chain ids and their boxes; a scene has none
    (["1"], [(1, 1, 100, 100)]),
    (["1"], [(50, 20, 60, 40)]),
    (["2"], [(20, 10, 200, 90)]),
    (["3"], []),
]
CAPTIONS = [
    "Nobody wrote this one.",
    "The work is hard for men on a boat .",
    "Two men carry a door.",
]


def annotation(*objects, width=200, height=100):
    """An XML file's text; objects are (names, boxes), and one without a box is a scene."""
    things = [
        OBJECT.format(
            names="".join(f"<name>{name}</name>" for name in names),
            boxes="".join(BOX.format(*box) for box in boxes) or NOWHERE,
        )
        for names, boxes in objects
    ]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>7.jpg</filename>{size}{''.join(things)}</annotation>"


def annotated(folder, name="7", sentences=SENTENCES, xml=None):
    xml = xml or annotation(*OBJECTS)
    for place, content in (("Sentences", "\n".join(sentences) + "\n"), ("Annotations", xml)):
        path = folder / place / f"{name}{'.txt' if place == 'Sentences' else '.xml'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def records(*names, captions=CAPTIONS):
    return {
        "test": Dataset.from_dict({"image_id": list(names), "captions": [captions] * len(names)})
    }


def test_phrases_and_boxes_are_those_of_the_official_files(tmp_path):
    data = add_phrases(records("7.jpg"), annotated(tmp_path))["test"]
    assert data[0]["phrases"] == [
        {"caption": 2, "text": "Two men", "region": "1", "kind": ["people"]},
        {"caption": 2, "text": "a door", "region": "2", "kind": ["other"]},
        {"caption": 1, "text": "The work", "region": "0", "kind": ["notvisual"]},
        {"caption": 1, "text": "men", "region": "1", "kind": ["people"]},
        {"caption": 1, "text": "a boat", "region": "3", "kind": ["vehicles", "scene"]},
    ]
    assert [box["region"] for box in data[0]["boxes"]] == ["1", "1", "2"]  # a scene has none
    boxes = [[round(x, 6) for x in box["box"]] for box in data[0]["boxes"]]
    assert boxes == [[0.005, 0.01, 0.5, 1.0], [0.25, 0.2, 0.3, 0.4], [0.1, 0.1, 1.0, 0.9]]


def test_a_box_may_belong_to_several_chains(tmp_path):
    folder = annotated(tmp_path, xml=annotation((["1", "2"], [(0, 0, 100, 50)])))
    boxes = read_boxes(folder / "Annotations" / "7.xml")
    assert boxes == [{"region": name, "box": [0.0, 0.0, 0.5, 0.5]} for name in ("1", "2")]


@pytest.mark.parametrize("image_id", ["7.jpg", "7", "7_a1b2c3.jpg", "folder/7.png"])
def test_pictures_are_found_by_their_flickr_number(image_id, tmp_path):
    data = add_phrases(records(image_id, "8.jpg"), annotated(tmp_path))["test"]
    assert [len(each) for each in data["phrases"]] == [5, 0] and [
        len(each) for each in data["boxes"]
    ] == [3, 0]


@pytest.mark.parametrize(
    "sentence, caption, texts",
    [
        (
            "[/EN#1/people A red-hair girl] 's [/EN#2/other hat]",
            "A red hair girl's hat.",
            ["A red hair girl", "hat"],
        ),
        ("[/EN#1/people a man] and [/EN#1/people a man]", "A man and a  man", ["A man", "a  man"]),
        (
            "[/EN#1/people \N{LATIN CAPITAL LETTER E WITH ACUTE}ric] , 3",
            "\N{LATIN SMALL LETTER E WITH ACUTE}ric, 3",
            ["\N{LATIN SMALL LETTER E WITH ACUTE}ric"],
        ),
        ('in [/EN#1/other " x "]', 'in "x"', ["x"]),
        ("[/EN#1/other ...] [/EN#2/other end]", "...end", ["...", "end"]),
        ("no phrase here", "no phrase here", []),
    ],
)
def test_a_phrase_is_spelled_as_in_its_caption(sentence, caption, texts, tmp_path):
    path = annotated(tmp_path, sentences=[sentence]) / "Sentences" / "7.txt"
    found = phrases_of(read_sentences(path), [caption])
    assert [phrase["text"] for phrase in found] == texts and all(text in caption for text in texts)


def test_captions_that_are_equal_get_a_sentence_each(tmp_path):
    sentences = ["[/EN#1/people a man]", "a [/EN#2/people man]", "[/EN#3/people a man]"]
    path = annotated(tmp_path, sentences=sentences) / "Sentences" / "7.txt"
    found = phrases_of(read_sentences(path), ["A man.", "other", "a man"])
    assert [(phrase["caption"], phrase["region"]) for phrase in found] == [(0, "1"), (2, "2")]


def test_earlier_annotations_are_replaced_and_other_columns_stay(tmp_path):
    once = add_phrases(records("7.jpg"), annotated(tmp_path))
    again = add_phrases(once, annotated(tmp_path, sentences=SENTENCES[:1]))["test"]
    assert (
        again.column_names == ["image_id", "captions", "boxes", "phrases"]
        and len(again[0]["phrases"]) == 2
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            dict(xml=annotation((["1"], [(0, 0, 300, 50)]))),
            r"box \[0.0, .*\] of .*7\.xml is outside its size of 200 x 100",
        ),
        (dict(xml=annotation((["1"], [(40, 0, 30, 50)]))), r"of .*7\.xml has no area"),
        (dict(xml="<annotation><size>"), r"7\.xml is damaged \(.*\); unpack the annotations again"),
        (dict(xml="<annotation></annotation>"), r"7\.xml is damaged"),
        (dict(xml=annotation((["1"], [("one", 0, 30, 50)]))), r"7\.xml is damaged"),
        (
            dict(sentences=["[/EN#1/people a man"]),
            r"7\.txt has a phrase that does not end, in '\[/EN#1/people a man'",
        ),
    ],
)
def test_damaged_annotations_are_named(spoil, message, tmp_path):
    with refusal(message):
        add_phrases(records("7.jpg"), annotated(tmp_path, **spoil))


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ValueError, match="folder .* has no Annotations/"):
        add_phrases(records("7.jpg"), tmp_path)
    with pytest.raises(ValueError, match="folder .* annotates none of the pictures"):
        add_phrases(records("COCO_val2014_000000000007.jpg"), annotated(tmp_path))
    (tmp_path / "Annotations" / "7.xml").unlink()
    with pytest.raises(ValueError, match=r"7\.xml cannot be read .*; unpack the annotations again"):
        add_phrases(records("7.jpg"), tmp_path)


@pytest.mark.skipif(not FLICKR8K, reason="TGDT_MINI_FLICKR8K names no folder with dev.parquet")
def test_the_columns_are_those_of_annotated_flickr8k(tmp_path):
    """Official files written from the records give the records back."""
    path = str(Path(FLICKR8K) / "dev.parquet")
    known = load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path)).select(
        range(100)
    )
    known = known.select_columns(["image_id", "captions", "boxes", "phrases"])
    for record in known:
        boxes = [([box["region"]], [[x * 10000 for x in box["box"]]]) for box in record["boxes"]]
        sentences = []
        for place in dict.fromkeys(phrase["caption"] for phrase in record["phrases"]):
            line, last, caption = "", 0, record["captions"][place]
            for phrase in (phrase for phrase in record["phrases"] if phrase["caption"] == place):
                start = (
                    caption.index(phrase["text"], last)
                    if phrase["text"] in caption[last:]
                    else None
                )
                if start is None:
                    continue
                line += (
                    caption[last:start]
                    + f"[/EN#{phrase['region']}/{'/'.join(phrase['kind'])} {phrase['text']}]"
                )
                last = start + len(phrase["text"])
            sentences.append(line + caption[last:])
        annotated(
            tmp_path,
            record["image_id"].split("_")[0],
            sentences,
            annotation(*boxes, width=10000, height=10000),
        )
    found = add_phrases({"dev": known.remove_columns(["boxes", "phrases"])}, tmp_path)["dev"]
    assert found.features == known.features
    total = 0
    for record, original in zip(found, known):
        assert record["boxes"] == original["boxes"]
        inside = [
            phrase
            for phrase in original["phrases"]
            if phrase["text"] in original["captions"][phrase["caption"]]
        ]
        assert record["phrases"] == inside
        total += len(inside)
    assert total > 1000


def test_letters_are_counted_as_they_are_matched():
    assert entities._letters("A red-hair girl 's, 3!") == "aredhairgirls3"
