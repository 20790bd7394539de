"""Words of a pretrained encoder: any transformers text model that reads captions both ways.

A token's features are what the lower part of the encoder (see `load.py`) makes of it in its
sentence. `TextBackbone` refuses a model that would mislead: one whose first token sees none of the
others, or in which padding changes a caption.

The text towers of CLIP and SigLIP are taken too, frozen. CLIP's words see only those before them,
so that its end token has seen them all; SigLIP has a pooler. Slot 0 gets what these make of the
caption.
"""

import copy

import torch
from torch.nn.functional import normalize, pad

from tgdt_mini.encoders import MINILM
from tgdt_mini.encoders.cutting import layers_of, run_lower, split_top
from tgdt_mini.encoders.pretrained import key_of, lasting_source, load, transformer_folder
from tgdt_mini.encoders.wheels import minilm
from tgdt_mini.files.check import one_line
from tgdt_mini.text_tokens import TextTokenizer, TextTokens

FULL_LENGTH = ("siglip_text_model", "siglip2_text_model")  # trained on captions padded to the end


class TextBackbone:
    """The frozen part of a text encoder: captions to ids, mask and features (C, W, width).

    source: MINILM, or a folder or hub name that transformers' AutoModel loads.
    layers: only its first so many, as the paper takes 6 of BERT's 12; 0 for all.
    trained_layers: how many of these are cut off, to be trained (`top`).
    states: a token's features are what its last so many layers made of it, side by side, the last
    layer's at the end; one more than it has layers adds the embeddings.
    most_tokens: longer captions are cut, as `TextTokenizer` cuts them.
    It stands in for a TextTokenizer where a model has features of words. `metadata` describes it,
    with the key of its weights. ValueError if nothing can be loaded, or the model does not read
    captions both ways.
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
        self.source, self.device = lasting_source(source), torch.device(device)
        self.trained_layers, self.states = trained_layers, states
        folder = str(minilm()) if self.source == MINILM else self.source
        self.model, self.aligned = load(folder, "text")
        self.model = self.model.to(self.device)
        self.pads_to = 0
        if self.model.config.model_type in FULL_LENGTH:
            self.pads_to = self.model.config.max_position_embeddings
        self.tokenizer, self.added_start = _tokenizer(folder, most_tokens, bool(self.pads_to))
        self.pieces, self.to_json = self.tokenizer.pieces, self.tokenizer.to_json
        positions = getattr(self.model.config, "max_position_embeddings", None) or 0
        if 0 < positions < most_tokens:
            raise ValueError(
                f"most_tokens is {most_tokens}; {source} reads {positions} tokens at most"
            )
        if layers:
            _keep_first(self.model, layers)
        example = self._try_tokenizer()
        self.width = self._try_encoder(example)
        if self.summary != "first":
            self._check_tower(trained_layers, layers)
        self.top = None
        if trained_layers:
            self.top = split_top(self.model, trained_layers, _inputs(example), example.mask)
        if states != 1:
            self._check_states()
        settings = dict(
            trained_layers=trained_layers, layers=layers, states=states, most_tokens=most_tokens
        )
        key = key_of(self.model, settings, self.tokenizer.to_json())
        self.metadata = {"source": self.source} | settings | {"key": key}
        if self.summary == "first":
            self.aligned = None  # nothing of it stands for a whole caption in the space of both
        if self.aligned:
            self.aligned.projection.to(self.device)
            self.metadata["aligned"] = self.aligned.key

    def __call__(self, captions: list[str], first: int = 0) -> TextTokens:
        """Captions as ids and features; `first` and errors as in `TextTokenizer`."""
        return self.read(captions, first)[0]

    @torch.no_grad()
    def read(self, captions: list[str], first: int = 0) -> tuple[TextTokens, torch.Tensor | None]:
        """(captions as ids and features, (C, P) each in the space of both towers, if there are)."""
        tokens, aligned = self.tokenizer(captions, first).to(self.device), None
        if self.summary != "first":
            features, summary = self._read_tower(tokens)
            if self.aligned:
                aligned = normalize(self.aligned.projection(summary), dim=-1)
        elif self.states > 1:
            states = self.model(**_inputs(tokens), output_hidden_states=True).hidden_states
            features = torch.cat(states[-self.states :], dim=2)  # (C, T, states * hidden)
        else:
            features = run_lower(self.model, self.trained_layers, **_inputs(tokens))
        return TextTokens(tokens.ids, tokens.mask, tokens.word_mask, features), aligned

    def _read_tower(self, tokens):
        """((C, T, width) features, (C, F) what stands for each caption; it is in slot 0 too)."""
        output = self.model(**self._inputs_of(tokens))
        features = output.last_hidden_state
        if self.added_start:  # the encoder has not seen it
            features = torch.cat([features[:, :1], features], dim=1)
        features = features[:, : tokens.ids.shape[1]]
        if self.summary == "pooler":
            summary = output.pooler_output
        else:
            summary = features[torch.arange(len(features)), tokens.mask.sum(dim=1) - 1]
        slot = summary if summary.shape[1] == features.shape[2] else features.mean(dim=1)
        return torch.cat([slot[:, None], features[:, 1:]], dim=1), summary

    def _inputs_of(self, tokens):
        """What the encoder is given: for SigLIP all its places, padded, without a mask."""
        if not self.pads_to:
            return _inputs(tokens)
        ids = torch.where(tokens.mask, tokens.ids, self.tokenizer.pad)[:, int(self.added_start) :]
        return {"input_ids": pad(ids, (0, self.pads_to - ids.shape[1]), value=self.tokenizer.pad)}

    def _check_tower(self, trained_layers, layers):
        """ValueError for options that take a part of a tower."""
        for option, value, usual in (
            ("--text-layers", trained_layers, 0),
            ("--text-depth", layers, 0),
            ("--text-states", self.states, 1),
        ):
            if value != usual:
                raise ValueError(
                    f"{option} is {value}, but the text tower {self.source} is taken whole and as "
                    f"it is; use {usual}"
                )

    def _check_states(self):
        most = len(layers_of(self.model)) + 1  # the embeddings are the first state
        if not 1 <= self.states <= most:
            raise ValueError(
                f"states is {self.states}; {self.source} has {most - 1} layers and the embeddings, "
                f"use 1 to {most}"
            )
        if self.trained_layers:
            raise ValueError(
                f"states is {self.states} and trained_layers {self.trained_layers}: layers that "
                "are trained have no states to keep; use --text-states 1, or --text-layers 0"
            )
        self.width = self.width * self.states

    def _try_tokenizer(self):
        """Two captions as tokens, of which one is longer. ValueError if no word is known."""
        tokenizer = copy.copy(self.tokenizer)
        tokenizer.most_tokens = max(32, tokenizer.most_tokens)  # else both may be cut to the same
        tokens = tokenizer(["a few words", "a few words about a photograph"]).to(self.device)
        # transformers makes up a tokenizer where files are missing
        if len(tokens.ids[tokens.word_mask].unique()) == 1:
            raise ValueError(
                f"the tokenizer of {self.source} knows no words; put its files beside the weights"
            )
        return tokens

    @torch.no_grad()
    def _try_encoder(self, tokens):
        """The width of the encoder's features. ValueError if it misreads the tokens of captions.

        Padding must not change a caption, and its first token must have seen the others: TGDT
        makes it the global token.
        """
        try:
            outputs = [self.model(**self._inputs_of(part)) for part in (tokens[:1], tokens)]
            short, both = (output.last_hidden_state for output in outputs)
        except Exception as error:  # another kind of model fails in many ways
            raise ValueError(
                f"{self.source} does not read captions by themselves ({one_line(error)}); "
                "use a text encoder"
            ) from error
        pooled = getattr(outputs[0], "pooler_output", None)
        is_tower, self.summary = pooled is not None and pooled.dim() == 2, "first"
        if self.pads_to:
            self.summary = "pooler"
        elif torch.allclose(both[0, 0], both[1, 0], rtol=1e-5, atol=1e-6):
            if not is_tower or bool(tokens.word_mask[0, tokens.mask[0].sum() - 1]):
                raise ValueError(
                    f"the first token of {self.source} sees none after it; "
                    "choose an encoder that reads both ways"
                )
            self.summary = "last"  # the end token of CLIP
        if not torch.allclose(both[0, : short.shape[1]], short[0], rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"in {self.source} padding changes a caption's tokens; "
                "choose an encoder that masks it"
            )
        return both.shape[2]


def _inputs(tokens):
    return {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}


def _keep_first(model, count):
    """Leave only the first layers of an encoder."""
    layers = layers_of(model)
    if not 0 < count <= len(layers):
        raise ValueError(
            f"layers is {count}; {type(model).__name__} has {len(layers)}, "
            f"so use 1 to {len(layers)}"
        )
    del layers[count:]
    model.config.num_hidden_layers = count


def _tokenizer(folder, most_tokens, needs_start=False):
    """(the tokenizer of an encoder, whether a start token was put before its captions).

    needs_start: SigLIP's has none, but the global token needs a slot.
    """
    folder = transformer_folder(folder)
    try:
        return TextTokenizer.from_pretrained(folder, most_tokens), False
    except Exception as error:  # files are damaged in many ways
        is_told = isinstance(error, ValueError) and "special token before a caption" in str(error)
        if not (needs_start and is_told):
            if is_told:
                raise
            raise ValueError(
                f"no tokenizer could be loaded from {folder}: {one_line(error)}"
            ) from error
    from tokenizers import processors
    from transformers import AutoTokenizer

    pretrained = AutoTokenizer.from_pretrained(folder)
    engine, end = pretrained.backend_tokenizer, pretrained.eos_token
    last = f" {end}" if engine.encode("a").special_tokens_mask[-1] else ""
    ids = [(end, pretrained.eos_token_id)]
    engine.post_processor = processors.TemplateProcessing(f"{end} $A{last}", None, ids)
    return TextTokenizer(engine, most_tokens, pretrained.pad_token_id or 0), True
