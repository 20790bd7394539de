"""The drawn scenes as tokens, cached."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tgdt_mini import image_tokens
from tgdt_mini.data import TokenSet
from tgdt_mini.files.paths import cache
from tgdt_mini.files.whole import whole_folder
from tgdt_mini.scenes.hard_captions import Lexicon, hard_caption
from tgdt_mini.text_tokens import TextTokenizer


def scene_tokens(
    split: str,
    tokenizer: TextTokenizer,
    kind: str = "regions",
    first: int | None = None,
    progress=False,
):
    """(dataset, TokenSet) of a split of the embedded scenes, image tokens cached; `first` as in
    `scenes.load`.

    The cache's key holds the scenes' checksum and that of the code that cuts images, so a stale one
    is never read.
    """
    from tgdt_mini import scenes

    dataset = scenes.load(split, progress, first)
    code = hashlib.sha256(Path(image_tokens.__file__).read_bytes()).hexdigest()[:8]
    key = (
        ""
        if first is not None
        else f"scenes-{split}-{scenes.published(split)['pixels'][:8]}-{code}"
    )
    return dataset, build_token_set(dataset, tokenizer, kind, key, progress)


def _cut_all(dataset, kind, progress):
    from tqdm import tqdm

    cut, features, boxes, whole = getattr(image_tokens, kind), [], [], []
    bar = tqdm(
        (record["image"] for record in dataset),
        f"finding {kind}",
        len(dataset),
        unit=" images",
        disable=not progress,
    )
    for picture in bar:
        found, where = cut(picture)
        features.append(found)
        boxes.append(where)
        whole.append(image_tokens.whole(picture, patches=kind == "patches"))
    starts = np.cumsum([0] + [len(each) for each in features])
    return {
        "features": np.concatenate(features),
        "boxes": np.concatenate(boxes),
        "starts": starts,
        "whole": np.stack(whole),
    }


def build_token_set(
    dataset, tokenizer: TextTokenizer, kind: str = "regions", key: str = "", progress: bool = False
):
    """The TokenSet of a dataset with columns image, image_id and captions (see `scenes.load`).

    With a `key` that names data and preprocessing, image tokens are kept in the cache under it and
    read back.
    """
    folder = cache() / f"tokens-{key}-{kind}"
    if not key or not folder.exists():
        arrays = _cut_all(dataset, kind, progress)
        if key:
            with whole_folder(folder) as beside:
                for name, array in arrays.items():
                    np.save(beside / f"{name}.npy", array)
    else:
        arrays = {
            name: np.load(folder / f"{name}.npy")
            for name in ("features", "boxes", "starts", "whole")
        }
    captions = dataset["captions"]
    owner = [row for row, own in enumerate(captions) for _ in own]
    flat = [caption for own in captions for caption in own]
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return TokenSet(
        **tensors,
        text=tokenizer(flat),
        caption_image=torch.tensor(owner),
        captions=tuple(flat),
        image_ids=tuple(dataset["image_id"]),
    )


def with_hard_captions(
    tokens: TokenSet, tokenizer: TextTokenizer, lexicon: Lexicon, seed: int = 0
) -> TokenSet:
    """The same set with a hard negative beside each caption that allows one."""
    rng = random.Random(seed)
    hard = [hard_caption(caption, lexicon, rng) for caption in tokens.captions]
    read = tokenizer([text or caption for text, caption in zip(hard, tokens.captions)])
    real = torch.tensor([bool(text) for text in hard])[:, None]
    return replace(tokens, hard=replace(read, words=read.words & real))
