"""A context that leaves no trace: what a forward and a backward pass change is put back after it.

Parameters, their `.grad`, buffers and modes are obvious. Less so: plain attributes (counters,
lists of outputs, the states of torchmetrics), the random states of four libraries and of generators
that modules own, and a momentum teacher that the forward pass updates in place.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

#: So deep are attributes of modules searched for containers and tensors.
_DEPTH = 4

#: The parts of a module that are handled on their own.
_OWN = ("_parameters", "_buffers", "_modules")

Undo = Callable[[], None]


@contextmanager
def undisturbed(module: nn.Module, mode: bool | None = None) -> Iterator[None]:
    """Put back, on leaving, all that the body changes in a module and in random states.

    What lies outside of modules (files, loggers, objects of the user's own classes that a module
    holds) is not seen.

    Args:
        module: The root module.
        mode: True or False: the training mode of every module inside; None: as it is.

    Raises:
        ValueError: a parameter has no shape yet (lazy modules).

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> before = torch.get_rng_state()
        >>> with undisturbed(net):
        ...     _ = net(torch.randn(8, 2)).sum().backward()
        >>> net[0].running_mean.tolist(), net[0].weight.grad
        ([0.0, 0.0], None)
        >>> bool(torch.equal(torch.get_rng_state(), before))
        True
    """
    refuse_lazy(module)
    undo = [_random_states(), _grad_mode(), *_modules(module)]
    if mode is not None:
        for child in module.modules():
            child.training = mode
    try:
        yield
    finally:
        with torch.no_grad():
            for step in undo:
                step()


def refuse_lazy(module: nn.Module) -> None:
    """Raise a ValueError if parameters have no shape yet: a first call would give them one."""
    if any(is_lazy(value) for value in (*module.parameters(), *module.buffers())):
        raise ValueError("the module has lazy parameters: call it once on a batch before")


#: How to read and to set the state of each generator. numpy's is left out: reading it costs more
#: than all the others.
_GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch": (torch.get_rng_state, torch.set_rng_state),
    "python": (random.getstate, random.setstate),
    "cuda": (torch.cuda.get_rng_state, torch.cuda.set_rng_state),
}


def random_states(names: Collection[str] = tuple(_GENERATORS)) -> dict[str, Any]:
    """Return the states of generators: torch's, Python's, and the current device's.

    Args:
        names: Which ones; the device's only where it is in use.
    """
    return {
        name: _GENERATORS[name][0]()
        for name in names
        if name != "cuda" or torch.cuda.is_initialized()
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set the generators to what `random_states` returned."""
    for name, state in states.items():
        _GENERATORS[name][1](state)


def _random_states() -> Undo:
    # The global generator of numpy is not ours to replace: users' augmentations draw from it.
    states = random_states()
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002  # see above
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def undo() -> None:
        set_random_states(states)
        np.random.set_state(numpys)  # noqa: NPY002  # see above
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return undo


def _grad_mode() -> Undo:
    enabled = torch.is_grad_enabled()
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def undo() -> None:
        torch.set_grad_enabled(enabled)
        torch.autograd.set_detect_anomaly(*anomaly)

    return undo


def _modules(root: nn.Module) -> Iterator[Undo]:
    seen: set[int] = set()
    for module in root.modules():
        yield _attributes(module)
        for name in _OWN:
            # Modules may put others in the place of their parameters, buffers and children.
            held = vars(module).get(name)
            if isinstance(held, dict):
                yield _container(held)
        for name, value in vars(module).items():
            if name not in _OWN:
                yield from _contents(value, seen)
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                yield from _contents(tensor, seen)


def _attributes(module: nn.Module) -> Undo:
    saved = dict(vars(module))

    def undo() -> None:
        now = vars(module)
        for name in now.keys() - saved.keys():
            del now[name]
        now.update(saved)

    return undo


def _contents(value: Any, seen: set[int], depth: int = _DEPTH) -> Iterator[Undo]:
    if not isinstance(value, _STATEFUL) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield _tensor(value)
    elif isinstance(value, torch.Generator):
        state = value.get_state()
        yield lambda: _drop(value.set_state(state))
    elif isinstance(value, random.Random):
        drawn = value.getstate()
        yield lambda: value.setstate(drawn)
    elif isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        yield lambda: setattr(value.bit_generator, "state", bits)
    elif isinstance(value, np.random.RandomState):
        legacy = value.get_state(legacy=False)
        yield lambda: value.set_state(legacy)
    elif isinstance(value, np.ndarray):
        copy = value.copy()
        if value.flags.writeable:
            yield lambda: np.copyto(value, copy)
    else:
        if not isinstance(value, (tuple, frozenset)):
            yield _container(value)
        if depth:
            for item in list(value.values() if isinstance(value, dict) else value):
                yield from _contents(item, seen, depth - 1)


_STATEFUL = (
    Tensor, torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.ndarray,
    list, dict, set, deque, tuple, frozenset,
)  # fmt: skip


def _drop(_: object) -> None:
    """Drop a result."""


def _container(value: Any) -> Undo:
    """Put the items of a list, set, deque or dictionary back, if they are not the same any more."""
    saved = list(value.items()) if isinstance(value, dict) else list(value)

    def undo() -> None:
        if isinstance(value, dict):
            now = list(value.items())
            if len(now) != len(saved) or any(
                a is not c or b is not d for (a, b), (c, d) in zip(now, saved, strict=True)
            ):
                value.clear()
                value.update(saved)
        elif len(value) != len(saved) or any(
            a is not b for a, b in zip(list(value), saved, strict=True)
        ):
            value.clear()
            (value.update if isinstance(value, set) else value.extend)(saved)

    return undo


def _tensor(tensor: Tensor) -> Undo:
    """Put values, gradient and `requires_grad` back.

    A copy costs the memory of the model once; on a GPU it goes to the host.
    """
    requires, is_leaf = tensor.requires_grad, tensor.is_leaf
    grad = tensor.grad if is_leaf else None
    grad_undo = None if grad is None else _values(grad)
    values = _values(tensor)

    def undo() -> None:
        values()
        if is_leaf:
            if tensor.requires_grad != requires:
                tensor.requires_grad_(requires)
            if tensor.grad is not grad:
                tensor.grad = grad
            if grad_undo is not None:
                grad_undo()

    return undo


def _values(tensor: Tensor) -> Undo:
    source = tensor.detach()
    if source.layout != torch.strided:  # sparse: replaced, never written to
        return lambda: None
    copy = source.cpu() if source.device.type != "cpu" else source.clone()

    def undo() -> None:
        # NaN is unlike itself, so that a tensor with one is written back as it was.
        if not torch.equal(source.cpu(), copy):
            tensor.data.copy_(copy)  # leaves the version that autograd checks alone

    return undo
