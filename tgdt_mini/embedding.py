"""One type for what both branches return: a global token, local tokens and their mask.

Images and captions use the same class, so that every similarity, loss and index is written once.
It computes nothing: the model normalises, `similarity.py` scores, after `check_real`.

B items in a batch, L local tokens of an item, D width of the common space.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Embedding:
    """A batch of B embedded images or captions.

    global_token: (B, D) float, L2-normalised, one vector for each item.
    local_tokens: (B, L, D) float, L2-normalised, one vector for each region or word piece.
    mask: (B, L) bool, True is a real token. Special tokens and padding are False.

    Raises TypeError for what is no tensor, ValueError when the three do not fit together.
    """

    global_token: torch.Tensor
    local_tokens: torch.Tensor
    mask: torch.Tensor

    def __post_init__(self):
        # each mistake is named: three tensors that do not fit would score nonsense in silence
        for name, tensor in vars(self).items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name} is a {type(tensor).__name__}; it must be a torch.Tensor")
            if name != "mask" and not tensor.is_floating_point():
                raise ValueError(f"{name} has dtype {tensor.dtype}; it must hold floats")
        if self.global_token.dim() != 2 or not self.global_token.shape[1]:
            shape = tuple(self.global_token.shape)
            raise ValueError(f"global_token has shape {shape}; it must be (B, D), D at least 1")
        items, width = self.global_token.shape  # B, D
        shape = tuple(self.local_tokens.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (items, width):
            raise ValueError(
                f"local_tokens has shape {shape}; with global_token {(items, width)} it must be "
                f"({items}, L, {width})"
            )
        if self.mask.shape != shape[:2]:
            raise ValueError(
                f"mask has shape {tuple(self.mask.shape)}; it must be {shape[:2]}, one bool for "
                "each local token"
            )
        if self.mask.dtype != torch.bool:
            raise ValueError(
                f"mask has dtype {self.mask.dtype}; it must be torch.bool, True for a real token"
            )

    def __len__(self) -> int:
        return len(self.global_token)

    def __getitem__(self, rows) -> "Embedding":
        """The items of `rows`: a slice, a list of ints, or an int or bool tensor; an int is one."""
        rows = [rows] if isinstance(rows, int) else rows  # so that a batch stays a batch
        return Embedding(self.global_token[rows], self.local_tokens[rows], self.mask[rows])

    def to(self, *args: Any, **kwargs: Any) -> "Embedding":
        """The same embedding on another device or, for its floats, in another dtype."""
        global_token = self.global_token.to(*args, **kwargs)
        local_tokens = self.local_tokens.to(*args, **kwargs)
        # a mask stays bool, whatever dtype was asked for
        return Embedding(global_token, local_tokens, self.mask.to(global_token.device))

    def detach(self) -> "Embedding":
        """The same numbers, cut off from the gradient."""
        return Embedding(self.global_token.detach(), self.local_tokens.detach(), self.mask)

    @staticmethod
    def cat(parts: list["Embedding"]) -> "Embedding":
        """All items of `parts` in order, padded to the longest: (sum of B, max of L, D)."""
        for part in (parts := list(parts)):
            if not isinstance(part, Embedding):
                raise TypeError(f"parts holds a {type(part).__name__}; give Embeddings")
        longest = max(part.mask.shape[1] for part in parts)
        room = [longest - part.mask.shape[1] for part in parts]  # tokens that each part lacks
        local_tokens = [pad(part.local_tokens, (0, 0, 0, r)) for part, r in zip(parts, room)]
        mask = [pad(part.mask, (0, r)) for part, r in zip(parts, room)]  # padding is False
        return Embedding(
            torch.cat([part.global_token for part in parts]),
            torch.cat(local_tokens),
            torch.cat(mask),
        )


def check_real(*embeddings: Embedding, names: tuple[str, ...]) -> None:
    """ValueError for an empty embedding and for an item without a real token.

    names: "image" or "caption" for each embedding.
    """
    for name, embedding in zip(names, embeddings, strict=True):
        if len(embedding) == 0:
            raise ValueError(f"there is no {name} to score: the embedding is empty")
    masks = [embedding.mask for embedding in embeddings]
    if all(mask.device.type == "cpu" and mask.shape[1] and mask.numpy().all() for mask in masks):
        return  # no padding at all, which is soon known: 0.25 ms for 100,000 x 36
    empty = [~mask.any(1) for mask in masks]  # (B,) each
    if torch.stack([rows.any() for rows in empty]).any():  # on a GPU one wait
        name, row = next((n, int(r.nonzero()[0])) for n, r in zip(names, empty) if r.any())
        part = "word" if name == "caption" else "region"
        raise ValueError(
            f"{name} {row} has no real {part}: its mask is all False. Leave it out, or give it at "
            f"least one {part}"
        )
