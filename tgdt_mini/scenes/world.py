"""What is in a scene, and how it is drawn: objects from integers, pixels from integers.

A scene is a background and 2 to 5 objects, each with a shape, a colour, a size and a free position.
Everything comes from `random.Random(seed).random()`, whose sequence Python promises for ever, and
every mask is decided by integer arithmetic, so that each machine draws the same pixels. Words about
scenes live in `words.py`.
"""

import random
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

SIDE = 112  # pixels, width and height of every scene
SHAPES = tuple("circle square triangle diamond star heart cross moon ring arrow".split())
COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 132, 32),
    "yellow": (250, 208, 54),
    "green": (46, 158, 82),
    "blue": (44, 104, 214),
    "purple": (132, 66, 178),
    "pink": (246, 140, 178),
    "brown": (128, 84, 52),
}
SIZES = {"small": (8, 10), "big": (15, 20)}  # radius in pixels, first and last
BACKGROUNDS = ("paper", "sky", "sand", "night", "grass", "stripes", "checks", "dots")
MOST_HIDDEN = 0.35  # of an object's pixels, by the objects in front of it
UNIT = 1024  # one radius, in the integers that shapes are written in
_PLACES = np.mgrid[:SIDE, :SIDE]  # y and x of each pixel
_SUPER = 4  # samples a pixel, each way, for smooth edges
# degrees: UNIT * (cos, sin)
_TURNS = {-20: (962, -350), -10: (1008, -178), 0: (1024, 0), 10: (1008, 178), 20: (962, 350)}
_POLYGONS = {  # corners in UNITs, y downwards
    "square": [(-840, -840), (840, -840), (840, 840), (-840, 840)],
    "triangle": [(0, -980), (960, 760), (-960, 760)],
    "diamond": [(0, -1024), (700, 0), (0, 1024), (-700, 0)],
    "star": [(0, -1024), (246, -338), (974, -316), (397, 129), (602, 828),
             (0, 417), (-602, 828), (-397, 129), (-974, -316), (-246, -338)],
    "cross": [(-330, -960), (330, -960), (330, -330), (960, -330), (960, 330), (330, 330),
              (330, 960), (-330, 960), (-330, 330), (-960, 330), (-960, -330), (-330, -330)],
    "arrow": [(-1000, -300), (100, -300), (100, -840), (1020, 0), (100, 840), (100, 300),
              (-1000, 300)],
    "heart": [(-905, 130), (0, -250), (905, 130), (0, 980)],
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object of a scene; later things are in front.

    x, y: centre in pixels; radius in pixels; turn in degrees.
    """

    shape: str
    colour: str
    size: str
    x: int
    y: int
    radius: int
    turn: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the drawn shape as fractions of the scene's side."""
        x0, y0, x1, y1 = sprite(self.shape, self.radius, self.turn).getbbox()
        left, top = self.x - self.radius, self.y - self.radius
        return tuple(value / SIDE for value in (left + x0, top + y0, left + x1, top + y1))


@dataclass(frozen=True)
class Scene:
    background: str
    things: tuple[Thing, ...]
    seed: int


def pick(rng: random.Random, choices):
    """One of `choices`, by a single call of rng.random()."""
    return choices[int(rng.random() * len(choices))]


def between(rng: random.Random, low: int, high: int) -> int:
    """An integer from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


@cache
def sprite(shape: str, radius: int, turn: int) -> Image.Image:
    """The mask of a shape: mode L, 2 * radius pixels square, 255 inside, smooth at the edge."""
    samples = 2 * radius * _SUPER
    axis = (2 * np.arange(samples, dtype=np.int64) + 1 - samples) * UNIT // samples
    cos, sin = _TURNS[turn]
    x = (axis[None, :] * cos + axis[:, None] * sin) // UNIT
    y = (axis[:, None] * cos - axis[None, :] * sin) // UNIT
    inside = _inside(shape, x, y).reshape(2 * radius, _SUPER, 2 * radius, _SUPER)
    mask = inside.sum(axis=(1, 3)) * 255 // _SUPER**2  # the mean of each pixel's samples
    return Image.fromarray(mask.astype(np.uint8))


def _inside(shape, x, y):
    def disc(cx, cy, r):
        return (x - cx) ** 2 + (y - cy) ** 2 <= r * r

    if shape == "circle":
        return disc(0, 0, 940)
    if shape == "ring":
        return disc(0, 0, 980) & ~disc(0, 0, 500)
    if shape == "moon":
        return disc(-60, 0, 960) & ~disc(440, -140, 760)
    inside = np.zeros(x.shape, bool)
    corners = _POLYGONS[shape]
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        # even-odd rule, without a division
        spans = (y0 > y) != (y1 > y)
        side = (x - x0) * (y1 - y0) - (x1 - x0) * (y - y0)
        inside ^= spans & ((side < 0) if y1 > y0 else (side > 0))
    if shape == "heart":
        inside |= disc(-450, -240, 590) | disc(450, -240, 590)
    return inside


def scene(seed: int) -> Scene:
    """The scene of an integer: the same on every machine."""
    rng = random.Random(seed)
    background = pick(rng, BACKGROUNDS)
    wanted, things = between(rng, 2, 5), []
    while len(things) < wanted:
        for _ in range(60):
            thing = _draw_thing(rng, things)
            if all(hidden <= MOST_HIDDEN for hidden in hidden_shares([*things, thing])):
                break
        else:
            things = []  # a crowded corner: begin again
            continue
        things.append(thing)
    return Scene(background, tuple(things), seed)


def _draw_thing(rng, others):
    shape, colour = pick(rng, SHAPES), pick(rng, tuple(COLOURS))
    if others and rng.random() < 0.45:  # look-alikes: what makes attributes and counts matter
        alike = pick(rng, others)
        kind = rng.random()
        shape = alike.shape if kind < 0.65 else shape
        colour = alike.colour if kind > 0.35 else colour
    size = pick(rng, tuple(SIZES))
    radius = between(rng, *SIZES[size])
    x, y = (between(rng, radius, SIDE - radius) for _ in range(2))
    return Thing(shape, colour, size, x, y, radius, pick(rng, tuple(_TURNS)))


@lru_cache(maxsize=100)
def footprint(thing: Thing) -> np.ndarray:
    """(SIDE, SIDE) bool: the pixels of a thing with nothing in front of it. Do not write to it."""
    canvas = np.zeros((SIDE, SIDE), bool)
    mask = np.asarray(sprite(thing.shape, thing.radius, thing.turn)) > 127
    top, left = thing.y - thing.radius, thing.x - thing.radius
    canvas[top : top + len(mask), left : left + len(mask)] = mask
    return canvas


def hidden_shares(things) -> list[float]:
    """The share of each thing's pixels that later things cover."""
    prints = [footprint(thing) for thing in things]
    covered, shares = np.zeros((SIDE, SIDE), bool), []
    for mask in reversed(prints):
        shares.append(float((mask & covered).sum() / mask.sum()))
        covered |= mask
    return shares[::-1]


def draw(a_scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, SIDE x SIDE."""
    rng = random.Random(a_scene.seed + 500_000_000)
    picture = Image.fromarray(_background(a_scene.background, rng))
    for thing in a_scene.things:
        shift = between(rng, -14, 14)  # no two reds are quite the same
        fill = tuple(min(255, max(0, part + shift)) for part in COLOURS[thing.colour])
        outline = tuple(part * 5 // 8 for part in fill)
        inner = thing.radius - (2 if thing.size == "big" else 1)
        for radius, paint in ((thing.radius, outline), (inner, fill)):
            picture.paste(
                paint, (thing.x - radius, thing.y - radius), sprite(thing.shape, radius, thing.turn)
            )
    grain = _grain(a_scene.seed, levels=5).astype(np.int16) * 3 - 6 + between(rng, -10, 10)
    pixels = np.asarray(picture, np.int16) + grain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def _background(name, rng):
    (y, x), seed = _PLACES, between(rng, 0, 10**6)
    speckle = _grain(seed, levels=16) if name in ("sand", "night", "grass") else None
    period, phase = between(rng, 10, 16), between(rng, 0, 9)
    if name == "paper":
        plan, step = np.zeros_like(x), ((250, 248, 244), (0, 0, 0))
    elif name == "sky":
        plan, step = y, ((176, 214, 244), (70, 36, 8))
        plan = plan * 16 // SIDE
    elif name == "sand":
        plan, step = speckle, ((232, 212, 172), (16, 16, 20))
    elif name == "night":
        plan, step = (
            np.where(speckle == 15, 10, 0) * (_grain(period, levels=4) == 0),
            ((28, 32, 62), (190, 190, 150)),
        )
    elif name == "grass":
        plan, step = speckle * (x % 3 > 0), ((186, 222, 168), (-24, -14, -24))
    elif name == "stripes":
        plan, step = ((x + y + phase) // period % 2) * 16, ((238, 232, 246), (-26, -22, -10))
    elif name == "checks":
        plan, step = (
            (((x + phase) // period + (y + phase) // period) % 2) * 16,
            ((242, 242, 238), (-30, -30, -26)),
        )
    else:
        dx, dy = (x + phase) % period - period // 2, (y + phase) % period - period // 2
        plan, step = (dx * dx + dy * dy <= 9) * 16, ((250, 238, 226), (-16, -34, -30))
    base, change = (np.array(part, np.int64) for part in step)
    palette = np.clip(base + np.arange(17)[:, None] * change // 16, 0, 255).astype(np.uint8)
    return palette[plan]  # plan: whole numbers from 0 to 16


def _grain(seed, levels):
    """(SIDE, SIDE) int noise from 0 to levels - 1: a hash of seed and pixel, everywhere alike."""
    start = seed * 0x9E3779B97F4A7C15 % 2**64
    mixed = np.arange(SIDE * SIDE, dtype=np.uint64) + np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed >> np.uint64(33)) % np.uint64(levels)).astype(np.int64).reshape(SIDE, SIDE)
