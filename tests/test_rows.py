"""Rows as they come back from storage: what rounding costs, and that the arrays do not show."""

import warnings

import numpy as np
import pytest
import torch
from helpers import random_embedding

from tgdt_mini.files import rows
from tgdt_mini.files.rows import MappedRows, RaggedRows, as_stored, encode_rows, map_array

LENGTHS = (3, 1, 5, 2, 4, 2, 3)


def some_rows(width=16):
    embedding = random_embedding(0, len(LENGTHS), LENGTHS, width, torch.float32)
    return embedding, embedding.local_tokens[embedding.mask]


def mapped(parts, precision):
    """MappedRows of parts (n, F), each of them an array of its own."""
    coded = [encode_rows(part, precision) for part in parts]
    scales = [None if scale is None else scale.numpy() for _, scale in coded]
    return MappedRows([numbers.numpy() for numbers, _ in coded], scales)


def test_int8_is_off_by_half_a_step_at_most_and_a_step_is_a_127th_of_the_largest_number():
    _, given = some_rows()
    given[0] = 0  # a row of zeros stays one
    given[1] *= 1000
    numbers, scales = encode_rows(given, "int8")
    assert numbers.dtype == torch.int8 and scales.shape == (len(given),)
    read = as_stored(given, "int8")
    assert read.dtype == torch.float32
    most = given.abs().amax(1, keepdim=True) / 254
    assert ((read - given).abs() <= most * 1.0001).all() and (read[0] == 0).all()
    assert ((read - given).abs() > most / 2).any(), "the bound is not idle"


def test_the_worked_value():
    numbers, scales = encode_rows(torch.tensor([[1.0, -0.5]]), "int8")
    assert numbers.tolist() == [[127, -64]]
    torch.testing.assert_close(numbers * scales, torch.tensor([[1.0, -64 / 127]]))
    assert as_stored(torch.tensor([[1.0, -0.5]]), "float16").dtype == torch.float16
    with pytest.raises(ValueError, match="precision is 'int4'; it must be one of float16, int8"):
        encode_rows(torch.ones(1, 1), "int4")


def test_a_score_from_int8_is_near_the_true_one():
    """A word's dot product with a region is off by |word| x |rounding| at most, and words have
    length 1: half a step for each of D numbers.
    """
    _, given = some_rows(128)
    bound = 128**0.5 * given.abs().amax(1) / 254
    error = (as_stored(given, "int8") - given).norm(dim=1)
    assert (error <= bound * 1.0001).all() and bound.max() < 0.02


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("cuts", [(), (5,), (4, 5, 5)], ids=["one array", "two", "four"])
def test_rows_of_any_arrays_are_those_of_one(precision, cuts):
    _, given = some_rows()
    edges, expected = [0, *cuts, len(given)], as_stored(given, precision)
    stored = mapped([given[a:b] for a, b in zip(edges, edges[1:])], precision)
    assert len(stored) == 20 and stored.shape == (20, 16)
    take = torch.from_numpy(np.random.default_rng(3).integers(0, 20, 40))
    assert torch.equal(stored.index_select(0, take), expected[take])
    assert stored.index_select(0, take[:0]).shape == (0, 16)
    assert stored.to("meta").index_select(0, take).device.type == "meta"
    for part in (slice(9), slice(0), slice(5, 15), slice(3, 6), slice(-3, None)):
        count = len(expected[part])
        assert len(stored[part]) == count
        assert torch.equal(stored[part].index_select(0, torch.arange(count)), expected[part])


def test_arrays_of_two_precisions_go_together():
    _, given = some_rows()
    arrays = [mapped([given[:9]], "int8"), mapped([given[9:]], "float16")]
    stored = MappedRows([a.arrays[0] for a in arrays], [a.scales[0] for a in arrays])
    both = torch.cat([as_stored(given[:9], "int8"), as_stored(given[9:], "float16")])
    assert torch.equal(stored.index_select(0, torch.arange(20)), both)


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("cuts", [(), (1,), (3, 4)], ids=["one array", "two", "three"])
def test_fetching_gives_each_items_own_rows_whatever_the_arrays(cuts, precision):
    embedding, _ = some_rows()
    edges = [0, *cuts, len(LENGTHS)]
    parts = [embedding[start:end] for start, end in zip(edges, edges[1:])]
    rows = mapped([part.local_tokens[part.mask] for part in parts], precision)
    stored = RaggedRows.of(rows, torch.tensor(LENGTHS))
    assert stored.starts.tolist() == [0, 3, 4, 9, 11, 15, 17, 20] and stored.longest == 5
    ids = torch.tensor([[0, 2, 6], [1, 3, 4]])
    tokens, mask = stored.fetch(ids)
    assert torch.equal(mask, embedding.mask[ids])
    error = 1e-3 if precision == "float16" else embedding.local_tokens.abs().max() / 250
    assert (tokens - embedding.local_tokens[ids])[mask].abs().max() <= error
    last = (mask.sum(2) - 1)[..., None, None].expand_as(tokens[:, :, :1])  # (q, K, 1, F)
    assert torch.equal(tokens[~mask], tokens.gather(2, last).expand_as(tokens)[~mask])
    tokens, mask = stored.fetch(torch.tensor([[3, 5]]))
    assert mask is None and tokens.shape == (1, 2, 2, 16), "items of one length need no mask"


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("ids", [[3, 0, 1], [0, 5, 1]], ids=["rows of a table", "one is shifted"])
def test_items_of_one_length_are_fetched_wherever_they_start(ids, precision):
    lengths = torch.tensor([2, 2, 4, 2, 1, 2])  # 13 rows, no multiple of 2
    given = torch.randn(13, 8, generator=torch.Generator().manual_seed(0))
    stored = RaggedRows.of(mapped([given], precision), lengths)
    tokens, mask = stored.fetch(torch.tensor(ids))
    starts = stored.starts[ids]
    assert mask is None and tokens.shape == (3, 2, 8)
    expected = as_stored(given, precision)[torch.stack([starts, starts + 1], dim=1)]
    assert torch.equal(tokens, expected)


def test_items_side_by_side_are_not_copied_unless_their_array_is_read_only():
    """torch warns of a tensor on memory that nobody may write to."""
    given = torch.arange(60.0).view(20, 3)
    array, ids = given.numpy().astype(np.float16), torch.tensor([3, 4, 5])
    for writeable in (True, False):
        array.flags.writeable = writeable
        stored = RaggedRows.of(MappedRows([array]), torch.full((10,), 2))
        with warnings.catch_warnings(action="error"):
            numbers, _, mask = stored.fetch_stored(ids)
            apart, _, _ = stored.fetch_stored(ids[[2, 0, 1]])
        assert mask is None and torch.equal(numbers.float(), given.view(10, 2, 3)[ids])
        assert torch.equal(apart, numbers[[2, 0, 1]])
        assert np.shares_memory(numbers.numpy(), array) == writeable
        assert not np.shares_memory(apart.numpy(), array)


def test_a_file_that_is_larger_than_the_memory_is_mapped_too(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float16))
    array = map_array(tmp_path / "a.npy")
    array[0] = 7  # allowed, and the file stays as it is
    assert np.load(tmp_path / "a.npy").max() == 1
    load = np.load

    def refuses(path, mmap_mode=None, **options):
        if mmap_mode == "c":
            raise OSError(12, "Cannot allocate memory")
        return load(path, mmap_mode, **options)

    monkeypatch.setattr(rows.np, "load", refuses)
    array = map_array(tmp_path / "a.npy")
    assert isinstance(array, np.memmap) and not array.flags.writeable
    assert MappedRows([array]).index_select(0, torch.tensor([2, 1])).tolist() == [[1, 1], [1, 1]]


def test_an_array_that_does_not_fit_on_the_disk_is_an_error_and_not_cut(tmp_path):
    resource = pytest.importorskip("resource")
    array, path = np.arange(450, dtype=np.float64), tmp_path / "a.npy"
    rows.save_array(path, array.reshape(9, 50)[:, ::2])
    assert np.array_equal(np.load(path), array.reshape(9, 50)[:, ::2])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # as a full disk would
    try:
        with pytest.raises(OSError, match="File too large"):
            rows.save_array(path, array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
