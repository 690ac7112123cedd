"""The house stands, and every rule is seen to catch the one who breaks it."""

from pathlib import Path

import pytest

import steepest

from . import house

ROOT = Path(steepest.__file__).parent
CARD = '"""X: x.\n\nPaper.  P.\nClaim.  C.\nIdea.   I.\nState.  none\n"""\n'


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_the_house_obeys(rule):
    assert rule(ROOT) == []


def tree(tmp_path: Path, **files: str) -> Path:
    root = tmp_path / "steepest"
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


BROKEN = [
    (house.foreign_imports, {"losses__a": "from ..core import State\n"}, "losses imports core"),
    (house.foreign_imports, {"core__a": "def f():\n    from steepest.models.b import C\n"}, "core imports models"),
    (house.foreign_imports, {"models__a": "from .. import problems\n"}, "models imports problems"),
    (house.bad_cards, {"systems__f__x": '"""X.\n\nPaper. P\n"""\ndef x(): pass  # <- the idea\n'}, "lacks `Claim.`"),
    (house.bad_cards, {"systems__f__x": CARD + "def x(): pass\n"}, "exactly one line is marked"),
    (house.bad_cards, {"systems__f__x": CARD + "def y(): pass  # <- the idea\n"}, "defines no function x"),
    (house.long_files, {"systems__f__x": CARD + "\n" * 120}, "at most 120"),
    (house.long_files, {"core__a": "\n" * 401}, "at most 400"),
    (house.module_memory, {"losses__a": "seen = {}\n"}, "memory outside State"),
    (house.module_memory, {"credit__a": "seen = list()\n"}, "memory outside State"),
    (house.module_memory, {"credit__a": "def f():\n    global n\n    n = 1\n"}, "global"),
    (house.siblings, {"systems__f__x": "from .y import y\nfrom ..g.z import z\n"}, "one parent"),
    (
        house.siblings,
        {f"systems__f__{a}": f"from .{b} import {b}\n" for a, b in ("xy", "yz", "zw")} | {"systems__f__w": ""},
        "more than two papers deep",
    ),
    (house.printing, {"engines__a": "print(1)\n"}, "only app prints"),
]


@pytest.mark.parametrize(("rule", "files", "said"), BROKEN, ids=[f"{r.__name__}-{i}" for i, (r, _, _) in enumerate(BROKEN)])
def test_a_broken_rule_is_caught(tmp_path, rule, files, said):
    faults = rule(tree(tmp_path, **files))
    assert faults, f"{rule.__name__} caught nothing"
    assert said in faults[0]


def test_what_is_allowed_passes(tmp_path):
    root = tree(
        tmp_path,
        systems__f__x=CARD + "from ...losses import clip\nfrom .y import y\ndef x(): return y  # <- the idea\n",
        systems__f__y=CARD + "def y(): pass  # <- the idea\n",
        losses__a='from types import MappingProxyType\nT = MappingProxyType({1: 2})\n__all__ = ["T"]\n',
    )
    assert [fault for rule in house.RULES for fault in rule(root)] == []
