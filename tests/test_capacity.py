"""Sizes and work that the formulas give are those of a gallery on disk and of the products that a
search makes.
"""

from pathlib import Path

import pytest
import torch
from helpers import random_embedding
from torch.utils.flop_counter import FlopCounterMode

from tgdt_mini.retrieval import two_stage
from tgdt_mini.scaling import capacity
from tgdt_mini.scaling.capacity import BITS, Plan, short, token_bytes
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.similarity import mixed_similarity

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
IMAGES, TOKENS, WIDTH, WORDS, SHORTLIST = 200, 5, 64, 7, 20


def embedded(seed, count, tokens):
    return random_embedding(seed, count, tokens, WIDTH, torch.float32)


@pytest.mark.parametrize("global_kind, local_kind", [("float32", "float16"), ("float16", "int8")])
def test_the_bytes_of_an_image_are_those_of_a_gallery_on_disk(tmp_path, global_kind, local_kind):
    kinds = {"global_precision": global_kind, "local_precision": local_kind}
    Gallery.build(embedded(0, IMAGES, TOKENS), list(range(IMAGES)), **kinds).save(
        tmp_path / "gallery"
    )
    header = 128
    stored = sum(path.stat().st_size - header for path in (tmp_path / "gallery").rglob("*.npy"))
    assert stored == IMAGES * Plan(WIDTH, TOKENS, global_kind, local_kind).image_bytes


def multiply_adds(search):
    with FlopCounterMode(display=False) as counter:
        search()
    return counter.get_total_flops() / 2


def test_the_multiply_adds_are_those_that_torch_counts():
    images, query = embedded(0, IMAGES, TOKENS), embedded(1, 1, WORDS)
    work = Plan(WIDTH, TOKENS).work(IMAGES, WORDS, SHORTLIST)
    for shortlist in (SHORTLIST, 2 * IMAGES):
        work = Plan(WIDTH, TOKENS).work(IMAGES, WORDS, shortlist)
        counted = multiply_adds(lambda k=shortlist: two_stage(query, images, k, 1.0, "caption"))
        assert counted == work["stage one"] + work["stage two"]
    counted = multiply_adds(lambda: mixed_similarity(images, query, 1.0))
    assert counted == pytest.approx(work["everything"], rel=0.01)  # and the mean over words


def test_what_is_read_is_what_is_stored():
    plan = Plan(WIDTH, TOKENS, "float16", "int8")
    work = plan.work(IMAGES, WORDS, SHORTLIST)
    assert work["stage one, bytes"] == IMAGES * 2 * WIDTH
    assert work["stage two, bytes"] == SHORTLIST * (TOKENS * (WIDTH + 4) + 8)
    assert (
        work["everything, bytes"]
        == IMAGES * plan.image_bytes
        == IMAGES * (plan.global_bytes + plan.local_bytes)
    )


def test_a_token_has_the_bytes_of_its_numbers():
    assert [token_bytes(128, kind) for kind in BITS] == [512, 256, 132, 16]
    assert token_bytes(9, "1 bit") == 2
    for kind in ("float32", "float16"):
        assert token_bytes(WIDTH, kind) == torch.zeros(WIDTH, dtype=getattr(torch, kind)).nbytes
    with pytest.raises(
        ValueError, match="kind is 'fp8'; it must be one of float32, float16, int8, 1 bit"
    ):
        token_bytes(8, "fp8")
    with pytest.raises(ValueError, match="width is 0"):
        token_bytes(0)


def test_a_machine_is_full_when_no_image_fits_any_more():
    plan = Plan(128, 3.7)
    memory, disk = 10**9, 10**10
    assert (
        plan.images_in(memory) * plan.image_bytes
        <= memory
        < (plan.images_in(memory) + 1) * plan.image_bytes
    )
    with_disk = plan.images_in(memory, disk)
    assert with_disk * plan.global_bytes <= memory and with_disk * plan.local_bytes <= disk
    assert (with_disk + 1) * plan.global_bytes > memory or (with_disk + 1) * plan.local_bytes > disk
    assert with_disk > plan.images_in(memory)


def test_exact_search_ends_where_reading_takes_too_long():
    plan = Plan(128, 4)
    most = plan.exact_up_to(0.1)
    assert (
        most * plan.global_bytes / capacity.READ
        <= 0.1
        < (most + 1) * plan.global_bytes / capacity.READ
    )
    assert plan.exact_up_to(0.1, cores=8) == pytest.approx(8 * most, rel=1e-5)
    assert plan.graph_bytes(16) == 128


@pytest.mark.parametrize("name", capacity.TABLES)
def test_the_page_holds_the_tables_that_the_formulas_give(name):
    start = f"<!-- made by `python -m tgdt_mini.scaling.capacity`: {name} -->"
    assert PAGE.count(start) == 1
    assert PAGE.split(start)[1].split("<!-- end -->")[0].strip() == capacity.TABLES[name]()


def test_numbers_are_written_short():
    known = {
        0: "0 ",
        999: "1.0 k",
        1000: "1 k",
        1544: "1.5 k",
        24e6: "24 M",
        9.96e9: "10 G",
        4.1e12: "4.1 T",
        41: "41 ",
    }
    assert {number: short(number) for number in known} == known


def test_the_tables_go_from_a_thousand_images_to_a_billion():
    assert capacity.SIZES[0] == 1000 and capacity.SIZES[-1] == 10**9
    assert capacity.work_table().count("\n") == 1 + len(capacity.PLANS) * len(capacity.SIZES)
