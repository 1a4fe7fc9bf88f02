"""A copy in host memory of all that training changes: weights, buffers, optimizer and scaler state.

Taken between two optimizer steps, and written back in place: optimizers, DDP's buckets and fused
kernels hold on to the very tensors. What a schedule owns (learning rates, momenta that a cycle
moves, `global_step`) is no part of it, and neither are random states and the place in the data:
training goes on from there, with older weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_gradwatch.probe.parameters import clean_name
from lightning_gradwatch.probe.sharded import is_sharded


@dataclass(frozen=True)
class Trained:
    """What training changes.

    Attributes:
        module: The module.
        optimizers: All its optimizers, in the loop's order.
        scaler: The gradient scaler, if there is one.
        remember: Returns what the detectors know, as text.
        recall: Makes them know no more than that again.
    """

    module: nn.Module
    optimizers: Sequence[Optimizer] = ()
    scaler: Any = None
    remember: Callable[[], str] = str
    recall: Callable[[str], object] = len

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield `(name, tensor)` of every parameter and buffer, and of what only optimizers hold.

        Of one that is spread over processes, the part that lies here.
        """
        seen: set[int] = set()
        for name, parameter in self.module.named_parameters():
            seen.add(id(parameter))
            yield clean_name(name), local(parameter)
        for name, buffer in self.module.named_buffers():
            seen.add(id(buffer))
            yield clean_name(name), local(buffer)
        for i, optimizer in enumerate(self.optimizers):
            for j, parameter in enumerate(parameters_of(optimizer)):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"(optimizer {i}, parameter {j})", local(parameter)

    @property
    def is_ready(self) -> bool:
        """Whether every parameter has a shape (lazy modules)."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        return not any(is_lazy(tensor) for tensor in tensors)

    @property
    def is_sharded(self) -> bool:
        """Whether any parameter is spread over processes."""
        return any(is_sharded(parameter) for parameter in self.module.parameters())

    @property
    def nbytes(self) -> int:
        """Memory that one snapshot takes, in bytes, with the optimizer state there is now."""
        own = sum(tensor.nbytes for _, tensor in self.tensors())
        return own + sum(_nbytes(optimizer.state) for optimizer in self.optimizers)


@dataclass(frozen=True)
class Snapshot:
    """The state of training before one optimizer step. Never written to again.

    Attributes:
        step: That step, on the x axis of the loggers.
        tensors: Name to values, on the host.
        optimizers: State of each optimizer, by position of the parameter.
        scaler: State of the gradient scaler; None without one.
        memory: What the detectors knew.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> adam = torch.optim.Adam(net.parameters())
        >>> kept = Snapshot.take(Trained(net, [adam]), step=0)
        >>> before = net.weight.detach().clone()
        >>> _ = net(torch.ones(1, 2)).sum().backward(), adam.step()
        >>> kept.write_back(Trained(net, [adam]))
        ()
        >>> bool(torch.equal(net.weight, before)), len(adam.state[net.weight])
        (True, 0)
    """

    step: int
    tensors: Mapping[str, Tensor]
    optimizers: Sequence[Mapping[int, Any]] = field(default_factory=tuple)
    scaler: Mapping[str, Any] | None = None
    memory: str = ""

    @classmethod
    def take(cls, trained: Trained, step: int) -> Snapshot:
        """Copy the state of training to the host.

        On CUDA the copies are queued behind the work that is under way: nothing is waited for.
        """
        scaler = trained.scaler
        return cls(
            step,
            {name: _kept(tensor) for name, tensor in trained.tensors()},
            [
                {
                    place: _copied(optimizer.state[parameter])
                    for place, parameter in enumerate(parameters_of(optimizer))
                    if parameter in optimizer.state
                }
                for optimizer in trained.optimizers
            ],
            copy.deepcopy(scaler.state_dict()) if scaler is not None else None,
            trained.remember(),
        )

    @torch.no_grad()
    def write_back(self, trained: Trained) -> tuple[str, ...]:
        """Put everything back where it was.

        Returns:
            Names of tensors that are not in the snapshot, or have another shape there: parameters
            that were added since. They keep their values and start with a new optimizer state.
        """
        unknown = []
        for name, tensor in trained.tensors():
            saved = self.tensors.get(name)
            if saved is None or saved.shape != tensor.shape:
                unknown.append(name)
            else:
                # `.data`: a backward pass that is still to come must not stumble over it.
                tensor.data.copy_(saved, non_blocking=True)
        for i, optimizer in enumerate(trained.optimizers):
            states = self.optimizers[i] if i < len(self.optimizers) else {}
            for place, parameter in enumerate(parameters_of(optimizer)):
                if parameter in optimizer.state or place in states:
                    state = optimizer.state[parameter]
                    _refill(state, states.get(place, {}), local(parameter))
                    if not state and isinstance(optimizer, torch.optim.LBFGS):
                        # It counts these in the middle of the step that is being made.
                        state.update(func_evals=0, n_iter=0)
        if trained.scaler is not None and self.scaler:
            trained.scaler.load_state_dict(dict(self.scaler))
        if self.memory:
            trained.recall(self.memory)
        return tuple(unknown)

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, in bytes."""
        return _nbytes(self.tensors) + _nbytes(list(self.optimizers))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types and tensors only, as checkpoints are loaded with `weights_only`."""
        if any(tensor.is_pinned() for tensor in self.tensors.values()):
            torch.cuda.synchronize()  # the copies may still be under way
        return {
            "step": self.step,
            "tensors": dict(self.tensors),
            "optimizers": [dict(states) for states in self.optimizers],
            "scaler": None if self.scaler is None else dict(self.scaler),
            "memory": self.memory,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Rebuild what `to_dict` returned, also from a checkpoint that was mapped to a device."""
        return cls(
            int(data["step"]),
            {str(name): tensor.cpu() for name, tensor in data["tensors"].items()},
            [{int(k): _copied(v) for k, v in states.items()} for states in data["optimizers"]],
            data["scaler"],
            str(data["memory"]),
        )


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of all groups, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def local(tensor: Tensor) -> Tensor:
    """Return the values that lie in this process, without a link to the graph."""
    plain: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return plain.detach()


def _kept(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return kept.copy_(tensor, non_blocking=True)


def _copied(value: Any) -> Any:
    """Copy the state of an optimizer; dictionaries, lists and tuples of tensors and numbers."""
    if isinstance(value, Tensor):
        return _kept(local(value))
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return copy.deepcopy(value)


def _refill(state: Any, saved: Mapping[str, Any], parameter: Tensor) -> None:
    for key in [key for key in state if key not in saved]:
        del state[key]
    for key, value in saved.items():
        state[key] = _refilled(state.get(key), value, parameter)


def _refilled(now: Any, saved: Any, parameter: Tensor) -> Any:
    """Return the saved value, written into the tensor that is there if it has the same shape."""
    if isinstance(saved, Tensor):
        if isinstance(now, Tensor) and local(now).shape == saved.shape:
            local(now).data.copy_(saved, non_blocking=True)
            return now
        # Step counters lie on the host unless they were somewhere else.
        return saved.to(parameter.device, copy=True) if saved.dim() else saved.clone()
    if isinstance(saved, Mapping):
        known = now if isinstance(now, Mapping) else {}
        return {key: _refilled(known.get(key), item, parameter) for key, item in saved.items()}
    if isinstance(saved, list):
        return [_refilled(None, item, parameter) for item in saved]
    return copy.deepcopy(saved)


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return local(value).nbytes
    if isinstance(value, Mapping):
        return sum(_nbytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_nbytes(item) for item in value)
    return 0
