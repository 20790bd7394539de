"""Flickr30k Entities: which words of a caption speak of which box (Plummer et al., ICCV 2015).

The official annotations are two folders with a file for each picture. Sentences/ID.txt has a
caption a line,
    [/EN#123/people Two men] in [/EN#0/notvisual the end]
with a chain id and one or more kinds for each phrase (id 0: nothing that can be seen), and
Annotations/ID.xml has boxes in pixels, each for one or more chain ids. A chain can have several
boxes or, for a scene, none. They become the columns of records
    boxes    [{region: chain id, box: x0, y0, x1, y1 as fractions of width and height, 4 digits}]
    phrases  [{caption: index of the caption, text, region: chain id, kind: [str]}]
Sentences are matched to captions by their letters and digits: spacing, hyphens and case differ
between copies of the data. `text` is spelled as in the caption. Captions without a match, and
pictures without annotation, get no phrase. Coordinates are divided as they stand, while the
official reader takes 1 from each first: a pixel of 500. Its list UNRELATED_CAPTIONS is not used.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from tgdt_mini.photos.boxes import as_fractions

PHRASE = re.compile(r"\[/EN#(\w+)((?:/\w+)+) ([^\]]*)\]")


def add_phrases(records: dict, folder: Path | str) -> dict:
    """The same records, {split: Dataset} (see `records.py`), with the columns boxes and phrases.

    folder: holds Annotations/ and Sentences/. A picture is looked up by its file name, or by the
    part before the first "_", which is how Flickr8k calls Flickr30K's pictures. ValueError for a
    folder that annotates none of the pictures, or a damaged file, by name.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    folder = Path(folder)
    for name in ("Annotations", "Sentences"):
        if not (folder / name).is_dir():
            raise ValueError(
                f"folder {folder} has no {name}/; give the one with Annotations/ and Sentences/"
            )
    text = Value("string")
    features = Features(
        boxes=List({"region": text, "box": List(Value("float32"))}),
        phrases=List({"caption": Value("int32"), "text": text, "region": text, "kind": List(text)}),
    )
    annotated, matched = {}, 0
    for split, dataset in records.items():
        columns = {"boxes": [], "phrases": []}
        for image_id, captions in zip(dataset["image_id"][:], dataset["captions"][:]):
            boxes, sentences = [], []
            stem = Path(image_id).stem
            for name in (stem, stem.split("_")[0]):
                if (folder / "Sentences" / f"{name}.txt").is_file():
                    boxes = read_boxes(folder / "Annotations" / f"{name}.xml")
                    sentences = read_sentences(folder / "Sentences" / f"{name}.txt")
                    matched += 1
                    break
            columns["boxes"].append(boxes)
            columns["phrases"].append(phrases_of(sentences, captions))
        dataset = dataset.remove_columns([name for name in columns if name in dataset.column_names])
        added = Dataset.from_dict(columns, features=features)
        annotated[split] = concatenate_datasets([dataset, added], axis=1)
    if not matched:
        raise ValueError(
            f"folder {folder} annotates none of the pictures; "
            "their image ids must be Flickr's numbers"
        )
    return annotated


def read_sentences(path: Path) -> list[tuple[str, list[tuple[str, str, list[str], int]]]]:
    """[(sentence, [(phrase, region, kinds, where it starts)])] of a file of Sentences/.

    Example: "[/EN#5/people A man] runs" -> ("A man runs", [("A man", "5", ["people"], 0)]).
    """
    sentences = []
    for line in _text(path).splitlines():
        sentence, phrases, end = "", [], 0
        for match in PHRASE.finditer(line):
            sentence += line[end : match.start()]
            region, kinds, phrase = match.groups()
            phrases.append((phrase, region, kinds.strip("/").split("/"), len(sentence)))
            sentence, end = sentence + phrase, match.end()
        sentence += line[end:]
        if "[/EN#" in sentence:
            raise ValueError(
                f"{path} has a phrase that does not end, in {line!r}; unpack the annotations again"
            )
        if sentence.strip():
            sentences.append((sentence, phrases))
    return sentences


def read_boxes(path: Path) -> list[dict]:
    """[{region, box}] of a file of Annotations/, in its order. ValueError for a box outside."""
    try:
        root = ElementTree.fromstring(_text(path))
        width, height = (float(root.find(f"size/{side}").text) for side in ("width", "height"))
        boxes = [
            (name.text, [float(box.find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")])
            for thing in root.iter("object")
            for box in thing.findall("bndbox")
            for name in thing.findall("name")
        ]
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); unpack the annotations again") from None
    if not boxes:
        return []
    fractions = as_fractions([box for _, box in boxes], width, height, str(path))
    return [
        {"region": name, "box": [round(float(x), 4) for x in box]}
        for (name, _), box in zip(boxes, fractions)
    ]


def phrases_of(sentences: list, captions: list[str]) -> list[dict]:
    """The phrases of `read_sentences` as a record has them, in the order of the sentences.

    Each sentence is given to one caption with the same letters and digits.
    """
    waiting = {}  # the captions that have no sentence yet, by their letters
    for number, caption in enumerate(captions):
        waiting.setdefault(_letters(caption), []).append(number)
    phrases = []
    for sentence, marked in sentences:
        same = waiting.get(_letters(sentence))
        if not same:
            continue
        number = same.pop(0)
        caption = captions[number]
        positions = [i for i, sign in enumerate(caption) if sign.isalnum()]  # of each letter
        for text, region, kind, start in marked:
            first, size = len(_letters(sentence[:start])), len(_letters(text))
            if size:  # the same letters in the caption, with what is between them there
                text = caption[positions[first] : positions[first + size - 1] + 1]
            phrases.append({"caption": number, "text": text, "region": region, "kind": kind})
    return phrases


def _letters(text):
    return "".join(sign for sign in text.lower() if sign.isalnum())


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); unpack the annotations again") from None
