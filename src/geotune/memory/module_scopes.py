"""Where in a model a computation is: which of its named places, forward and back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

DEFAULT_SCOPE = "loss"
"""What is in no module that has a name: the batch, its normalisation, the loss."""
OPTIMIZER_SCOPE = "optimizer"


class ModuleTracker:
    """Follows a model's calls while it watches.

    On the way forward it is hooks that tell; on the way back, the place where the autograd node
    that is being computed was made. What a checkpoint computes again is told by both.

    Args:
        model: whose modules are named.
        named: modules by the name of the place; it goes to the modules inside one, too, until one
            of them is named otherwise.
        optimizer: whose step is a place of its own.

    Attributes:
        names: every place, in the order in which they were named.
    """

    def __init__(
        self,
        model: nn.Module,
        scopes: Mapping[str, Iterable[nn.Module]],
        optimizer: Optimizer | None = None,
    ) -> None:
        self.names = tuple(dict.fromkeys([*scopes, DEFAULT_SCOPE, OPTIMIZER_SCOPE]))
        names = {module: place for place, modules in scopes.items() for module in modules}
        self._place_of: dict[nn.Module, str] = {}
        self._entrances: dict[nn.Module, None] = {}
        self._walk(model, DEFAULT_SCOPE, names)
        self._optimizer = optimizer
        self._stack: list[str] = []
        self._marks: list[int] = []  # numbers of autograd nodes from which on ...
        self._marked: list[str] = []  # ... the place was this
        self._hooks: list[Any] = []

    def _walk(self, module: nn.Module, around: str, names: Mapping[nn.Module, str]) -> None:
        if module in self._place_of:
            return
        place = names.get(module, around)
        self._place_of[module] = place
        if place != around or module in names:
            self._entrances[module] = None
        for child in module.children():
            self._walk(child, place, names)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter of the model with its place."""
        for module, place in self._place_of.items():
            for parameter in module.parameters(recurse=False):
                yield place, parameter

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Every buffer of the model with its place."""
        for module, place in self._place_of.items():
            for buffer in module.buffers(recurse=False):
                yield place, buffer

    def current_scope(self) -> str:
        """The place of the computation that is under way."""
        if self._stack and self._stack[-1] != OPTIMIZER_SCOPE:
            return self._stack[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None or not self._marks:
            return self._stack[-1] if self._stack else DEFAULT_SCOPE
        at = bisect_right(self._marks, node._sequence_nr()) - 1
        return self._marked[at] if at >= 0 else DEFAULT_SCOPE

    def attach(self) -> None:
        """Begin to follow the model's calls."""
        for module in self._entrances:
            self._hooks += [
                module.register_forward_pre_hook(self._enter),
                # always: a checkpoint breaks a call off once it has what it needs
                module.register_forward_hook(self._leave, always_call=True),
            ]
        if self._optimizer is not None:
            self._hooks += [
                self._optimizer.register_step_pre_hook(lambda *_: self._push(OPTIMIZER_SCOPE)),
                self._optimizer.register_step_post_hook(lambda *_: self._leave()),
            ]

    def detach(self) -> None:
        """End it."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter(self, module: nn.Module, _inputs: Any) -> None:
        self._push(self._place_of[module])

    def _leave(self, *_: Any) -> None:
        self._stack.pop()
        self._mark(self._stack[-1] if self._stack else self.current_scope())

    def _push(self, place: str) -> None:
        self._stack.append(place)
        self._mark(place)

    def _mark(self, place: str) -> None:
        self._marks.append(torch._C._autograd._get_sequence_nr())
        self._marked.append(place)
