"""What the pages say is run: their code, their commands, their links, and the paper of CONTRIBUTING.md from file to check."""

import importlib
import inspect
import re
import shlex
import sys
import types
from functools import partial

import pytest

from steepest.app import catalog, cli
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence import Run
from steepest.problems.language import ModeLottery

from .pages import PAGES, ROOT, blocks, commands, links

WRITTEN = [page for page in PAGES if page.name != "CONTRIBUTING.md" and blocks(page, "python")]


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generate")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page_" + page.stem)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), vars(module))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_are_understood(page, mine):
    known = dict(cli.COMMANDS)
    for line in commands(page):
        program, word, *args = shlex.split(line)
        assert program == "steepest", line
        try:
            assert cli.read(word, known[word], args) is not None
        except SystemExit as refused:
            raise AssertionError(f"{page.name}: `{line}` is refused") from refused


def test_a_command_that_is_not_there_would_be_noticed():
    with pytest.raises(SystemExit):
        cli.read("evaluate", dict(cli.COMMANDS)["evaluate"], ["runs", "--repeat", "3"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_the_table_of_contents_names_every_page():
    told = re.search(r"```{toctree}\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.S)[1]
    assert {line for line in told.splitlines() if line and line[0] != ":"} == {
        page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index"
    }


# ------------------------------------------------------------------------------------ what is generated


def test_every_system_and_every_flag_is_told(generate):
    systems = generate.systems()
    for entry in catalog.entries():
        mark = f"- `{entry.slug}`: " if entry.state == "planned" else f"### {entry.slug}\n\n*{entry.state}*"
        assert mark in systems
    told = generate.commands()
    assert [line[3:] for line in told.splitlines() if line.startswith("## ")] == [name for name, _ in cli.COMMANDS]
    assert "| `--seed` | `0` | of everything random |" in told
    assert "| `NAME` |  | the system, as `steepest list` names it |" in told


def test_every_public_name_says_what_it_is(generate):
    silent = [
        f"{module}.{name}"
        for room in generate.ROOMS
        for module, names in generate.public(room)
        for name in names
        if (thing := getattr(importlib.import_module(module), name)) and (inspect.isclass(thing) or inspect.isroutine(thing))
        if not (thing.__doc__ or "").strip()
    ]
    assert silent == []


def test_docstrings_become_lists_and_keep_their_signs(generate):
    text = "What `x` is: a * b_ | c.\n\nlr   rate (a: 1e-3\n     and on)\nkl   weight\n\n>>> 1 * 2\n2"
    assert generate.restructured(text) == (
        "What ``x``\\  is: a \\* b\\_ \\| c.\n\n- ``lr``: rate (a: 1e-3\n  and on)\n- ``kl``: weight\n\n>>> 1 * 2\n2\n"
    )
    assert generate.plain("a_b `c_d` <e>") == "a\\_b `c_d` \\<e\\>"


# ------------------------------------------------------------------------------------ CONTRIBUTING.md


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """The folder `mine` of CONTRIBUTING.md, as a newcomer would write it."""
    system, claim = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/dr_grpo.py").write_text(system)
    (tmp_path / "mine/claim.py").write_text(claim)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "mine.dr_grpo", "mine.claim"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("mine", "mine.dr_grpo", "mine.claim"):
        sys.modules.pop(name, None)


def test_a_newcomers_system_is_short_checks_and_trains(mine):
    assert len((mine / "mine/dr_grpo.py").read_text().splitlines()) < 40
    card = catalog.card(mine / "mine/dr_grpo.py")
    assert set(card) == {"", "Paper", "Claim", "Idea", "State"}
    dr_grpo = importlib.import_module("mine.dr_grpo").dr_grpo
    problem = partial(ModeLottery, warm=150, tests=128)
    laws = check_system(partial(dr_grpo, group=4, lr=1e-4), problem, half=1)
    assert "resume is bitwise in a fresh process" in laws
    system, target = dr_grpo(group=8, lr=3e-4), problem()
    state = begin(system, target)
    before = target.evaluate(state.policy, Stream(0, "evaluate"))["accuracy"]
    list(train(system, target, steps=60, state=state))
    assert target.evaluate(state.policy, Stream(0, "evaluate"))["accuracy"] > before + 0.1


def test_a_newcomers_claim_can_be_run(mine):
    claim = importlib.import_module("mine.claim").claim
    assert claim.ours().resumes
    assert claim.baseline().resumes
    assert claim.problem().width == 4
    assert claim.measure(Run(0, [{"length": 4.0}, {"length": 6.0}], None, None)) == -6.0


def test_a_newcomers_commands_find_the_modules_of_the_folder_they_are_in(mine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(mine)])
    monkeypatch.chdir(mine)
    assert cli.main(["check", "mine.dr_grpo.dr_grpo(groups=4)", "--problem", "ModeLottery(warm=150)"]) == 2
    assert "has no option 'groups'; nearest: group, prompts; it has longest, kl" in " ".join(capsys.readouterr().err.split())
