import pytest
import torch
from torch import nn

from steepest.memory import Average, Replay, Table


def test_replay_keeps_the_last_rows_and_draws_only_those():
    replay = Replay(5, x=torch.zeros(2), n=torch.tensor(0))
    for start in (0, 3):
        n = torch.arange(start, start + 3)
        replay.write(x=n[:, None].expand(3, 2).float(), n=n)
    assert len(replay) == 5
    drawn = replay.read(200, torch.Generator().manual_seed(0))
    assert set(drawn["n"].tolist()) == {1, 2, 3, 4, 5}
    assert torch.equal(drawn["x"][:, 0].long(), drawn["n"])


def test_replay_takes_more_rows_than_it_has_room_for():
    replay = Replay(3, n=torch.tensor(0))
    replay.write(n=torch.arange(8))
    assert sorted(replay.n.tolist()) == [5, 6, 7]
    replay.write(n=torch.tensor([8]))
    assert sorted(replay.n.tolist()) == [6, 7, 8]


def test_replay_is_in_the_state_dict():
    one, two = Replay(4, n=torch.tensor(0)), Replay(4, n=torch.tensor(0))
    one.write(n=torch.arange(6))
    two.load_state_dict(one.state_dict())
    g = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(one.read(9, next(g))["n"], two.read(9, next(g))["n"])


def test_replay_says_what_is_wrong():
    replay = Replay(4, n=torch.tensor(0))
    with pytest.raises(ValueError, match="empty"):
        replay.read(1, torch.Generator())
    with pytest.raises(ValueError, match=r"columns \['n'\], the rows have \['m'\]"):
        replay.write(m=torch.arange(2))
    with pytest.raises(ValueError, match="at least one row"):
        Replay(0, n=torch.tensor(0))


def test_average_follows():
    net = nn.Linear(2, 1)
    average = Average(net, 0.9)
    start = average.read().weight.clone()
    with torch.no_grad():
        net.weight.add_(1.0)
    average.write(net)
    assert torch.allclose(average.read().weight, start + 0.1)
    assert not any(p.requires_grad for p in average.parameters())
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Average(net, 1.5)


def test_table_reduces_rows_that_occur_twice():
    table = Table(3, best=0.0, mean=0.5)
    key = torch.tensor([1, 1, 2])
    table.write(key, "mean", torch.tensor([2.0, 4.0, 7.0]))
    table.write(key, "best", torch.tensor([2.0, 4.0, -7.0]), "amax")
    assert table.mean.tolist() == [0.5, 3.0, 7.0]
    assert table.read(torch.tensor([1, 2]), "best").tolist() == [4.0, 0.0]
