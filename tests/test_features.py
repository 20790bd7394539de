"""Features on disk: read as written, gone on with after a kill, refused when stale or damaged."""

import json
import shutil
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from examples import on_disk
from hypothesis import given
from hypothesis import strategies as st

from tgdt_mini.files import store
from tgdt_mini.files.manifest import write_sealed
from tgdt_mini.files.rows import as_stored
from tgdt_mini.photos.features import Features, StoredText, write_features
from tgdt_mini.text_tokens import TextTokens

COUNTS = [3, 1, 4, 1, 5, 2, 6]  # rows of each item; with 3 items a shard: 3 + 1 + 4, 1 + 5 + 2, 6
STARTS = np.cumsum([0, *COUNTS])
ITEMS = [f"item {i}" for i in range(len(COUNTS))]


def rows_of(rows, width=4, seed=0):
    """The arrays of some items: the same numbers for the same item, whichever shard it is in."""
    every = np.random.default_rng(seed).normal(size=(STARTS[-1], width)).astype(np.float32)
    some = slice(STARTS[rows.start], STARTS[rows.stop])
    return {
        "features": every[some],
        "counts": np.array(COUNTS[rows.start : rows.stop]),
        "ids": np.arange(STARTS[-1])[some],
        "words": (np.arange(STARTS[-1]) % 3 > 0)[some],
    }


def written(folder, make=rows_of, key="one", items=ITEMS, **options):
    write_features(folder, key, items, make, **({"shard": 3, "progress": False} | options))
    return folder


def content(folder):
    """{path: bytes} of every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def damage(path, at=-1):
    """One byte of a file changed; its size stays."""
    found = bytearray(path.read_bytes())
    found[at] ^= 255
    path.write_bytes(bytes(found))


# what was written is read


@on_disk
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    shard=st.integers(1, 10),
    precision=st.sampled_from(["float16", "int8"]),
    names=st.text(max_size=4),
    data=st.data(),
)
def test_rows_come_back_wherever_they_lie(counts, shard, precision, names, data):
    starts, items = np.cumsum([0, *counts]), [f"{names}{i}" for i in range(len(counts))]
    every = np.random.default_rng(len(counts)).normal(size=(starts[-1], 4)).astype(np.float32)

    def make(rows):
        some = slice(starts[rows.start], starts[rows.stop])
        own = {"features": every[some], "ids": np.arange(starts[-1])[some]}
        return own | {"counts": np.array(counts[rows.start : rows.stop])}

    with TemporaryDirectory() as folder:
        written(folder, make, items=items, shard=shard, precision=precision)
        stored = Features(folder, "one", check_all=True)
        assert stored.items == items and len(stored) == len(counts)
        assert stored.starts.tolist() == starts.tolist() and stored.rows.shape == every.shape
        # over all shards, out of order, some twice, or none
        take = torch.tensor(data.draw(st.lists(st.integers(0, len(every) - 1)))).long()
        expected = as_stored(torch.from_numpy(every), precision)
        assert torch.equal(stored.rows.index_select(0, take), expected[take])
        assert stored.array("ids").tolist() == list(range(len(every)))
        ids = torch.tensor([data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1))])
        rows, mask = stored.stored.ragged.fetch(ids)
        real = torch.ones(rows.shape[:3], dtype=torch.bool) if mask is None else mask
        for number, item in enumerate(ids[0].tolist()):
            own = expected[starts[item] : starts[item + 1]]
            assert torch.equal(rows[0, number][real[0, number]], own)


def test_features_stay_on_the_disk_and_are_made_a_shard_at_a_time(tmp_path):
    asked = []
    stored = Features(written(tmp_path / "a", lambda rows: asked.append(rows) or rows_of(rows)))
    assert asked == [range(0, 3), range(3, 6), range(6, 7)]
    assert all(isinstance(array, np.memmap) for array in stored.rows.arrays)
    parts = [array for array in stored.rows[5:].arrays if len(array)]
    assert len(parts) == 3 and all(isinstance(part, np.memmap) for part in parts)


def test_captions_from_the_disk_are_those_in_memory_for_any_choice_of_them(tmp_path):
    stored, every = StoredText.open(Features(written(tmp_path / "a"))), rows_of(range(7))
    mask = torch.arange(max(COUNTS)) < torch.tensor(COUNTS)[:, None]
    columns = {
        name: torch.nn.utils.rnn.pad_sequence(torch.from_numpy(every[name]).split(COUNTS), True)
        for name in ("ids", "words", "features")
    }
    memory = TextTokens(columns["ids"], mask, columns["words"], columns["features"].half())
    assert len(stored) == 7
    marked = torch.tensor([True] + 5 * [False] + [True])
    chosen = [slice(2, 5), [6, 0], torch.tensor([3, 3, 1]), marked, slice(0, 7)]
    for rows in chosen:
        one, other = stored[rows], memory[rows]
        for name in ("ids", "mask", "word_mask", "features"):
            assert torch.equal(getattr(one, name), getattr(other, name)), (rows, name)
        part, again = stored.part(rows), range(len(one))
        assert part.features is stored.features and len(part) == len(one)  # nothing was read
        assert torch.equal(part[again].features, one.features)
        assert torch.equal(part[again].ids, one.ids)
    assert torch.equal(stored.to("cpu")[[4, 2]].features, memory[[4, 2]].features)
    twice = stored.part([6, 0, 3]).part([2, 1])
    assert torch.equal(twice[[1, 0]].features, memory[[0, 3]].features)


# a run that was stopped


@pytest.mark.parametrize("where", ["in the encoder", "while writing"])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, where, monkeypatch):
    save, asked = store.save_array, []

    def make(rows):
        if rows.start == 3 and where == "in the encoder":
            raise KeyboardInterrupt
        return rows_of(rows)

    def save_and_stop(path, array):
        save(path, array)
        if "shard-00001" in str(path) and "ids" in str(path) and where == "while writing":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, OSError)):
        patch.setattr(store, "save_array", save_and_stop)
        written(tmp_path / "a", make)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["shards"]) == {"shard-00000"}
    with pytest.raises(ValueError, match="its extraction was stopped: run extract again to go on"):
        Features(tmp_path / "a")
    written(tmp_path / "a", lambda rows: asked.append(rows.start) or rows_of(rows))
    assert asked == [3, 6]  # what was whole is kept
    assert content(tmp_path / "a") == content(written(tmp_path / "b"))


def test_a_finished_run_is_not_done_again(tmp_path):
    before = content(written(tmp_path / "a"))
    again = written(tmp_path / "a", lambda rows: pytest.fail(f"made {rows} again"))
    assert content(again) == before


# what is stale, damaged or foreign


@pytest.mark.parametrize(
    "change, named",
    [
        ({"key": "two"}, "key"),
        ({"precision": "int8"}, "precision"),
        ({"shard": 4}, "shard"),
        ({"items": ITEMS[:-1]}, "items"),
        ({"items": [*ITEMS[:-1], "other"]}, "names"),
    ],
)
def test_features_of_something_else_are_not_gone_on_with(tmp_path, change, named):
    before = content(written(tmp_path / "a"))
    with pytest.raises(ValueError, match=f"begun with another {named}, so its features are stale"):
        written(tmp_path / "a", **change)
    assert content(tmp_path / "a") == before


def test_another_key_than_expected_is_refused(tmp_path):
    written(tmp_path / "a")
    assert Features(tmp_path / "a", expect_key="one").key == "one"
    with pytest.raises(ValueError, match="holds features one, not two: stale"):
        Features(tmp_path / "a", expect_key="two")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(ValueError, match="no manifest.json: it is not ours to fill"):
        written(tmp_path)
    assert content(tmp_path) == {"letter.txt": b"dear"}
    with pytest.raises(ValueError, match="manifest.json is missing; run extract"):
        Features(tmp_path)


def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


ODD = {"counts.npy": ["152", 1, 2]}


def reseal(path, odd):
    """Change what a manifest says of its first shard, under a seal that fits."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["shards"]["shard-00000"] |= odd
    write_sealed(path, manifest)


DAMAGE = {  # what happened, and to which file
    "cut short": ("shard-00001/features.npy", rewrite(lambda text: text[:-8])),
    "gone": ("shard-00002/features.npy", lambda path: path.unlink()),
    "a shard gone": ("shard-00000", shutil.rmtree),
    "another count": ("shard-00001/counts.npy", damage),
    "another id": ("shard-00000/ids.npy", damage),
    "nonsense of a shard": ("manifest.json", lambda path: reseal(path, ODD)),
    "a size without end": ("manifest.json", lambda path: reseal(path, {"a.npy": [np.inf, 1]})),
    "a checksum without end": ("manifest.json", lambda path: reseal(path, {"a.npy": [1, np.inf]})),
    "a name too long": ("manifest.json", lambda path: reseal(path, {"a" * 300: [1, 1]})),
    "half a manifest": ("manifest.json", rewrite(lambda text: b'{"format": ')),
    "a manifest of something else": ("manifest.json", rewrite(lambda text: b"[1, 2]")),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_features_are_refused_by_name(tmp_path, what):
    name, happens = DAMAGE[what]
    happens(written(tmp_path / "a") / name)
    with pytest.raises(ValueError, match="damaged.*extract again") as error:
        Features(tmp_path / "a")
    assert name.split("/")[0] in str(error.value)


def test_a_changed_feature_is_found_by_checking_all_and_not_signed_by_another_run(tmp_path):
    damage(written(tmp_path / "a") / "shard-00001/features.npy")
    Features(tmp_path / "a")
    for _ in range(2):
        with pytest.raises(ValueError, match="shard-00001.features.npy is missing or damaged"):
            Features(tmp_path / "a", check_all=True)
        written(tmp_path / "a")


@pytest.mark.parametrize(
    "what", ["cut short", "gone", "a shard gone", "nonsense of a shard", "a name too long"]
)
def test_extracting_again_mends_a_shard_that_is_not_whole(tmp_path, what):
    before = content(written(tmp_path / "a"))
    name, happens = DAMAGE[what]
    happens(tmp_path / "a" / name)
    assert content(written(tmp_path / "a")) == before


def test_a_damaged_manifest_is_an_error_with_its_cure_for_a_writer_too(tmp_path):
    (written(tmp_path / "a") / "manifest.json").write_text('{"format"', encoding="utf-8")
    with pytest.raises(ValueError, match="manifest.json is damaged .*; delete .*, extract again"):
        written(tmp_path / "a")


def test_shards_of_two_widths_are_refused(tmp_path):
    written(tmp_path / "a", lambda rows: rows_of(rows, width=4 + (rows.start > 0)))
    with pytest.raises(ValueError, match=r"holds features of \[4, 5\] numbers"):
        Features(tmp_path / "a")


def test_an_array_that_was_not_written_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no boxes"):
        Features(written(tmp_path / "a")).array("boxes")


NAN, LARGE = (np.full((8, 4), value, np.float32) for value in (np.nan, 70000))
WRONG = {
    "counts that do not add up": ({"counts": np.array([1, 1, 1])}, "must add up to 8 rows"),
    "an item without a row": ({"counts": np.array([8, 0, 0])}, "must add up"),
    "too few counts": ({"counts": np.array([8])}, "must add up"),
    "NaN": ({"features": NAN}, "features hold NaN, infinity or more"),
    "more than float16 holds": ({"features": LARGE}, "more than float16 holds"),
    "ids of fewer rows": ({"ids": np.arange(5)}, "ids has 5 rows; 3 items have 8 rows of features"),
}


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, what):
    change, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        written(tmp_path / "a", lambda rows: rows_of(rows) | change)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"manifest.json"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_refuses_what_has_no_size(tmp_path, value):
    change = {"features": np.where(np.arange(8)[:, None] == 1, np.float32(value), np.ones((8, 4)))}
    with pytest.raises(ValueError, match="NaN, infinity"):
        written(tmp_path / "a", lambda rows: rows_of(rows) | change, precision="int8")


def test_wrong_options_are_errors(tmp_path):
    with pytest.raises(ValueError, match="precision is 'int4'; it must be one of float16, int8"):
        written(tmp_path / "a", precision="int4")
    with pytest.raises(ValueError, match="items is empty"):
        written(tmp_path / "a", items=[])
    assert not (tmp_path / "a").exists()


def test_what_describes_the_features_is_read_back_and_may_change(tmp_path):
    for metadata in ({"source": "an encoder", "layers": [1, 2]}, {"source": "its copy"}):
        assert Features(written(tmp_path / "a", metadata=metadata)).metadata == metadata
