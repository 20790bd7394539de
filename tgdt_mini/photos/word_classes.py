"""Words that can stand in one another's place, learnt from captions; with them, hard negatives.

Two words are of one class if the words left and right of them are alike: "dog" and "boy" stand
between "a" and "runs", "red" and "brown" between "a" and "shirt". (Schütze, "Distributional
part-of-speech tagging", EACL 1995, begins with the same counts.) No list of nouns or colours is
needed, and no parser: a caption of whatever data says by itself which swaps leave it a sentence.

`scenes/hard_captions.py` swaps two words of a class. A swap that may say the same ("a man and a
woman") is not taken.
"""

import random
import re
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from tgdt_mini.photos.stop_words import STOP_WORDS
from tgdt_mini.scenes.hard_captions import Lexicon, hard_caption

CLASSES, MEMBERS = 30, 6  # at most; words that a class has on average, at least
LEAST, NEIGHBOURS = 20, 150  # captions that a word must be in; words that are told apart around it
ROUNDS = 40  # of k-means
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|[.,]")
EITHER_WAY = set("and or with near beside next by besides alongside , &".split())


def learn_lexicon(captions: list[str], seed: int = 0) -> Lexicon:
    """The classes of the words that are in 20 captions or more, stop words aside.

    K-means with 30 centres (fewer for few words) over the square roots of the shares of left and
    right neighbours, whose distance is that of Hellinger. The same captions and seed give the same
    classes. ValueError where no word is in 20 captions.
    """
    texts = [["<", *WORD.findall(caption), ">"] for caption in captions]
    counts = Counter(word for text in texts for word in text)
    around = {word: i for i, (word, _) in enumerate(counts.most_common(NEIGHBOURS))}
    words = [
        word
        for word, count in counts.items()
        if count >= LEAST and word.isalpha() and word.islower() and word not in STOP_WORDS
    ]
    if not words:
        raise ValueError(f"no word is in {LEAST} captions; there are {len(captions)}, too few")
    row, other = {word: i for i, word in enumerate(words)}, len(around)
    table = torch.zeros(len(words), 2, other + 1, dtype=torch.float64)  # (W, left and right, N + 1)
    for text in texts:
        for left, word, right in zip(text, text[1:], text[2:]):
            if word in row:
                table[row[word], 0, around.get(left, other)] += 1
                table[row[word], 1, around.get(right, other)] += 1
    shares = table.flatten(1)
    shares = (shares / shares.sum(1, keepdim=True)).sqrt()  # (W, 2N + 2)
    count = min(CLASSES, max(1, len(words) // MEMBERS))
    labels = _k_means(shares, count, seed).tolist()
    classes = [[word for word in words if labels[row[word]] == label] for label in range(count)]
    return Lexicon(tuple(tuple((word,) for word in group) for group in classes if group), ())


def _k_means(points, count, seed):
    """(W,) the number of the centre that is nearest to each of W points, after ROUNDS rounds."""
    draw = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=draw)[:count]]
    for _ in range(ROUNDS):
        labels = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        sizes = labels.bincount(minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return labels


def add_foils(records: dict, features: Path, seed: int = 0) -> dict:
    """The same records, {split: Dataset} (see `records.py`), with the column foils.

    foils: for each caption of a picture one with two words swapped, "" where there is none, as on
    the drawn scenes. The classes are learnt from the captions of train: of `records`, else of the
    split that lies in the folder `features` already. ValueError if it is in neither.
    """
    from tgdt_mini.photos.feature_folder import open_features

    if "train" in records:
        learnt_from = records["train"]["captions"]
    else:
        try:
            learnt_from = open_features(features, "train")[0]["captions"]
        except ValueError as error:
            raise ValueError(
                f"which words can be swapped is learnt from the captions of train ({error}); "
                "extract train too, or first"
            ) from error
    lexicon = learn_lexicon([caption for group in learnt_from for caption in group], seed)
    with_foils = {}
    for split, dataset in records.items():
        groups = list(dataset["captions"])
        foils = iter(hard_captions([caption for group in groups for caption in group], lexicon))
        column = [[next(foils) for _ in group] for group in groups]
        if "foils" in dataset.column_names:
            dataset = dataset.remove_columns("foils")
        with_foils[split] = dataset.add_column("foils", column)
    return with_foils


def hard_captions(captions: list[str], lexicon: Lexicon, seed: int = 0) -> list[str]:
    """For each caption one with two words swapped; "" where no swap says something else."""
    rng = random.Random(seed)

    def hard(caption):
        judge = partial(_says_another, caption, lexicon)
        return hard_caption(caption, lexicon, rng, judge)

    return [hard(caption) for caption in captions]


def _says_another(caption, lexicon, text):
    """Whether swapped words change the meaning: "a man and a woman" means the same either way.

    So do two words side by side ("a large brown dog"), with only words of their class between.
    """
    raw = caption.split(" ")
    words, others = ([word.strip(",.") for word in of.split(" ")] for of in (caption, text))
    if any(word == other for word, other in zip(others, others[1:])):
        return False  # "a red red bag"
    sense = lexicon.sense  # what moved; "a" may have become "an"
    moved = [i for i, (a, b) in enumerate(zip(words, others)) if a != b and a in sense]
    first, last = moved[0], moved[-1]
    kind, between = sense[words[first]][0], range(first + 1, last)
    joined = EITHER_WAY.intersection(raw[i] for i in between)
    if joined and words[first + 1 : first + 2] == words[last + 1 : last + 2]:
        return False  # "a red bird and a blue bird"
    empty = EITHER_WAY.union(STOP_WORDS, [""])
    content = [words[i] for i in between if words[i] not in empty]
    if content:
        return any(sense.get(word, (None,))[0] != kind for word in content)
    return bool(between) and not joined
