"""Changes of files that somebody may have made on purpose: headers that lie, JSON that is deep."""

import io
import json
import random
import struct
from pathlib import Path

import numpy as np

from tgdt_mini.files.manifest import SEAL, crc32, write_sealed

DEEP = 10_000


def hostile_file(path: Path, draw: random.Random) -> str:
    """Write a file anew whose form is right, or nearly, and whose content lies; returns how."""
    ways = {".npy": _array, ".npz": _noise, ".safetensors": _tensors, ".json": _json}
    return ways.get(path.suffix, _noise)(path, draw)


def _array(path, draw):
    header = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"
    kinds = {
        "of objects": header % ("|O", False, (3,)),
        "of 10^12 rows": header % ("<f4", False, (10**12, 8)),
        "of -1 rows": header % ("<i8", False, (-1,)),
        "of no number": header % ("<f4", False, "(10**400,)"),
        "in Fortran's order": header % ("<f2", True, (4, 8)),
        "of text": header % ("<U9", False, (2,)),
        "of complex numbers": header % ("<c16", False, (2, 8)),
        "of dates": header % ("<M8[s]", False, (4,)),
        "of a record": header % ([("a", "<i4")], False, (4,)),
        "of no dimension": header % ("<f4", False, ()),
        "of none": header % ("<i8", False, (0,)),
        "of three dimensions": header % ("<f4", False, (2, 2, 2)),
        "of code": "__import__('os').abort()",
    }
    if path.is_file() and draw.random() < 0.3:
        return _values(path, draw)
    kind = draw.choice(list(kinds))
    text = kinds[kind].encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    body = draw.randbytes(draw.choice((0, 64, 4096)))
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
    return f"an array {kind}"


def _values(path, draw):
    """The same array with NaN, infinity, the largest number or a negative one in it."""
    try:
        array = np.array(np.load(path, allow_pickle=False))
    except (OSError, ValueError):
        return _noise(path, draw)
    if array.size:
        flat, at = array.reshape(-1), draw.randrange(array.size)
        if array.dtype.kind == "f":
            flat[at] = draw.choice((np.nan, np.inf, -np.inf))
        elif array.dtype.kind in "iu":
            flat[at] = draw.choice((np.iinfo(array.dtype).max, np.iinfo(array.dtype).min, 0))
    np.save(path, array)
    return "another value"


def _tensors(path, draw):
    size, name = draw.choice((8, 2**20)), draw.choice(("a", "model", "x" * 5000))
    tensor = {"dtype": draw.choice(("F32", "F99", 3)), "shape": [2], "data_offsets": [0, size]}
    texts = {
        "a deep header": b"[" * DEEP,
        "offsets outside": json.dumps({name: tensor}).encode(),
        "no header": b"",
        "another header": b'{"__metadata__": 3}',
    }
    kind = draw.choice(list(texts))
    length = draw.choice((len(texts[kind]), 2**40, 2**63, 0, 7))
    path.write_bytes(struct.pack("<Q", length) + texts[kind] + bytes(8))
    return f"{kind}, of length {length}"


def _json(path, draw):
    """Too deep, doubled keys, numbers that nothing holds, another encoding."""
    text = path.read_text(encoding="utf-8") if path.is_file() else "{}"
    kinds = {
        "deep lists": "[" * DEEP + "]" * DEEP,
        "deep objects": '{"images":' * DEEP + "1" + "}" * DEEP,
        "a key again": text.rstrip().removesuffix("}") + ', "format": "another", "shards": {}}',
        "a number of 5,000 digits": text.replace("1", "1" * 5000, 1),
        "infinity": text.replace("0", "1e999", 1),
        "NaN": text.replace(": 1", ": NaN", 1),
        "half of a sign": text.replace('": "', '": "\\ud83d', 1),
        "NUL": text.replace('": "', '": "\\u0000', 1),
    }
    kind = draw.choice([*kinds, "UTF-16", "a mark of order"])
    encoding = {"UTF-16": "utf-16", "a mark of order": "utf-8-sig"}.get(kind, "utf-8")
    path.write_bytes(kinds.get(kind, text).encode(encoding))
    return kind


def _noise(path, draw):
    """Text or a table with NUL, with bytes that are no UTF-8, with one endless line, or empty."""
    content = path.read_bytes() if path.is_file() else b""
    at = draw.randrange(len(content) + 1)
    kinds = {
        "NUL": content[:at] + b"\x00" * 3 + content[at:],
        "no UTF-8": content[:at] + b"\xff\xfe" + content[at:],
        "a long line": content[:at] + b"x" * 2**17 + content[at:],
        "a quote": content[:at] + b'"' + content[at:],
        "twice": content + content,
        "half of a sign": content[:at] + b"\xed\xa0\xbd" + content[at:],
        "nothing": b"",
        "line breaks": content.replace(b"\n", b"\r\r\n"),
        "another kind of file": io.BytesIO(b"PK\x03\x04" + content).getvalue(),
    }
    kind = draw.choice(list(kinds))
    path.write_bytes(kinds[kind])
    return kind


def sign_again(folder: Path, path: Path) -> None:
    """Make the checksums of a file fit, in every manifest of a folder, as who knows them would."""
    for manifest in folder.rglob("*.json"):
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            continue
        if manifest != path and isinstance(content, dict) and SEAL in content:
            if _replace(content, path):
                write_sealed(manifest, content)


def _replace(content, path):
    """Whether a manifest's content names the file; its checksum there is made to fit."""
    import hashlib

    found = False
    for name, value in content.items():
        if name.rpartition("/")[2] == path.name and path.is_file():
            if isinstance(value, str):
                content[name], found = hashlib.sha256(path.read_bytes()).hexdigest(), True
            elif isinstance(value, list):
                content[name], found = [path.stat().st_size, crc32(path)], True
        elif isinstance(value, dict):
            outside = name.startswith("shard-") and path.parent.name != name
            found |= not outside and _replace(value, path)
    return found
