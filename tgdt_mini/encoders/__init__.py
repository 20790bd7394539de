"""Pretrained encoders of pictures and captions: frozen below, trained above."""
