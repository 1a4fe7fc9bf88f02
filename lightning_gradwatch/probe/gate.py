"""Tells the backward pass of the loss from every other use of autograd inside a step.

Gradient penalties, saliency maps and adversarial examples call `torch.autograd.grad` on the same
graph, and hooks on the graph fire for them too. They are not what the optimizer is about to use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge


class BackwardGate:
    """Answers, from inside a hook, whether the running pass is a backward pass of the loss.

    A loop that announces every backward pass is believed. Elsewhere a pass counts if it will
    accumulate into a parameter of the module, which `torch.autograd.grad` never does.

    Args:
        module: The module that is trained.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._announced = False
        self._inside = False
        self._known = (-1, False)

    def reset(self, announced: bool) -> None:
        """Start a batch; `announced`: every backward pass will be framed by `enter` and `leave`."""
        self._announced, self._inside = announced, False

    def enter(self) -> None:
        """The loop is about to backpropagate a loss."""
        self._inside = True

    def leave(self) -> None:
        """The loop has done so."""
        self._inside = False

    def counts(self) -> bool:
        """Whether gradients that pass now are gradients of the loss."""
        if self._inside or self._announced:
            return self._inside
        task = graph_task()
        if task < 0:
            return not torch.is_grad_enabled()
        if self._known[0] != task:
            self._known = (task, self._reaches_a_parameter())
        return self._known[1]

    def _reaches_a_parameter(self) -> bool:
        executes = getattr(torch._C, "_will_engine_execute_node", None)
        if executes is None:
            return not torch.is_grad_enabled()
        for parameter in self._module.parameters():
            if not parameter.requires_grad:
                continue
            try:
                if executes(get_gradient_edge(parameter).node):
                    return True
            except RuntimeError:  # `torch.autograd.grad` with respect to this very parameter
                continue
        return False


#: Hidden by some releases of torch.
_current_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)


def graph_task() -> int:
    """Return the number of the running backward pass; -1 outside of one or if torch hides it."""
    return _current_task()
