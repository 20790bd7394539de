"""The benchmark measures what it says, against baselines with the same results; no times."""

import json
import mmap
import os

import numpy as np
import pytest
import torch
from helpers import random_embedding, refusal, tiny_config, token_set

from tgdt_mini import bench, cli
from tgdt_mini.bench import disk, galleries, generated, gpu, judged, measure, peers, steps, tables
from tgdt_mini.bench.baselines import einsum_similarity, gathered_similarity, released_loop
from tgdt_mini.bench.generated import Pictures
from tgdt_mini.bench.rows import Row, number, table
from tgdt_mini.config import TGDTConfig
from tgdt_mini.evaluation import matches, ranks
from tgdt_mini.retrieval import two_stage
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import local_similarity

SPEED = {"read": 20.0, "multiply": 80.0}


def test_a_ratio_is_printed_with_its_limit():
    share = Row.share("t", "ours", 3.0, "peer", 4.0, at_most=0.8, limit=1.5)
    speedup = Row.speedup("t", "ours", 2.0, "slow", 30.0, at_least=20)
    memory = Row("t", "memory", 120.0, "MB", at_most=100)
    absent = Row.share("t", "ours", 3.0, "peer", None, at_most=0.8)
    assert (share.ratio, share.reached()) == (0.75, True)
    assert (speedup.ratio, speedup.reached()) == (15.0, False)
    assert (memory.reached(), absent.reached()) == (False, None)
    assert Row("t", "no limit", 1.0, "MB").reached() is None
    assert table([share, speedup, memory, absent]).splitlines()[2:] == [
        "| ours | 3.00 ms | peer 4.00 ms | 0.750 | at most 0.8 | reached | 1.50 ms, 2.0x |",
        "| ours | 2.00 ms | slow 30.0 ms | 15.0 | at least 20 | not reached |  |",
        "| memory | 120 MB |  |  | at most 100 | not reached |  |",
        "| ours | 3.00 ms | peer not installed |  | at most 0.8 |  |  |",
    ]
    numbers = {1304.7: "1,305", 12.42: "12.4", 1.234: "1.23", 0.0873: "0.087", None: ""}
    assert {value: number(value) for value in numbers} == numbers


def test_what_is_compared_runs_in_turns_and_the_median_counts(monkeypatch):
    order, clock = [], iter(range(10_000))
    monkeypatch.setattr(measure.time, "process_time", lambda: next(clock))
    times = measure.cpu_milliseconds(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3
    )
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert times == {"a": 1000.0, "b": 1000.0}


def test_threads_and_environment_are_given_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    environment, before = dict(os.environ), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with measure.one_thread():
            assert torch.get_num_threads() == 1 and os.environ["RAYON_NUM_THREADS"] == "1"
        assert torch.get_num_threads() == 2 and dict(os.environ) == environment
    finally:
        torch.set_num_threads(before)


def test_memory_is_what_a_call_adds():
    if measure._anonymous_bytes() is None:
        pytest.skip("this system does not tell it")
    kept = []

    def take():  # pages of its own, and none that an earlier test has freed
        pages = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        kept.append(np.frombuffer(pages, np.uint8))
        kept[0][:] = 1

    assert 90 < measure.megabytes_of(take) < 130
    assert measure.megabytes_of(lambda: None) < 20


def test_generated_rows_can_be_made_alone_and_are_unit_vectors(monkeypatch):
    pictures = Pictures(500, 6, 16)
    images = pictures.images()
    monkeypatch.setattr(generated, "BLOCK", 7)
    part = pictures.images(120, 150)
    torch.testing.assert_close(part.local_tokens, images.local_tokens[120:150])
    torch.testing.assert_close(part.global_token, images.global_token[120:150])
    captions = pictures.captions(torch.tensor([3, 400]), 5)
    torch.testing.assert_close(
        captions.local_tokens[1], pictures.captions(torch.tensor([400]), 5).local_tokens[0]
    )
    for side in (images, captions):
        for tokens in (side.local_tokens, side.global_token):
            torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(tokens.shape[:-1]))
    other = pictures.captions(torch.tensor([3, 400]), 5, torch.tensor([1, 1]))
    assert not torch.isclose(other.local_tokens, captions.local_tokens).all(2).any(), (
        "another caption, other words"
    )


def test_generated_captions_find_their_picture_better_by_local_than_by_global_tokens():
    pictures = Pictures(1000, 12, 64)
    images, rows = pictures.images(), torch.arange(0, 1000, 20)
    captions = pictures.captions(rows, 10)
    by_global = (captions.global_token @ images.global_token.T).argmax(1) == rows
    by_local = local_similarity(images, captions).argmax(0) == rows
    assert 0.2 < by_global.double().mean() < by_local.double().mean(), "chance is 0.001"


def test_the_baselines_score_as_the_package_does():
    images, captions = (
        random_embedding(0, 5, (3, 1, 5, 2, 4)),
        random_embedding(1, 6, (4, 1, 2, 6, 3, 2)),
    )
    torch.testing.assert_close(
        einsum_similarity(images, captions), local_similarity(images, captions)
    )
    images = random_embedding(0, 5, 4)
    ids = torch.tensor([4, 1, 2])
    words = captions.local_tokens[3]
    expected = local_similarity(images, captions)[ids, 3]
    torch.testing.assert_close(gathered_similarity(words, images.local_tokens, ids), expected)


def test_the_peers_find_what_two_stages_find():
    pytest.importorskip("faiss")
    pictures = Pictures(300, 6, 32)
    images, captions = pictures.images(), pictures.captions(torch.arange(0, 300, 10), 5)
    mapped = images.local_tokens.half().numpy()
    best = two_stage(captions, images, 20, 2.0, "caption").topk(10).indices
    found = peers.searches(images, mapped, 20, 2.0)
    assert len(found) == 3
    for name, search in found.items():
        ids = torch.stack([torch.from_numpy(search(captions[[i]])) for i in range(len(captions))])
        exact = name.startswith("faiss flat")
        assert galleries.percent_of(best, ids) >= (99 if exact else 95), name


@pytest.mark.parametrize("longest", [(5, 6), (9, 11)])
def test_the_loop_ranks_as_the_package_does(longest):
    images = random_embedding(0, 6, (3, 1, 5, 2, 4, 5), dtype=torch.float32)
    captions = random_embedding(1, 30, [1 + i % 6 for i in range(30)], dtype=torch.float32)
    i2t, t2i = released_loop(images, captions, 0.7, (20, 4), longest, (6, 30))
    right = matches(torch.arange(30) // 5, 6)
    assert i2t.tolist() == ranks(two_stage(images, captions, 20, 0.7, "image"), right).tolist()
    assert t2i.tolist() == ranks(two_stage(captions, images, 4, 0.7, "caption"), right.T).tolist()
    assert np.isinf(t2i).any() and (t2i < 4).any(), "misses and hits"


@pytest.fixture
def small(monkeypatch):
    """Everything in miniature, with made-up times and no process of its own for memory."""
    images = random_embedding(0, 40, 3, dtype=torch.float32)
    captions = random_embedding(1, 200, 4, dtype=torch.float32)
    settings = judged.stored_settings(judged.load_model(judged.shipped() / "weights"))
    sides = images, captions, torch.arange(200) // 5, settings
    for module in (galleries, disk):
        monkeypatch.setattr(module, "REGIONS", 3)
        monkeypatch.setattr(module, "WIDTH", 8)
    for module in (galleries, disk, judged):
        monkeypatch.setattr(module, "cpu_milliseconds", lambda of, *_, **__: dict.fromkeys(of, 1.0))
    monkeypatch.setattr(disk, "in_fresh_process", lambda function, *rest: function(*rest))
    monkeypatch.setattr(judged, "embedded", lambda *_: sides)
    monkeypatch.setattr(steps, "step_rows", lambda repeats: [])
    monkeypatch.setattr(steps, "import_row", lambda repeats: Row("Training", "import", 1.0, "ms"))
    monkeypatch.setattr(steps, "similarity_rows", lambda batches, repeats: [])


def test_a_report_holds_what_its_table_shows_and_goes_through_json(small, monkeypatch, tmp_path):
    monkeypatch.setattr(disk.million, "__defaults__", (300, 8))
    report = bench.run((1000,), million_in=tmp_path)
    assert not list(tmp_path.iterdir()), "the gallery is deleted"
    text = tables.table(report)
    assert tables.table(json.loads(json.dumps(report))) == text
    for part in (
        "1,000 images, two stages from disk",
        "released code's loop",
        "% of top 10 missed",
        "300 generated pictures (3 regions x 8, float16)",
        "points of rsum",
    ):
        assert part in text, part
    million = report["million"]
    assert million["shards"] == 1 and million["found_among_ten"] <= million["asked"] == 32
    points = report["curves"]["1000"]["two-stage"]
    assert [point["shortlist"] for point in points] == list(galleries.SHORTLISTS)
    lost = list(report["missed"]["1000"][10].values())
    assert lost == sorted(lost, reverse=True), "a longer shortlist misses no more"


def test_times_of_a_million_are_printed_by_the_clock_and_of_cpu_time():
    parts = enumerate(("built", "opened", "cold", "warm"), start=2)
    figures = {name: {"wall": 10.0 * i, "cpu": 1.0 * i} for i, name in parts} | {
        "size": 300,
        "regions": 3,
        "width": 8,
        "local_precision": "int8",
        "bytes": 1,
        "shards": 1,
        "megabytes": None,
        "globals_megabytes": 1.0,
        "found_among_ten": 1,
        "asked": 2,
    }
    lines = tables._million(figures).splitlines()
    assert [line.rpartition("|")[0].split(" | ")[1:] for line in lines[-4:]] == [
        ["20.0", "2.00 "],
        ["30.0", "3.00 "],
        ["40.0", "4.00 "],
        ["50.0", "5.00 "],
    ]
    without = tables._million(figures | {"cold": None}).splitlines()
    assert without == lines[:-2] + lines[-1:]


def test_a_part_is_measured_again_and_the_rest_is_kept(small, monkeypatch, tmp_path):
    first = json.loads(json.dumps(bench.run((1000,), progress=False)))
    monkeypatch.setattr(steps, "import_row", lambda repeats: Row("Training", "import", 2.0, "ms"))
    again = bench.run((1000,), only=("training",), before=first, progress=False)
    assert again["curves"] == first["curves"] and again["scenes"] == first["scenes"]
    changed = [
        (old, new) for old, new in zip(first["rows"], again["rows"], strict=True) if old != new
    ]
    assert [(old["ours"], new["ours"]) for old, new in changed] == [(1.0, 2.0)]
    searched = bench.run((1000,), only=("search",), before=first, progress=False)["rows"]
    assert sorted(row["what"] for row in searched) == sorted(row["what"] for row in first["rows"])
    for before, message in (
        (None, "--only .* there is none; measure everything"),
        (first | {"machine": {}}, "its machine is {}, not .*; measure everything"),
        (first | {"quick": True}, "its quick is True, not False; measure everything"),
    ):
        with pytest.raises(ValueError, match=message):
            bench.run((1000,), only=("training",), before=before)
    with pytest.raises(ValueError, match="only holds 'speed'; it must be search, by-image"):
        bench.run((1000,), only=("speed",), before=first)
    (tmp_path / "bench.json").write_text('{"machine": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench.json is damaged .*; measure everything again"):
        bench.read(tmp_path / "bench.json")
    assert bench.read(tmp_path / "none.json") is None


def test_the_table_says_which_peers_are_not_installed(small, monkeypatch):
    monkeypatch.setattr(galleries, "version", lambda package: None)
    report = galleries.search_size(1000, SPEED)
    peers = {row.peer: row for row in report["rows"]}
    for name in ("faiss IndexFlatIP", "maxsim-cpu"):
        assert peers[name].theirs is None and peers[name].reached() is None
        assert f"{name} not installed" in table([peers[name]])
    assert [row["engine"] for row in report["engines"]] == ["none, exact"]


def test_agreement_is_that_of_two_stages_with_full_scoring(small, monkeypatch):
    monkeypatch.setattr(galleries, "SHORTLISTS", (10, 1000))
    short, long = galleries.search_size(1000, SPEED, engines=False)["curve"]["two-stage"]
    assert short["agreement"] < long["agreement"]
    assert long["agreement"] > 95, "float16 swaps a few"
    assert galleries.percent_of(torch.tensor([[1, 2]]), torch.tensor([[3, 1, 9]])) == 50


def test_a_gallery_grown_block_by_block_is_the_one_built_at_once(tmp_path):
    pictures = Pictures(50, 3, 8)
    disk.grow(tmp_path / "gallery", pictures, block=20)
    grown = Gallery.load(tmp_path / "gallery")
    built = Gallery.build(pictures.images(), list(range(50)))
    assert len(grown.stored.rows.arrays) == 3 and len(grown) == 50
    torch.testing.assert_close(grown.local_tokens, built.local_tokens)
    torch.testing.assert_close(grown.global_tokens, built.global_tokens)


def test_a_disk_that_is_too_small_and_a_size_that_is_too_small_are_errors(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1e9})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match="has 1 GB free; a gallery of 9 GB needs twice that"):
        disk.million(tmp_path)
    with pytest.raises(ValueError, match="sizes holds 10; each must be at least 1,000"):
        bench.run((10,))


def test_the_loss_of_a_shortlist_is_zero_when_it_holds_everything():
    images = random_embedding(0, 40, 3, dtype=torch.float32)
    captions = random_embedding(1, 200, 4, dtype=torch.float32)
    loss = judged.shortlist_loss(images, captions, torch.arange(200) // 5, 5.0)
    assert loss["rsum"][200] == pytest.approx(0, abs=1e-9)
    assert loss["t2i"][10][50] == 0 and loss["i2t"][1][200] == 0
    assert loss["i2t"][10][10] > loss["i2t"][10][100] > 0


@pytest.fixture
def tiny_models(monkeypatch):
    """For the benchmark of a GPU: a tiny model of scenes, and one of random regions."""
    paper = TGDTConfig.paper(
        image_features=8, image_hidden=8, image_width=8, image_layers=1, image_feedforward=8,
        text_width=24, text_layers=1, width=16, feedforward=16, vocabulary=50,
    )  # fmt: skip
    pairs = gpu.generated_pairs(24, 8, 50)
    monkeypatch.setattr(
        gpu,
        "_models",
        lambda quick: {
            "mini": (tiny_config(), token_set("train", 24), (4, 8), {"optimizer": "muon"}),
            "paper": (paper, pairs, (8,), {}),
        },
    )
    monkeypatch.setattr(gpu, "FORMATS", ("fp32", "bf16"))


def test_the_benchmark_of_a_gpu_measures_any_device(tiny_models, capsys):
    report = gpu.run(torch.device("cpu"), quick=True)
    steps = [(row["model"], row["batch"], row["precision"]) for row in report["steps"]]
    batches = ("mini", 4), ("mini", 8), ("paper", 8)
    assert steps == [(*of, precision) for of in batches for precision in ("fp32", "bf16")]
    assert all(row["seconds"] > 0 and row["parameters"] > 1000 for row in report["steps"])
    assert [row["queries"] for row in report["search"]["rows"]] == [1, 16, 32]
    text = tables.gpu_table(report)
    assert tables.gpu_table(json.loads(json.dumps(report))) == text
    for part in ("cpu, torch", "This was --quick", "**Search** among 1,000 generated"):
        assert part in text, part
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| paper")]
    first, row = lines[0], report["steps"][4]
    assert first[:1] + first[2:4] == ["| paper", "8", "fp32"]
    assert first[4] == number(1 / row["seconds"]) and first[5] == number(8 / row["seconds"])


def test_generated_pairs_are_whole_pictures_with_a_caption_each():
    pairs = gpu.generated_pairs(5, 8, 50)
    images = pairs.images(torch.arange(5))
    assert images.features.shape == (5, 36, 8) and images.mask.all()
    torch.testing.assert_close(images.features.mean(1), images.pooled)
    x0, y0, x1, y1 = images.boxes.unbind(-1)
    assert (x0 < x1).all() and (y0 < y1).all() and 0 <= images.boxes.min() < images.boxes.max() <= 1
    assert not pairs.text.word_mask[:, 0].any() and pairs.text.mask[:, :8].all()
    assert pairs.text.ids.max() < 50


def test_models_of_the_gpus_benchmark_take_a_step_in_their_own_precision(monkeypatch):
    monkeypatch.setattr(gpu, "PHOTO_FEATURES", {"image_features": 12, "text_features": 10})
    models = gpu._models(quick=True)
    assert list(models) == ["mini", "photographs", "paper"]
    config, tokens, (batch,), settings = models["photographs"]
    assert tokens.text.features.shape[2] == 10 and tokens.image_count >= 16 * batch
    how = settings | {"batch": batch, "precision": "auto"}
    row = gpu._steps(config, tokens, how, torch.device("cpu"), 1)
    assert row["precision"] == "fp32" and row["batch"] == batch and not row["compiled"]


def test_the_time_of_a_gpu_is_told_beside_how_long_it_was_busy():
    row = dict(model="mini", parameters=1.5e6, batch=64, precision="bf16", compiled=True)
    row |= dict(first=1.0, seconds=0.04, peak=2.5e9, operations=1900.4, busy=0.01)
    cells = tables._gpu_steps(row)
    assert cells == (
        "mini", "1.5 million", 64, "bf16, compiled", "25.0", "1,600", "2.50 GB", "1,900", "25%"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpu", "--sizes", "1000"], "--sizes is for a processor; leave it out beside --gpu"),
        (["--gpu", "--million"], "--million is for a processor"),
        (["--compile"], "--compile is for --gpu"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, tmp_path):
    args = cli.parser().parse_args(["bench", *options, "--out", str(tmp_path / "out")])
    with refusal(words):
        args.run(args)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_its_benchmark_says_so(tmp_path):
    args = cli.parser().parse_args(["bench", "--gpu", "--out", str(tmp_path / "out")])
    with refusal("device is 'cuda'.*; try cpu"):
        args.run(args)
