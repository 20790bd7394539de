"""Large batches on small cards: the loss of the whole batch with the memory of one chunk.

A contrastive loss compares every pair with every other, so it cannot be cut into pieces: gradients
accumulated over small batches are those of another loss, which has fewer negatives. But it is not
the embeddings that fill a card, it is the graph that made them. Gradient caching (Gao et al., 2021,
arXiv 2101.06983) therefore goes through the model twice:

    1  embed chunk by chunk and keep no graph
    2  the loss of all embeddings, and its gradient with respect to them
    3  embed each chunk again, with a graph, and go on from its embeddings' gradient to the weights

The gradients are the plain step's, for one more forward pass. The table of scores stays B x B.
"""

from collections.abc import Callable

import torch

from tgdt_mini.checkpoint import random_state, set_random_state
from tgdt_mini.embedding import Embedding


def embed_in_chunks(
    embed: Callable, chunks: list, device: torch.device | str = "cpu"
) -> tuple[list, Callable]:
    """(embeddings of all chunks, joined in order; a function to call after their backward pass).

    embed(chunk) returns embeddings, say of images and of captions: the model at work on one chunk.
    With one chunk it is called once, with a graph, and the function does nothing: the plain step.
    Random numbers of the first pass, dropout's masks, are drawn again in the second.
    """
    if len(chunks) == 1:
        return list(embed(chunks[0])), lambda: None
    states, leaves = [], []  # of each chunk
    for chunk in chunks:
        states.append(random_state(device))
        with torch.no_grad():
            leaves.append([_leaf(embedding) for embedding in embed(chunk)])

    def backward_to_weights():
        with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
            for chunk, state, kept in zip(chunks, states, leaves):
                set_random_state(state, device)
                pairs = [
                    (tensor, leaf.grad)
                    for embedding, cached in zip(embed(chunk), kept)
                    for tensor, leaf in zip(_floats(embedding), _floats(cached))
                    # a term that is switched off trains nothing
                    if leaf.grad is not None and len(leaf)
                ]
                torch.autograd.backward(*zip(*pairs))

    return [Embedding.cat(list(same)) for same in zip(*leaves)], backward_to_weights


def _leaf(embedding):
    """The same numbers as leaves, in which a backward pass leaves its gradient."""
    floats = (tensor.requires_grad_() for tensor in _floats(embedding.detach()))
    return Embedding(*floats, embedding.mask)


def _floats(embedding):
    return embedding.global_token, embedding.local_tokens
