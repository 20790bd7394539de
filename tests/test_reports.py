"""Reports: what validation data chooses, hard pairs and the table, on scores with known answers."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from helpers import random_embedding, some_scenes, tiny_model, token_set, tokenizer
from torch.nn.functional import one_hot

from tgdt_mini import scenes
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode
from tgdt_mini.evaluation import both_ways
from tgdt_mini.photos.subsets import first_images
from tgdt_mini.reports import report as reporting
from tgdt_mini.reports.choice import SearchSettings, stored_settings, tune
from tgdt_mini.reports.report import assess, hard_pairs
from tgdt_mini.reports.table import table
from tgdt_mini.retrieval import two_stage
from tgdt_mini.similarity import mixed_similarity

N = 60


def on_a_ring(steps):
    """N images and N captions: a match is the best by local score, `steps` away by global score."""
    local = one_hot(torch.arange(N), N + 2).float()[:, None]  # (N, 1, N + 2)

    def side(first):
        angle = 2 * math.pi * (torch.arange(N) + first) / N
        ring = torch.stack([angle.cos(), angle.sin()], dim=1)
        return Embedding(
            torch.cat([torch.zeros(N, N), ring], dim=1), local, torch.ones(N, 1, dtype=torch.bool)
        )

    return side(0), side(steps)


def test_the_smallest_weight_of_the_best_rsum_and_the_smallest_good_shortlist_are_chosen():
    # 29 or more of the others are nearer than the match, which is at a right angle and scores 0
    choice = tune(*on_a_ring(15), torch.arange(N))
    assert choice.local_weight == 1.5  # 0 + 1 x 1 would tie with 1 + 1 x 0
    assert choice.rsums[1.5] == 600 > choice.rsums[1.0] and choice.rsums[8.0] == 600
    assert choice.shortlist == {"image": 50, "caption": 50}
    assert (
        choice.lost["image"][20] == choice.lost["caption"][20] == 300
        and choice.lost["caption"][50] == 0
    )
    near = tune(*on_a_ring(1), torch.arange(N))
    assert near.shortlist == {"image": 5, "caption": 5}


def test_the_largest_shortlist_is_taken_if_all_lose():
    choice = tune(*on_a_ring(15), torch.arange(N), shortlists=(2, 4))
    assert choice.shortlist == {"image": 4, "caption": 4}
    loose = tune(*on_a_ring(15), torch.arange(N), shortlists=(2, 4), most_lost=600)
    assert loose.shortlist == {"image": 2, "caption": 2}


def test_choices_are_those_of_two_stage_search_itself():
    images, captions = (
        random_embedding(0, 12, [2, 3, 4] * 4),
        random_embedding(1, 36, [3, 5, 2, 4] * 9),
    )
    caption_image = torch.arange(12).repeat_interleave(3)
    choice = tune(images, captions, caption_image, local_weights=(0.5, 2.0), shortlists=(3, 6, 40))
    rsums = {
        weight: both_ways(mixed_similarity(images, captions, weight), caption_image).rsum
        for weight in (0.5, 2.0)
    }
    assert choice.rsums == rsums and choice.local_weight == max(rsums, key=rsums.get)
    full = both_ways(mixed_similarity(images, captions, choice.local_weight), caption_image)
    for k in (3, 6, 40):
        i2t = two_stage(images, captions, k, choice.local_weight, query_is="image")
        t2i = two_stage(captions, images, k, choice.local_weight, query_is="caption")
        cut = both_ways(i2t, caption_image, t2i_scores=t2i)
        assert choice.lost["image"][k] == pytest.approx(
            sum(full.i2t.values()) - sum(cut.i2t.values())
        )
        assert choice.lost["caption"][k] == pytest.approx(
            sum(full.t2i.values()) - sum(cut.t2i.values())
        )


def test_the_choice_of_a_model_is_in_its_notes():
    noted = {"local_weight": 2.0, "shortlist": {"image": 10, "caption": 20}}
    choice = stored_settings(SimpleNamespace(notes={"choice": noted}))
    assert (choice.local_weight, choice.shortlist) == (2.0, {"image": 10, "caption": 20})
    with pytest.raises(ValueError, match="no choice of shortlist and local_weight"):
        stored_settings(SimpleNamespace(notes={}))


def unit(*angles):
    """Vectors of these degrees."""
    angles = torch.tensor(angles, dtype=torch.float32) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def test_hard_pairs_count_foils_below_their_caption_and_a_tie_is_an_error(monkeypatch):
    every = torch.ones(4, 1, dtype=torch.bool)
    images = Embedding(unit(0, 90), unit(0, 90)[:, None], every[:2])
    captions = Embedding(unit(30, 10, 120, 90), unit(20, 0, 90, 130)[:, None], every)
    foils = [["worse", ""], ["equal", "better"]]  # by global score
    asked = []

    def encoded(_, texts):
        asked.extend(texts)
        # global: 0.87 - 0.50, 0.87 - 0.87, 1.00 - 1.00 + 0.0005; local: 0.94 - 0.99, 1 - 0.5, 0.77
        # - 0.17
        return Embedding(unit(60, 120, 88), unit(5, 30, 170)[:, None], every[:3])

    monkeypatch.setattr(reporting, "encode_texts", encoded)
    tokens = SimpleNamespace(caption_image=torch.tensor([0, 0, 1, 1]))
    found = hard_pairs(None, images, captions, tokens, foils, local_weight=10.0)
    assert asked == ["worse", "equal", "better"]
    assert found == pytest.approx(
        {"global": 200 / 3, "local": 200 / 3, "two-stage": 200 / 3, "pairs": 3}
    )
    light = hard_pairs(None, images, captions, tokens, foils, local_weight=1.0)
    assert light["two-stage"] == pytest.approx(100.0)  # 0.37 outweighs 0.05


def test_no_foil_at_all_is_an_error():
    with pytest.raises(ValueError, match="foils holds no foil"):
        hard_pairs(None, None, None, None, [["", ""]], 1.0)


def test_many_hard_pairs_are_scored_as_one_by_one(monkeypatch):
    images, captions, false = (random_embedding(seed, 130, [2, 3] * 65) for seed in (0, 1, 2))
    monkeypatch.setattr(reporting, "encode_texts", lambda model, texts: false)
    tokens = SimpleNamespace(caption_image=torch.arange(130))
    found = hard_pairs(None, images, captions, tokens, [["foil"]] * 130, 0.5)
    wins = [
        float(mixed_similarity(images[[i]], captions[[i]], 0.5))
        > float(mixed_similarity(images[[i]], false[[i]], 0.5))
        for i in range(130)
    ]
    assert found["two-stage"] == pytest.approx(100 * sum(wins) / 130)


@pytest.fixture(scope="module")
def judged():
    model = tiny_model().eval()
    model.tokenizer = tokenizer()
    choice = SearchSettings(1.5, {"image": 20, "caption": 10})
    return model, assess(model, token_set(), choice, some_scenes(), scenes.oracle("validation", 40))


def test_a_report_is_json_and_holds_every_figure(judged):
    model, report = judged
    assert json.loads(json.dumps(report))["choice"] == {
        "local_weight": 1.5,
        "shortlist": {"image": 20, "caption": 10},
    }
    caption_image = token_set().caption_image
    images, captions = encode(model, token_set())
    mixed = mixed_similarity(images, captions, 1.5)
    assert report["rows"]["full mixed"] == vars(both_ways(mixed, caption_image))
    i2t = two_stage(images, captions, 20, 1.5, query_is="image")
    t2i = two_stage(captions, images, 10, 1.5, query_is="caption")
    assert report["rows"]["two-stage"] == vars(both_ways(i2t, caption_image, t2i_scores=t2i))
    assert report["share_of_oracle"]["local"] == pytest.approx(
        100 * report["rows"]["local"]["t2i"][1] / report["oracle"]["t2i"][1]
    )
    assert (
        report["shortlist_recall"]["t2i"][200] == 100 and report["shortlist_recall"]["t2i"][5] < 100
    )
    for k in (5, 10):
        i2t = two_stage(images, captions, k, 1.5, query_is="image")
        t2i = two_stage(captions, images, k, 1.5, query_is="caption")
        rsum = both_ways(i2t, caption_image, t2i_scores=t2i).rsum
        assert report["two_stage_by_shortlist"][k] == pytest.approx(rsum, abs=1e-9)
    assert report["two_stage_by_shortlist"][200] == pytest.approx(
        report["rows"]["full mixed"]["rsum"]
    )
    assert report["hard_pairs"]["pairs"] == sum(
        bool(foil) for own in some_scenes()["foils"] for foil in own
    )
    assert 0 < report["grounding"]["chance"] < 100 and report["grounding"]["words"] > 400
    assert all(value > 0 for value in report["milliseconds"].values())


def test_the_table_shows_the_figures(judged):
    report = judged[1]
    grounding = report["grounding"] | {"oracle": 71.5, "settled": 81.5, "settled right": 91.5}
    text = table(report | {"grounding": grounding})
    assert "the oracle 71.5%" in text
    assert "where the caption fits one object alone (81.5% of the words): 91.5%" in text
    text = table(report)
    assert "one object alone" not in text
    lines = text.splitlines()
    assert max(len(line) for line in lines) < 200
    for name, row in report["rows"].items():
        line = next(line for line in lines if line.startswith(name))
        assert line.removeprefix(name).split() == [
            f"{value:.1f}" for value in (*row["i2t"].values(), *row["t2i"].values(), row["rsum"])
        ]
    oracle = next(line for line in lines if line.startswith("oracle")).split()
    assert oracle[4] == f"{report['oracle']['t2i'][1]:.1f}"
    for value in (
        report["hard_pairs"]["two-stage"],
        report["grounding"]["right"],
        report["share_of_oracle"]["global"],
    ):
        assert f"{value:.1f}%" in text
    for value in (
        report["hard_pairs"]["pairs"],
        report["grounding"]["words"],
        *report["choice"]["shortlist"].values(),
    ):
        assert str(value) in text
    assert "1.5: chosen on validation data" in text


def test_a_report_without_ground_truth_is_a_table_too():
    model = tiny_model().eval()
    model.tokenizer = tokenizer()
    report = assess(
        model,
        first_images(token_set(), 10),
        SearchSettings(1.0, {"image": 5, "caption": 5}),
    )
    assert not {"oracle", "hard_pairs", "grounding"} & set(report) and "two-stage" in table(report)
