"""The drawn scenes as tokens: cut once, kept in the cache, with hard negatives where wanted."""

import hashlib
import random
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgdt_mini import image_tokens, scenes
from tgdt_mini.data import KINDS, TokenSet
from tgdt_mini.files.check import one_of, shown
from tgdt_mini.files.cores import map_on_cores
from tgdt_mini.files.manifest import is_intact, seal_folder
from tgdt_mini.files.paths import cache
from tgdt_mini.files.quiet import import_datasets
from tgdt_mini.files.rows import map_array, save_array
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.scenes.cutting import cut
from tgdt_mini.scenes.hard_captions import Lexicon, hard_caption
from tgdt_mini.text_tokens import TextTokenizer

ARRAYS = ("features", "boxes", "starts", "pooled")


def scene_tokens(
    split: str,
    tokenizer: TextTokenizer,
    kind: str = "regions",
    first: int | None = None,
    progress: bool = False,
) -> tuple[Any, TokenSet]:
    """(dataset, TokenSet) of a split of the scenes, or of its first ones; see `scenes.load`.

    Image tokens of a whole split are cached, and those of its first scenes are taken from there.
    The key holds the scenes' checksum and that of the code that cuts images, so a stale cache is
    never read.
    """
    one_of("kind", kind, KINDS)
    dataset = scenes.load(split, progress, first)
    code = hashlib.sha256(Path(image_tokens.__file__).read_bytes()).hexdigest()[:8]
    key = f"scenes-{split}-{scenes.published(split)['pixels'][:8]}-{code}"
    if first is not None and not _folder(key, kind).exists():
        key = ""  # a part of a split is not kept
    return dataset, build_token_set(dataset, tokenizer, kind, key, progress)


def build_token_set(
    dataset, tokenizer: TextTokenizer, kind: str = "regions", key: str = "", progress: bool = False
) -> TokenSet:
    """The TokenSet of a dataset with columns image, image_id and captions (see `scenes.load`).

    key: what names data and preprocessing; under it, image tokens are kept in the cache. Those kept
    may be of more images: the dataset's come first.
    """
    one_of("kind", kind, KINDS)
    if not isinstance(key, str) or not re.fullmatch(r"[\w-]{0,99}", key):
        raise ValueError(f"key is {shown(key)}; it must be letters, digits and dashes, 99 at most")
    if not {"image", "image_id", "captions"} <= set(getattr(dataset, "column_names", ())):
        raise TypeError(
            f"dataset is {shown(dataset)}; give one with the columns image, image_id and captions"
        )
    folder = _folder(key, kind)
    arrays = _kept(folder, len(dataset)) if key else None
    if arrays is None:
        arrays = _cut_all(dataset, kind, progress)
        if key:
            with whole_folder(folder) as staging:
                for name, array in arrays.items():
                    save_array(staging / f"{name}.npy", array)
                seal_folder(staging)
    groups = dataset["captions"]  # the captions of each image
    captions = tuple(caption for group in groups for caption in group)
    caption_image = [image for image, group in enumerate(groups) for _ in group]
    parts: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return TokenSet(
        **parts,
        text=tokenizer(list(captions)),
        caption_image=torch.tensor(caption_image),
        captions=captions,
        image_ids=tuple(dataset["image_id"]),
    )


def _folder(key, kind):
    return cache() / f"tokens-{key}-{kind}"


def _kept(folder, count):
    """The arrays of the first `count` images, as the cache has them; None if it has none."""
    cure = "the pictures are cut again"
    if not is_intact(folder, cure):
        return None
    try:
        return _first({name: np.array(map_array(folder / f"{name}.npy")) for name in ARRAYS}, count)
    except (ValueError, IndexError) as error:
        warnings.warn(f"{folder} is damaged ({error}); {cure}", stacklevel=2)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _first(arrays, count):
    """The arrays of the first `count` images. ValueError for arrays that do not fit together."""
    starts, pooled = arrays["starts"], arrays["pooled"]
    shapes = [arrays[name].shape[:1] for name in ("features", "boxes")]
    if starts.ndim != 1 or starts.dtype.kind != "i" or (np.diff(starts, prepend=-1) < 1).any():
        raise ValueError("its starts do not ascend")
    if {*shapes} != {(starts[-1],)} or len(pooled) != len(starts) - 1 or starts[0]:
        raise ValueError("its arrays are of other lengths")
    if [arrays[name].ndim for name in ARRAYS] != [2, 2, 1, 2] or arrays["boxes"].shape[1] != 4:
        raise ValueError("its arrays have other shapes")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("it holds NaN")
    end = int(starts[count])
    ends = {"features": end, "boxes": end, "starts": count + 1, "pooled": count}
    if end == len(arrays["features"]):
        return arrays
    return {name: array[: ends[name]].copy() for name, array in arrays.items()}


def _cut_all(dataset, kind, progress):
    """{name: array} for ARRAYS, of all pictures of a dataset."""
    bar = {"progress": progress, "desc": f"finding {kind}", "unit": " images"}
    parts = map_on_cores(cut, _encoded(dataset), kind, **bar)
    features, boxes, pooled = ([_array(*part) for part in column] for column in zip(*parts))
    starts = np.cumsum([0] + [len(regions) for regions in features])
    arrays = np.concatenate(features), np.concatenate(boxes), starts, np.stack(pooled)
    return dict(zip(ARRAYS, arrays))


def _array(kind, shape, content):
    return np.frombuffer(content, kind).reshape(shape)


def _encoded(dataset):
    """The pictures of a data set: the bytes of their files if it holds them, else as they are."""
    if not hasattr(dataset, "cast_column"):
        return [record["image"] for record in dataset]
    raw = dataset.select_columns("image").cast_column(
        "image", import_datasets().Image(decode=False)
    )
    parts = [record["image"]["bytes"] for record in raw]
    return parts if all(parts) else dataset["image"][:]


def with_hard_captions(
    tokens: TokenSet, tokenizer: TextTokenizer, lexicon: Lexicon, seed: int = 0
) -> TokenSet:
    """The same set with a hard negative beside each caption that allows one, by its text alone."""
    rng = random.Random(seed)
    return with_negatives(
        tokens, tokenizer, [hard_caption(text, lexicon, rng) for text in tokens.captions]
    )


def with_negatives(tokens: TokenSet, tokenizer: TextTokenizer, hard: list[str]) -> TokenSet:
    """The same set with these hard negatives, one a caption, "" for none."""
    text = tokenizer([wrong or caption for wrong, caption in zip(hard, tokens.captions)])
    exists = torch.tensor([bool(wrong) for wrong in hard])[:, None]
    return replace(tokens, hard=replace(text, word_mask=text.word_mask & exists))
