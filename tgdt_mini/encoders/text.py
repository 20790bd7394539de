"""Words of a pretrained encoder: any transformers text model that reads captions both ways, cut as
`load.py` says.

A token's features are what the encoder makes of it in its sentence. `TextBackbone` refuses a model
that would mislead: one whose first token sees none of the others, or in which padding changes a
caption. No loss here.
"""

import copy

import torch

from tgdt_mini.encoders.cutting import layers_of, run_lower, split_top
from tgdt_mini.encoders.pretrained import MINILM, key_of, load, minilm, one_line
from tgdt_mini.text_tokens import TextTokenizer, TextTokens


class TextBackbone:
    """The frozen part of a text encoder: captions to ids, mask and the features (C, T, width) of
    each token.

    source: MINILM, or a folder or hub name that transformers' AutoModel loads. layers: only its
    first so many, as the paper takes 6 of BERT's 12; 0 for all. trained_layers: how many of those
    are cut off, to be trained (`top`).
    states: each token's features are what its last so many layers made of it, side by side, the
    last layer's last. It stands in for a TextTokenizer wherever a model has features of words.
    ValueError if nothing can be loaded, or what is loaded does not read captions, both ways.
    """

    def __init__(
        self,
        source: str,
        trained_layers: int = 0,
        layers: int = 0,
        states: int = 1,
        most_tokens: int = 40,
        device="cpu",
    ):
        self.source, self.trained_layers, self.device = (
            str(source),
            trained_layers,
            torch.device(device),
        )
        self.states = states
        where = minilm() if self.source == MINILM else self.source
        self.model = load(where).to(self.device)
        self.tokenizer = _tokenizer(where, most_tokens)
        self.pieces, self.to_json = self.tokenizer.pieces, self.tokenizer.to_json
        positions = getattr(self.model.config, "max_position_embeddings", None) or 0
        if 0 < positions < most_tokens:
            raise ValueError(
                f"most_tokens is {most_tokens}; {source} reads {positions} tokens at most"
            )
        if layers:
            _keep_first(self.model, layers)
        example, mask = self._check()
        self.top = split_top(self.model, trained_layers, example, mask, first=0)
        self._check_states()
        about = dict(
            source=self.source,
            trained_layers=trained_layers,
            layers=layers,
            states=states,
            most_tokens=most_tokens,
        )
        settings = {name: value for name, value in about.items() if name != "source"}
        self.about = about | {"key": key_of(self.model, settings, self.tokenizer.to_json())}

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> TextTokens:
        """Captions as ids and features; errors as in `TextTokenizer`."""
        tokens = self.tokenizer(captions).to(self.device)
        if self.states > 1:
            states = self.model(**_inputs(tokens), output_hidden_states=True).hidden_states
            found = torch.cat(states[-self.states :], dim=2)  # (C, T, states * hidden)
        else:
            found = run_lower(self.model, self.trained_layers, **_inputs(tokens))
        return TextTokens(tokens.ids, tokens.mask, tokens.words, found)

    def _check_states(self):
        layers = len(layers_of(self.model)) if self.states > 1 else 1
        if not 1 <= self.states <= layers:
            raise ValueError(
                f"states is {self.states}; {self.source} has {layers} layers, use 1 to {layers}"
            )
        if self.states > 1 and self.trained_layers:
            raise ValueError(
                f"states is {self.states} and trained_layers {self.trained_layers}: layers that are trained have no "
                "states to keep; use states=1, or trained_layers=0"
            )
        self.width = self.width * self.states

    @torch.no_grad()
    def _check(self):
        """(inputs, mask) of two captions that the encoder reads as it must; ValueError if it does
        not.

        What pads a caption must not change it, and its first token must have seen the others: TGDT
        makes it the global token.
        """
        words = copy.copy(self.tokenizer)
        words.most_tokens = max(32, words.most_tokens)  # else both may be cut to the same
        tokens = words(["a few words", "a few words about a photograph"]).to(self.device)
        if (
            len(tokens.ids[tokens.words].unique()) == 1
        ):  # transformers makes up a tokenizer where files are missing
            raise ValueError(
                f"the tokenizer of {self.source} knows no words; put its files beside the weights"
            )
        try:
            alone, both = (
                run_lower(self.model, 0, **_inputs(some)) for some in (tokens[:1], tokens)
            )
        except Exception as error:  # whatever another kind of model raises
            raise ValueError(
                f"{self.source} does not read captions by themselves ({one_line(error)}); use a text encoder"
            ) from error
        if torch.allclose(both[0, 0], both[1, 0], rtol=1e-5, atol=1e-6):
            raise ValueError(
                f"the first token of {self.source} sees none after it; choose an encoder that reads both ways"
            )
        if not torch.allclose(both[0, : alone.shape[1]], alone[0], rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"in {self.source} padding changes a caption's tokens; choose an encoder that masks it"
            )
        self.width = both.shape[2]
        return _inputs(tokens), tokens.mask


def _inputs(tokens):
    return {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}


def _keep_first(model, layers):
    """Leave only the first layers of an encoder."""
    stack = layers_of(model)
    if not 0 < layers <= len(stack):
        raise ValueError(
            f"layers is {layers}; {type(model).__name__} has {len(stack)}, so use 1 to {len(stack)}"
        )
    del stack[layers:]
    model.config.num_hidden_layers = layers


def _tokenizer(where, most_tokens):
    try:
        return TextTokenizer.from_pretrained(where, most_tokens)
    except OSError as error:
        raise ValueError(f"no tokenizer could be loaded from {where}: {one_line(error)}") from error
