"""Examples for properties, what must hold for every input: small, few, and the same ones each time.

A property that fails shows the smallest input that it fails for.
"""

from functools import partial

from helpers import random_embedding
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# no file is kept beside the tests, and no clock decides
_options = {"derandomize": True, "database": None, "deadline": None}
_options["suppress_health_check"] = [HealthCheck.too_slow]
examples = partial(settings, **_options)
few = examples(max_examples=40)
# each example takes a tenth of a second: fewer, and of one that fails no smaller one is sought
on_disk = examples(max_examples=12, phases=[Phase.generate])

seeds = st.integers(0, 2**32)
lengths = st.lists(st.integers(1, 5), min_size=1, max_size=6)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def embeddings(draw, width=8, **options):
    """Up to six items of one to five tokens, all unit vectors; padding holds such ones too."""
    counts = draw(lengths)
    return random_embedding(draw(seeds), len(counts), counts, width, **options)


@st.composite
def pairs(draw, **options):
    """Images and captions of one width."""
    width = draw(st.integers(2, 9))
    return draw(embeddings(width, **options)), draw(embeddings(width, **options))
