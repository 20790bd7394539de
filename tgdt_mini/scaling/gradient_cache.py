"""Large batches on small cards: the loss of the whole batch with the memory of one chunk.

A contrastive loss compares every pair with every other, so it cannot be cut into pieces: gradients
accumulated over small batches are those of another loss, which has fewer negatives. But what fills
a card is not the embeddings, it is the graph that made them. Gradient caching (Gao et al., 2021,
arXiv 2101.06983) therefore goes through the model twice:

    1  embed chunk by chunk and keep no graph
    2  the loss of all embeddings, and its gradient with respect to them
    3  embed each chunk again, with a graph, and carry its embeddings' gradient on into the weights

The gradients are the plain step's, for one more forward pass. The table of scores is not cut: it
stays B x B.
"""

from collections.abc import Callable

import torch

from tgdt_mini.checkpoint import random_state, set_random_state
from tgdt_mini.embedding import Embedding


def embed_in_chunks(
    embed: Callable, parts: list, device: torch.device | str = "cpu"
) -> tuple[list, Callable]:
    """(embeddings of all parts, joined in order; a function to call after the backward pass of
    their loss).

    embed(part) returns embeddings, say of images and of captions; it is the model at work on one
    chunk. With one part it is called once, with a graph, and the function returned does nothing:
    the plain step. Random numbers of the first pass, dropout's masks, are drawn again in the
    second.
    """
    if len(parts) == 1:
        return list(embed(parts[0])), lambda: None
    states, leaves = [], []  # of each part
    for part in parts:
        states.append(random_state(device))
        with torch.no_grad():
            leaves.append([_leaf(embedding) for embedding in embed(part)])

    def carry_on():
        with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
            for part, state, kept in zip(parts, states, leaves):
                set_random_state(state, device)
                pairs = [
                    (tensor, leaf.grad)
                    for embedding, leaf_of in zip(embed(part), kept)
                    for tensor, leaf in zip(_floats(embedding), _floats(leaf_of))
                    if leaf.grad is not None
                    and len(leaf)  # a term that is switched off trains nothing
                ]
                torch.autograd.backward(*zip(*pairs))

    return [Embedding.cat(list(same)) for same in zip(*leaves)], carry_on


def _leaf(embedding):
    """The same numbers as leaves, in which a backward pass leaves its gradient."""
    return Embedding(
        *(tensor.requires_grad_() for tensor in _floats(embedding.detach())), embedding.mask
    )


def _floats(embedding):
    return embedding.global_token, embedding.local_tokens
