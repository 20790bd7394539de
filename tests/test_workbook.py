"""The reader's copies of the chapters: gaps fail with a message, and pass when they are filled.

A chapter is not run here, nbval does that: of each chapter only the cells that its gaps and their
checks need are run, in this process.
"""

import ast
import builtins
import contextlib
import io
import re
import symtable

import nbformat
import pytest
from test_notebooks import BOOKS, refresh

GAPPED = [path for path in BOOKS if '"gap"' in path.read_text(encoding="utf-8")]
CHAPTERS = ["01", "02", "03", "04", "05", "06", "07", "08"]
# one mistake for each gap: (text of the solution, what stands there instead, the answer)
MISTAKES = {
    "rank_by_hand": ("score >= best", "score > best", "Equally high counts against"),
    "recall_by_hand": ("rank < k", "rank <= k", "Ranks begin at 0"),
    "chance": ("100 * k / images", "100 * k / captions", "text to image: k / I"),
    "oracle_by_hand": ("min(1, k / count)", "k / count", "at most 1"),
    "pairs_of": ("+= counts[word]", "+= 1", "as often as it occurs"),
    "merge": ("result[-1] = glue(pair)", "result.append(glue(pair))", "the place of both"),
    "main_by_hand": ("max(abs(a - b)", "sum(abs(a - b)", "not all together"),
    "flood": ("inside = 0 <= near[0]", "inside = near[0]", "stay inside"),
    "box_by_hand": ("max(xs) + 2", "max(xs) + 1", "edges, with a border"),
    "attend_one": (" / math.sqrt(len(query))", "", "division by sqrt"),
    "attention": ("softmax(dim=-1)", "softmax(dim=-2)", "along its row"),
    "norm": ("keepdim=True) + eps", "keepdim=True) * 3 / 2", "over D, not D - 1"),
    "multi_head": (" + out_bias", "", "has a bias"),
    "layer_by_hand": ("return x + hidden", "return hidden", "two sums"),
    "window_by_hand": ("words + bias", "0 * words + bias", "added to the word itself"),
    "word_tokens_by_hand": ("[: len(ids)]", "[1 : len(ids) + 1]", "count from 0"),
    "region_tokens_by_hand": ("return tokens +", "return tokens + 0 *", "path of its own"),
    "branch_by_hand": ("local[1:]", "local", "Slot 0 is no local token"),
    "shares_by_hand": ("math.exp(fit) if", "math.exp(fit) if True or", "still has a share"),
    "cosine": (" / math.sqrt(", " / (", "square root"),
    "maxsim": (" / len(similarity)", "", "the sum: divide"),
    "local_by_hand": ("if is_region", "", "padded region took part"),
    "pull_by_hand": ("gradient[winner]", "gradient[:]", "pulls its winner only"),
    "row_loss": ("score / temperature", "score", "temperature is missing"),
    "info_nce_by_hand": (" + scores.T.tolist()", "", "each column is a question"),
    "hinges": ("if j != right", "", "not its own rival"),
    "hinge_by_hand": ("(scores, scores.T)", "(scores,)", "columns have hinges"),
    "hinges_apart": ("ids[j] != ids[right]", "j != right", "no negative"),
    "consistency_by_hand": ("worst - margin", "worst", "margin is missing"),
    "cmc_by_hand": ("ids.tolist()", "list(range(len(ids)))", "no negatives of each other"),
    "step_by_hand": ("model.train()", "model.eval()", "model.train.. is missing"),
    "clipped": ("min(1.0, most / length)", "most / length", "stays as it is"),
    "rate_by_hand": ("(step + 1)", "step", "first step is step 0"),
    "orthogonal": ("gradient / gradient.norm()", "gradient", "divide by the norm first"),
    "cost_of_two_stages": ("min(shortlist, gallery)", "shortlist", "longer than its gallery"),
    "shortlist_of": ("-scores[place]", "scores[place]", "sort places"),
    "rerank": ("weight * by_local", "by_local", "weight is missing"),
    "kept_by_hand": ("return 100 *", "return", "In percent"),
    "rank_in_list": ("return math.inf", "return 0", "not the best rank"),
    "spread_by_hand": ("(len(numbers) - 1)", "len(numbers)", "Divide by n - 1"),
    "look": (".masked_fill(~mask, -math.inf)", "", "Padding takes part"),
    "learn_from": (" + of(by_local)", "", "Both tables count"),
    "search_mine": ("weight * by_local", "0 * by_local", "second look is missing"),
}
of_each = pytest.mark.parametrize("path", GAPPED, ids=[path.stem for path in GAPPED])


def read(path):
    return nbformat.read(path, as_version=4)


def functions(source):
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def names(source):
    """(names that a cell makes at its top, names that it takes from other cells)."""
    top = symtable.symtable(source, "cell", "exec")
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    taken, scopes = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, [top]
    while scopes:
        scopes += (inner := scopes.pop().get_children())
        taken |= {s.get_name() for scope in inner for s in scope.get_symbols() if s.is_global()}
    return made, taken - made - set(dir(builtins))


def steps(book):
    """[(cell, is_gap, is_check)] of those that the gaps and their checks need, in order."""
    cells, chosen, wanted = [c for c in book.cells if c.cell_type == "code"], [], set()
    gaps = {i for i, cell in enumerate(cells) if refresh.GAP in cell.metadata}
    for i in reversed(range(len(cells))):
        made, uses = names(cells[i].source)
        if i in gaps or i - 1 in gaps or made & wanted:
            wanted = wanted - made | uses
            chosen.append((cells[i], i in gaps, i - 1 in gaps))
    return chosen[::-1]


def run(source, space):
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "cell", "exec"), space)


def refused(check, space):
    """The message with which a check refuses what is written so far."""
    with pytest.raises((AssertionError, NotImplementedError)) as error:
        run(check, dict(space))
    return str(error.value)


def test_the_chapters_that_build_the_core_have_gaps():
    assert [path.stem[:2] for path in GAPPED] == CHAPTERS
    for path in GAPPED:
        stars = [c.metadata[refresh.GAP]["stars"] for c in read(path).cells if "gap" in c.metadata]
        assert len(stars) >= 3 and min(stars) == 1 and max(stars) >= 2, "easy and hard ones"


@of_each
def test_a_gap_has_stars_minutes_a_hint_and_documented_functions(path):
    for cell in read(path).cells:
        if refresh.GAP in cell.metadata:
            gap = cell.metadata[refresh.GAP]
            assert set(gap) == {"stars", "minutes", "hint"}
            assert gap["stars"] in (1, 2, 3) and 5 <= gap["minutes"] <= 40 and len(gap["hint"]) > 20
            tree = ast.parse(cell.source)
            assert all(ast.get_docstring(n) for n in tree.body if isinstance(n, ast.FunctionDef))


@of_each
def test_a_copy_filled_with_its_solutions_is_the_stored_chapter(path):
    book = read(path)
    copy = refresh.workbook(book)
    nbformat.validate(copy)
    gaps = [cell for cell in copy.cells if refresh.GAP in cell.metadata]
    assert gaps and all("is not written yet" in cell.source for cell in gaps)
    assert not any(cell.get("outputs") for cell in copy.cells)
    for cell in copy.cells[1:]:
        if cell.id.endswith("-help") and "workbook" not in cell.id:
            for summary in ("<summary>Hint</summary>", "<summary>Solution</summary>"):
                assert cell.source.count(summary) == 1
    filled = refresh.filled(copy)
    assert [(c.id, c.source) for c in filled.cells] == [(c.id, c.source) for c in book.cells]


@of_each
def test_a_copy_fails_in_its_gaps_only_and_says_what_is_missing(path, monkeypatch):
    """A check refuses an empty gap, one without a return and a mistake; then it is solved."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    space, waiting = {"__name__": "__main__"}, ""
    for cell, is_gap, is_check in steps(read(path)):
        if is_gap:
            waiting = cell.source
            continue
        if is_check:
            for name in functions(waiting):
                run(waiting, space)
                space[name] = _blank(waiting, name)
                assert f"{name} is not written yet" in refused(cell.source, space), name
                space[name] = lambda *arguments, **named: None
                space[name].__name__ = name
                assert re.search(r"does it end with a return\?", refused(cell.source, space)), name
                right, wrong, answer = MISTAKES[name]
                assert waiting.count(right) == 1, name
                run(waiting.replace(right, wrong), space)
                assert re.search(answer, told := refused(cell.source, space)), f"{name}: {told}"
            run(waiting, space)
        run(cell.source, space)


def _blank(source, name):
    space = {}
    run(refresh.blank(source), space)
    return space[name]


def test_a_gap_keeps_all_but_the_bodies_of_its_functions():
    lines = [
        "import math",
        "",
        "def f(a):",
        '    """Half."""',
        "    b = a / 2",
        "    return b",
        "N = 1",
    ]
    source = "\n".join(lines)
    blank = refresh.blank(source)
    assert "import math" in blank and '"""Half."""' in blank and "N = 1" in blank
    assert "return" not in blank and "b = a" not in blank
    with pytest.raises(NotImplementedError, match="^f is not written yet$"):
        _blank(source, "f")(1)
    with pytest.raises(ValueError, match="needs a function"):
        refresh.blank("N = 1")


def test_copies_are_written_beside_no_work_and_their_links_lead_somewhere(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in BOOKS:
        assert refresh.write_workbook(path, folder) == ""
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in BOOKS]
    for path in folder.iterdir():
        text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
            assert (folder / target).exists(), f"{path.name}: {target}"
    mine = folder / BOOKS[4].name
    mine.write_text("my work", encoding="utf-8")
    assert "choose another folder" in refresh.write_workbook(BOOKS[4], folder)
    assert mine.read_text(encoding="utf-8") == "my work"
