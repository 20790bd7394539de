"""Photographs:
their records and captions, features of pretrained encoders, and how a model reads them.
"""
