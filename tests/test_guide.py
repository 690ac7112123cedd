"""The guide: who takes part, cells that are written once and go on, budgets that come out even, and the page made of them."""

import dataclasses
import inspect
import json
import shlex

import numpy as np
import pytest

from steepest.app import catalog, guide, names
from steepest.app.guide import ARENAS, Arena, Cell, Done, candidates, cell_of, collector, options, setting, summary, updates
from steepest.app.train import Train

from .pages import ROOT

SMALL = Arena("CartPole", 64, 2, 16, many=2, one=4, seeds=2)


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return __import__("guide_page")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(guide, "ARENAS", (SMALL, dataclasses.replace(SMALL, problem="Pendulum")))


def cell(system, arena=SMALL, shift=0.0):
    sound = {"fault": "", "failed": False, "seconds": 1.5}
    rows = [
        {**sound, "training": 10.0 + shift + k, "last": 20.0 + k, "curve": [[32, 9.0], [64, 11.0 + k]]} for k in range(arena.seeds)
    ]
    return cell_of(system, arena, rows)


def put(folder, page):
    folder.mkdir(exist_ok=True)
    guide.path_of(folder, page["system"], page["arena"]["problem"]).write_text(json.dumps(page))


# ------------------------------------------------------------------------------------ who takes part, with what


def test_every_on_policy_system_is_in_the_guide_or_it_is_said_why_not():
    told = dict(candidates())
    built = {entry.slug for entry in catalog.entries() if entry.family == "on_policy" and entry.state != "planned"}
    assert set(told) == built
    assert next(iter(told)) == guide.BASELINE
    assert {"vpg", "ppo", "trpo"} <= {name for name, why in told.items() if not why}
    assert told["policy_gradient_guide"] == (
        "it has no option envs and no option horizon, so it does not learn from steps of environments"
    )


def test_budgets_come_out_even_and_others_are_refused_with_the_nearest_two():
    for arena in ARENAS:
        assert updates(arena) * arena.envs * arena.horizon == arena.budget
    with pytest.raises(ValueError, match=r"100 steps of CartPole.*2 environments x 16 steps = 32: take 96 or 128"):
        updates(dataclasses.replace(SMALL, budget=100))
    with pytest.raises(ValueError, match=r"take 32$"):
        updates(dataclasses.replace(SMALL, budget=31))


def test_the_page_says_how_the_settings_were_chosen(page):
    for arena in ARENAS:
        sizes = f"{arena.budget:,} | {arena.envs} x {arena.horizon} | {updates(arena)}"
        assert f"| {arena.problem} | {sizes} | {arena.many:g}, {arena.one:g} | {arena.seeds} |" in page.settings(str)
    assert guide.HOW in page.settings(str)


def test_a_setting_is_the_table_and_the_systems_own_defaults():
    ppo, vpg, trpo = (names.find_system(name) for name in ("ppo", "vpg", "trpo"))
    arena = dataclasses.replace(SMALL, envs=8, horizon=128)
    assert setting(ppo, arena) == {"envs": 8, "horizon": 128, "minibatches": 16, "lr": 6e-4}
    assert setting(vpg, arena) == {"envs": 8, "horizon": 128, "critic_minibatches": 16, "lr": 1.2e-3}
    assert "lr" not in setting(trpo, arena)
    assert options(ppo, arena) | {"clip_range": 0.2, "decay": 0.95, "lr": 6e-4} == options(ppo, arena)


def test_systems_that_would_take_hours_are_smaller_and_the_page_says_so(page):
    """Bug that it catches: a size that the page does not tell, or one of an option that the system lacks."""
    told = page.settings(str)
    for name, sizes in guide.SMALLER.items():
        make = names.find_system(name)
        for arena in ARENAS:
            assert setting(make, arena).items() >= sizes.items()
        known = inspect.signature(make).parameters
        assert all(f"{option} {x} instead of {known[option].default}" in told for option, x in sizes.items())
        assert all(known[option].default != x for option, x in sizes.items())


# ------------------------------------------------------------------------------------ cells


def test_cells_are_run_once_and_again_when_they_are_of_another_budget(steepest, tmp_path, small):
    line = "guide --systems vpg --problems CartPole --workers 1 --out cells"
    assert steepest(line)[0] == 0
    found = json.loads((tmp_path / "cells/vpg-CartPole.json").read_text())
    assert (found["fault"], len(found["training"]), len(found["curve"])) == ("", 2, 2)
    assert found["curve"][0][-1][0] == SMALL.budget
    assert found["options"]["lr"] == 1.2e-3
    path = tmp_path / "cells/vpg-CartPole.json"
    path.write_text(path.read_text().replace(found["date"], "1999-01-01"))
    assert "1 cells are there already" in steepest(line)[1]
    assert "1999" in path.read_text()
    assert not guide.there(tmp_path / "cells", "vpg", dataclasses.replace(SMALL, budget=96))


def test_a_stopped_guide_keeps_what_was_finished(tmp_path):
    """A cell is there with its last seed, in whatever order seeds end."""
    hear = collector(tmp_path, lambda word: None)
    row = {"fault": "", "failed": False, "training": 1.0, "last": 2.0, "seconds": 0.1, "curve": [[32, 1.0]]}
    hear(Done(Cell("vpg", SMALL, 1), 1, 1, 1.0, row | {"training": 5.0}))
    assert list(tmp_path.iterdir()) == []
    hear(Done(Cell("ppo", SMALL, 0), 1, 1, 1.0, row))
    hear(Done(Cell("vpg", SMALL, 0), 1, 1, 1.0, row))
    assert [path.name for path in tmp_path.iterdir()] == ["vpg-CartPole.json"]
    assert guide.read(tmp_path, "vpg", "CartPole")["training"] == [1.0, 5.0]


def test_a_system_that_does_not_fit_or_breaks_is_a_cell_and_not_an_end(tmp_path, monkeypatch):
    from steepest.problems import control

    said = []
    arena = dataclasses.replace(SMALL, problem="nash")
    monkeypatch.setattr(guide, "find_problem", lambda name: names.find_problem("RockPaperScissors"))
    unfit = guide.run_one(Cell("ppo", arena, 0), said.append)
    assert unfit["fault"].startswith("does not fit: no policy is known for RockPaperScissors")
    assert not unfit["failed"]
    monkeypatch.setattr(guide, "find_problem", names.find_problem)
    monkeypatch.setattr(control.CartPole, "evaluate", lambda *_: 1 / 0)
    broken = guide.run_one(Cell("vpg", dataclasses.replace(SMALL, budget=320, horizon=80), 0), said.append)
    assert broken["failed"]
    assert "ZeroDivisionError" in broken["fault"]
    assert isinstance(said[-1], Done)
    put(tmp_path, cell_of("vpg", SMALL, [broken, broken]))
    assert not guide.there(tmp_path, "vpg", SMALL)  # tried again
    put(tmp_path, cell_of("vpg", SMALL, [unfit, unfit]))
    assert guide.there(tmp_path, "vpg", SMALL)


def test_a_curve_is_the_mean_of_equal_pieces_of_the_budget():
    arena = dataclasses.replace(SMALL, envs=1, horizon=10)
    told = [(step, float(step)) for step in range(1, 51)]
    found = summary(told, arena, 50)
    assert found["training"] == 25.5
    assert found["curve"][:2] == [[20, 1.5], [40, 3.5]]
    assert found["curve"][-1] == [500, 49.5]
    assert summary([(50, 3.0)], arena, 50)["curve"] == [[500, 3.0]]
    with pytest.raises(ValueError, match="the run diverged"):
        summary([(1, float("nan"))], arena, 50)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("guide --env-steps 50_001", "= 1,024: take 49,152 or 50,176"),
        ("guide --problems CartPol", "the guide has no problem 'CartPol'; nearest: CartPole"),
        ("guide --systems policy_gradient_guide", "policy_gradient_guide has no place in the guide: it has no option envs"),
        ("guide --systems pp0", "no system is called 'pp0'; nearest: ppo"),
        ("guide --seeds 1", "seeds is at least 2, not 1"),
    ],
)
def test_what_is_wrong_is_said_before_any_run(steepest, tmp_path, line, said):
    status, _, err = steepest(line)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ the page


def test_the_page_has_every_system_once_and_says_what_is_missing(page, small, tmp_path):
    put(tmp_path, cell("vpg"))
    put(tmp_path, cell("ppo", shift=5.0))
    put(tmp_path, {**cell("trpo"), "fault": "does not fit: discrete actions only"})
    text = page.build(str, tmp_path)
    for name, why in candidates():
        assert text.count(f"\n### {name}\n") == (not why)
        assert (f"- `{name}`: {why}." in text) == bool(why)
    first, second = text.split("## CartPole")[1].split("## Pendulum")
    assert "| [ppo](#ppo) | **15.5** [15, 16] | **20.5** [20, 21] | 1.00 [1.00, 1.00] | 1.5 |" in first
    assert "| [trpo](#trpo) | does not fit: discrete actions only |" in first
    assert first.index("[ppo](") < first.index("[vpg](")  # the best first
    assert first.count("<img ") == 1
    assert "| [vpg](#vpg) | not run yet |" in second
    taking = sum(not why for _, why in candidates())
    assert f"**{2 * taking - 3} of {2 * taking} cells are not run yet**" in text


def test_a_default_that_changed_since_the_run_fails_the_build(page, small, tmp_path, monkeypatch):
    old = cell("ppo")
    put(tmp_path, {**old, "options": {**old["options"], "clip_range": 0.3}})
    with pytest.raises(ValueError, match=r"ppo-CartPole.json was run.*clip_range was 0.3 and is 0.2.*guide --systems ppo"):
        page.build(str, tmp_path)
    less = {name: x for name, x in old["options"].items() if name != "clip_range"}
    page.check("ppo", "CartPole", {**old, "options": less})  # an option that is new since
    told = catalog.options(catalog.find("ppo").source)
    wrong = [dataclasses.replace(o, default="0.9") if o.name == "clip_range" else o for o in told]
    monkeypatch.setattr(catalog, "options", lambda path: wrong)
    with pytest.raises(ValueError, match=r"the source says clip_range = 0.9, the function has 0.2"):
        page.check("ppo", "CartPole", None)


@pytest.mark.parametrize("name", [name for name, why in candidates() if not why])
def test_the_command_of_a_cell_trains_with_its_options(page, name):
    """On CartPole, where most claims are: `steepest train` would take the claim's options."""
    program, word, *args = shlex.split(page.command(name, ARENAS[0]))
    plan = Train.parse(args, "steepest train").plan
    wanted = options(names.find_system(name), ARENAS[0])
    assert (program, word, plan.steps, plan.problem) == ("steepest", "train", updates(ARENAS[0]), "CartPole")
    assert {option: wanted[option] for option in plan.options} == plan.options
    assert plan.make()[1] == names.find_problem("CartPole")()


def test_a_system_differs_from_the_one_it_is_made_from(page):
    assert page.parent_of("trpo") == "vpg"
    assert page.parent_of("vpg") is None
    told = page.difference("trpo", str)
    assert told == "Against [vpg](#vpg) it adds `max_kl`, `damping`, `cg_steps`, `tries`, `shrink`; drops `lr`."


def test_curves_of_seeds_that_reported_elsewhere_are_averaged_where_they_did(page):
    at, mean = page.mean_curve({"curve": [[[10, 1.0], [20, 2.0]], [[20, 4.0]]]})
    assert at == [10, 20]
    assert np.allclose(mean, [1.0, 3.0])


def test_the_cells_that_are_there_are_todays(page):
    """What the build of the documentation checks."""
    page.build(str)
