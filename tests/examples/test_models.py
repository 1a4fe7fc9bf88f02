import pytest
import torch

from examples import classic_failures, mlp, residual, rnn


def build(example, words=""):
    torch.manual_seed(0)
    return example.build(example.make_arguments().parse_args(words.split()))


@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
@pytest.mark.parametrize("switches", ["", "--batch-norm", "--dropout 0.2", "--weight-norm"])
def test_every_mlp_gives_ten_logits_and_a_gradient_to_each_parameter(activation, switches):
    net = build(mlp, f"--activation {activation} --depth 3 {switches}")
    out = net(torch.randn(8, 64))
    assert out.shape == (8, 10)
    out.square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name


def test_inits_have_the_deviation_they_promise():
    def deviation(words):
        return build(mlp, words).hidden[1].linear.weight.std().item()

    assert deviation("--init small") == pytest.approx(0.01, rel=0.1)
    assert deviation("--init large") == pytest.approx(1.0, rel=0.1)
    assert deviation("--activation relu --init he") == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert deviation("--init xavier") == pytest.approx((1 / 64) ** 0.5, rel=0.1)
    assert deviation("--activation tanh --init xavier") == pytest.approx(5 / 3 / 8, rel=0.1)


def test_plain_and_residual_stacks_have_the_same_weights():
    plain, residuals = build(residual), build(residual, "--residual")
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in residuals.named_parameters()]
    x = torch.randn(2, 1, 8, 8)
    assert plain(x).shape == residuals(x).shape == (2, 10)
    assert not torch.allclose(plain(x), residuals(x))


def test_odd_depth_is_refused():
    with pytest.raises(ValueError, match=r"must be even .* got 7"):
        build(residual, "--depth 7")


def gradient_through_time(words):
    """Return the gradient at the recurrent input, first tenth of the steps over the last."""
    net = build(rnn, words)
    seen = []

    def keep(module, inputs):
        inputs[0].register_hook(lambda grad: seen.append(grad.norm(dim=(0, 2))))

    net.rnn.register_forward_pre_hook(keep)
    net(torch.randn(16, 64, 1)).square().sum().backward()
    norms = seen[0]
    return (norms[:6].mean() / norms[-6:].mean()).item()


@pytest.mark.parametrize("words", ["", "--batch-norm", "--cell lstm --gate-bias 0"])
def test_the_error_signal_dies_on_its_way_through_64_steps(words):
    assert gradient_through_time(words) < 1e-4


@pytest.mark.parametrize("words", ["--cell rnn_relu", "--cell lstm", "--cell gru"])
def test_and_survives_where_the_state_is_kept(words):
    assert gradient_through_time(words) > 10**-2.2


def test_gate_bias_opens_the_gate_that_keeps_the_state():
    for cell in ("lstm", "gru"):
        layer = build(rnn, f"--cell {cell} --gate-bias 2").rnn
        gate = slice(layer.hidden_size, 2 * layer.hidden_size)
        assert torch.all((layer.bias_ih_l0 + layer.bias_hh_l0)[gate] == 2)


def test_saturated_perceptron_answers_the_same_to_all_inputs():
    net = build(classic_failures, "--case saturation")
    x, _ = classic_failures.dataset("saturation", scale=False).tensors
    hidden = net.tanh(net.hidden(x[50:]))
    assert (hidden.abs() > 0.999).float().mean() > 0.98
    assert net(x).std() < 0.05
