"""TGDT mini: token-guided dual transformers for image-text retrieval, small enough to read.

`import tgdt_mini` loads next to nothing: each name below is imported when it is first used.
"""

import os
from importlib import import_module

# read when torch is imported: threads that wait run in circles for a moment, then sleep. Beside
# two busy processes a training is many times as fast, and alone as fast as without
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"

_HOME = {
    "Embedding": "embedding",
    "TGDT": "model",
    "TGDTConfig": "config",
    "TextTokenizer": "text_tokens",
    "ImageTokens": "data",
    "TokenSet": "data",
    "scene_tokens": "scenes.tokens",
    "global_similarity": "similarity",
    "local_similarity": "similarity",
    "mixed_similarity": "similarity",
    "hinge_loss": "losses",
    "consistency_loss": "losses",
    "cmc_loss": "losses",
    "info_nce_loss": "losses",
    "ranks": "evaluation",
    "recall_at_k": "evaluation",
    "two_stage": "retrieval",
    "Gallery": "search.gallery",
    "Hits": "search.hits",
    "Retriever": "runs.retriever",
    "Explorer": "app.explorer",
    "Trainer": "training",
    "TrainingConfig": "training_config",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
}
_MODULES = {
    "scenes": "scenes",
    "plots": "reports.plots",
    "training": "training",
    "evaluation": "evaluation",
}
__all__ = sorted(_HOME)


def __dir__():
    return sorted([*globals(), *_HOME, *_MODULES])


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"tgdt_mini.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"tgdt_mini.{_MODULES[name]}")
    raise AttributeError(f"module 'tgdt_mini' has no attribute {name!r}")
