"""Galleries on disk, and indexes of other libraries for the first stage. The formulas are in the book's `retrieval.py`."""
