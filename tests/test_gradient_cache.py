"""Embedding in chunks gives the gradients of the whole batch, dropout included; accumulating
gradients does not.
"""

import pytest
import torch
from helpers import random_embedding
from torch import nn
from torch.nn.functional import normalize
from two_processes import trainer_of

from tgdt_mini.embedding import Embedding
from tgdt_mini.losses import cmc_loss, hard_caption_loss
from tgdt_mini.scaling.gradient_cache import embed_in_chunks

B, LENGTHS = 12, (3, 1, 4, 2, 5, 3, 2, 2, 6, 1, 3, 4)


class Encoder(nn.Module):
    """Small, in float64, with dropout: tokens to an Embedding."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.local = nn.Sequential(
            nn.Linear(8, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 8)
        ).double()
        self.head = nn.Linear(8, 8).double()

    def forward(self, tokens):
        local = self.local(tokens.local_tokens)
        mean = (local * tokens.mask[..., None]).sum(1) / tokens.mask.sum(1, keepdim=True)
        return Embedding(normalize(self.head(mean), dim=-1), normalize(local, dim=-1), tokens.mask)


def sides(rows):
    """Tokens of images and of captions, no longer than the rows need."""
    both = random_embedding(1, B, LENGTHS), random_embedding(2, B, LENGTHS[::-1])
    return [
        Embedding(s.global_token, s.local_tokens[:, :n], s.mask[:, :n])[rows]
        for s in both
        for n in [int(s.mask[rows].sum(1).max())]
    ]


def parts(chunk):
    return torch.arange(B).split(chunk)


def embed_with(model):
    return lambda rows: [model(side) for side in sides(rows)]


def gradients(model, embed, chunk, **options):
    """{name: gradient} of the CMC loss of all pairs, embedded `chunk` at a time."""
    model.zero_grad()
    (images, captions), backward_to_weights = embed_in_chunks(embed, parts(chunk))
    cmc_loss(images, captions, torch.arange(B) // 2, **options).total.backward()
    backward_to_weights()
    return {name: part.grad for name, part in model.named_parameters()}


def assert_same(one, other):
    for name, part in one.items():
        torch.testing.assert_close(other[name], part, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 3, 5, 11])
@pytest.mark.parametrize("options", [{}, {"negatives": "mean"}, {"contrastive": "info_nce"}])
def test_gradients_are_those_of_the_whole_batch(chunk, options):
    model = Encoder()
    whole, cached = (gradients(model, embed_with(model), size, **options) for size in (B, chunk))
    assert_same(whole, cached)


def test_dropout_is_drawn_again_as_it_was_and_goes_on_as_if_drawn_once():
    model = Encoder(dropout=0.5)
    embed = embed_with(model)
    torch.manual_seed(5)
    kept = [embed(rows) for rows in parts(5)]  # the same chunks with their graphs kept
    images, captions = (Embedding.cat(list(side)) for side in zip(*kept))
    cmc_loss(images, captions, torch.arange(B) // 2).total.backward()
    known, following = (
        {name: part.grad.clone() for name, part in model.named_parameters()},
        torch.rand(1),
    )
    torch.manual_seed(5)
    assert_same(known, gradients(model, embed, 5))
    assert torch.equal(torch.rand(1), following)
    torch.manual_seed(5)
    (images, captions), backward_to_weights = embed_in_chunks(embed, parts(5))
    (cmc_loss(images, captions).total * torch.rand(1).item()).backward()  # a loss that draws, too
    backward_to_weights()
    drawn_between = torch.rand(1)
    torch.manual_seed(5)
    embed_in_chunks(embed, parts(5))
    torch.rand(1)
    assert torch.equal(torch.rand(1), drawn_between)
    torch.manual_seed(6)
    assert not torch.allclose(gradients(model, embed, 5)["head.weight"], known["head.weight"])


def test_what_no_term_reads_receives_no_gradient():
    model = Encoder()
    found = gradients(model, embed_with(model), 5, use_global=False, use_intra=False)
    assert found["head.weight"] is None and found["local.0.weight"].abs().sum() > 0


def test_a_chunk_keeps_the_graph_of_a_chunk():
    model, held = Encoder(), []

    def counted(rows):
        held.append(0)

        def pack(tensor):
            held[-1] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return embed_with(model)(rows)

    gradients(model, counted, B)
    whole, held[:] = held[0], []
    gradients(model, counted, 3)
    first, second = held[:4], held[4:]
    assert first == [0] * 4 and len(second) == 4 and 0 < max(second) < whole / 2


@pytest.mark.parametrize("inter", [{"contrastive": "info_nce"}, {"negatives": "hardest"}])
def test_gradients_accumulated_over_small_batches_are_those_of_another_loss(inter):
    model = Encoder()
    whole = gradients(model, embed_with(model), B, use_intra=False, **inter)
    whole = torch.cat([part.flatten() for part in whole.values()])
    model.zero_grad()
    for rows in parts(3):
        images, captions = embed_with(model)(rows)
        loss = cmc_loss(images, captions, rows // 2, use_intra=False, **inter).total
        (loss / len(parts(3))).backward()
    accumulated = torch.cat([part.grad.flatten() for part in model.parameters()])
    assert (accumulated - whole).norm() > 0.2 * whole.norm()


def test_a_loss_that_compares_no_pair_with_another_can_be_accumulated():
    """So the difference above comes from the negatives of the batch."""
    model = Encoder()
    wrong = random_embedding(3, B, LENGTHS)

    def accumulated(chunk):
        model.zero_grad()
        for rows in parts(chunk):
            images, captions = embed_with(model)(rows)
            (
                hard_caption_loss(images, captions, model(wrong[rows]), 0.1) * len(rows) / B
            ).backward()
        return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}

    assert_same(accumulated(B), accumulated(3))


@pytest.mark.parametrize("precision, far", [("fp32", 1e-5), ("bf16", 0.05)])
@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "staged"}, {"contrastive": "hardest", "batch": 7}]
)
def test_a_training_step_in_chunks_is_the_plain_step(tmp_path, settings, precision, far):
    found = []
    for chunk in (0, 3):
        trainer = trainer_of(tmp_path, chunk=chunk, precision=precision, **settings)
        trainer.run(max_steps=1)
        found.append({name: part.grad for name, part in trainer.model.named_parameters()})
    for name, part in found[0].items():
        assert (part is None) == (found[1][name] is None)
        assert part is None or (found[1][name] - part).norm() <= far * part.norm(), name


def test_a_run_goes_on_with_another_chunk(tmp_path):
    trainer_of(tmp_path).run(max_steps=4)
    again = trainer_of(tmp_path, chunk=3).resume()
    again.run()
    assert again.step == again.total_steps
    with pytest.raises(ValueError, match="chunk is -1"):
        trainer_of(tmp_path, chunk=-1)
