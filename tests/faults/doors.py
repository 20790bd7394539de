"""Hostile values for each argument of the public functions, classes and methods.

`doors` gives, for each, a call that is right; then one argument after the other is replaced by
what is no such thing, too large, or no number. An answer, or ValueError or TypeError in one line.
The names of `tgdt_mini.__all__` are all here: `test_faults.py` looks for one that lacks. Left out
are the plain forms that a chapter shows (`two_stage_plain`), an index of rows and `.to`, which
answer with torch's own errors, and what transformers answers to a name
(`TextTokenizer.from_pretrained`).
"""

import contextlib
import io
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_embedding, some_scenes, tiny_config, tiny_model, token_set, tokenizer
from PIL import Image

import tgdt_mini
from tests.faults.inputs import NO_TEXTS, NUMBERS, random_text
from tests.faults.outcomes import Table, outcome
from tgdt_mini import evaluation, losses, retrieval, scenes, similarity
from tgdt_mini.app.explorer import Explorer
from tgdt_mini.batches import Batches
from tgdt_mini.checkpoint import fingerprint, load_model, save_model
from tgdt_mini.config import TGDTConfig, pick_device
from tgdt_mini.data import ImageTokens
from tgdt_mini.embedding import Embedding
from tgdt_mini.encoding import encode_pictures, encode_texts
from tgdt_mini.files.paths import shipped
from tgdt_mini.model import TGDT
from tgdt_mini.reports import plots
from tgdt_mini.runs.retriever import Retriever
from tgdt_mini.scenes.tokens import build_token_set, scene_tokens
from tgdt_mini.search.gallery import Gallery
from tgdt_mini.search.hits import Hits
from tgdt_mini.text_tokens import TextTokenizer
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

WHERE = ("folder", "out", "path")  # what is written to: no hostile text may lead elsewhere


@cache
def model():
    return load_model(shipped() / "weights")


@cache
def retriever():
    own = Retriever(model())
    return own.index([scenes.picture(f"test-000{i}") for i in range(4)], progress=False)


def doors() -> dict[str, tuple[Callable, dict]]:
    """{name: (what is called, {argument: a right value})}."""
    images, captions = (random_embedding(s, 6, 5, dtype=torch.float32) for s in range(2))
    scores, positives = images.global_token @ captions.global_token.T, torch.eye(6).bool()
    names, ranks, picture = list("abcdef"), torch.arange(6.0), scenes.picture("test-0000")
    gallery = Gallery.build(images, names)
    pair, scored = dict(images=images, captions=captions), dict(scores=scores)
    query = dict(queries=captions, gallery=images, shortlist=3, local_weight=1.0)
    parts = dict(global_token=images.global_token, local_tokens=images.local_tokens)
    tokens = token_set("validation", 40)
    batch, text = tokens.images(torch.arange(4)), tokens.text[torch.arange(4)]
    regions = [np.zeros((3, 12), np.float32), np.zeros((2, 12), np.float32)]
    boxes = [np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32)]
    trained = dict(model=tiny_model(), train=tokens, validation=tokens, out=Path("run"))
    words, explorer = ["red", "star"], Explorer("a red star", retriever(), k=2)
    similar, places = np.eye(2), np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    looked = dict(picture=picture, words=words, similarities=similar, boxes=places, path="f.png")
    caption_image = torch.arange(6)
    search = dict(query="a red star", k=2, shortlist=3, local_weight=1.0)
    built = dict(embedding=images, items=names, holds="image", model="0" * 16)
    built |= dict(local_precision="int8", global_precision="float16", settings={"shortlist": 3})
    return {
        "Embedding": (Embedding, {**parts, "mask": images.mask}),
        "Embedding.cat": (Embedding.cat, dict(parts=[images, captions])),
        "TGDTConfig.from_dict": (
            TGDTConfig.from_dict,
            dict(values=tiny_config().to_dict(), where=""),
        ),
        "TGDT": (TGDT, dict(config=tiny_config())),
        "TGDT.encode_images": (tiny_model().encode_images, dict(batch=batch, stop_gradient=False)),
        "TGDT.encode_captions": (
            tiny_model().encode_captions,
            dict(batch=text, stop_gradient=False),
        ),
        "pick_device": (pick_device, dict(name="cpu")),
        "TextTokenizer": (partial(TextTokenizer, tokenizer().engine), dict(most_tokens=40, pad=0)),
        "TextTokenizer call": (tokenizer(), dict(captions=["a star"], first=0)),
        "TextTokenizer.pieces": (tokenizer().pieces, dict(caption="a star")),
        "TextTokenizer.learn": (
            TextTokenizer.learn,
            dict(captions=["a star"], vocabulary=99, most_tokens=9),
        ),
        "TextTokenizer.from_json": (
            TextTokenizer.from_json,
            dict(text=tokenizer().to_json(), most_tokens=9),
        ),
        "ImageTokens": (
            ImageTokens,
            {n: getattr(batch, n) for n in ("features", "boxes", "mask", "pooled")},
        ),
        "ImageTokens.pad": (ImageTokens.pad, dict(features=regions, boxes=boxes, pooled=None)),
        "ImageTokens.of": (ImageTokens.of, dict(images=[picture], kind="regions")),
        "scene_tokens": (
            scene_tokens,
            dict(
                split="validation", tokenizer=tokenizer(), kind="regions", first=3, progress=False
            ),
        ),
        "build_token_set": (
            build_token_set,
            dict(dataset=some_scenes("validation", 3), tokenizer=tokenizer(), kind="regions")
            | dict(key="", progress=False),
        ),
        "global_similarity": (similarity.global_similarity, pair),
        "local_similarity": (similarity.local_similarity, pair),
        "mixed_similarity": (similarity.mixed_similarity, pair | dict(local_weight=1.0)),
        "hinge_loss": (
            losses.hinge_loss,
            scored | dict(margin=0.2, positives=positives, negatives="mean", reduction="sum"),
        ),
        "consistency_loss": (
            losses.consistency_loss,
            dict(image_globals=scores, caption_globals=scores, margin=0.3, reduction="mean"),
        ),
        "cmc_loss": (
            losses.cmc_loss,
            pair
            | dict(image_ids=caption_image, margin=0.2, temperature=0.1, contrastive="hinge")
            | dict(negatives="mean", consistency_margin=0.3, reduction="sum", use_global=True)
            | dict(use_local=True, use_intra=True, use_mixed=False),
        ),
        "info_nce_loss": (
            losses.info_nce_loss,
            scored | dict(temperature=0.1, positives=positives),
        ),
        "ranks": (evaluation.ranks, scored | dict(positives=positives)),
        "recall_at_k": (evaluation.recall_at_k, dict(ranks=ranks, ks=(1, 5))),
        "median_rank": (evaluation.median_rank, dict(ranks=ranks)),
        "rsum": (evaluation.rsum, dict(i2t_ranks=ranks, t2i_ranks=ranks)),
        "matches": (evaluation.matches, dict(caption_image=caption_image, images=6)),
        "both_ways": (
            evaluation.both_ways,
            scored | dict(caption_image=caption_image, t2i_scores=scores),
        ),
        "shortlist_recall": (
            evaluation.shortlist_recall,
            dict(global_scores=scores, positives=positives, shortlists=(1, 2)),
        ),
        "mean_of_folds": (
            evaluation.mean_of_folds,
            scored | dict(caption_image=caption_image, folds=2),
        ),
        "two_stage": (retrieval.two_stage, query | dict(query_is="caption", index=None)),
        "Gallery.build": (Gallery.build, built),
        "Gallery.search": (
            gallery.search,
            dict(query=captions, k=2, shortlist=3, local_weight=1.0, expect_model=None, index=None),
        ),
        "Gallery.save": (gallery.save, dict(folder="kept")),
        "Gallery.append": (gallery.append, dict(folder="kept")),
        "Gallery.load": (
            Gallery.load,
            dict(folder="kept", expect_model=None, check_all=True),
        ),
        "Hits": (
            lambda **parts: (str(hits := Hits(**parts)), hits.to_json(), hits._repr_html_()),
            vars(gallery.search(captions, 2)),
        ),
        "Retriever": (Retriever, dict(model=model(), gallery=None, source=None)),
        "Retriever.from_pretrained": (
            Retriever.from_pretrained,
            dict(name="scenes", device="cpu", vision_path=None, text_path=None, gallery=None),
        ),
        "Retriever.encode_images": (retriever().encode_images, dict(images=[picture])),
        "Retriever.encode_texts": (retriever().encode_texts, dict(texts=["a star"])),
        "Retriever.index": (
            Retriever(model()).index,
            dict(images=[picture], items=["a"], progress=False, recursive=False, skip_broken=True),
        ),
        "Retriever.index_texts": (Retriever(model()).index_texts, dict(texts=["a star"])),
        "Retriever.search": (retriever().search, search),
        "Retriever.word_regions": (
            retriever().word_regions,
            dict(caption="a star", picture=picture),
        ),
        "Retriever.unseen_words": (retriever().unseen_words, dict(text="a star")),
        "Retriever.save": (retriever().save, dict(folder="saved", encoders=False)),
        "encode_texts": (partial(encode_texts, model()), dict(captions=["a star"], batch=9)),
        "encode_pictures": (partial(encode_pictures, model()), dict(pictures=[picture])),
        "Explorer": (
            Explorer,
            dict(query="a star", retriever=retriever(), captions=["a star"], k=2),
        ),
        "Explorer.ask": (explorer.ask, dict(query="a star", shortlist=3, local_weight=1.0)),
        "Trainer": (
            Trainer,
            trained
            | dict(config=TrainingConfig(epochs=1, batch=8), tokenizer=tokenizer())
            | dict(progress=False, device="cpu", engine=None, augment=None, stop=None),
        ),
        "Trainer.run": (_train, dict(max_steps=1)),
        "Batches": (Batches, dict(tokens=tokens, batch=8, seed=0)),
        "load_model": (load_model, dict(folder=shipped() / "weights", device="cpu")),
        "save_model": (
            save_model,
            dict(model=tiny_model(), folder="model", tokenizer=tokenizer(), notes={"a": 1})
            | dict(dtype=None, also=None),
        ),
        "fingerprint": (fingerprint, dict(model=model(), settings=None)),
        "scenes.load": (scenes.load, dict(split="validation", progress=False, first=3)),
        "scenes.scenes_of": (scenes.scenes_of, dict(split="validation", first=3)),
        "scenes.seeds_of": (scenes.seeds_of, dict(split="validation", first=3)),
        "scenes.picture": (scenes.picture, dict(image_id="test-0000")),
        "scenes.id_of": (scenes.id_of, dict(split="test", position=3)),
        "scenes.is_id": (scenes.is_id, dict(image_id="test-0000")),
        "scenes.draw": (scenes.draw, dict(split="test", first=2, progress=False)),
        "scenes.draw_scene": (scenes.draw_scene, dict(seed=3)),
        "scenes.oracle": (scenes.oracle, dict(split="test", first=5, ks=(1, 5))),
        "scenes.truth": (scenes.truth, dict(split="test", first=5)),
        "scenes.hard_negatives": (scenes.hard_negatives, dict(split="test", first=3, seed=0)),
        "scenes.captions_of": (scenes.captions_of, dict(split="nowhere")),
        "plots.hits": (
            plots.hits,
            dict(queries=["a"], pictures=[[picture]], right=[[True]], scores=[[1.0]], path="f.png"),
        ),
        "plots.word_regions": (plots.word_regions, looked),
        "plots.word_table": (plots.word_table, looked),
    }


def _train(max_steps):
    tokens = token_set("validation", 40)
    config = TrainingConfig(epochs=1, batch=8, chunk=0)
    trainer = Trainer(tiny_model(), tokens, tokens, config, Path("run"), progress=False)
    return trainer.run(max_steps)


def unasked() -> set[str]:
    """The public names that no door has: modules whose functions have doors of their own aside."""
    known = {word for name in [*doors(), *ELSEWHERE] for word in (name, *name.split("."))}
    return {*tgdt_mini.__all__, *tgdt_mini._MODULES} - known


# settings are tried in `inputs.py`; a TokenSet is what `scene_tokens` gives, and is not checked
# anew; of the modules `training` and `evaluation`, what they hold has doors
ELSEWHERE = ("TGDTConfig", "TrainingConfig", "TokenSet", "training", "evaluation")


def run(table: Table, root: Path, tries: int, seed: int = 0, most: int | None = None) -> None:
    """`tries` hostile values for each argument of each door, or of some: `most` arguments."""
    draw, known = random.Random(seed), doors()
    root.mkdir(parents=True, exist_ok=True)
    places = [(name, argument) for name, (_, right) in known.items() for argument in right]
    for name, argument in places if most is None else draw.sample(places, most):
        door, right = known[name]
        values = [*NUMBERS, *NO_TEXTS, *(random_text(draw) for _ in range(8))]
        values += [Image.new("L", (1, 1)), torch.zeros(0), [[]], (x for x in ()), "a" * 9999]
        for value in draw.sample(values, min(tries, len(values))):
            if argument in WHERE and isinstance(value, str):
                value = value.replace("/", "_").replace("\x00", "_")[:99]
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                # a place may be one where nothing can be written, which the system says
                errors = (ValueError, TypeError, *((OSError,) if argument in WHERE else ()))
                asked = partial(_asked, door, right | {argument: value})
                ended = outcome(asked, None, errors=errors)
            table.add("a hostile value", name, ended, f"{name}({argument}={value!r:.60})")


def _asked(door, values):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        return door(**values)
