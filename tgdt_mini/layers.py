"""What a branch is made of: encoder layers, what is hidden from them in training, and waves that
tell places apart.

The encoder layers are torch's own: notebook 03 builds one by hand and shows that both agree. How
they are put together is in `model.py`.
"""

import torch
from torch import nn

from tgdt_mini.config import TGDTConfig


class Layers(nn.Module):
    """`count` of torch's encoder layers and, with norm_first, a last norm. No layer at all passes
    tokens through.
    """

    def __init__(
        self,
        count: int,
        width: int,
        heads: int,
        feedforward: int,
        config: TGDTConfig,
        alone: float = 0.0,
    ):
        super().__init__()
        each = dict(
            dropout=config.dropout,
            activation="relu",
            batch_first=True,
            norm_first=config.norm_first,
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, feedforward, **each) for _ in range(count)
        )
        if alone:
            for layer in (
                self.layers
            ):  # what attention found passes through here before it is added to the token
                layer.dropout1 = nn.Sequential(layer.dropout1, DropItems(alone))
        self.norm = nn.LayerNorm(width) if config.norm_first and count else nn.Identity()

    def forward(self, tokens, mask):
        """tokens (B, L, width), mask (B, L) bool: padding is looked at by nobody, so an item's
        batch cannot matter.
        """
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        return self.norm(tokens)

    def first_slot(self, tokens, mask):
        """(B, width) what `forward` makes of slot 0, without the last layer's work on all the other
        slots.
        """
        if not self.layers:
            return tokens[:, 0]
        for layer in self.layers[:-1]:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        last, slot = self.layers[-1], tokens[:, :1]  # (B, 1, width)

        def attend(query, keys):
            return last.dropout1(last.self_attn(query, keys, keys, ~mask, need_weights=False)[0])

        def feed(each):
            return last.dropout2(last.linear2(last.dropout(last.activation(last.linear1(each)))))

        if last.norm_first:
            keys = last.norm1(tokens)
            slot = slot + attend(keys[:, :1], keys)
            slot = slot + feed(last.norm2(slot))
        else:
            slot = last.norm1(slot + attend(slot, tokens))
            slot = last.norm2(slot + feed(slot))
        return self.norm(slot)[:, 0]


class DropItems(nn.Module):
    """In training, each item of a batch becomes zero with a chance of `share`; nothing happens in
    eval mode.

    On the sum that a layer adds to its input this is stochastic depth (Huang et al., 2016), item by
    item. Here it hides a token's neighbours now and then, so that the token goes on to stand for
    its own word or region.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, tokens):
        """tokens (B, L, D)"""
        if not self.training:
            return tokens
        return tokens * (torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.share)


def sinusoids(places: torch.Tensor, width: int) -> torch.Tensor:
    """(N, width) sines and cosines of places (N,), from fast to slow (Vaswani et al., 2017)."""
    rates = torch.exp(-torch.arange(0, width, 2) / width * 9.21)  # 1 down to about 1 / 10,000
    angles = places[:, None] * rates  # (N, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def waves(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """(..., n) fractions to (..., n + 2 * n * count): themselves, and sines and cosines of 1, 2, 4
    ... times pi.
    """
    angles = [numbers * (torch.pi * 2**k) for k in range(count)]
    return torch.cat(
        [numbers, *(wave(angle) for angle in angles for wave in (torch.sin, torch.cos))], dim=-1
    )
