"""Galleries on disk, and indexes of other libraries; the formulas are in `retrieval.py`."""
