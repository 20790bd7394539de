"""An encoder cut in two: the lower part runs once, the top is trained as a part of TGDT.

Any transformers encoder will do whose layers take tokens and a mask, as BERT's and ViT's do.
`split_top` tries it on an example and refuses an encoder whose parts, put together, do not give
what the whole gives. No weights are loaded here.
"""

import json

import torch
from torch import nn

from tgdt_mini.files.check import one_line

NOT_KEPT = (  # of an encoder's settings: where it lay, and those of other layers or of heads
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "out_features",
    "out_indices",
    "stage_names",
)


class TopLayers(nn.Module):
    """An encoder's last layers, trained as a part of TGDT; `metadata` (JSON values) describes them.

    first: slots before the local tokens that these layers see, 1 for a class token, 0 for none.
    metadata["trained"]: how many of them learn, all by default; those below stay as they were, and
    with 0 so does the norm.
    """

    def __init__(self, layers, norm, metadata: dict, first: int):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm
        self.metadata, self.first = metadata, first
        trained = metadata.get("trained", len(self.layers))
        fixed = self.layers[: len(self.layers) - trained] if trained else [self]
        for module in fixed:
            module.requires_grad_(False)

    def forward(self, tokens, mask):
        """(B, L, width) from tokens (B, L, width) and mask (B, L) bool, True for a real token."""
        hidden = torch.zeros(mask.shape, dtype=tokens.dtype, device=tokens.device)
        hidden = hidden.masked_fill(~mask, torch.finfo(tokens.dtype).min)  # added to the scores
        hidden = hidden[:, None, None].expand(-1, 1, mask.shape[1], -1)  # (B, 1, L, L)
        for layer in self.layers:
            tokens = layer(tokens, attention_mask=hidden)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        return self.norm(tokens)

    @classmethod
    def rebuild(cls, metadata: dict) -> "TopLayers":
        """The layers that `metadata` describes, with random weights: a checkpoint fills them."""
        from transformers import AutoConfig, AutoModel

        settings = dict(metadata["config"])
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = AutoModel.from_config(config)
        norm = getattr(model, metadata["norm"]) if metadata["norm"] else nn.Identity()
        return cls(layers_of(model), norm, metadata, metadata["first"])


def layers_of(model):
    """The ModuleList of an encoder's transformer layers. ValueError if it has none."""
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of its layers that could be cut; train none: "
        "--vision-layers 0, --text-layers 0"
    )


class StopForward(Exception):
    """Ends a forward pass where the lower part of an encoder has been computed."""


def run_lower(model, trained_layers, **inputs):
    """(B, L, width) what goes into the last `trained_layers` layers; the output if there are 0."""
    if not trained_layers:
        return model(**inputs).last_hidden_state
    tokens = None

    def keep(_, args, kwargs):
        nonlocal tokens
        tokens = args[0] if args else kwargs["hidden_states"]
        raise StopForward

    hook = layers_of(model)[-trained_layers].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        model(**inputs)
    except StopForward:
        return tokens
    finally:
        hook.remove()


@torch.no_grad()
def split_top(model, trained_layers, example, mask=None, first=0):
    """The TopLayers of an encoder, None for trained_layers=0.

    example: inputs to try it on; mask (B, L) bool: which of their tokens are real, all by default.
    first: as in TopLayers. The layers are built as a checkpoint would build them, so that no run
    ends with layers that cannot be read. ValueError if they, fed by the lower part, do not give
    the encoder's output.
    """
    if not trained_layers:
        return None
    name, layers = type(model).__name__, layers_of(model)
    if not 0 < trained_layers <= len(layers):
        raise ValueError(
            f"trained_layers is {trained_layers}; {name} has {len(layers)}, "
            f"so use 0 to {len(layers)}"
        )
    output, lower = model(**example).last_hidden_state, run_lower(model, trained_layers, **example)
    if mask is None:
        mask = torch.ones(lower.shape[:2], dtype=torch.bool, device=lower.device)
    config = _plain_settings(model.config) | {"num_hidden_layers": trained_layers}
    norms = [part for part, child in model.named_children() if isinstance(child, nn.LayerNorm)]
    for norm in (None, *norms):  # an encoder may end with its last layer, or with one of its norms
        try:
            top = TopLayers.rebuild({"config": config, "norm": norm, "first": first})
            top = top.to(lower.device).eval()
            for twin, layer in zip(top.layers, layers[-trained_layers:]):
                twin.load_state_dict(layer.state_dict())
            if norm:
                top.norm.load_state_dict(getattr(model, norm).state_dict())
            rebuilt = top(lower, mask)
        except Exception as error:  # layers of another kind fail in many ways
            raise ValueError(
                f"the layers of {name} need more than tokens and a mask ({one_line(error)}); "
                "train none: --vision-layers 0, --text-layers 0"
            ) from error
        if torch.allclose(rebuilt[mask], output[mask], rtol=1e-4, atol=1e-4):
            return top
    raise ValueError(
        f"{name} cannot be cut: its parts do not give its output; train none: "
        "--vision-layers 0, --text-layers 0"
    )


def _plain_settings(config):
    """The settings of an encoder's layers, as a checkpoint will read them from JSON."""
    settings = config.to_dict() | {"model_type": config.model_type}
    return {
        name: json.loads(json.dumps(value))
        for name, value in settings.items()
        if name not in NOT_KEPT and _is_plain(value)
    }


def _is_plain(value):
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
