"""The catalog tells the truth: states come from files, cards and signatures from source, and nothing is imported."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from steepest.app import catalog
from steepest.app.catalog import List, Show, entries, find
from steepest.app.check import Check
from steepest.app.compare import Compare, judged, made_by, spoken
from steepest.app.names import find_problem, find_system
from steepest.app.reproduce import Reproduce, locate

CARD = '''"""NEW: a sentence that a
newcomer understands.

Paper.  A. Author, A title, 2026. arXiv 1.
Claim.  It is better
        than the other.
Idea.   x = y
State.  none
"""
'''
PARENT = (
    CARD.replace("NEW", "OLD")
    + '''
def old(*, lr: float = 1e-3, group: int = 8):
    """The parent.

    lr     learning rate
    group  answers a prompt
    """
    return lr  # <- the idea
'''
)
CHILD = (
    CARD
    + '''
from .old import old
from ...core import extends


@extends(old)
def new(*, target: float = 1.0, lr: float = 2e-3, **options):
    """The child.

    target  what is aimed at (reward;
            section 3)
    lr      learning rate, doubled
    """
    return old(lr=lr, **options)  # <- the idea
'''
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A house of four papers and one baseline, with files as a test puts them."""
    home = tmp_path / "steepest"
    for folder in ("systems/robust", "evidence/robust", "app/data"):
        (home / folder).mkdir(parents=True)
    rows = [f"{k}\t{slug}\trobust\talgorithm\t001\tPaper {k}" for k, slug in enumerate(("new", "half", "gone", "won"))]
    (home / "app/data/systems.tsv").write_text("index\tslug\tfamily\tkind\tseeds\ttitle\n" + "\n".join(rows) + "\n")
    (home / "systems/robust/new.py").write_text(CHILD)
    (home / "systems/robust/old.py").write_text(PARENT)
    (home / "systems/robust/half.py").write_text("def half(): ...\n")  # no card: not built
    (home / "systems/robust/won.py").write_text(CARD + "\ndef won(*, a: int): ...\n")
    (home / "systems/robust/__init__.py").write_text("")
    record = {
        "verdict": "shown",
        "says": "it wins",
        "gap": 1.0,
        "low": 0.5,
        "high": 1.5,
        "unit": "points",
        "why": "",
        "seeds": [0, 1],
    }
    (home / "evidence/robust/won.json").write_text(json.dumps({**record, "date": "2026-11-24T00:00:00"}))
    monkeypatch.setattr(catalog, "HOME", home)
    return home


def test_every_paper_of_the_catalog_is_there_once():
    papers = [entry for entry in entries() if entry.kind != "baseline"]
    assert len(papers) == 296
    assert len({entry.slug for entry in papers}) == 296
    assert all(entry.title and entry.family.isidentifier() and entry.slug.isidentifier() for entry in papers)


def test_states_follow_the_files(tree):
    assert {entry.slug: entry.state for entry in entries()} == {
        "new": "built", "half": "planned", "gone": "planned", "won": "shown", "old": "baseline",
    }  # fmt: skip
    record = tree / "evidence/robust/won.json"
    record.write_text(record.read_text().replace('"shown"', '"not shown"'))
    assert find("won").state == "not shown"
    record.unlink()
    assert find("won").state == "built"
    (tree / "systems/robust/won.py").unlink()
    assert find("won").state == "planned"


def test_a_system_outside_the_catalog_that_claims_something_is_judged_too(tree):
    (tree / "evidence/robust/old.py").write_text("claim = 0\n")
    assert (find("old").kind, find("old").state) == ("baseline", "built")
    record = (tree / "evidence/robust/won.json").read_text()
    (tree / "evidence/robust/old.json").write_text(record.replace('"shown"', '"not shown"'))
    assert find("old").state == "not shown"


def test_options_that_a_child_drops_and_slots_are_told_apart(tree):
    path = tree / "systems/robust/new.py"
    path.write_text(CHILD.replace("extends(old)", 'extends(old, without=("group",))').replace("target: float", "target: Update"))
    assert [o.flag for o in catalog.options(path)] == ["target", "--lr"]


def test_a_broken_record_is_named(tree):
    (tree / "evidence/robust/won.json").write_text('{"verdict": "perhaps"}')
    with pytest.raises(ValueError, match=r"won\.json is not a claim's record.*perhaps.*steepest reproduce won"):
        entries()


def test_options_of_a_child_are_its_own_then_its_parents(tree):
    found = {o.name: (o.default, o.help, o.owner) for o in catalog.options(tree / "systems/robust/new.py")}
    assert list(found) == ["target", "lr", "group"]
    assert found["target"] == ("1.0", "what is aimed at (reward; section 3)", "new")
    assert found["lr"] == ("0.002", "learning rate, doubled", "new")
    assert found["group"] == ("8", "answers a prompt", "old")
    assert catalog.options(tree / "systems/robust/won.py")[0].default == "required"


def test_a_card_is_read_whole(tree):
    assert catalog.card(tree / "systems/robust/new.py") == {
        "": "NEW: a sentence that a newcomer understands.", "Paper": "A. Author, A title, 2026. arXiv 1.",
        "Claim": "It is better\nthan the other.", "Idea": "x = y", "State": "none",
    }  # fmt: skip


def test_list_and_show_print_and_filter(tree, capsys):
    List(state="not_shown").run()
    assert "none" in capsys.readouterr().out
    List(json=True, family="robust").run()
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"shown": 1, "not shown": 0, "built": 1, "planned": 2, "baseline": 1}
    assert Counter(row["state"] for row in told["systems"]) == Counter({"planned": 2, "shown": 1, "built": 1, "baseline": 1})
    List().run()
    assert "2 planned" in capsys.readouterr().out
    Show("won").run()
    assert "shown: gap +1, 95 % interval [0.5, 1.5] over 2 seeds" in " ".join(capsys.readouterr().out.split())
    Show("new", json=True).run()
    told = json.loads(capsys.readouterr().out)
    assert told["card"]["Idea"] == "x = y"
    assert told["record"] is None
    Show("gone").run()
    assert "Planned" in capsys.readouterr().out


def test_wrong_names_suggest_the_nearest():
    with pytest.raises(ValueError, match=r"nearest: .*drpg"):
        find("drgp")
    with pytest.raises(ValueError, match="nearest: icpi"):
        find("ICPI")
    with pytest.raises(ValueError, match="no family is called 'robots': choose one of"):
        List(family="robots").run()
    with pytest.raises(ValueError, match="no state is called"):
        List(state="done").run()


def test_what_cannot_be_reproduced_says_why(tree):
    with pytest.raises(ValueError, match=r"gone .* is planned"):
        locate("gone")
    with pytest.raises(ValueError, match="won has no claim"):
        locate("won")


def test_listing_imports_no_torch():
    code = "import sys; from steepest.app.catalog import List; List(json=True).run(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# ------------------------------------------------------------------------------------ check, reproduce and compare


def test_check_runs_the_laws_on_a_claim_and_on_a_named_problem(capsys):
    assert Check("tests.claims", half=1, json=True).run() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] is None
    assert "system: resume is bitwise in a fresh process" in told["laws"]
    assert Check("tests.claims.forgetful", problem="tests.toy.Arms(arms=3)", half=1, json=True).run() == 1
    assert "COUNTS" in json.loads(capsys.readouterr().out)["failed"]


def test_check_without_a_claim_asks_for_a_problem(tree):
    with pytest.raises(ValueError, match=r"won has no claim.*With --problem"):
        Check("won").run()


def test_reproduce_writes_record_and_picture(tmp_path, capsys):
    assert Reproduce("tests.claims", seeds=2, workers=1, out=tmp_path, json=True).run() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "claims.json").read_text())
    assert (tmp_path / "claims.png").read_bytes().startswith(b"\x89PNG")


def test_names_carry_options():
    assert spoken("grpo") == ("grpo", {})
    assert spoken("my.module.grpo(lr=2e-4, name='x', sizes=(1, 2))") == (
        "my.module.grpo",
        {"lr": 2e-4, "name": "x", "sizes": (1, 2)},
    )
    for bad in ("grpo(lr=", "grpo(2)", "grpo(lr=2 + x)"):
        with pytest.raises(ValueError, match="cannot read"):
            spoken(bad)
    with pytest.raises(ValueError, match=r"cannot read .*: lr takes plain values, not open\('x'\)"):
        made_by("grpo(lr=open('x'))", find_system)
    with pytest.raises(ValueError, match="has no option 'rate'; it has lr, passes"):
        made_by("tests.claims.steady(rate=1)", find_system)


def test_scores_of_several_problems_are_scaled_first():
    small, large = np.array([[0.0], [1.0]]), np.array([[0.0], [1000.0]])
    found = judged({"a": np.hstack([small, large]), "b": np.hstack([small + 1, large + 1000])}, 100)
    assert found["a"]["scores"] == [[0.0, 0.0], [0.5, 0.5]]
    assert found["b"]["mean"] == 0.75
    assert found["b"]["improvement"]["estimate"] == 0.875
    assert "improvement" not in found["a"]


def test_compare_trains_judges_and_draws(tmp_path, capsys):
    systems = ("tests.claims.steady(lr=0.5)", "tests.claims.steady(lr=1e-6)")
    Compare(systems, ("tests.toy.Arms",), seeds=2, steps=15, workers=1, repetitions=500, out=tmp_path, json=True).run()
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "compare.json").read_text())
    good, bad = (told["summary"][name] for name in systems)
    assert good["iqm"]["estimate"] == 1.0
    assert bad["improvement"]["high"] < 0.5
    assert told["figure"] == ["accuracy"]
    assert told["options"][systems[1]] == {"lr": 1e-6, "passes": 2}
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_compare_refuses_before_any_work(tmp_path):
    for systems, problem, seeds, said in (
        (("tests.claims.steady",), ("tests.toy.Arms",), 2, "at least two different systems"),
        (("tests.claims.steady",) * 2, ("tests.toy.Arms",), 2, "at least two different systems"),
        (("tests.claims.steady", "tests.claims.steady(lr=1)"), ("tests.toy.Arms",), 1, "at least two seeds"),
        (("tests.claims.steady", "tests.claims.steady(rate=1)"), ("tests.toy.Arms",), 2, "has no option 'rate'"),
        (("tests.claims.steady", "tests.claims.steady(lr=1)"), ("tests.toy.Arms(legs=2)",), 2, "has no option 'legs'"),
    ):
        with pytest.raises(ValueError, match=said):
            Compare(systems, problem, seeds=seeds, out=tmp_path / "out").run()
    assert not Path(tmp_path / "out").exists()


def test_a_dotted_name_is_the_users_own():
    assert find_system("tests.claims.steady").__name__ == "steady"
    assert find_problem("tests.toy.Arms")(arms=3).arms == 3
    for bad in ("tests.claims.nothing", "no.such.module"):
        with pytest.raises(ValueError, match=r"MODULE.FUNCTION, importable"):
            find_system(bad)


def test_every_system_with_a_claim_trains_where_its_claim_does():
    """`steepest train NAME` asks for no problem: the claim's has a name of the command line."""
    from steepest.app.names import all_systems, find_claim
    from steepest.app.plan import usual_problem

    claims = {name: claim for name in all_systems() if (claim := find_claim(name)) is not None}
    assert len(claims) > 50
    assert all(usual_problem(claim) for claim in claims.values())
    assert find_claim("compute_optimal_tts") is None  # an analysis alone


def test_show_tells_what_an_analysis_found(steepest):
    status, out, _ = steepest("show compute_optimal_tts")
    assert status == 0
    assert "compute_optimal_tts.analysis.json" in out
    assert "not run yet" not in out
    assert "steepest analyse compute_optimal_tts" in out
    assert "steepest reproduce" not in out
    assert steepest("reproduce compute_optimal_tts")[0] == 2
    status, out, _ = steepest("show rls_razor")
    assert "shown: gap" in out
    assert "rls_razor.analysis.json" in out
