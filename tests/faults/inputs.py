"""Hostile texts, numbers and pictures, at every public door."""

import io
import math
import random
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_embedding, tiny_config, tiny_model, tokenizer
from PIL import Image

from tests.faults.outcomes import Table, outcome
from tgdt_mini import losses, retrieval, scenes, similarity
from tgdt_mini.checkpoint import load_model
from tgdt_mini.commands import extract
from tgdt_mini.config import TGDTConfig
from tgdt_mini.encoding import encode_texts
from tgdt_mini.evaluation import mean_of_folds, recall_at_k, shortlist_recall
from tgdt_mini.files.paths import shipped
from tgdt_mini.photos.division import read_shares
from tgdt_mini.photos.image_io import open_image
from tgdt_mini.reports import plots
from tgdt_mini.runs.retriever import Retriever
from tgdt_mini.scaling.qdrant_engines import engine_of
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training_config import TrainingConfig

SIGNS = ["$", "$$", "\\", "{", "}", "%s", "{0}", "\x00", "\x07", "\x1b[2J", "\n", "\r", "\t", " "]
SIGNS += [
    "\ud83d",
    "\udcff",
    "\u200b",
    "\u202e",
    "\ufeff",
    "\ufffd",
    "\U0001f436",
    "\u661f",
    "e\u0301",
]
SIGNS += [
    "a",
    "red star",
    "[SEP]",
    "[PAD]",
    "##a",
    "<b>",
    "&amp;",
    "'",
    '"',
    "`",
    "../",
    "_",
    "^",
    "#",
]
NO_TEXTS = [
    None,
    3,
    2.5,
    float("nan"),
    True,
    b"a star",
    ["a"],
    {},
    object(),
    Path("a"),
    np.zeros(2),
]
NUMBERS = [0, -1, -(2**63), 2**31, 2**63, 10**30, 10**400, 0.5, 2.5, -0.0, 1e-320, 1e300, -1e300]
NUMBERS += [math.nan, math.inf, -math.inf, "3", "", "nan", None, True, False, b"3", [3], (), {}, 1j]
NUMBERS += [
    np.float64("nan"),
    np.float32(2.5),
    np.int64(-5),
    np.array([1, 2]),
    torch.tensor(math.nan),
]
NUMBERS += [torch.tensor([1.0, 2.0]), object(), np.datetime64("2026-01-01")]
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")


def random_text(draw: random.Random) -> str:
    return "".join(draw.choices(SIGNS, k=draw.choice((1, 2, 5, 20, 200))))


def texts(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """Texts of hostile signs, and what is no text, as captions, as names and in figures."""
    draw, model = random.Random(seed), tiny_model().eval()
    model.tokenizer = tokenizer()
    queries = random_embedding(1, 1, 3, dtype=torch.float32)
    embedding = random_embedding(0, 3, 5, dtype=torch.float32)
    for number in range(tries):
        text = draw.choice(NO_TEXTS) if number % 5 == 0 else random_text(draw)
        add = partial(table.add, "a hostile text", what=repr(text)[:80])
        add("one of the captions", outcome(lambda t=text: len(encode_texts(model, ["a", t])), 2))
        add("instead of captions", outcome(lambda t=text: encode_texts(model, t), None))
        add("learnt from", outcome(lambda t=text: TextTokenizer.learn([t, "a"]), None))
        add("its pieces", outcome(lambda t=text: tokenizer().pieces(t), None))

        def printed(text=text):
            gallery = Gallery.build(embedding, ["a", text, "b"])
            gallery.save(root / "text")
            hits = Gallery.load(root / "text").search(queries, 3)
            table, back = (
                str(hits).encode("utf-8"),
                hits.items[0][hits.indices[0].tolist().index(1)],
            )
            hits.to_json().encode("utf-8")
            return len(table.splitlines()), back == text

        add("an item's name", outcome(printed, (4, True)))
        if isinstance(text, str):
            draw_it = partial(plots.hits, [text], [[text]], None, None, root / "text.png")
            add("in a figure", outcome(draw_it, None))


def _doors() -> dict:
    """{name: a function of one number}, whose answer must be finite where there is one."""
    images = random_embedding(0, 6, 5, dtype=torch.float32)
    captions = random_embedding(1, 6, 4, dtype=torch.float32)
    gallery, scores = Gallery.build(images, list("abcdef")), torch.eye(6)
    doors = {
        "Gallery.search k": lambda x: gallery.search(captions, x).scores,
        "Gallery.search shortlist": lambda x: gallery.search(captions, 2, shortlist=x).scores,
        "Gallery.search local_weight": lambda x: gallery.search(captions, 2, local_weight=x).scores,
        "Gallery.build settings": lambda x: (
            Gallery.build(
                images, list("abcdef"), settings={"shortlist": x, "local_weight": x}
            ).global_tokens
        ),
        "two_stage shortlist": lambda x: retrieval.two_stage(captions, images, x, 1, "caption"),
        "two_stage local_weight": lambda x: retrieval.two_stage(captions, images, 6, x, "caption"),
        "mixed_similarity": lambda x: similarity.mixed_similarity(images, captions, x),
        "hinge_loss margin": lambda x: losses.hinge_loss(scores, x),
        "consistency_loss margin": lambda x: losses.consistency_loss(scores, scores, x),
        "info_nce_loss temperature": lambda x: losses.info_nce_loss(scores, x),
        "cmc_loss": lambda x: losses.cmc_loss(images, captions, margin=x, temperature=x).total,
        "recall_at_k ks": lambda x: torch.tensor([*recall_at_k(torch.zeros(3), (x,)).values()]),
        "mean_of_folds folds": lambda x: torch.tensor(
            mean_of_folds(scores, torch.arange(6), x).rsum
        ),
        "TextTokenizer most_tokens": lambda x: TextTokenizer(tokenizer().engine, x)(["a"]).ids,
        "TextTokenizer.learn vocabulary": lambda x: TextTokenizer.learn(["a b"], x)(["a"]).ids,
    }
    doors |= {
        "hard_caption_loss temperature": lambda x: losses.hard_caption_loss(
            images, captions, captions, x
        ),
        "shortlist_recall shortlists": lambda x: torch.tensor(
            [*shortlist_recall(scores, scores > 0, (x,)).values()]
        ),
        "scenes.load first": lambda x: torch.tensor(len(scenes.load("validation", first=x))),
        "scenes.picture image_id": scenes.picture,
    }
    for name in TrainingConfig.__dataclass_fields__:
        doors[f"TrainingConfig {name}"] = lambda x, name=name: TrainingConfig(**{name: x})
    for name in TGDTConfig.__dataclass_fields__:
        doors[f"TGDTConfig {name}"] = lambda x, name=name: tiny_config(**{name: x})
    return doors


@cache
def _retriever():
    model = load_model(shipped() / "weights")
    return Retriever(model).index([scenes.picture(f"test-000{i}") for i in range(4)])


def words(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """Hostile texts, and what is none, wherever a name, a path or a choice is asked for."""
    draw, images = random.Random(seed), random_embedding(0, 6, 5, dtype=torch.float32)
    names = list("abcdef")
    doors = {
        "scenes.load split": scenes.load,
        "scenes.picture image_id": scenes.picture,
        "load_model folder": load_model,
        "Gallery.load folder": Gallery.load,
        "Gallery.build holds": lambda x: Gallery.build(images, names, x),
        "Gallery.build model": lambda x: Gallery.build(images, names, model=x).save(root / "named"),
        "Gallery.build local_precision": lambda x: Gallery.build(images, names, local_precision=x),
        "Gallery.build settings": lambda x: Gallery.build(images, names, settings=x),
        "two_stage query_is": lambda x: retrieval.two_stage(images, images, 2, 1.0, x),
        "hinge_loss negatives": lambda x: losses.hinge_loss(torch.eye(3), negatives=x),
        "hinge_loss reduction": lambda x: losses.hinge_loss(torch.eye(3), reduction=x),
        "cmc_loss contrastive": lambda x: losses.cmc_loss(images, images, contrastive=x),
        "a collection of Qdrant": lambda x: engine_of(str(root / "vectors"), x),
        "Retriever.search": lambda x: _retriever().search(x),
        "Retriever.encode_images": lambda x: _retriever().encode_images(x),
        "extract --columns": lambda x: extract.read_columns([x]),
        "extract --splits": lambda x: extract.read_splits([x]),
        "extract --divide": read_shares,
    }
    for name, door in doors.items():
        for number in range(tries):
            text = random_text(draw)
            if number % 4 == 0 and not name.startswith("extract"):  # a command gets texts alone
                text = draw.choice(NO_TEXTS)
            ended = partial(outcome, partial(door, text), None)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                table.add("a hostile name", name, ended(), repr(text)[:80])


def numbers(table: Table, tries: int, seed: int = 0) -> None:
    """Hostile numbers at every door that takes one."""
    draw = random.Random(seed)
    for name, door in _doors().items():
        for value in draw.sample(NUMBERS, min(tries, len(NUMBERS))):

            def answer(door=door, value=value):
                found = door(value)
                if isinstance(found, torch.Tensor):
                    return not found.isnan().any() and not (found == math.inf).any()
                return True

            what = f"{name} = {value!r:.60}"
            table.add("a hostile number", name.split()[0], outcome(answer, True), what)


def pictures(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """Files of pictures with random changes: opened as RGB, or refused by name."""
    draw, pixels = random.Random(seed), np.random.default_rng(seed)
    image = Image.fromarray(pixels.integers(0, 256, (37, 53, 3), dtype=np.uint8))
    for kind in FORMATS:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        image.save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        for number in range(tries):
            content = bytearray(file.getvalue())
            for _ in range(draw.randint(1, 8)):
                content[draw.randrange(len(content))] = draw.randrange(256)
            del content[draw.choice((len(content), draw.randrange(len(content)))) :]
            path = root / f"{number}.{kind.lower()}"
            path.write_bytes(content)

            def opened(path=path):
                picture = open_image(path)
                return picture.mode == "RGB" and min(picture.size) > 0

            ended = outcome(opened, True, (str(path),))
            table.add("a changed picture", kind, ended, f"number {number}")
            path.unlink()


def run(table: Table, root: Path, tries: int, seed: int = 0) -> None:
    """All of these, `tries` of each kind."""
    root.mkdir(parents=True, exist_ok=True)
    texts(table, root, tries, seed)
    words(table, root, tries, seed)
    numbers(table, tries, seed)
    pictures(table, root, tries, seed)
