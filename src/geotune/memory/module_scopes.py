"""Assign computations to named scopes of a model, in the forward and the backward pass."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

DEFAULT_SCOPE = "loss"
"""Everything outside of named modules: the batch, its normalization, the loss."""
OPTIMIZER_SCOPE = "optimizer"


class ModuleTracker:
    """Tracks which scope of a model is computing, while attached.

    The forward pass is tracked by hooks. In the backward pass the scope is the one in which the
    current autograd node was created. Activation checkpointing uses both.

    Args:
        model: to track.
        scopes: modules by scope name; submodules belong to the scope of their parent unless they
            have their own.
        optimizer: its step is a scope of its own.

    Attributes:
        names: of all scopes, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        scopes: Mapping[str, Iterable[nn.Module]],
        optimizer: Optimizer | None = None,
    ) -> None:
        self.names = tuple(dict.fromkeys([*scopes, DEFAULT_SCOPE, OPTIMIZER_SCOPE]))
        named = {module: scope for scope, modules in scopes.items() for module in modules}
        self._scope_of: dict[nn.Module, str] = {}
        self._entry_modules: dict[nn.Module, None] = {}
        self._assign(model, DEFAULT_SCOPE, named)
        self._optimizer = optimizer
        self._stack: list[str] = []
        self._node_numbers: list[int] = []  # from this autograd node on ...
        self._node_scopes: list[str] = []  # ... the scope was this
        self._hooks: list[Any] = []

    def _assign(self, module: nn.Module, parent: str, named: Mapping[nn.Module, str]) -> None:
        if module in self._scope_of:
            return
        scope = named.get(module, parent)
        self._scope_of[module] = scope
        if scope != parent or module in named:
            self._entry_modules[module] = None
        for child in module.children():
            self._assign(child, scope, named)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter of the model with its scope."""
        for module, scope in self._scope_of.items():
            for parameter in module.parameters(recurse=False):
                yield scope, parameter

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Every buffer of the model with its scope."""
        for module, scope in self._scope_of.items():
            for buffer in module.buffers(recurse=False):
                yield scope, buffer

    def current_scope(self) -> str:
        """The scope of the running computation."""
        if self._stack and self._stack[-1] != OPTIMIZER_SCOPE:
            return self._stack[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None or not self._node_numbers:
            return self._stack[-1] if self._stack else DEFAULT_SCOPE
        index = bisect_right(self._node_numbers, node._sequence_nr()) - 1
        return self._node_scopes[index] if index >= 0 else DEFAULT_SCOPE

    def attach(self) -> None:
        """Register the hooks."""
        for module in self._entry_modules:
            self._hooks += [
                module.register_forward_pre_hook(self._enter),
                # always: checkpointing aborts a recomputed call once it has what it needs
                module.register_forward_hook(self._leave, always_call=True),
            ]
        if self._optimizer is not None:
            self._hooks += [
                self._optimizer.register_step_pre_hook(lambda *_: self._push(OPTIMIZER_SCOPE)),
                self._optimizer.register_step_post_hook(lambda *_: self._leave()),
            ]

    def detach(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter(self, module: nn.Module, _inputs: Any) -> None:
        self._push(self._scope_of[module])

    def _leave(self, *_: Any) -> None:
        self._stack.pop()
        self._mark(self._stack[-1] if self._stack else self.current_scope())

    def _push(self, scope: str) -> None:
        self._stack.append(scope)
        self._mark(scope)

    def _mark(self, scope: str) -> None:
        self._node_numbers.append(torch._C._autograd._get_sequence_nr())
        self._node_scopes.append(scope)
