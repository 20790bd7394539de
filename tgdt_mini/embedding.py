"""One type for what both branches return: a global token, local tokens and their mask.

Images and captions use the same class, so every similarity, loss and index is written once.
It computes nothing: normalising is the model's business, scoring that of `similarity.py`.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Embedding:
    """A batch of B embedded images or captions.

    global_token: (B, D) float, L2-normalised, one vector an item.
    local_tokens: (B, L, D) float, L2-normalised, one vector a region or word piece.
    mask: (B, L) bool, True is a real token. Special tokens and padding are False.

    Raises ValueError when the three do not fit together.
    """

    global_token: torch.Tensor
    local_tokens: torch.Tensor
    mask: torch.Tensor

    def __post_init__(self):
        items, width = self.global_token.shape
        if (
            self.local_tokens.dim() != 3
            or self.local_tokens.shape[0] != items
            or self.local_tokens.shape[2] != width
        ):
            raise ValueError(
                f"local_tokens has shape {tuple(self.local_tokens.shape)}; with global_token {(items, width)} "
                f"it must be ({items}, L, {width})"
            )
        if self.mask.shape != self.local_tokens.shape[:2]:
            raise ValueError(
                f"mask has shape {tuple(self.mask.shape)}; it must be {tuple(self.local_tokens.shape[:2])}, "
                "one bool for each local token"
            )
        if self.mask.dtype != torch.bool:
            raise ValueError(
                f"mask has dtype {self.mask.dtype}; it must be torch.bool, True for a real token"
            )

    def __len__(self) -> int:
        return len(self.global_token)

    def __getitem__(self, rows) -> "Embedding":
        """The items named by `rows`: a slice, a list of ints, or an int or bool tensor (never one
        int).
        """
        if isinstance(rows, int):
            rows = [rows]
        return Embedding(self.global_token[rows], self.local_tokens[rows], self.mask[rows])

    def to(self, *args, **kwargs) -> "Embedding":
        """The same embedding on another device or, for its floats, in another dtype."""
        mask = self.mask.to(self.global_token.to(*args, **kwargs).device)
        return Embedding(
            self.global_token.to(*args, **kwargs), self.local_tokens.to(*args, **kwargs), mask
        )

    def detach(self) -> "Embedding":
        return Embedding(self.global_token.detach(), self.local_tokens.detach(), self.mask)

    @staticmethod
    def cat(parts: list["Embedding"]) -> "Embedding":
        """All items of `parts` in order, padded to the longest; shapes (sum of B, max of L, D)."""
        longest = max(part.mask.shape[1] for part in parts)

        def padded(tensor):
            extra = longest - tensor.shape[1]
            return torch.nn.functional.pad(
                tensor, (0, 0, 0, extra) if tensor.dim() == 3 else (0, extra)
            )

        return Embedding(
            torch.cat([part.global_token for part in parts]),
            torch.cat([padded(part.local_tokens) for part in parts]),
            torch.cat([padded(part.mask) for part in parts]),
        )
