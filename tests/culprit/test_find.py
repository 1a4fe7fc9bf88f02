"""The culprit is named, and nobody who only passed it on."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_gradwatch.culprit.batches import Kept, tensors_of
from lightning_gradwatch.culprit.find import Replay, find
from lightning_gradwatch.culprit.tell import name_culprit
from lightning_gradwatch.finding import Finding, Severity

NAN, INF = math.nan, math.inf


def search(net, run, batch, **fields):
    return find(Replay(net, lambda b, i: run(b), [Kept.of(batch, 7)], **fields))


def culprit(net, run, batch, **fields):
    answer = search(net, run, batch, **fields)
    assert not answer.why_not
    assert answer.culprit is not None
    return answer.culprit


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.softmax, self.out = nn.Linear(4, 4), nn.Softmax(-1), nn.Linear(4, 4)

    def forward(self, x, mask):
        scores = self.query(x) @ x.transpose(-1, -2)
        return self.out(self.softmax(scores.masked_fill(mask, -INF)) @ x)


class Root(nn.Module):
    """Fine forward, infinite slope: the square root of zero."""

    def forward(self, x):
        return torch.sqrt(((x - x) ** 2).sum(-1, keepdim=True)) + x


class Between(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        h = h / (h - h).norm()
        return self.b(h)


def broken(value=NAN):
    x = torch.randn(8, 4)
    x[0, 0] = value
    return x


def masked(row: bool):
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[:, :, 2] = True
    if row:
        mask[0, 1] = True
    return torch.randn(2, 3, 4), mask


@pytest.mark.parametrize(
    ("batch", "part"),
    [
        (broken(), "batch"),
        ((broken(), torch.ones(8)), "batch[0]"),
        ({"x": broken(INF), "y": torch.ones(8)}, "batch['x']"),
        (SimpleNamespace(x=broken()), "batch.x"),
    ],
)
def test_part_of_the_batch(batch, part):
    found = culprit(mlp(), lambda b: mlp()(next(t for _, t in tensors_of(b))).mean(), batch)
    assert (found.kind, found.name) == ("batch", part)
    assert found.facts == {"broken": 1.0, "values": 32.0}


def test_nan_in_a_part_of_the_batch_that_the_loss_does_not_use():
    net = mlp()
    batch = {"x": torch.randn(8, 4), "unused": broken()}
    found = culprit(net, lambda b: torch.log(net(b["x"]) * 0).mean() + 0 * b["x"].sum(), batch)
    assert (found.kind, found.operation) == ("loss", "log")


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weight(name):
    net = mlp()
    with torch.no_grad():
        getattr(net[3], name).view(-1)[0] = NAN
    found = culprit(net, lambda b: net(b).mean(), torch.randn(8, 4))
    assert (found.kind, found.name) == ("weight", f"3.{name}")


def test_buffer():
    net = mlp().eval()
    net[1].running_var[2] = NAN
    found = culprit(net, lambda b: net(b).mean(), torch.randn(8, 4))
    assert (found.kind, found.name) == ("buffer", "1.running_var")


def test_running_statistics_that_the_first_pass_spoilt_are_not_to_blame():
    net = mlp()
    x = broken()
    net(x)
    assert not torch.isfinite(net[1].running_mean).all()
    assert culprit(net, lambda b: net(b).mean(), x).kind == "batch"


def test_module_in_forward_and_who_spreads_it():
    net = Attention()
    found = culprit(net, lambda b: net(*b).square().mean(), masked(True))
    assert (found.kind, found.name, found.module_kind) == ("module", "softmax", "Softmax")
    assert found.masked
    assert found.nan
    assert not found.backward


def test_a_mask_is_no_culprit():
    net = Attention()
    answer = search(net, lambda b: net(*b).square().mean(), masked(False))
    assert answer.culprit is None
    assert answer.replayed


def test_the_loss():
    net = mlp()
    found = culprit(net, lambda b: torch.log(net(b).softmax(-1) * 0).mean(), torch.randn(8, 4))
    assert (found.kind, found.operation, found.nan) == ("loss", "log", False)
    assert found.facts["zeros"] == 16
    assert found.line[0] == "test_find.py"
    assert "torch.log" in found.line[2]


def test_a_loss_module():
    net = nn.ModuleDict({"net": mlp(), "criterion": nn.NLLLoss()})
    target = torch.zeros(8, dtype=torch.long)
    found = culprit(
        net,
        lambda b: net["criterion"](net["net"](b), target) * INF,
        torch.randn(8, 4),
    )
    assert found.kind == "loss"


def test_backward_only():
    net = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 2))
    found = culprit(net, lambda b: net(b).square().mean(), torch.randn(8, 4))
    assert (found.kind, found.name, found.backward) == ("module", "1", True)
    assert found.loss_is_finite
    assert found.operation == "Sqrt"
    assert "torch.sqrt" in found.line[2]


def test_where_hides_the_value_and_not_the_derivative():
    net = mlp()

    def run(b):
        z = net(b)
        return torch.where(z > 1e9, torch.log(z.relu() * 0), z).mean()

    found = culprit(net, run, torch.randn(8, 4))
    assert (found.kind, found.backward, found.operation) == ("loss", True, "Log")


def test_a_function_between_modules():
    net = nn.Sequential(Between())
    found = culprit(net, lambda b: net(b).square().mean(), torch.randn(8, 4))
    assert (found.kind, found.name, found.operation) == ("module", "0", "div")
    assert found.between == ("0.a", "0.b")
    flat = Between()
    found = culprit(flat, lambda b: flat(b).square().mean(), torch.randn(8, 4))
    assert (found.kind, found.between) == ("function", ("a", "b"))


def test_out_of_the_range_of_half_precision():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).half()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[1].weight.fill_(3e4)
    found = culprit(net, lambda b: net(b.half()).float().mean(), torch.ones(8, 4))
    assert (found.kind, found.name) == ("module", "1")
    assert (found.limit, found.dtype) == (65504.0, "float16")


def test_the_scale_of_the_loss_overflows_in_backward_only():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    def run(b):
        with torch.autocast("cpu", dtype=torch.float16):
            return net(b).float().square().sum()

    x = torch.full((8, 4), 30.0)
    assert search(net, run, x).culprit is None
    found = culprit(net, run, x, scale=2.0**40)
    assert found.backward
    assert found.limit == 65504.0


def test_mean_of_nothing():
    net = mlp()
    nobody = torch.zeros(8, dtype=torch.bool)
    found = culprit(net, lambda b: net(b)[nobody].mean(), torch.randn(8, 4))
    assert (found.kind, found.operation) == ("loss", "mean")
    assert found.facts == {"empty": 1.0}


def test_a_tensor_from_elsewhere():
    net, table = mlp(), torch.tensor(NAN)
    assert culprit(net, lambda b: (net(b) * table).mean(), torch.randn(8, 4)).kind == "outside"


def test_what_does_not_come_back_is_not_named():
    net, calls = mlp(), []

    def run(b):
        calls.append(1)
        return net(b).mean()

    answer = search(net, run, torch.randn(8, 4))
    assert (answer.culprit, answer.replayed, len(calls)) == (None, True, 1)
    told = name_culprit(Finding("nonfinite", Severity.ERROR, (), 5, 5, summary="NaN."), answer, 7)
    assert told.evidence["reproduced"] == 0
    assert told.summary == "NaN. Replayed, batch 7 gives finite numbers only."


def test_batches_that_can_be_read_once():
    net = mlp()
    answer = search(net, lambda b: net(next(b)).mean() * NAN, (t for t in [torch.ones(8, 4)]))
    assert (answer.culprit, answer.replayed) == (None, False)
    assert "(generator) cannot be copied" in answer.why_not
    used_up = iter([torch.ones(8, 4)])
    next(used_up)
    answer = search(net, lambda b: net(next(b)).mean() * NAN, used_up)
    assert (answer.culprit, answer.replayed, answer.why_not) == (None, False, "StopIteration")


def test_a_batch_changed_in_place_is_not_replayed():
    net, batch = mlp(), torch.randn(8, 4)
    kept = Kept.of(batch, 0)
    batch.add_(1)
    answer = find(Replay(net, lambda b, i: net(b).mean() * NAN, [kept]))
    assert answer.why_not == "training_step changed the batch in place"
    assert not answer.replayed


def test_popped_keys_do_not_hurt():
    net, batch = mlp(), {"x": broken()}
    kept = Kept.of(batch, 0)
    batch.pop("x")
    found = find(Replay(net, lambda b, i: net(b.pop("x")).mean(), [kept])).culprit
    assert found is not None
    assert found.name == "batch['x']"


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    net = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 2))

    def run(b):
        h = checkpoint(net[1], net[0](b), use_reentrant=reentrant)
        return net[2](h).square().mean()

    answer = search(net, run, torch.randn(8, 4))
    if reentrant:  # torch cannot differentiate such a graph without touching `.grad`
        assert answer.culprit is None
        assert not answer.replayed
    else:
        assert answer.culprit.operation == "Sqrt"
        assert answer.culprit.name == "1"


def test_refusal_still_sees_what_lies_open():
    net = mlp()
    answer = search(net, None, {"x": broken()}, refused="manual")
    assert (answer.culprit.name, answer.culprit.reproduced) == ("batch['x']", False)
    with torch.no_grad():
        net[0].weight[0] = INF
    answer = search(net, None, {"x": torch.ones(2)}, refused="manual")
    assert (answer.culprit.kind, answer.culprit.name) == ("weight", "0.weight")


def test_errors_of_the_replay_do_not_escape():
    answer = search(mlp(), lambda b: b.nonsense, torch.ones(1))
    assert not answer.replayed
    assert "nonsense" in answer.why_not


def test_numbers_in_sentences_come_from_the_evidence():
    runs = itertools.product([Attention()], [masked(True)])
    for net, batch in runs:
        answer = search(net, lambda b, net=net: net(*b).mean(), batch)
        finding = Finding("nonfinite", Severity.ERROR, ("query",), 41, 41, summary="NaN.")
        told = name_culprit(finding, answer, 41)
        assert told.layers == ("softmax",)
        assert told.summary.startswith(
            "Softmax (softmax) turned -Inf into NaN in the forward pass at step 41, batch 7: a row "
            "of scores is masked"
        )
        assert told.evidence["batch_idx"] == 7
        assert told.evidence["step"] == 41
        assert told.evidence["reproduced"] == told.evidence["in_forward"] == 1
        assert told.evidence["line"] > 0


def test_no_other_process_is_called(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    net = mlp()

    def run(b):
        loss = net(b).mean() * NAN
        torch.distributed.all_reduce(loss.detach())
        return loss

    try:
        answer = search(net, run, torch.randn(8, 4))
    finally:
        torch.distributed.destroy_process_group()
    assert (answer.culprit, answer.replayed) == (None, False)
    assert "c10d::allreduce_" in answer.why_not
