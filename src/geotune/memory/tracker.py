"""Track the peak of live tensor bytes of a piece of code, exactly, by category and module scope.

    with MemoryTracker(model, optimizer) as tracker:
        loss = task.loss(model(images), masks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tracker.peak

A dispatch mode below autograd and autocast sees every operation, and follows every storage from
its creation to its release. Tensors saved by autograd, casts of autocast and recomputed activations
are therefore counted. A storage counts once, regardless of its number of views. Workspaces that a
kernel allocates and frees inside one operation are not counted.

On fake tensors nothing is computed or allocated, and the peak is the same:

    with FakeTensorMode() as fake, MemoryTracker(model := to_fake(model, fake)) as tracker:
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode, unset_fake_temporarily
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from geotune.memory.module_scopes import DEFAULT_SCOPE, ModuleTracker

Category = Literal["frozen", "trained", "gradients", "optimizer_state", "saved", "transient"]
CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True)
class TrackedPeak:
    """The peak of live tensor bytes.

    Attributes:
        total: at the peak.
        by_scope: bytes of each category by module scope; see `ModuleTracker`.
        frozen: frozen parameters, and buffers.
        trained: trained parameters.
        gradients: of parameters.
        optimizer_state: tensors that the optimizer keeps between steps.
        saved: tensors from the forward pass that are alive when a backward pass starts:
            activations, casts of weights, the batch.
        transient: all others.
    """

    total: int
    by_scope: Mapping[str, Mapping[Category, int]]

    def category_bytes(self, category: Category) -> int:
        """Bytes of a category in all scopes."""
        return sum(sizes.get(category, 0) for sizes in self.by_scope.values())

    @property
    def by_category(self) -> dict[Category, int]:
        """Bytes of each category; they add up to the total."""
        return {category: self.category_bytes(category) for category in CATEGORIES}

    @property
    def frozen(self) -> int:
        """See the class."""
        return self.category_bytes("frozen")

    @property
    def trained(self) -> int:
        """See the class."""
        return self.category_bytes("trained")

    @property
    def gradients(self) -> int:
        """See the class."""
        return self.category_bytes("gradients")

    @property
    def optimizer_state(self) -> int:
        """See the class."""
        return self.category_bytes("optimizer_state")

    @property
    def saved(self) -> int:
        """See the class."""
        return self.category_bytes("saved")

    @property
    def transient(self) -> int:
        """See the class."""
        return self.category_bytes("transient")

    @property
    def activations(self) -> int:
        """Saved and transient bytes."""
        return self.saved + self.transient


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks live storages while active; `peak` is available after it exits.

    A tensor that existed before counts from the start if it belongs to the model, the optimizer or
    `others`, else from its first use. A storage that was resized outside of PyTorch operations
    counts with its new size from its next use.

    Args:
        model: whose parameters and buffers have their own categories.
        optimizer: whose state has its own category.
        others: further tensors that exist from the start, such as the batch; nested in any way.
        scopes: modules by scope name; see `ModuleTracker`.
    """

    peak: TrackedPeak

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        others: Any = None,
        scopes: Mapping[str, Iterable[nn.Module]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model: nn.Module | None = model
        self._optimizer = optimizer
        self._others = others
        self._modules: ModuleTracker | None = ModuleTracker(model, scopes or {}, optimizer)
        self._storages: list[int] = []  # current bytes of each storage, in order of creation
        self._living: dict[int, tuple[int, weakref.ref[UntypedStorage]]] = {}  # by address
        self._changes: list[tuple[int, int]] = []  # (storage, change in bytes), in order
        self._categories: dict[int, Category] = {}
        self._scopes: list[str] = []  # of each storage
        self._backward = -1  # the current or last backward pass
        self._hooks: list[Any] = []

    def __enter__(self) -> MemoryTracker:
        assert self._model is not None and self._modules is not None, "a tracker is used once"
        self._label_model()
        self._see(self._others)
        self._others = None
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda parameter, scope=scope: self._label("gradients", [parameter.grad], scope)
            )
            for scope, parameter in self._modules.parameters()
            if parameter.requires_grad
        ]
        self._modules.attach()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        assert self._modules is not None
        self._modules.detach()
        self._label_model()
        self.peak = self._find_peak()
        self._living.clear()
        self._model = self._optimizer = self._modules = None
        self._hooks = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and record its storages."""
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return NotImplemented  # the inner tensors of such a subclass are dispatched again
        kwargs = kwargs or {}
        task = torch._C._current_graph_task_id()
        if task not in (-1, self._backward):
            self._backward = task
            for number, _ in self._living.values():
                self._categories.setdefault(number, "saved")
        result = func(*args, **kwargs)
        self._see((args, kwargs, result))
        return result

    def _see(self, tree: Any) -> list[int]:
        """Record the current storages of all tensors in a tree; returns their numbers."""
        return [self._record(storage) for storage in _storages(tree_leaves(tree))]

    def _record(self, storage: UntypedStorage) -> int:
        address, size = storage._cdata, storage.nbytes()
        if address in self._living:
            number = self._living[address][0]
            change = size - self._storages[number]
        else:
            number, change = len(self._storages), size
            self._storages.append(0)
            scope = DEFAULT_SCOPE if self._modules is None else self._modules.current_scope()
            self._scopes.append(scope)
            living = self._living

            def released(_: Any) -> None:
                if living.pop(address, None) is not None:
                    self._change(number, -self._storages[number])

            self._living[address] = number, weakref.ref(storage, released)
        if change:
            self._change(number, change)
        return number

    def _change(self, number: int, change: int) -> None:
        self._storages[number] += change
        self._changes.append((number, change))

    def _label(self, category: Category, tensors: Iterable[Any], scope: str) -> None:
        for number in self._see(list(tensors)):
            self._categories[number] = category
            self._scopes[number] = scope

    def _label_model(self) -> None:
        """Label the current tensors of the model and the optimizer.

        A label holds for the whole life of a storage: a gradient is one since its computation.
        """
        assert self._modules is not None
        for scope, buffer in self._modules.buffers():
            self._label("frozen", [buffer], scope)
        for scope, parameter in self._modules.parameters():
            self._label("trained" if parameter.requires_grad else "frozen", [parameter], scope)
            self._label("gradients", [parameter.grad], scope)
            if self._optimizer is not None and parameter in self._optimizer.state:
                state = tree_leaves(self._optimizer.state[parameter])
                self._label("optimizer_state", state, scope)

    def _find_peak(self) -> TrackedPeak:
        totals = list(accumulate((change for _, change in self._changes), initial=0))
        total = max(totals)
        counts: dict[str, Counter[Category]] = {}
        for number, change in self._changes[: totals.index(total)]:
            sizes = counts.setdefault(self._scopes[number], Counter())
            sizes[self._categories.get(number, "transient")] += change
        assert self._modules is not None
        by_scope = {
            scope: {c: counts[scope][c] for c in CATEGORIES if counts[scope][c]}
            for scope in self._modules.names
            if scope in counts
        }
        return TrackedPeak(total, {scope: sizes for scope, sizes in by_scope.items() if sizes})


def _storages(leaves: Iterable[Any]) -> Iterator[UntypedStorage]:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            continue
        if is_traceable_wrapper_subclass(leaf):  # such as a quantized weight: it holds others
            names, _ = leaf.__tensor_flatten__()
            yield from _storages(getattr(leaf, name) for name in names)
        elif leaf.layout == torch.strided:
            yield leaf.untyped_storage()


def to_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of the model on fake tensors: shapes without contents."""
    with unset_fake_temporarily(), FakeCopyMode(mode):
        return copy.deepcopy(model)
