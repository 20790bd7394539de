"""On a GPU: the same numbers as on the processor, no step that waits, and a run that goes on.

Skipped where torch sees none; then nothing below was checked. Comparisons are in float32 with
PyTorch's default, full precision in products.
"""

import math
from dataclasses import fields

import pytest
import torch
from helpers import random_embedding, some_scenes, tiny_model, token_set, tokenizer
from torch.profiler import ProfilerActivity, profile

from tgdt_mini import Retriever, evaluation, losses, retrieval
from tgdt_mini.config import TGDTConfig
from tgdt_mini.encoding import encode, validate
from tgdt_mini.model import TGDT
from tgdt_mini.runs.fit import augmentation
from tgdt_mini.scaling.distributed import Processes
from tgdt_mini.scenes.tokens import with_hard_captions
from tgdt_mini.scenes.words import lexicon
from tgdt_mini.similarity import local_similarity, mixed_similarity
from tgdt_mini.training import Trainer
from tgdt_mini.training_config import TrainingConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
GPU = "cuda"


def on_gpu(value):
    return value.to(GPU) if hasattr(value, "to") else value


def close(gpu, cpu, **tolerance):
    torch.testing.assert_close(gpu.cpu(), cpu, **tolerance)


def sides(dtype=torch.float64):
    images = random_embedding(0, 40, [1 + i % 7 for i in range(40)], 16, dtype)
    captions = random_embedding(1, 90, [1 + i % 9 for i in range(90)], 16, dtype)
    return images, captions


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_scores_are_those_of_the_processor(dtype):
    images, captions = sides(dtype)
    expected = mixed_similarity(images, captions, 2.0)
    close(mixed_similarity(on_gpu(images), on_gpu(captions), 2.0), expected)


@pytest.mark.parametrize("query_is", ["image", "caption"])
@pytest.mark.parametrize("most", [50, 2**24])
def test_two_stages_find_what_they_find_on_the_processor(query_is, most, monkeypatch):
    monkeypatch.setattr(retrieval, "PRODUCTS_ELSEWHERE", most)  # pairs one by one, and together
    queries, gallery = sides() if query_is == "image" else sides()[::-1]
    expected = retrieval.two_stage(queries, gallery, 12, 2.0, query_is)
    scores = retrieval.two_stage(on_gpu(queries), on_gpu(gallery), 12, 2.0, query_is)
    close(scores, expected)
    assert torch.equal(
        scores.cpu().argsort(1, descending=True), expected.argsort(1, descending=True)
    )


def test_ranks_and_rsum_are_those_of_the_processor():
    images, captions = sides()
    caption_image = torch.arange(90) % 40
    scores = local_similarity(images, captions)
    positives = evaluation.matches(caption_image, 40)
    for s, p in ((scores, positives), (scores.T, positives.T)):
        assert torch.equal(evaluation.ranks(s.to(GPU), p.to(GPU)).cpu(), evaluation.ranks(s, p))


@pytest.mark.parametrize("settings", [{"contrastive": "hinge"}, {"contrastive": "info_nce"}])
def test_losses_and_gradients_are_those_of_the_processor(settings):
    ids, results = torch.arange(12) // 2, []
    for device in ("cpu", GPU):
        leaves = [
            random_embedding(seed, 12, [1 + i % 6 for i in range(12)], 16).to(device)
            for seed in (0, 1)
        ]
        floats = [
            tensor.requires_grad_()
            for side in leaves
            for tensor in (side.global_token, side.local_tokens)
        ]
        loss = losses.cmc_loss(*leaves, ids.to(device), use_mixed=True, **settings)
        loss.total.backward()
        parts = [getattr(loss, field.name).detach() for field in fields(loss)]
        results.append(parts + [tensor.grad for tensor in floats])
    for cpu, gpu in zip(*results, strict=True):
        close(gpu, cpu)


def test_a_model_embeds_as_on_the_processor():
    torch.manual_seed(0)
    model = TGDT(TGDTConfig.mini(vocabulary=tokenizer().vocabulary)).eval()
    on_cpu = encode(model, token_set())
    on_gpu = encode(model.to(GPU), token_set())
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        close(gpu.global_token, cpu.global_token, atol=1e-4, rtol=0)
        real = cpu.mask
        close(gpu.local_tokens[real.to(GPU)], cpu.local_tokens[real], atol=1e-4, rtol=0)


def trainer_of(out, device, dropout=0.0, model=None, **settings):
    model = model or tiny_model(dropout=dropout)
    train = with_hard_captions(token_set("train", 24), tokenizer(), lexicon())
    quick = {"epochs": 3, "batch": 8, "learning_rate": 1e-3, "hard_captions": 1.0}
    config = TrainingConfig(**(quick | {"precision": "fp32", "use_mixed": True} | settings))
    parts = dict(engine=Processes(config.chunk), augment=augmentation(config))
    validation = token_set("validation", 12)
    return Trainer(model, train, validation, config, out, device, tokenizer(), False, **parts)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_learns_what_it_learns_on_the_processor(optimizer, tmp_path):
    """Muon multiplies in bfloat16, so that its steps agree less closely."""
    runs = [
        trainer_of(tmp_path / device, device, optimizer=optimizer).run() for device in ("cpu", GPU)
    ]
    for cpu, gpu in zip(*runs, strict=True):
        for part in ("loss", "inter_global", "inter_local", "intra", "inter_mixed"):
            assert gpu[part] == pytest.approx(cpu[part], rel=1e-3 if optimizer == "adamw" else 3e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_no_step_waits_for_the_gpu(precision, optimizer, tmp_path):
    """torch raises at the first operation that would make the processor wait."""
    settings = dict(mirror=True, hide_regions=0.3, hide_words=0.2)
    trainer = trainer_of(
        tmp_path, GPU, 0.1, precision=precision, optimizer=optimizer, batch=4, **settings
    )
    trainer.run(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer._step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_attention_makes_no_plan_for_each_length(precision, tmp_path):
    """As cuDNN's does, at 0.2 s for each batch whose longest caption is another one."""
    trainer = trainer_of(tmp_path, GPU, precision=precision)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        trainer._step()
    names = {event.key for event in seen.key_averages()}
    assert any("attention" in name for name in names)
    assert not [name for name in names if "attention" in name and "cudnn" in name]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(precision, tmp_path):
    trainer = trainer_of(tmp_path, GPU, precision=precision, epochs=8, learning_rate=3e-3)
    history = trainer.run()
    assert all(math.isfinite(row["loss"]) for row in history)
    losses = [row["loss"] for row in history if row["contrastive"] == history[0]["contrastive"]]
    assert losses[-1] < losses[0]
    assert validate(trainer.model, token_set("validation", 12))["rsum_mixed"] > 0


def test_a_chunked_run_is_the_plain_run(tmp_path):
    plain, chunked = (trainer_of(tmp_path / str(c), GPU, chunk=c).run() for c in (0, 3))
    for one, other in zip(plain, chunked, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_the_second_pass_of_a_chunk_draws_the_same_dropout(tmp_path, monkeypatch):
    trainer, passes = trainer_of(tmp_path, GPU, 0.3, chunk=3), []
    embed = trainer._embed

    def recorded(*batch):
        sides = embed(*batch)
        passes.append(sides[0].local_tokens.detach())
        return sides

    monkeypatch.setattr(trainer, "_embed", recorded)
    trainer.run(1)
    count = len(passes) // 2
    assert count == 3, "8 pairs, 3 at a time, twice"
    for first, second in zip(passes[:count], passes[count:], strict=True):
        torch.testing.assert_close(first, second)


def test_a_stopped_run_goes_on_with_the_gpus_random_numbers(tmp_path):
    """To the same losses but for rounding: sums on a GPU have no fixed order."""
    whole = trainer_of(tmp_path / "whole", GPU, 0.3)
    whole.run()
    trainer_of(tmp_path / "parts", GPU, 0.3).run(4)
    torch.manual_seed(99)
    again = trainer_of(tmp_path / "parts", GPU, model=tiny_model(seed=7, dropout=0.3)).resume()
    again.run()
    for one, other in zip(whole.history, again.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_retriever_on_the_gpu_answers_as_on_the_processor():
    pictures, captions = some_scenes()["image"], [own[0] for own in some_scenes()["captions"]]
    answers = []
    for device in ("cpu", GPU):
        retriever = Retriever.from_pretrained("scenes", device=device).index(pictures)
        assert next(retriever.model.parameters()).device.type == device
        answers.append(retriever.search(captions, k=5).items)
    same = sum(one == other for one, other in zip(*answers, strict=True))
    assert same >= 0.95 * len(captions), "near ties may change places"
