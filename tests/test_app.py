"""The explorer without a browser: its searches are the retriever's, moves are places compared, what
comes from outside is text, and what cannot be done is one line.
"""

import io
import json
import random
import re
import socket
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from helpers import call, tiny_model, tokenizer
from PIL import Image

from tgdt_mini import Explorer, Gallery, Retriever, local_similarity, save_model, scenes
from tgdt_mini.app import page, server
from tgdt_mini.commands import common

ASKED = "a yellow star above a pink square"
HOSTILE = "<script>alert('x')</script> & \"$x$\" <img src=x onerror=y>"
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def shipped():
    return Retriever.from_pretrained("scenes", device="cpu")


@pytest.fixture
def explorer(shipped):
    return Explorer(ASKED, shipped)


@pytest.fixture
def panel(explorer):
    pytest.importorskip("anywidget")
    from tgdt_mini.app.widget import Panel

    return Panel(explorer)


@pytest.fixture
def searches(monkeypatch):
    """The settings of each search of a gallery, as they come."""
    seen, search = [], Gallery.search

    def counted(self, query, k, **settings):
        seen.append(settings)
        return search(self, query, k, **settings)

    monkeypatch.setattr(Gallery, "search", counted)
    return seen


class Page(HTMLParser):
    """What a browser would make of some HTML: its tags with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def say(panel, content=None, **said):
    """What the browser sends: what a person did, and the bytes of a file."""
    panel._handle_custom_msg(said, [] if content is None else [memoryview(content)])


def give(panel, content, name="mine.png"):
    say(panel, content, files=1, name=name, size=len(content))


# what it knows


def test_its_hits_are_those_of_the_retriever(explorer, shipped):
    for settings in ({}, {"shortlist": 20}, {"local_weight": 0.25}, {"shortlist": 500}):
        found = explorer.ask(**settings)
        known = shipped.search(
            ASKED, 10, shortlist=explorer.shortlist, local_weight=explorer.local_weight
        )
        assert found.items == known.items and torch.equal(found.scores, known.scores)
        assert [tile.item for tile in explorer.tiles] == known.items[0]
    assert explorer.hits.to_json() == found.to_json()


def test_each_question_is_one_search_and_what_is_not_named_stays(explorer, searches):
    explorer.ask(local_weight=0.5)
    explorer.ask(shortlist=20)
    explorer.ask("a red circle")
    asked = [(each["shortlist"], each["local_weight"]) for each in searches]
    assert asked == [(50, 0.5), (20, 0.5), (20, 0.5)]


def test_a_move_is_the_position_before_less_the_position_now(explorer, shipped):
    def order(shortlist, weight):
        hits = shipped.search(ASKED, shortlist, shortlist=shortlist, local_weight=weight)
        return hits.indices[0].tolist()

    assert [tile.up for tile in explorer.tiles] == [0] * 10
    draw, before = random.Random(3), order(explorer.shortlist, explorer.local_weight)
    shown = before[:10]
    for _ in range(12):
        settings = draw.choice((10, 20, 50, 200)), draw.choice((0.0, 0.25, 1.0, 3.0, 8.0))
        explorer.ask(shortlist=settings[0], local_weight=settings[1])
        now = order(*settings)
        if now[:10] != shown:
            positions = [before.index(row) if row in before else None for row in now[:10]]
            assert [tile.was for tile in explorer.tiles] == positions
            ups = [0 if was is None else was - position for position, was in enumerate(positions)]
            assert [tile.up for tile in explorer.tiles] == ups
        before, shown = now, now[:10]


def test_the_same_order_keeps_its_moves_and_another_caption_has_none(explorer):
    explorer.ask(local_weight=0.0)
    moves = [tile.was for tile in explorer.tiles]
    assert any(tile.up for tile in explorer.tiles)
    explorer.ask(local_weight=0.0)
    assert [tile.was for tile in explorer.tiles] == moves
    explorer.ask("two hearts")
    assert [tile.was for tile in explorer.tiles] == list(range(10))


def test_who_was_not_on_the_shortlist_is_new(explorer):
    explorer.ask(shortlist=10, local_weight=8.0)
    known = {tile.row for tile in explorer.tiles}
    explorer.ask(shortlist=1000)
    assert (
        {tile.row for tile in explorer.tiles if tile.was is None}
        == {tile.row for tile in explorer.tiles} - known
        != set()
    )


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"query": " "}, "at least one word"),
        ({"query": "a star " * 200}, "query has 1,400 characters; give 1,000 at most"),
        ({"query": 3}, "an image is a int; give"),
        ({"shortlist": 0}, "shortlist is 0"),
        ({"shortlist": 2.5}, "shortlist is 2.5"),
        ({"local_weight": float("nan")}, "local_weight is nan"),
    ],
)
def test_a_refused_question_changes_nothing(explorer, settings, words):
    before = explorer.query, explorer.tiles, explorer.shortlist, explorer.local_weight
    with pytest.raises((ValueError, TypeError), match=words):
        explorer.ask(**settings)
    assert before == (explorer.query, explorer.tiles, explorer.shortlist, explorer.local_weight)


def test_a_gallery_of_pictures_is_needed(shipped, tmp_path):
    save_model(tiny_model(), tmp_path / "model", tokenizer())
    empty = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match="call retriever.index"):
        Explorer(ASKED, empty)
    with pytest.raises(ValueError, match="call retriever.index"):
        Explorer(ASKED, empty.index_texts(["a star"]))
    few = empty.index([scenes.picture("test-0001"), scenes.picture("test-0002")], progress=False)
    small = Explorer("a star", few)
    assert small.k == 2 and len(small.tiles) == 2 and small.shortlists == [2]


def test_lengths_to_choose_from_hold_the_model_s_own_and_all(explorer):
    assert explorer.shortlists == [10, 20, 50, 100, 200, 500, 1000]
    explorer.ask(shortlist=33)
    assert 33 in explorer.shortlists


def test_a_picture_is_compared_with_captions_and_the_right_one_comes_first(shipped):
    picture = scenes.picture("test-0012")
    own = "a square in orange is lower than a pointer on a plain white sheet"  # of this scene
    explorer = Explorer(picture, shipped, captions=["two hearts", own, "a red star on the grass"])
    assert explorer.searched == 3 and explorer.hits.items[0][0] == own
    shown, words, similarities, boxes = explorer.look(explorer.tiles[0])
    assert png(shown) == png(picture) and len(words) == len(similarities)
    assert "test-0012" in explorer.ask(own).items[0] and explorer.searched == 1000


def test_without_known_captions_those_asked_before_are_compared(shipped, monkeypatch):
    monkeypatch.setattr(Retriever, "knows_photographs", property(lambda self: True))
    explorer = Explorer("a red star", shipped)
    explorer.ask("a blue circle")
    explorer.ask(scenes.picture("test-0012"))
    assert sorted(explorer.hits.items[0]) == ["a blue circle", "a red star"]
    explorer.ask("two hearts")
    explorer.ask(scenes.picture("test-0012"))
    assert sorted(explorer.hits.items[0]) == ["a blue circle", "a red star", "two hearts"]
    with pytest.raises(ValueError, match="write one first"):
        Explorer(scenes.picture("test-0012"), shipped)


def test_words_look_by_the_similarities_that_the_local_score_is_made_of(explorer, shipped):
    picture, words, similarities, boxes = explorer.look(explorer.tiles[0])
    assert words == ["a", "yellow", "star", "above", "a", "pink", "square"]
    assert similarities.shape == (len(words), len(boxes)) and boxes.shape[1] == 4
    pair = shipped.encode_images(picture), shipped.encode_texts(ASKED)
    known = local_similarity(*pair)[0, 0]
    torch.testing.assert_close(similarities.amax(dim=1).mean(), known, atol=1e-4, rtol=0)


# what a person sees


def test_what_comes_from_outside_is_text(shipped):
    picture = scenes.picture("test-0001")
    own = Retriever(shipped.model, None)
    own.index([picture, scenes.picture("test-0002")], [HOSTILE, "b"], progress=False)
    with pytest.warns(UserWarning, match="cut to 40 tokens"):
        explorer = Explorer(HOSTILE, own)
        explorer.ask(local_weight=0.0)
    tiles = "".join(
        page.tile_html(tile, content, 10)
        for tile in explorer.tiles
        for content in (picture, HOSTILE)
    )
    line = page.line_html(explorer, [HOSTILE])
    look = page.look_html(
        picture, [HOSTILE], torch.ones(1, 1), torch.tensor([[0, 0, 1, 1]]), HOSTILE
    )
    for html in (tiles, line, look, page.wrong_html(HOSTILE)):
        seen = Page(html)
        assert HOSTILE in seen.text and not seen.all("script")
        for attributes in seen.all("img"):
            assert attributes["src"].startswith("data:image/png;base64,")
            assert set(attributes) == {"alt", "src"} and attributes["alt"]
    assert any(attributes.get("title") == HOSTILE for attributes in Page(tiles).all("div"))


def test_a_file_is_called_by_its_name_and_a_caption_with_a_slash_stays(tmp_path):
    assert page.name_of(str(tmp_path / "my dog.jpg")) == "my dog.jpg"
    assert page.name_of("a cup / a spoon") == "a cup / a spoon" and page.name_of(7) == "7"
    assert page.name_of("two\nlines") == "two\\nlines"


def test_a_tile_says_and_shows_how_far_it_has_moved(explorer):
    explorer.ask(local_weight=0.0)
    pictures = scenes.picture("test-0001")
    for tile in explorer.tiles:
        seen = Page(page.tile_html(tile, pictures, 10))
        (box,), (image,) = seen.all("div"), seen.all("img")
        start = tile.position if tile.was is None else min(tile.was, 10)
        assert box["style"] == f"--was: {start}; --is: {tile.position}"
        moved = tile.was is not None and tile.was != tile.position
        assert ("tgdt-moved" in box["class"]) == moved == bool(seen.text)
        way = {True: "up", False: "down"}[tile.up > 0]
        assert image["alt"].endswith(f", {abs(tile.up)} {way}") == moved
        assert not moved or seen.text.endswith(f" {abs(tile.up)}")
    assert {tile.up > 0 for tile in explorer.tiles if tile.up} == {True, False}


def test_a_notebook_shows_a_page_or_the_same_picture_without_it(explorer, monkeypatch):
    pytest.importorskip("anywidget")
    with_page, metadata = explorer._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "tgdt_mini.app.widget", raising=False)
    without, same = explorer._repr_mimebundle_()
    assert set(with_page) - set(without) == {VIEW} and metadata == same
    assert all(with_page[kind] == without[kind] for kind in without)
    (kind,) = set(without) - {"text/plain"}
    assert kind in ("image/png", "image/jpeg")  # as it is smaller
    assert metadata[kind]["alt"] == without["text/plain"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    table, _ = explorer._repr_mimebundle_()
    assert set(table) == {"text/plain", "text/html"} and "test-0644" in table["text/html"]


def test_a_slider_is_one_search_and_the_last_of_many_moves_wins(panel, searches):
    for weight in (2.0, 0.5, 0.0, 3.0, 0.25):  # none is the one that the model begins with
        panel.set_state({"local_weight": weight})
    assert [each["local_weight"] for each in searches] == [2.0, 0.5, 0.0, 3.0, 0.25]
    panel.set_state({"shortlist": 20})
    assert searches[-1] == {"shortlist": 20, "local_weight": 0.25} and len(searches) == 6
    known = [f"{tile.position + 1}: {tile.score:.3f}" for tile in panel.explorer.tiles]
    assert panel.names == known
    say(panel, caption="two hearts")
    say(panel, caption="two hearts")  # nothing has changed since
    assert len(searches) == 7 and panel.explorer.query == "two hearts"


@pytest.mark.parametrize("chosen, weights", [(-1.0, [-1, 8]), (9.5, [0, 9.5]), (1.5, [0, 8])])
def test_sliders_offer_the_settings_that_are_in_use(panel, chosen, weights):
    panel.explorer.ask(shortlist=33, local_weight=chosen)
    again = type(panel)(panel.explorer)
    assert (again.shortlist, again.local_weight, again.weights) == (33, chosen, weights)
    assert again.lengths == panel.explorer.shortlists and 33 in again.lengths


def test_a_hit_that_keeps_its_order_is_not_sent_again(panel):
    panel.local_weight = 0.0
    before = panel.tiles
    assert any("tgdt-moved" in html for html in before)
    panel.explorer.ask(local_weight=0.0)
    panel.show()
    assert panel.tiles is before


def test_the_page_gets_all_that_a_search_changes_at_once(panel, monkeypatch):
    sent = []
    monkeypatch.setattr(panel, "_send", lambda message, buffers=None: sent.append(message))
    say(panel, caption="two hearts")
    panel.set_state({"local_weight": 0.0})
    say(panel, hit=1)
    changed = [set(message["state"]) for message in sent if message["method"] == "update"]
    assert [{"line", "tiles", "names"} <= each for each in changed] == [True, True, False]
    assert changed[2] == {"look", "chosen"}


def test_a_click_shows_where_the_words_look_and_another_one_hides_it(panel):
    say(panel, hit=2)
    seen = Page(panel.look)
    assert len(seen.all("figure")) == 7 and "yellow" in seen.text and panel.chosen == 2
    say(panel, hit=4)
    assert panel.chosen == 4
    for nonsense in ({"hit": 10}, {"hit": -1}, {"hit": "4"}, {"caption": 4}, {"files": 1}, {}):
        say(panel, **nonsense)
    assert panel.chosen == 4 and panel.explorer.query == ASKED
    say(panel, hit=4)
    assert not panel.look and panel.chosen == -1
    say(panel, hit=0)
    say(panel, caption="two hearts")
    assert not panel.look and panel.chosen == -1


@pytest.mark.parametrize("caption", ["", "   ", "\n", "a star " * 200])
def test_a_caption_without_a_word_is_one_friendly_line(panel, searches, caption):
    say(panel, caption=caption)
    assert not searches and panel.explorer.query == ASKED and panel.stale
    (line,) = [line for line in Page(panel.line).text.splitlines() if line]
    assert len(line) < 200
    say(panel, caption=ASKED)  # as before: the hits are right again
    assert not panel.stale and len(searches) == 1


def test_words_that_the_model_never_saw_are_named(panel):
    say(panel, caption="a dog beside a red star")
    assert "never seen 'dog', 'beside'" in Page(panel.line).text or (
        "never seen 'dog'" in Page(panel.line).text
    )


def test_a_picture_that_comes_is_searched_by_and_anything_else_is_one_line(panel, searches):
    panel.explorer._captions = ["a red star", "two hearts"]
    for content, name in ((b"no picture", "<b>.png"), (b"", "folder"), (b"\x89PNG\r\n", "cut.png")):
        give(panel, content, name)
        assert f"image {name} cannot be read: it is no picture" in Page(panel.line).text
    for said, words in (
        (dict(files=0, name="", size=0), "That is no file; give the file of a picture"),
        (dict(files=2, name="a", size=9), "These are 2 files; give one picture at a time"),
        (dict(files=1, name="<a>", size=2**25), "<a> has 32 MB; give a picture of 9 MB at most"),
    ):
        say(panel, **said)
        assert Page(panel.line).text == words and panel.stale
    assert not searches
    give(panel, png(scenes.picture("test-0003")))
    assert len(searches) == 1 and panel.explorer.searched == 2
    assert len(panel.tiles) == len(panel.names) == 2
    say(panel, hit=1)
    assert Page(panel.look).all("figure")
    say(panel, caption=ASKED)  # back to the caption
    assert len(searches) == 2 and len(panel.tiles) == 10


def test_what_the_page_reads_and_writes_is_what_the_panel_has(panel):
    script = Path(page.__file__).with_name("panel.js").read_text(encoding="utf-8")
    named = re.findall(r'model\.get\("(\w+)"\)', script)
    (shown,) = re.findall(r"const shown = \[([^]]+)\]", script)
    assert len(named) > 8 and set(named) | set(re.findall(r"\w+", shown)) <= set(panel.keys)


# how it is served


def test_the_served_notebook_is_one_cell_that_shows_what_was_asked_for(monkeypatch):
    options = {"model": 'a"b', "gallery": None, "device": "cpu"}
    book = nbformat.from_dict(server.notebook_of(options))
    nbformat.validate(book)
    seen = []
    monkeypatch.setattr(server, "page", lambda **given: seen.append(given))
    exec(book.cells[0].source, {})
    assert seen == [options] and json.dumps(server.notebook_of(options))


def test_what_is_opened_is_what_the_options_name(tmp_path, shipped):
    photographs = server.opened(gallery=None, device="cpu")
    assert len(photographs.retriever.gallery) == 1000 and photographs.query == server.ON_SCENES
    shipped.gallery.save(tmp_path / "gallery")
    found = server.opened(gallery=str(tmp_path / "gallery"), device="cpu")
    assert found.hits.items == photographs.hits.items
    save_model(tiny_model(), tmp_path / "model", tokenizer())
    for options, words in (
        ({"gallery": str(tmp_path / "nowhere")}, "make a gallery of your pictures first"),
        ({"model": str(tmp_path / "model")}, "has no gallery; name one that index made"),
        (
            {"model": str(tmp_path / "model"), "gallery": str(tmp_path / "gallery")},
            "built by another model",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            server.opened(**options, device="cpu")


def test_a_port_in_use_is_refused_and_0_is_any_free_one():
    assert server.free_port("127.0.0.1", 0) > 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port}, cannot be served .*--port, 0 for any"):
            server.free_port("127.0.0.1", port)
    assert server.free_port("127.0.0.1", port) == port
    for host, number, words in (
        ("203.0.113.7", 0, "203.0.113.7, port 0, cannot be served"),
        ("127.0.0.1", 65536, "port is 65536"),
        ("127.0.0.1", -1, "port is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            server.free_port(host, number)


def test_only_this_machine_is_loopback():
    assert all(map(server.is_loopback, ("127.0.0.1", "127.8.0.1", "::1", "localhost")))
    assert not any(map(server.is_loopback, ("0.0.0.0", "192.168.0.4", "::", "example.org")))


def test_the_command_says_what_is_missing_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda name: None)
    code, out, err = call(capsys, "app")
    assert code == 2 and not out and len(err.splitlines()) == 1
    assert "pip install -e '.[app]'" in err
    monkeypatch.setattr(common, "need", lambda *names: None)
    code, _, err = call(capsys, "app", "--gallery", tmp_path / "nothing", "--port", "0")
    assert code == 2 and len(err.splitlines()) == 1 and "--model photographs --out" in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = call(capsys, "app", "--port", port)
    assert code == 2 and len(err.splitlines()) == 1 and f"port {port}" in err
    assert not any(Path(tmp_path).iterdir())


def test_a_picture_that_is_gone_is_told(shipped, tmp_path):
    path = tmp_path / "mine.png"
    scenes.picture("test-0005").save(path)
    own = Retriever(shipped.model, None).index([str(path)], progress=False)
    explorer = Explorer("a star", own)
    assert isinstance(explorer.picture(explorer.tiles[0]), Image.Image)
    path.unlink()
    with pytest.raises(ValueError, match="was the file moved"):
        explorer.look(explorer.tiles[0])
