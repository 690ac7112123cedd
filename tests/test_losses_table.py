"""Losses by their names on the command line, and the table of losses: cells that go on, and the page made of them."""

import json

import pytest

from steepest.app import losses, names
from steepest.app.losses import KINDS, Kind, candidates, kind_of, path_of, read, there

from .pages import ROOT

FAMILY = {"bapo", "cispo", "clip", "cpgd", "gspo", "m2po", "rapid", "regress", "reinforce", "surrogate", "topr"}
SMALL = (("envs", 2), ("horizon", 8), ("minibatches", 1), ("epochs", 1), ("width", 8))
TINY = Kind("control", "ppo", "CartPole(limit=20)", "return", 1, SMALL)


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return __import__("losses_page")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(losses, "KINDS", (TINY,))


def test_the_losses_of_the_table_need_ratios_and_advantages_alone():
    """Bug that it catches: a loss that asks for a reference or a column of its own, which no other system writes."""
    assert set(candidates()) >= FAMILY
    assert not set(candidates()) & {"nft", "hapo", "k3", "entropy", "squared", "regress_value", "mirror_drift", "penalized"}


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_ppo_takes_the_loss_by_its_name_on_control(steepest, name):
    line = "--problem CartPole-v1 --steps 1 --envs 2 --horizon 8 --minibatches 2 --epochs 2 --width 8 --out run"
    status, out, err = steepest(f"train ppo --loss {name} {line}")
    assert status == 0, err
    assert f"loss={name}" in out


def test_a_loss_that_needs_more_says_what(steepest):
    line = "--problem CartPole-v1 --steps 1 --envs 2 --horizon 8 --minibatches 1 --width 8 --out run"
    status, out, err = steepest(f"train ppo --loss nft {line}")
    assert status != 0
    assert "the loss nft() + 0.5 * squared() needs Terms.success" in out + err
    assert "no loss is called 'cisp'" in steepest(f"train ppo --loss cisp {line}2")[2]


def test_another_loss_takes_the_place_of_the_clip():
    """Bug that it catches: a `loss` that is read and left aside."""
    from steepest.core import train
    from steepest.losses import reinforce

    def ends(**options):
        system = names.find_system("dppo")(envs=8, horizon=2, pretrain=5, demos=20, steps=4, tuned=2, hidden=8, count=2, **options)
        (record,) = train(system, names.find_problem("MultiReach2D")(), steps=1)
        return record.metrics

    assert "clipped" in ends()
    assert "clipped" not in ends(loss=reinforce())


def test_cells_are_run_once_and_go_on(steepest, tmp_path, tiny):
    line = "losses --losses clip --workers 1 --out cells"
    assert steepest(line)[0] == 0
    cell = read(tmp_path / "cells", "clip", "control")
    assert (cell["fault"], len(cell["before"]), len(cell["after"])) == ("", 2, 2)
    assert there(tmp_path / "cells", "clip", "control", 2)
    assert not there(tmp_path / "cells", "clip", "control", 3)
    path = path_of(tmp_path / "cells", "clip", "control")
    path.write_text(path.read_text().replace(cell["date"], "1999-01-01"))
    assert "1 cells are there already" in steepest(line)[1]
    assert "1999" in path.read_text()
    path.write_text("{}")
    assert "is no cell of the table" in steepest(line)[2]


def test_what_the_table_does_not_have_is_refused(steepest):
    assert "the table has no loss 'nft'" in steepest("losses --losses nft")[2]
    assert "the table has no kind of decision 'texts'" in steepest("losses --kinds texts")[2]
    assert "seeds is at least 2" in steepest("losses --seeds 1")[2]


def test_the_page_shows_every_cell_and_how_to_run_it(page, tmp_path):
    cell = {"before": [1.0, 2.0], "after": [3.0, 5.0], "seconds": [1.0, 1.0], "fault": "", "loss": "clip", "kind": "text"}
    path_of(tmp_path, "clip", "text").write_text(json.dumps({**cell, "settings": losses.settings(kind_of("text"))}))
    broken = {**cell, "loss": "topr", "fault": "ValueError: it broke", "before": [], "after": [], "seconds": []}
    path_of(tmp_path, "topr", "text").write_text(json.dumps({**broken, "settings": {}}))
    said = page.build(str, tmp_path)
    assert "| `clip` | 4 (3, 5) | not run | not run |" in said
    assert "| `topr` | failed |" in said
    assert "`topr` on text: ValueError: it broke" in said
    assert "| before training | 1.5 (1, 2) |" in said
    for kind in KINDS:
        assert f"steepest train {kind.system} --loss NAME" in said


def test_the_committed_cells_are_of_the_settings_that_the_page_tells():
    cells = ROOT / "docs" / "losses"
    for path in cells.glob("*.json"):
        loss, _, kind = path.stem.rpartition("-")
        assert loss in candidates()
        assert read(cells, loss, kind)["settings"] == losses.settings(kind_of(kind)), path.name
