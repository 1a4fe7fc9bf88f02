"""The time profile equals what autograd says of the input, for every way to call an RNN."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_gradwatch.probe.recurrent import TimeProbe, profile


def refuse(error: Exception) -> None:
    raise error


def measured(rnn: nn.Module, run) -> torch.Tensor:
    probe = TimeProbe(nn.ModuleDict({"rnn": rnn}), refuse)
    probe.arm()
    run().backward()
    squares = probe.take()
    assert not rnn._forward_pre_hooks
    return torch.tensor(profile("rnn", squares["rnn"].numpy(), 1.0).grad_norm)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
def test_every_kind(kind, batch_first, leaf, layers, both):
    rnn = kind(3, 5, num_layers=layers, bidirectional=both, batch_first=batch_first)
    x = torch.randn((4, 9, 3) if batch_first else (9, 4, 3), requires_grad=not leaf)
    last = (lambda out: out[0][:, -1]) if batch_first else (lambda out: out[0][-1])
    got = measured(rnn, lambda: last(rnn(x)).square().sum())
    y = x.detach().clone().requires_grad_()
    last(rnn(y)).square().sum().backward()
    dims = (0, 2) if batch_first else (1, 2)
    assert torch.allclose(got.float(), y.grad.square().sum(dims).sqrt(), rtol=1e-5)
    assert leaf == (x.grad is None)


def test_packed_and_unbatched():
    rnn = nn.LSTM(3, 5)
    x = torch.randn(6, 3, 3)
    lengths = [6, 4, 2]
    got = measured(rnn, lambda: rnn(pack_padded_sequence(x, lengths))[0].data.square().sum())
    y = x.clone().requires_grad_()
    rnn(pack_padded_sequence(y, lengths))[0].data.square().sum().backward()
    assert torch.allclose(got.float(), y.grad.square().sum((1, 2)).sqrt(), rtol=1e-5)

    z = torch.randn(6, 3)
    got = measured(rnn, lambda: rnn(z)[0][-1].sum())
    assert got.shape == (6,)
    assert (got > 0).all()


def test_two_backward_passes_add_up():
    rnn = nn.GRU(3, 5)
    x = torch.randn(6, 2, 3)

    def run():
        rnn(x)[0].sum().backward()
        return rnn(x)[0].sum()

    once = measured(rnn, lambda: rnn(x)[0].sum())
    assert torch.allclose(measured(rnn, run), once * 2**0.5)


def test_weights_get_the_same_gradients_as_without():
    torch.manual_seed(0)
    rnn, x = nn.LSTM(3, 5, num_layers=2, dropout=0.5), torch.randn(6, 2, 3)
    grads = []
    for arm in (False, True):
        probe = TimeProbe(rnn, refuse)
        if arm:
            probe.arm()
        torch.manual_seed(1)
        rnn.zero_grad()
        rnn(x)[0][-1].sum().backward()
        grads.append([p.grad.clone() for p in rnn.parameters()])
        probe.disarm()
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_silent_without_gradient_and_in_evaluation():
    rnn = nn.RNN(3, 5)
    probe = TimeProbe(rnn, refuse)
    probe.arm()
    with torch.no_grad():
        rnn(torch.randn(6, 2, 3))
    rnn.eval()
    rnn(torch.randn(6, 2, 3))[0].sum().backward()
    assert probe.take() == {}
