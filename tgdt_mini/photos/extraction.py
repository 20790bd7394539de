"""What encoders, or a detector, make of some photographs and captions: arrays to be kept.

Each function returns the arrays of the rows it is given, as `features.write_features` asks for
them. `feature_folder.extract` says which folder they go to.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from tgdt_mini.photos.image_io import pictures

PICTURES, CPU_PICTURES = 50, 4  # that an encoder sees at once; few stay in the cache of a CPU
CAPTIONS = 200


def regions(detections, ids, rows):
    """The arrays of a detector's regions, for the pictures `rows`."""
    return detections.arrays(ids[rows.start : rows.stop])


def cells(vision, records, rows):
    """The arrays of an encoder's grid cells, for the pictures `rows`."""
    size = CPU_PICTURES if vision.device.type == "cpu" else PICTURES
    seen = [
        vision.see(list(pictures(records, range(start, min(start + size, rows.stop)))))
        for start in range(rows.start, rows.stop, size)
    ]
    batches = [batch for batch, _ in seen]
    return {
        "features": torch.cat([b.features.flatten(0, 1) for b in batches]).float().cpu().numpy(),
        "boxes": torch.cat([b.boxes.flatten(0, 1) for b in batches]).float().cpu().numpy(),
        "pooled": torch.cat([b.pooled for b in batches]).to(torch.float16).cpu().numpy(),
        "counts": torch.cat([b.mask.sum(dim=1) for b in batches]).cpu().numpy(),
    } | _aligned([aligned for _, aligned in seen])


def words(text, captions, rows):
    """The arrays of an encoder's tokens, for the captions `rows`: those of one length together."""
    by_length = sorted(rows, key=lambda row: len(captions[row]))
    parts, places, aligned = {}, [], []
    for start in range(0, len(by_length), CAPTIONS):
        batch = by_length[start : start + CAPTIONS]
        tokens, in_both = text.read([captions[row] for row in batch])
        tokens = tokens.to("cpu")
        places += batch
        aligned.append(in_both)
        for i, row in enumerate(batch):
            size = int(tokens.mask[i].sum())
            columns = (tokens.features, tokens.ids, tokens.word_mask)
            parts[row] = [column[i, :size] for column in columns]
    columns = zip(*(parts[row] for row in rows))
    features, ids, words = (torch.cat(column).numpy() for column in columns)
    counts = torch.tensor([len(parts[row][0]) for row in rows]).numpy()
    order = np.argsort(places)  # as the rows come
    more = {name: array[order] for name, array in _aligned(aligned).items()}
    return {"features": features, "ids": ids, "words": words, "counts": counts} | more


def _aligned(parts):
    """{"aligned": (n, P) float16} of what two towers make of pictures or captions; else {}."""
    if parts[0] is None:
        return {}
    return {"aligned": torch.cat(parts).to(torch.float16).cpu().numpy()}


def marks(records):
    """What identifies each picture: its id and its bytes, or its file's size and time of change."""
    from datasets import Image

    raw = records.select_columns(["image_id", "image"]).cast_column("image", Image(decode=False))
    for record in raw:
        image = record["image"]
        if image["bytes"] is not None:
            content = hashlib.sha256(image["bytes"]).hexdigest()
        else:
            try:
                stat = Path(image["path"]).stat()
            except OSError as error:
                raise ValueError(f"image {record['image_id']} cannot be read: {error}") from None
            content = f"{stat.st_size} {stat.st_mtime_ns}"
        yield f"{record['image_id']} {content}"
