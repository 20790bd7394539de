"""What a branch is made of: encoder layers with masks, and waves that tell positions apart.

The encoder layers are torch's own: notebook 03 builds one by hand and shows that both agree. How
they are put together is in `model.py`.

B batch, L tokens, D width, N positions.
"""

import math

import torch
from torch import nn

from tgdt_mini.config import TGDTConfig


class Layers(nn.Module):
    """`count` encoder layers, and with norm_first a last norm. Count 0 returns the tokens."""

    def __init__(
        self,
        count: int,
        width: int,
        heads: int,
        feedforward: int,
        config: TGDTConfig,
        neighbour_dropout: float = 0.0,
    ):
        super().__init__()
        choices = dict(
            dropout=config.dropout,
            activation="relu",
            batch_first=True,
            norm_first=config.norm_first,
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, feedforward, **choices) for _ in range(count)
        )
        if neighbour_dropout:
            # dropout1 lies between a layer's attention and the sum with the token itself
            for layer in self.layers:
                layer.dropout1 = nn.Sequential(layer.dropout1, DropItems(neighbour_dropout))
        self.norm = nn.LayerNorm(width) if config.norm_first and count else nn.Identity()

    def forward(self, tokens, mask):
        """(B, L, width) of tokens (B, L, width) and mask (B, L) bool, True for a real token.

        No token looks at padding. So an item's result does not depend on its batch.
        """
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=~mask)  # torch asks where padding is
        return self.norm(tokens)

    def first_slot(self, tokens, mask):
        """(B, width) what `forward` makes of slot 0; of the last layer, only that slot is computed.

        A step of training takes 79 instead of 92 ms by it (mini model, batch 64, one CPU core).
        """
        if not self.layers:
            return tokens[:, 0]
        for layer in self.layers[:-1]:  # all tokens: slot 0 will look at them
            tokens = layer(tokens, src_key_padding_mask=~mask)
        last, slot = self.layers[-1], tokens[:, :1]  # (B, 1, width)

        # for each head; as key_padding_mask it would make torch import sympy, which takes 0.4 s
        padding = (~mask).repeat_interleave(last.self_attn.num_heads, dim=0)[:, None]  # (B*H, 1, L)

        def attend(query, keys):
            attention = last.self_attn(query, keys, keys, attn_mask=padding, need_weights=False)
            return last.dropout1(attention[0])

        def feed(hidden):
            return last.dropout2(last.linear2(last.dropout(last.activation(last.linear1(hidden)))))

        # the last layer by hand: its query is slot 0 alone, its keys are all tokens
        if last.norm_first:
            keys = last.norm1(tokens)
            slot = slot + attend(keys[:, :1], keys)
            slot = slot + feed(last.norm2(slot))
        else:
            slot = last.norm1(slot + attend(slot, tokens))
            slot = last.norm2(slot + feed(slot))
        return self.norm(slot)[:, 0]


class DropItems(nn.Module):
    """In training, each item of a batch becomes zero with a chance of `share`.

    On the sum that a layer adds to its input this is stochastic depth (Huang et al., 2016), item by
    item. Here a token sometimes does not see its neighbours, and so keeps representing its own
    word or region.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, tokens):
        """(B, L, D) of tokens (B, L, D); unchanged in eval mode."""
        if not self.training:
            return tokens
        # one draw an item: all of its tokens stay, or none
        return tokens * (torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.share)


def perceptron(width: int, hidden: int, out: int) -> nn.Module:
    """Linear -> ReLU -> Linear, as the released code reads a region; hidden 0: one Linear."""
    if not hidden:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def sinusoids(positions: torch.Tensor, width: int) -> torch.Tensor:
    """(N, width) sines and cosines of positions (N,), from fast to slow (Vaswani et al., 2017)."""
    rates = torch.exp(-torch.arange(0, width, 2) / width * 9.21)  # 1 down to about 1 / 10,000
    angles = positions[:, None] * rates  # (N, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def waves(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """(..., n) fractions to (..., n + 2 n count): themselves, and sines and cosines of them.

    The frequencies are 1, 2, 4 ... times pi.
    """
    angles = [numbers * (math.pi * 2**k) for k in range(count)]
    both = (wave(angle) for angle in angles for wave in (torch.sin, torch.cos))
    return torch.cat([numbers, *both], dim=-1)
