"""The formulas give the bytes of a gallery on disk and the products that a search makes."""

from pathlib import Path

import pytest
import torch
from helpers import random_embedding
from torch.utils.flop_counter import FlopCounterMode

from tgdt_mini.retrieval import two_stage
from tgdt_mini.scaling.capacity import BITS, READ_SPEED, GallerySize, token_bytes
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
    assert stored == IMAGES * GallerySize(WIDTH, TOKENS, global_kind, local_kind).image_bytes


def multiply_adds(search):
    with FlopCounterMode(display=False) as counter:
        search()
    return counter.get_total_flops() / 2


def test_the_multiply_adds_are_those_that_torch_counts():
    images, query = embedded(0, IMAGES, TOKENS), embedded(1, 1, WORDS)
    for shortlist in (SHORTLIST, 2 * IMAGES):
        work = GallerySize(WIDTH, TOKENS).work(IMAGES, WORDS, shortlist)
        counted = multiply_adds(lambda k=shortlist: two_stage(query, images, k, 1.0, "caption"))
        assert counted == work["stage one"] + work["stage two"]
    counted = multiply_adds(lambda: mixed_similarity(images, query, 1.0))
    assert counted == pytest.approx(work["everything"], rel=0.01)  # and the mean over words


def test_what_is_read_is_what_is_stored():
    size = GallerySize(WIDTH, TOKENS, "float16", "int8")
    work = size.work(IMAGES, WORDS, SHORTLIST)
    assert work["stage one, bytes"] == IMAGES * 2 * WIDTH
    assert work["stage two, bytes"] == SHORTLIST * (TOKENS * (WIDTH + 4) + 8)
    assert (
        work["everything, bytes"]
        == IMAGES * size.image_bytes
        == IMAGES * (size.global_bytes + size.local_bytes)
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
    size = GallerySize(128, 3.7)
    memory, disk = 10**9, 10**10
    assert (
        size.images_in(memory) * size.image_bytes
        <= memory
        < (size.images_in(memory) + 1) * size.image_bytes
    )
    with_disk = size.images_in(memory, disk)
    assert with_disk * size.global_bytes <= memory and with_disk * size.local_bytes <= disk
    assert (with_disk + 1) * size.global_bytes > memory or (with_disk + 1) * size.local_bytes > disk
    assert with_disk > size.images_in(memory)


def test_exact_search_ends_where_reading_takes_too_long():
    size = GallerySize(128, 4)
    most = size.exact_up_to(0.1)
    assert (
        most * size.global_bytes / READ_SPEED <= 0.1 < (most + 1) * size.global_bytes / READ_SPEED
    )
    assert size.exact_up_to(0.1, cores=8) == pytest.approx(8 * most, rel=1e-5)
    assert size.graph_bytes(16) == 128


def test_the_page_has_the_bytes_that_the_formulas_give():
    for name, width, tokens in (
        ("mini, 4 regions", 128, 4),
        ("paper's sizes, 36 regions", 1024, 36),
    ):
        rows = PAGE.split("### Room")[1].split(f"| {name} |")[1].splitlines()[:4]
        for kind, row in zip(BITS, rows):
            size = GallerySize(width, tokens, local_kind=kind)
            bytes_ = f"| {kind} | {size.image_bytes:,.0f} | {size.global_bytes:,} |"
            assert bytes_.strip("| ") in row
