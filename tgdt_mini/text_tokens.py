"""Captions to token ids: a WordPiece vocabulary learnt here, or the tokenizer of any Hugging Face
model.

Both are a `tokenizers.Tokenizer` inside, so one class serves. Learn the vocabulary on training
captions only: words that only test captions hold must stay unknown (a leak found in earlier
repositories of this field). A reader who wants to see WordPiece at work finds it built by hand in
notebook 02; this module holds no merge loop of its own.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


@dataclass(frozen=True)
class TextTokens:
    """A batch of C tokenized captions.

    ids (C, T) int64; mask (C, T) bool, True where a token is real; words (C, T) bool, True where it
    is a piece of a word, which leaves out the special tokens. Slot 0 is the start token: the global
    token grows there. features (C, T, F): what a pretrained encoder makes of each token (see
    `encoders/text.py`), where there is one.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    words: torch.Tensor
    features: torch.Tensor | None = None

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, rows) -> "TextTokens":
        """The captions of `rows`, without the columns that are padding in all of them."""
        return self.take(rows)

    def take(self, rows, longest: int | None = None) -> "TextTokens":
        """The captions of `rows`, cut to the most tokens among them; longest: as in
        `TokenSet.images`.
        """
        ids, mask, words = self.ids[rows], self.mask[rows], self.words[rows]
        if longest is None:
            longest = int(mask.sum(dim=1).max()) if len(mask) else 0
        features = None if self.features is None else self.features[rows][:, :longest]
        return TextTokens(ids[:, :longest], mask[:, :longest], words[:, :longest], features)

    def part(self, rows) -> "TextTokens":
        """The captions of `rows`, as a set of their own: where features lie on the disk, they stay
        there.
        """
        return self[rows]

    def to(self, device) -> "TextTokens":
        features = None if self.features is None else self.features.to(device)
        return TextTokens(
            self.ids.to(device), self.mask.to(device), self.words.to(device), features
        )


class TextTokenizer:
    """Captions to TextTokens. Make one with `learn`, `load` or `from_pretrained`."""

    def __init__(self, engine, most_tokens: int = 40):
        if most_tokens < 3:
            raise ValueError(
                f"most_tokens is {most_tokens}; it must be at least 3: a start token, a word, an end token"
            )
        self.engine, self.most_tokens = engine, most_tokens
        self.engine.no_padding()
        self.engine.no_truncation()
        first = self.engine.encode("a").special_tokens_mask
        if not first or first[0] != 1:
            raise ValueError(
                "this tokenizer puts no special token before a caption; the global token needs one there"
            )

    @classmethod
    def learn(
        cls, captions: list[str], vocabulary: int = 400, most_tokens: int = 40
    ) -> "TextTokenizer":
        """A WordPiece tokenizer of about `vocabulary` pieces (lower case), learnt from training
        captions.
        """
        from tokenizers import (
            Tokenizer,
            decoders,
            models,
            normalizers,
            pre_tokenizers,
            processors,
            trainers,
        )

        if not captions:
            raise ValueError(
                "captions is empty; a vocabulary is learnt from at least one training caption"
            )
        engine = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        engine.normalizer = normalizers.BertNormalizer(lowercase=True)
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece()
        specials = [PAD, UNKNOWN, START, END]
        # the library numbers "##a", "##b", ... in an order that changes from run to run, and breaks
        # ties by number;
        # named first, and in order, they make the vocabulary the same every time
        words = {word for caption in captions for word in caption.split()}
        words = {engine.normalizer.normalize_str(word) for word in words}
        pieces = {
            piece for word in words for piece, _ in engine.pre_tokenizer.pre_tokenize_str(word)
        }
        inner = sorted({f"##{letter}" for piece in pieces for letter in piece[1:]})
        named = [*specials, *inner]
        engine.train_from_iterator(
            captions,
            trainers.WordPieceTrainer(
                vocab_size=vocabulary, special_tokens=named, show_progress=False
            ),
        )
        rules = engine.normalizer, engine.pre_tokenizer, engine.decoder
        engine = Tokenizer(
            models.WordPiece(engine.get_vocab(), unk_token=UNKNOWN)
        )  # "##a" is no special token here
        engine.normalizer, engine.pre_tokenizer, engine.decoder = rules
        engine.add_special_tokens(specials)
        ends = [(token, engine.token_to_id(token)) for token in (START, END)]
        engine.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=ends
        )
        return cls(engine, most_tokens)

    @classmethod
    def from_pretrained(cls, name: str | Path, most_tokens: int = 40) -> "TextTokenizer":
        """The tokenizer of a Hugging Face model, by hub name or folder."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(name))
        engine = getattr(tokenizer, "backend_tokenizer", None)
        if engine is None:
            raise ValueError(
                f"the tokenizer of {name} has no fast (Rust) version; choose a model that has one"
            )
        made = cls(engine, most_tokens)
        made._pad = tokenizer.pad_token_id or 0
        return made

    @property
    def vocabulary(self) -> int:
        """How many ids there are: every id is smaller."""
        return self.engine.get_vocab_size()

    @property
    def pad(self) -> int:
        known = self.engine.token_to_id(PAD)
        return known if known is not None else getattr(self, "_pad", 0)

    def pieces(self, caption: str) -> list[tuple[str, int, int]]:
        """(piece, start, end) of each real word piece, in characters of the caption, as `__call__`
        cuts them.
        """
        found = self._encode([caption], warn=False)[0]
        rows = zip(found.tokens, found.offsets, found.special_tokens_mask)
        return [(piece, start, end) for piece, (start, end), special in rows if not special]

    def __call__(self, captions: list[str]) -> TextTokens:
        """TextTokens of captions, padded to the longest.

        ValueError for an empty or wordless caption, and for no captions. Captions longer than
        `most_tokens` are cut, the end token kept, with one warning.
        """
        encoded = self._encode(captions)
        longest = max(len(each.ids) for each in encoded)
        ids = torch.full((len(encoded), longest), self.pad, dtype=torch.int64)
        mask, words = (torch.zeros(len(encoded), longest, dtype=torch.bool) for _ in range(2))
        for row, each in enumerate(encoded):
            size = len(each.ids)
            ids[row, :size] = torch.tensor(each.ids)
            mask[row, :size] = True
            words[row, :size] = ~torch.tensor(each.special_tokens_mask, dtype=torch.bool)
        return TextTokens(ids, mask, words)

    def _encode(self, captions, warn=True):
        if isinstance(captions, str) or not len(captions):
            raise ValueError(f"captions is {captions!r}; it must be a list of at least one caption")
        for place, caption in enumerate(captions):
            if not isinstance(caption, str) or not caption.strip():
                raise ValueError(
                    f"caption {place} is {caption!r}; a caption must hold at least one word"
                )
        self.engine.no_truncation()
        encoded = self.engine.encode_batch(list(captions))
        wordless = [place for place, each in enumerate(encoded) if all(each.special_tokens_mask)]
        if wordless:
            raise ValueError(
                f"caption {wordless[0]} is {captions[wordless[0]]!r}; no word is left of it"
            )
        long = [place for place, each in enumerate(encoded) if len(each.ids) > self.most_tokens]
        if long and warn:
            warnings.warn(
                f"{len(long)} of {len(captions)} captions are cut to {self.most_tokens} tokens, the first of them: "
                f"{captions[long[0]][:60]!r}",
                stacklevel=3,
            )
        if long:
            self.engine.enable_truncation(self.most_tokens)
            for place, each in zip(
                long, self.engine.encode_batch([captions[place] for place in long])
            ):
                encoded[place] = each
            self.engine.no_truncation()
        return encoded

    def to_json(self) -> str:
        return self.engine.to_str(pretty=True)

    @classmethod
    def from_json(cls, text: str, most_tokens: int = 40) -> "TextTokenizer":
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(text), most_tokens)
