"""Photographs: their captions, features of pretrained encoders, and how a model reads them."""
