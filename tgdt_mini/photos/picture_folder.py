"""The pictures of a folder: which files are taken, and which are left out, and why."""

import os
from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ENDINGS += (".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".tga")
# what Pillow may have been built without
NEEDS = {".avif": "avif", ".webp": "webp", ".jp2": "jpg_2000"}
UNREAD = (".heic", ".heif", ".cr2", ".nef", ".arw", ".dng")  # of telephones and cameras
FEW = 5  # names of each kind that a message tells


@dataclass(frozen=True)
class PictureFolder:
    """What a folder holds.

    paths: absolute, of the pictures, in order. left_out: {kind of file: names below the folder}.
    """

    paths: list[str]
    left_out: dict[str, list[str]]

    def __str__(self):
        """What was left out, in one line, its number first; "" if nothing was."""
        kinds = []
        for kind, names in self.left_out.items():
            more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
            kinds.append(f"{', '.join(names[:FEW])}{more} ({kind})")
        count = sum(map(len, self.left_out.values()))
        return f"{count} left out: {'; '.join(kinds)}" if count else ""


def find_pictures(folder: Path | str, recursive: bool = False) -> PictureFolder:
    """The pictures of a folder, by the endings of their names; without an ending, by their bytes.

    recursive: those of the folders in it too; links to folders are not followed. Files whose names
    begin with a dot are hidden, and left out. ValueError without any picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    root, paths, left_out = folder.absolute(), [], {}

    def leave(kind, path):
        left_out.setdefault(kind, []).append(path.relative_to(root).as_posix())

    def unreadable(error):
        leave("a folder that cannot be read", Path(error.filename))

    for here, folders, files in os.walk(root, onerror=unreadable):
        for name in sorted(folders):
            if name.startswith("."):
                leave("hidden", Path(here, name))
            elif not recursive:
                leave("a folder, which only --recursive enters", Path(here, name))
            elif Path(here, name).is_symlink():
                leave("a link to a folder", Path(here, name))
        folders[:] = sorted(name for name in folders if recursive and name[0] != ".")
        for path in sorted(Path(here, name) for name in files):
            kind = _problem(path)
            if kind is None:
                paths.append(str(path))
            else:
                leave(kind, path)
    pictures = PictureFolder(sorted(paths), left_out)
    if not paths:
        why = f"; {pictures}" if left_out else ""
        raise ValueError(f"{folder} holds no picture ({', '.join(ENDINGS)}){why}")
    return pictures


def _problem(path):
    """Why a file is no picture to be taken, None for one that is."""
    from PIL import features

    ending = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden"
    if not path.is_file():
        return "no file"
    if ending in NEEDS and not features.check(NEEDS[ending]):
        return f"{ending}, which this Pillow cannot read"
    if ending in UNREAD:
        return f"{ending}, which Pillow does not read: save it as .jpg"
    if ending in ENDINGS or (not ending and _begins_as_a_picture(path)):
        return None
    return "no picture by its name"


def _begins_as_a_picture(path):
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # any file may lie here
        return False
