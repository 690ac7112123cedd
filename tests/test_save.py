"""Checkpoints: bitwise, whole or not there, never at the cost of a good one, and no code is run to read them."""

import errno
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from steepest.core import State, Stream, save
from steepest.core.check import clone, same
from steepest.core.save import NOTES, TENSORS, Checkpoints, Unsound, latest

from .toy import Arms, toy, toy_state

NAMES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 "
    "complex128"
)
DTYPES = [getattr(torch, name) for name in NAMES.split()]


class Anything(State):
    """A State that also keeps a tree."""

    def __init__(self, tree, **parts):
        super().__init__(**parts)
        self.tree = tree

    def get_extra_state(self):
        return {**super().get_extra_state(), "tree": self.tree}

    def set_extra_state(self, saved):
        super().set_extra_state(saved)
        self.tree = saved["tree"]


def through(tree, folder):
    save.save(folder, Anything(tree), {})
    return save.load(folder)[0]["_extra_state"]["tree"]


def bits(x):
    return x.contiguous().view(-1).view(torch.uint8) if x.numel() else x


# ------------------------------------------------------------------------------------ bitwise


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bitwise(tmp_path, dtype):
    raw = torch.randint(256, (5, 3, dtype.itemsize), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw = raw % 2 if dtype == torch.bool else raw  # other bytes are no booleans; of floats every pattern counts, NaNs too
    x = raw.view(dtype).squeeze(-1)
    tree = {"x": x, "turned": x.T, "row": x[1], "one": x[0, 0], "none": x[:0]}
    back = through(tree, tmp_path / "c")
    for name, part in tree.items():
        assert back[name].dtype == dtype
        assert back[name].shape == part.shape
        assert torch.equal(bits(back[name]), bits(part)), name


def test_a_conjugate_and_a_negated_view_are_saved_as_what_they_say(tmp_path):
    x = torch.tensor([1 + 2j, 3 - 4j])
    back = through({"conj": x.conj(), "imag": x.conj().imag}, tmp_path / "c")
    assert back["conj"].tolist() == [1 - 2j, 3 + 4j]
    assert back["imag"].tolist() == [-2, 4]


def test_trees_come_back_exactly(tmp_path):
    tree = {
        "plain": [None, True, 1, -0.0, 1e-320, 2**80, "é\n", float("inf"), float("-inf")],
        "tuple": (1, (2.5, [()]), {}), 0: "zero", "0": torch.ones(1),
        "dotted.name": {"x": torch.zeros(2)}, "dotted": {"name.x": torch.ones(2)},
        "array": np.arange(6, dtype=np.int16).reshape(2, 3), "scalar": np.float32(0.1),
        "empty": np.zeros((0, 3)), "also": np.zeros(0, int),
    }  # fmt: skip
    back = through(tree, tmp_path / "c")
    assert list(back) == list(tree)
    assert same(tree, back)
    assert isinstance(back["tuple"], tuple)
    assert isinstance(back["plain"][2], int)
    assert str(back["plain"][3]) == "-0.0"
    assert type(back["scalar"]) is np.float32
    assert back["empty"].shape == (0, 3)
    assert back["also"].dtype == int
    assert np.isnan(through({"x": float("nan")}, tmp_path / "d")["x"])


def test_what_no_checkpoint_can_hold_is_named_and_leaves_nothing_behind(tmp_path):
    for tree, said in (
        ({"deep": [0, {1}]}, r"State holds a set at '_extra_state\.tree\.deep\.1'"),
        ({(1, 2): 0}, r"with the key \(1, 2\)"),
        ({"x": torch.eye(2).to_sparse()}, "sparse_coo tensor at"),
        ({"x": np.array(["a"])}, "State holds a ndarray at"),
        ({"x": lambda: 0}, "State holds a function at"),
        ({"x": torch.empty(2, dtype=torch.bits8)}, "bits8"),
    ):
        with pytest.raises(TypeError, match=said):
            through(tree, tmp_path / "c")
        assert list(tmp_path.iterdir()) == []


def test_tensors_that_share_memory_are_kept_once_where_they_are_one(tmp_path):
    x = torch.randn(1000)
    tied = nn.Linear(4, 4)
    part = nn.Module()
    part.a = part.b = tied
    state = Anything({"same": [x, x], "half": x[:500], "other": x[500:], "turned": x.reshape(10, 100).T}, policy=part)
    save.save(tmp_path / "c", state, {})
    assert (tmp_path / "c" / TENSORS).stat().st_size < 4 * (1000 + 1000 + 1000) + 3000
    tree = save.load(tmp_path / "c")[0]
    assert same(tree["_extra_state"]["tree"], state.tree)
    with torch.no_grad():
        tied.weight.zero_()
    save.restore(state, tmp_path / "c")
    assert torch.equal(state.policy.b.weight, tree["policy.a.weight"])
    assert state.policy.a.weight is state.policy.b.weight


def trained(steps=3, make=torch.optim.Adam, **options):
    """A small model and its optimizer after some steps."""
    torch.manual_seed(0)
    state = State(policy=nn.Linear(4, 2))
    state.optimizers["policy"] = make(state.policy.parameters(), lr=0.1, **options)
    for _ in range(steps):
        go(state)
    return state


def go(state):
    x = torch.full((3, 4), 0.1 * (1 + state.step))
    state.optimizers["policy"].zero_grad()
    state.policy(x).square().sum().backward()
    state.optimizers["policy"].step()
    state.step += 1


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}), (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.AdamW, {"foreach": True, "betas": (0.8, 0.99)}), (torch.optim.RMSprop, {"centered": True}),
        (torch.optim.Adagrad, {}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_every_optimizer_goes_on_bitwise(tmp_path, make, options):
    whole = trained(6, make, **options)
    save.save(tmp_path / "c", trained(3, make, **options), {})
    other = trained(1, make, **options)
    save.restore(other, tmp_path / "c")
    assert other.step == 3
    for _ in range(3):
        go(other)
    assert same(dict(whole.state_dict()), dict(other.state_dict()))


def test_optimizer_numbers_keep_their_own_dtype(tmp_path):
    """torch's loader casts them to the parameter's: a float32 average of a bfloat16 weight would lose its lower half."""
    state = trained()
    state.policy.to(torch.bfloat16)
    held = state.optimizers["policy"].state[state.policy.weight]
    assert held["exp_avg"].dtype == torch.float32
    saved = clone(held)
    save.save(tmp_path / "c", state, {})
    held["exp_avg"].zero_()
    save.restore(state, tmp_path / "c")
    assert same(dict(state.optimizers["policy"].state[state.policy.weight]), dict(saved))


def test_the_rate_of_a_schedule_comes_back(tmp_path):
    state = trained()
    state.optimizers["policy"].param_groups[0]["lr"] = 0.1 / 3
    save.save(tmp_path / "c", state, {"seed": 3})
    state.optimizers["policy"].param_groups[0]["lr"] = 7.0
    notes = save.restore(state, tmp_path / "c")
    assert state.optimizers["policy"].param_groups[0]["lr"] == 0.1 / 3
    assert (notes["seed"], notes["step"]) == (3, 3)


# ------------------------------------------------------------------------------------ refused


def test_another_system_or_other_options_are_refused_and_nothing_is_changed(tmp_path):
    meta = {"system": "toy", "options": {"lr": 0.1, "passes": 2}, "problem": "Arms", "problem_options": {}}
    save.save(tmp_path / "c", trained(), meta)
    state = trained(1)
    before = clone(dict(state.state_dict()))
    for wrong, said in (
        ({"options": {"lr": 0.2, "passes": 2}}, r"written with options lr=0\.1, this run has lr=0\.2: it cannot go on"),
        ({"system": "grpo"}, "written with system 'toy', this run has 'grpo'"),
        ({"problem_options": {"arms": 3}}, r"problem_options arms=None, this run has arms=3"),
    ):
        with pytest.raises(ValueError, match=said):
            save.restore(state, tmp_path / "c", {**meta, **wrong})
    assert save.restore(trained(1), tmp_path / "c", meta)["step"] == 3
    wide, more, bare = (State(policy=nn.Linear(4, n)) for n in (3, 2, 2))
    more.optimizers = {"policy": torch.optim.Adam(more.policy.parameters()), "critic": torch.optim.Adam([torch.zeros(1)])}
    split = State(policy=nn.Linear(4, 2))
    split.optimizers["policy"] = torch.optim.Adam([{"params": [p]} for p in split.policy.parameters()])
    named = State(actor=nn.Linear(4, 2))
    for other, said in (
        (wide, r"policy\.weight is \[2, 4\] float32, here is \[3, 4\] float32"),
        (named, r"actor\.weight is absent, here"),
        (more, r"optimizers train .*critic.*another system"), (bare, r"optimizers train .*here \{\}"),
        (split, r"train .*\[2\].*\[1, 1\]"),
    ):  # fmt: skip
        start = clone(dict(other.state_dict()))
        with pytest.raises(ValueError, match=said):
            save.restore(other, tmp_path / "c")
        assert same(start, dict(other.state_dict()))
    assert same(before, dict(state.state_dict()))


def test_another_format_is_refused_with_the_way_out(tmp_path):
    save.save(tmp_path / "c", trained(), {})
    notes = json.loads((tmp_path / "c" / NOTES).read_text())
    (tmp_path / "c" / NOTES).write_text(json.dumps({**notes, "format": 99, "version": "9.1"}))
    with pytest.raises(ValueError, match=r"steepest 9\.1 in format 99; .*reads format 1: use the version that wrote it"):
        save.load(tmp_path / "c")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def rate(path):
    text = path.read_text()
    assert '"lr", 0.1' in text
    path.write_text(text.replace('"lr", 0.1', '"lr", 0.2'))


DAMAGE = [
    (TENSORS, cut, "bytes were written"), (TENSORS, flip, "is not as it was written"), (TENSORS, Path.unlink, "is missing"),
    (NOTES, cut, "cannot be read"), (NOTES, rate, "steepest.json is not as it was written"), (NOTES, Path.unlink, "no checkpoint"),
    ("config.json", flip, "is not as it was written"),
]  # fmt: skip


class Exporting(nn.Linear):
    def export(self, folder):
        (folder / "config.json").write_text('{"in": 4, "out": 2, "kind": "linear"}')


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE, ids=[f"{d.__name__}-{n}" for n, d, _ in DAMAGE])
def test_a_damaged_checkpoint_is_never_loaded_and_never_costs_a_good_one(tmp_path, name, damage, said):
    state = State(policy=Exporting(4, 2))
    state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr=0.1)
    kept = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        state.step = step
        kept.save(state, {})
    damage(tmp_path / "step-000000003" / name)
    with pytest.raises(Unsound, match=said):
        save.load(tmp_path / "step-000000003")
    with pytest.warns(UserWarning, match="step-000000003"):
        assert latest(tmp_path) == tmp_path / "step-000000002"
    state.step = 4
    kept.save(state, {})
    assert {path.name for path in tmp_path.iterdir()} == {f"step-00000000{k}" for k in (2, 3, 4)}  # 3 does not count, 2 still does
    state.step = 3
    kept.save(state, {})  # a resumed run comes by again
    assert save.load(tmp_path / "step-000000003")[1]["step"] == 3


def test_no_checkpoint_at_all(tmp_path):
    assert latest(tmp_path / "nowhere") is None
    with pytest.raises(Unsound, match="is no checkpoint"):
        save.load(tmp_path)
    with pytest.raises(ValueError, match="at least one checkpoint is kept, not 0"):
        Checkpoints(tmp_path, keep=0)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["STEEPEST_TEST_BOMB"],)


def test_loading_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEPEST_TEST_BOMB", str(tmp_path / "exploded"))
    data = pickle.dumps(Bomb())
    for name in ("state.pt", "pytorch_model.bin", "data.pkl", TENSORS, NOTES):
        folder = save.save(tmp_path / f"c-{name}", trained(), {})
        (folder / name).write_bytes(data)
        try:
            save.restore(trained(), folder)
        except Unsound:
            assert name in (TENSORS, NOTES)
        assert not (tmp_path / "exploded").exists()
    assert Bomb.__reduce__(None)[0] is os.mkdir
    pickle.loads(data)
    assert (tmp_path / "exploded").exists()  # so the bomb was live


# ------------------------------------------------------------------------------------ several


def at(step, folder, kept, **metrics):
    state = toy_state(Arms(), Stream(0, "init"))
    state.step = step
    return kept.save(state, {}, metrics or None)


def steps_in(folder):
    return sorted(int(path.name[5:]) for path in folder.iterdir() if path.name.startswith("step-"))


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    kept = Checkpoints(tmp_path, keep=2, best="score")
    for step, score in enumerate([1.0, 5.0, float("nan"), 2.0, 5.0, 3.0], 1):
        at(step, tmp_path, kept, score=score)
    assert steps_in(tmp_path) == [2, 5, 6]  # of two equal ones the first
    at(7, tmp_path, kept, score=6.0)
    at(8, tmp_path, kept)
    at(9, tmp_path, kept, other=9.0)
    assert steps_in(tmp_path) == [7, 8, 9]
    assert save.load(tmp_path / "step-000000007")[1]["metrics"] == {"score": 6.0}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_death_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    at(1, tmp_path, kept)
    rename = os.rename

    def die(source, target):
        if str(source).endswith(".draft"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        at(1, tmp_path, kept)
    monkeypatch.undo()
    assert not (tmp_path / "step-000000001").exists()
    assert latest(tmp_path) == tmp_path / "step-000000001"
    assert save.load(tmp_path / "step-000000001")[1]["step"] == 1
    at(2, tmp_path, kept)
    assert steps_in(tmp_path) == [1, 2]
    assert save.load(tmp_path / "step-000000001")[1]["step"] == 1


@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync", "write_text"])
def test_a_failure_at_any_point_leaves_the_old_one(tmp_path, monkeypatch, call):
    """Each call of a save fails once, at each of its uses; afterwards the newest whole checkpoint is the old or the new one."""
    kept, count = Checkpoints(tmp_path, keep=1), 0
    at(1, tmp_path, kept)
    owner = Path if call in ("mkdir", "write_text") else os
    real = getattr(owner, call)
    for fails_at in range(1, 9):
        seen = []

        def flaky(*args, seen=seen, fails_at=fails_at, **options):
            seen.append(args)
            if len(seen) == fails_at:
                raise OSError(errno.EIO, "broken")
            return real(*args, **options)

        monkeypatch.setattr(owner, call, flaky)
        try:
            at(2, tmp_path, kept)
        except OSError:
            count += 1
        monkeypatch.undo()
        newest = latest(tmp_path)
        assert newest is not None
        assert save.load(newest)[1]["step"] in (1, 2)
        if len(seen) < fails_at:
            break
    assert count > 0


# ------------------------------------------------------------------------------------ no room


def test_no_room_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    at(1, tmp_path, kept)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((Path, "write_text"), (save, "save_file"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match=r"no room for a checkpoint .*earlier checkpoints are untouched: free some room"):
                at(2, tmp_path, kept)
        assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert save.load(tmp_path / "step-000000001")[1]["step"] == 1


def test_a_disk_that_is_really_full(tmp_path):
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here")
    try:
        kept = Checkpoints(tmp_path)
        at(1, tmp_path, kept)
        large = State(policy=nn.Linear(1000, 1000))
        large.step = 2
        with pytest.raises(OSError, match="no room for a checkpoint of about 4 MiB"):
            kept.save(large, {})
        assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
        assert latest(tmp_path) == tmp_path / "step-000000001"
        assert shutil.disk_usage(tmp_path).free > 2**19
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_run_of_the_toy_is_saved_without_a_single_pickle(tmp_path):
    from steepest.core import train

    for record in train(toy(), Arms(), steps=2):
        save.save(tmp_path / "c", record.state, {})
    assert {path.name for path in (tmp_path / "c").iterdir()} == {TENSORS, NOTES}
