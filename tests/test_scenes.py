"""The drawn scenes: published pixels and text, true captions, false foils, what an oracle scores.

Truth is decided here a second time, by trying every assignment of objects to mentions, and compared
with `truth.py`.
"""

import io
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from examples import examples
from helpers import tokenizer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tgdt_mini import scenes
from tgdt_mini.scenes import grammar, world
from tgdt_mini.scenes.hard_captions import hard_caption
from tgdt_mini.scenes.truth import World, oracle, truth
from tgdt_mini.scenes.words import (
    ANY_SHAPE,
    COLOUR_WORDS,
    NUMBER_WORDS,
    OPPOSITE,
    SHAPE_WORDS,
    SIZE_WORDS,
    known_words,
    lexicon,
)

SPLITS = ("train", "validation", "test")


@cache
def meanings_of(split, first):
    return [grammar.captions(scene, scenes.CAPTIONS) for scene in scenes.scenes_of(split, first)]


@cache
def training_captions():
    """Of the set in the cache, whose text another test compares with the published checksum."""
    return [caption for own in scenes.load("train")["captions"] for caption in own]


known_truth = cache(scenes.truth)


@pytest.fixture
def truth_once(monkeypatch):
    """What is true of a split is found out once for all tests that ask for this."""
    for room in (scenes, scenes.judging):
        monkeypatch.setattr(room, "truth", known_truth)


def fits(thing, mention):
    names = ("shape", "colour", "size")
    said = all(getattr(mention, name) in (None, getattr(thing, name)) for name in names)
    return said and (mention.position is None or grammar.is_at(thing, mention.position))


def stands(scene, first, relation, second):
    """The relation again: from centres, sizes, and the pixels that a later object covers."""
    if OPPOSITE[relation] in ("left", "above", "bigger", "front"):
        return stands(scene, second, OPPOSITE[relation], first)
    one, other = scene.things[first], scene.things[second]
    if relation == "front":
        return (
            first > second
            and (world.footprint(one) & world.footprint(other)).sum() >= grammar.LEAST_SHARED
        )
    if relation == "bigger":
        return (one.size, other.size) == ("big", "small")
    return (other.x - one.x if relation == "left" else other.y - one.y) >= grammar.APART


def is_true(scene, meaning):
    """Whether objects can be found for all mentions, by trying them all."""
    return bool(true_readings(scene, meaning))


def true_readings(scene, meaning):
    """The objects of the mentions without a number, in all ways that make a caption true."""
    if meaning.background not in (None, scene.background) or meaning.total not in (
        0,
        len(scene.things),
    ):
        return []
    free, singles = set(range(len(scene.things))), []
    for mention in meaning.mentions:
        if not mention.number_word:
            singles.append(mention)
            continue
        members = {i for i, thing in enumerate(scene.things) if fits(thing, mention)}
        if mention.number_word not in NUMBER_WORDS.get(len(members), ()):
            return []
        free -= members
    return [
        chosen
        for chosen in permutations(sorted(free), len(singles))
        if all(fits(scene.things[i], mention) for i, mention in zip(chosen, singles))
        and (not meaning.relation or stands(scene, chosen[0], meaning.relation, chosen[1]))
    ]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_pixels_and_text_drawn_here_are_the_published_ones(split):
    assert scenes.checksums(scenes.draw(split)) == scenes.published(split)


def test_the_training_set_in_the_cache_is_the_published_one_and_drawing_gives_it_again():
    kept = scenes.load("train")
    text = {name: kept[name][:] for name in ("image_id", "captions", "boxes", "links", "foils")}
    assert scenes.checksums({"image": kept["image"], **text}) == scenes.published("train")
    anew, kept = scenes.draw("train", first=300), kept.select(range(300))
    assert scenes.checksums(anew) == scenes.checksums(kept[:])


def test_checksums_change_with_one_pixel_and_with_one_letter():
    columns = scenes.draw("test", first=2)
    known = scenes.checksums(columns)
    with Image.open(io.BytesIO(columns["image"][1]["bytes"])) as opened:
        picture = opened.convert("RGB")
    picture.putpixel((5, 5), tuple((part + 1) % 256 for part in picture.getpixel((5, 5))))
    changed = scenes.checksums(columns | {"image": [columns["image"][0], picture]})
    assert changed["pixels"] != known["pixels"] and changed["text"] == known["text"]
    columns["captions"][0][0] += "s"
    assert scenes.checksums(columns)["text"] != known["text"]


def test_scenes_that_differ_from_the_published_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    monkeypatch.setitem(scenes.SPLITS, "test", (1, 3))  # three other scenes
    with pytest.raises(RuntimeError, match="test scenes drawn here .* published"):
        scenes.load("test")
    assert not list(tmp_path.iterdir())


def test_pngs_that_do_not_hold_what_was_drawn_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    monkeypatch.setitem(scenes.SPLITS, "test", (2_000_000, 3))
    png = scenes.dataset._png
    monkeypatch.setattr(
        scenes.dataset, "_png", lambda image: png(image.transpose(Image.Transpose.ROTATE_90))
    )
    with pytest.raises(RuntimeError, match="PNGs of the test scenes"):
        scenes.load("test")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split, count", [("train", 6000), ("validation", 1000), ("test", 1000)])
def test_columns_are_those_of_the_contract(split, count):
    dataset = scenes.load(split)
    columns = {"image", "image_id", "captions", "boxes", "links"}
    assert columns <= set(dataset.column_names)
    assert len(dataset) == len(set(dataset["image_id"])) == count
    assert all(len(own) == scenes.CAPTIONS == len(set(own)) for own in dataset["captions"])
    for record in dataset.select(range(20)):
        assert record["image"].mode == "RGB" and min(record["image"].size) >= 96
        assert len(record["foils"]) == scenes.CAPTIONS
        assert all(0 <= link["caption"] < scenes.CAPTIONS for link in record["links"])


def test_splits_share_no_scene():
    drawn = [scene.things for split in SPLITS for scene in scenes.scenes_of(split, 1000)]
    assert len(set(drawn)) == len(drawn)


def test_an_unknown_split_or_picture_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="split is 'dev'.* train, validation, test"):
        scenes.load("dev")
    wrong = ["test-1000", "dev-0001", "test", "test-one", "test-00012", "test-12", "test-+012"]
    for name in (*wrong, "test-٠٠١٢", " test-0012"):
        assert not scenes.is_id(name)
        with pytest.raises(ValueError, match=re.escape(f"image_id is {name!r}")):
            scenes.picture(name)
    for first in (0, 1001):
        with pytest.raises(ValueError, match=f"first is {first}; test has 1 to 1000"):
            scenes.load("test", first=first)


def test_a_picture_by_its_id_is_the_picture_in_the_set():
    record = scenes.load("test")[3]
    assert record["image_id"] == "test-0003"
    assert np.array_equal(np.asarray(scenes.picture("test-0003")), np.asarray(record["image"]))


def test_the_first_scenes_alone_are_those_of_the_whole_split(tmp_path, monkeypatch):
    from_cache = scenes.load("validation", first=3)
    monkeypatch.setenv("TGDT_MINI_CACHE", str(tmp_path))
    drawn = scenes.load("validation", first=3)
    assert not list(tmp_path.iterdir())
    assert scenes.checksums(drawn) == scenes.checksums(from_cache)
    assert drawn["captions"] == scenes.captions_of("validation")[:3]


def test_another_process_with_other_hash_seeds_draws_the_same():
    code = "from tgdt_mini.scenes import checksums, draw; "
    code += "print(*checksums(draw('test', first=20)).values())"
    known = scenes.checksums(scenes.draw("test", first=20))
    for seed in ("1", "20"):
        command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert done.stdout.split() == list(known.values())


def test_there_are_shapes_colours_sizes_and_backgrounds_enough_and_two_to_five_objects():
    drawn = scenes.scenes_of("train", 600)
    things = [thing for scene in drawn for thing in scene.things]
    assert {len(scene.things) for scene in drawn} == {2, 3, 4, 5}
    assert min(len({getattr(thing, name) for thing in things}) for name in ("shape", "colour")) >= 8
    radii = {"small": [], "big": []}
    for thing in things:
        radii[thing.size].append(thing.radius)
    assert len({scene.background for scene in drawn}) >= 4
    assert max(radii["small"]) < min(radii["big"])


def test_objects_overlap_sometimes_but_are_never_mostly_hidden():
    drawn = scenes.scenes_of("train", 300)
    hidden = np.array([share for scene in drawn for share in world.hidden_shares(scene.things)])
    assert hidden.max() <= world.MOST_HIDDEN and (hidden > 0.02).mean() > 0.05


def test_a_colour_is_not_one_pixel_value():
    seen = set()
    for scene in scenes.scenes_of("train", 120):
        front = scene.things[-1]
        if front.colour == "red" and front.shape in ("circle", "square", "diamond", "heart"):
            seen.add(world.draw(scene).getpixel((front.x, front.y)))
    assert len(seen) > 4


def test_boxes_lie_in_the_picture_and_around_the_pixels_of_their_objects():
    for scene in scenes.scenes_of("test", 25):
        pixels = np.asarray(world.draw(scene), int)
        for i, thing in enumerate(scene.things):
            box = thing.box
            assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
            other = "blue" if thing.colour != "blue" else "yellow"
            things = list(scene.things)
            things[i] = replace(thing, colour=other)
            painted = replace(scene, things=tuple(things))
            changed = (np.asarray(world.draw(painted), int) != pixels).any(axis=2)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            drawn = np.round(np.array(box) * world.SIDE)
            assert (found[:2] >= drawn[:2]).all() and (found[2:] <= drawn[2:]).all()
            if i == len(scene.things) - 1:  # nothing in front of it
                assert (np.abs(found - drawn) <= 1).all()


def test_training_captions_hold_at_least_150_words():
    words = {word for caption in training_captions() for word in re.findall("[a-z]+", caption)}
    assert len(words) >= 150


def test_test_captions_need_no_word_that_training_captions_do_not_teach():
    taught = {word for caption in training_captions() for word in caption.split()}
    tested = [caption for own in scenes.captions_of("test") for caption in own]
    asked = [word for caption in tested for word in caption.split()]
    assert sum(word in taught for word in asked) > 0.999 * len(asked)


def test_truth_agrees_with_trying_every_assignment():
    drawn, fast = scenes.scenes_of("test", 60), scenes.truth("test", 60)
    meanings = [m for own in meanings_of("test", 60) for m in own]
    pick = random.Random(0)
    pairs = [(pick.randrange(60), pick.randrange(300)) for _ in range(2000)]
    pairs += np.argwhere(fast).tolist()  # own pairs, and those that happen to be true
    for i, c in pairs:
        assert fast[i, c] == is_true(drawn[i], meanings[c]), (i, c)


def test_truth_agrees_on_foils_and_on_loose_meanings_which_are_often_true():
    drawn = scenes.scenes_of("validation", 60)
    full = [meaning for own in meanings_of("validation", 60) for meaning in own]
    shapeless = [tuple(replace(part, shape=None) for part in m.mentions) for m in full]
    loose = [replace(m, background=None, mentions=parts) for m, parts in zip(full, shapeless)]
    foils = [false for m in full for false in grammar.foil(m)]
    asked = loose + foils
    fast = truth(drawn, asked)
    assert 0.01 < fast.mean() < 0.9
    for i in range(0, 60, 2):
        for c, meaning in enumerate(asked):
            assert fast[i, c] == is_true(drawn[i], meaning)


def test_readings_are_those_of_trying_every_assignment():
    drawn, found = scenes.scenes_of("validation", 60), scenes.readings("validation", 60)
    several = 0
    for scene, own, shares in zip(drawn, meanings_of("validation", 60), found, strict=True):
        for meaning, share in zip(own, shares, strict=True):
            assert share.keys() == {mention.things for mention in meaning.mentions}
            readings = true_readings(scene, meaning)
            singles = [mention for mention in meaning.mentions if not mention.number_word]
            for i, mention in enumerate(singles):
                meant = sum((chosen[i],) == mention.things for chosen in readings)
                assert share[mention.things] == meant / len(readings)
                several += share[mention.things] < 1
            assert all(share[m.things] == 1 for m in meaning.mentions if m.number_word)
    assert several > 30  # captions that fit several objects are no rarity


def test_objects_of_a_number_are_left_to_no_other_mention():
    """With "two red stars and a shape" the shape is neither of the stars."""
    tried = 0
    for scene, own in zip(scenes.scenes_of("validation", 200), meanings_of("validation", 200)):
        for meaning in own:
            counted = [mention for mention in meaning.mentions if mention.number_word]
            singles = [
                replace(mention, shape=None, colour=None, size=None, position=None)
                for mention in meaning.mentions
                if not mention.number_word
            ]
            if not counted or len(singles) != 1 or meaning.relation:
                continue
            loose = replace(meaning, mentions=(*counted, *singles))
            left = len(scene.things) - sum(len(mention.things) for mention in counted)
            assert World([scene]).readings(0, loose)[singles[0].things] == 1 / left
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_true_of_its_image(split):
    true = scenes.truth(split, 400)
    assert true[np.arange(2000) // 5, np.arange(2000)].all()


@examples(max_examples=30)
@given(number=st.integers(0, 2**40), other=st.integers(0, 2**40))
def test_captions_of_any_scene_are_true_sentences_and_its_hard_ones_are_false(number, other):
    """Truth is judged by trying every assignment of objects to mentions."""
    scene, elsewhere = world.scene(number), world.scene(other)
    meanings = grammar.captions(scene, scenes.CAPTIONS)
    assert truth([scene], meanings).all() and len({*meanings}) == scenes.CAPTIONS
    for meaning in meanings:
        text, links = grammar.write(meaning)
        assert is_true(scene, meaning)
        assert truth([elsewhere], [meaning]).item() == is_true(elsewhere, meaning)
        assert {*re.findall(r"\w+", text)} <= known_words() and text == " ".join(text.split())
        assert grammar.facts(meaning) >= grammar.LEAST_FACTS
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)
        for start, end, things in links:
            assert text[start:end] in known_words()
            assert things and max(things) < len(scene.things)
        others = {grammar.write(foil)[0]: foil for foil in grammar.foil(meaning)}
        others |= {grammar.write(other)[0]: other for other in grammar.changes(meaning)}
        judged = truth([scene], [*others.values()])[0] if others else []
        for said, foil in zip(judged, others.values()):
            assert said == is_true(scene, foil)
        false = {words for words, foil in others.items() if not is_true(scene, foil)}
        hard = hard_caption(text, lexicon(), random.Random(number), false.__contains__)
        assert hard != text and (not hard or hard in false)


def test_every_foil_is_false_of_its_image_and_one_swap_away_from_its_caption():
    dataset, count = scenes.load("test"), 0
    for scene, own, texts, foils in zip(
        scenes.scenes_of("test"), meanings_of("test", None), dataset["captions"], dataset["foils"]
    ):
        for meaning, caption, foil in zip(own, texts, foils):
            possible = {grammar.write(false)[0]: false for false in grammar.foil(meaning)}
            if not foil:
                assert not any(not is_true(scene, false) for false in possible.values())
                continue
            count += 1
            assert foil != caption and foil not in texts
            assert not is_true(scene, possible[foil])
            swapped = sorted(re.findall("[a-z]+", foil)) == sorted(re.findall("[a-z]+", caption))
            articles = {"a", "an"}
            same = sorted(set(foil.replace(",", "").split()) - articles) == sorted(
                set(caption.replace(",", "").split()) - articles
            )
            assert swapped or same or possible[foil].relation == OPPOSITE[meaning.relation]
    assert count > 2000  # of 5000 captions


def test_links_name_words_whose_objects_are_what_the_word_says():
    says = {word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words}
    for name, nouns in SHAPE_WORDS.items():
        says |= {word: ("shape", name) for noun in nouns for word in noun}
    says |= {word: ("size", name) for name, words in SIZE_WORDS.items() for word in words}
    any_shape, nouns = {word for noun in ANY_SHAPE for word in noun}, set()
    dataset = scenes.load("test").select(range(200))
    for scene, captions, links in zip(
        scenes.scenes_of("test", 200), dataset["captions"], dataset["links"]
    ):
        for c, caption in enumerate(captions):
            linked = set()
            for link in (link for link in links if link["caption"] == c):
                start, end = link["start"], link["end"]
                assert re.fullmatch(r"\W?", caption[start - 1 : start])
                assert re.fullmatch(r"\W?", caption[end : end + 1])
                word, things = caption[start:end], [scene.things[i] for i in link["objects"]]
                assert things and len(set(link["objects"])) == len(things)
                linked.add(start)
                if word in any_shape:
                    continue
                name, value = says[word]
                assert {getattr(thing, name) for thing in things} == {value}, (caption, word)
                nouns.add(word) if name == "shape" else None
            for found in re.finditer("[a-z]+", caption):
                if says.get(found[0], ("",))[0] == "shape":
                    assert found.start() in linked, f"{found[0]} in {caption!r}: no object"
    assert len(nouns) > 20


def test_the_oracle_is_what_guessing_among_the_true_scores():
    draw = np.random.default_rng(0)
    owner = np.repeat(np.arange(8), 2)
    true = (draw.random((8, 16)) < 0.35) | (owner[None] == np.arange(8)[:, None])
    ks, rounds = (1, 2, 3), 4000
    own, hits = owner[None] == np.arange(8)[:, None], {"i2t": np.zeros(3), "t2i": np.zeros(3)}
    for _ in range(rounds):
        chance = draw.random(true.shape)
        # of what is true, first what is true of the fewest images
        telling = true * (100.0 - true.sum(axis=0)) + chance
        for way, scores, mine in (("i2t", telling, own), ("t2i", (true + chance).T, own.T)):
            best = np.where(mine, scores, -1).max(axis=1)
            rank = (scores > best[:, None]).sum(axis=1)
            hits[way] += [(rank < k).mean() for k in ks]
    expected = oracle(true, owner, ks)
    for way, simulated in hits.items():
        assert list(expected[way].values()) == pytest.approx(100 * simulated / rounds, abs=1.0)


def test_no_other_order_beats_the_oracle_if_captions_were_written_for_a_random_true_image():
    draw = np.random.default_rng(1)
    true = draw.random((6, 30)) < 0.4
    true[draw.integers(0, 6, 30), np.arange(30)] = True
    telling, other = true * (100.0 - true.sum(axis=0)), true * draw.random(30)
    found = {"telling": 0.0, "other": 0.0, "oracle": 0.0}
    for _ in range(300):
        owner = np.array([draw.choice(np.flatnonzero(column)) for column in true.T])
        own = owner[None] == np.arange(6)[:, None]
        for name, scores in (("telling", telling), ("other", other)):
            first = (scores + 1e-6 * draw.random(true.shape)).argmax(axis=1)
            found[name] += own[np.arange(6), first].mean() / 3
        found["oracle"] += oracle(true, owner, (1,))["i2t"][1] / 300
    assert found["oracle"] == pytest.approx(found["telling"], abs=3)
    assert found["oracle"] > found["other"] + 3


def reader_of_few(split):
    """R@1, text to image, of a reader who takes the true scene of the fewest objects."""
    true = scenes.truth(split)
    things = np.array([len(scene.things) for scene in scenes.scenes_of(split)])
    own = np.repeat(np.arange(len(true)), 5)[None] == np.arange(len(true))[:, None]
    fewest = true & (things[:, None] == np.where(true, things[:, None], 99).min(axis=0))
    return 100 * float(((fewest & own).sum(axis=0) / fewest.sum(axis=0)).mean())


def test_the_oracle_is_no_upper_bound_for_a_caption_tells_also_by_what_it_does_not_mention(
    truth_once,
):
    few = {split: reader_of_few(split) for split in ("validation", "test")}
    for split, recall in few.items():
        assert recall > scenes.oracle(split)["t2i"][1] + 4
    told = " ".join(sys.modules[oracle.__module__].__doc__.split())
    said = f"R@1 {few['test']:.1f} from text to image on the test split"
    assert f"{said}, the oracle 86.2" in told


def test_the_oracle_of_captions_true_of_one_image_only_is_perfect():
    owner = np.repeat(np.arange(4), 5)
    perfect = dict.fromkeys(("i2t", "t2i"), {1: 100.0, 5: 100.0})
    assert oracle(owner[None] == np.arange(4)[:, None], owner, (1, 5)) == perfect
    with pytest.raises(ValueError, match="true marks"):
        oracle(np.zeros((4, 20), bool), owner)


def test_the_oracle_of_a_split_is_that_of_its_truth(truth_once):
    true = scenes.truth("validation", 50)
    assert scenes.oracle("validation", 50) == oracle(true, np.repeat(np.arange(50), 5))
    assert 50 < scenes.oracle("test")["t2i"][1] < 100


def test_the_vocabulary_is_learnt_without_a_test_caption(monkeypatch):
    asked, load = [], scenes.load

    def spy(split, *args, **options):
        asked.append(split)
        return load(split, *args, **options)

    monkeypatch.setattr(scenes, "load", spy)
    tokenizer.cache_clear()
    learnt = json.loads(tokenizer().to_json())["model"]["vocab"]
    assert set(asked) <= {"train"} and len(learnt) > 100
