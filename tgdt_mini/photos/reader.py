"""How features of pretrained encoders become tokens of a branch."""

from torch import nn


class DropFeatures(nn.Dropout1d):
    """In training, hides a share p of an item's features from all of its tokens at once.

    Token by token, what is hidden in one region is seen in the next, and the best region of a word
    would be the one whose noise suits it.
    """

    def forward(self, tokens):
        """tokens (B, L, F)"""
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)
