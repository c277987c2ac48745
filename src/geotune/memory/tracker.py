"""The peak of live tensor bytes of a piece of code, to the byte, and what it consists of.

    with Tracker(model, optimizer) as tracker:
        loss = task.loss(model(images), masks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tracker.peak

Every operation is seen by a dispatch mode, below autograd and autocast, and every storage that it
makes is followed to its end. So what autograd saves, what autocast casts and what checkpointing
computes again are counted without being known of. A storage counts once, however many views it
has. Not seen is what a kernel takes and gives back inside one operation (workspaces).

On fake tensors nothing is computed and nothing is held, and the peak is the same:

    with FakeTensorMode() as fake, Tracker(model := faked(model, fake)) as tracker:
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
    """Live tensor bytes at the highest, and their parts.

    Attributes:
        by_place: the bytes of each part by where in the model they belong; see `ModuleTracker`.
        frozen: parameters that do not train, and buffers.
        trained: parameters that train.
        gradients: of parameters.
        optimizer_state: what the optimizer keeps between steps.
        saved: what was made on the way forward and is still there when a backward pass begins:
            activations, casts of weights, the batch.
        transient: all else.
    """

    total: int
    by_scope: Mapping[str, Mapping[Category, int]]

    def category_bytes(self, part: Category) -> int:
        """The bytes of a part, wherever they belong."""
        return sum(parts.get(part, 0) for parts in self.by_scope.values())

    @property
    def by_category(self) -> dict[Category, int]:
        """The bytes of each part; they sum to the total."""
        return {part: self.category_bytes(part) for part in CATEGORIES}

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
        """What is saved and what is transient."""
        return self.saved + self.transient


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows live storages while it is open; `peak` is there once it is closed.

    A tensor from before counts from the start where it belongs to the model, the optimizer or
    `others`, else from its first use on. A storage that was resized behind PyTorch's operations
    counts by its new size from its next use on.

    Args:
        model: whose parameters and buffers are told apart from the rest.
        optimizer: whose state is.
        others: tensors that are there from the start, such as the batch; nested in any way.
        places: modules of the model by the name of the place that they are; see `ModuleTracker`.
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
        self._where: ModuleTracker | None = ModuleTracker(model, scopes or {}, optimizer)
        self._storages: list[int] = []  # bytes now of each storage ever seen, by order of birth
        self._living: dict[int, tuple[int, weakref.ref[UntypedStorage]]] = {}  # by address
        self._changes: list[tuple[int, int]] = []  # (storage, bytes more or fewer), in order
        self._parts: dict[int, Category] = {}
        self._places: list[str] = []  # of each storage ever seen
        self._backward = -1  # the backward pass that is under way, or was the last
        self._hooks: list[Any] = []

    def __enter__(self) -> MemoryTracker:
        assert self._model is not None and self._where is not None, "a tracker is used once"
        self._name_parts()
        self._see(self._others)
        self._others = None
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda parameter, place=place: self._name("gradients", [parameter.grad], place)
            )
            for place, parameter in self._where.parameters()
            if parameter.requires_grad
        ]
        self._where.attach()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        assert self._where is not None
        self._where.detach()
        self._name_parts()
        self.peak = self._find_peak()
        self._living.clear()
        self._model = self._optimizer = self._where = None
        self._hooks = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and see what it made."""
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return NotImplemented  # the tensors inside such a one come by again, by themselves
        kwargs = kwargs or {}
        task = torch._C._current_graph_task_id()
        if task not in (-1, self._backward):
            self._backward = task
            for number, _ in self._living.values():
                self._parts.setdefault(number, "saved")
        result = func(*args, **kwargs)
        self._see((args, kwargs, result))
        return result

    def _see(self, tree: Any) -> list[int]:
        """Count the storages of all tensors in a tree as they are now; gives their numbers."""
        return [self._count(storage) for storage in _storages(tree_leaves(tree))]

    def _count(self, storage: UntypedStorage) -> int:
        address, size = storage._cdata, storage.nbytes()
        if address in self._living:
            number = self._living[address][0]
            change = size - self._storages[number]
        else:
            number, change = len(self._storages), size
            self._storages.append(0)
            self._places.append(
                DEFAULT_SCOPE if self._where is None else self._where.current_scope()
            )
            living = self._living

            def end(_: Any) -> None:
                if living.pop(address, None) is not None:
                    self._change(number, -self._storages[number])

            self._living[address] = number, weakref.ref(storage, end)
        if change:
            self._change(number, change)
        return number

    def _change(self, number: int, change: int) -> None:
        self._storages[number] += change
        self._changes.append((number, change))

    def _name(self, part: Category, tensors: Iterable[Any], place: str) -> None:
        for number in self._see(list(tensors)):
            self._parts[number] = part
            self._places[number] = place

    def _name_parts(self) -> None:
        """What of the model and the optimizer there is now.

        A storage is named for all of its life: a gradient is one from when it was computed.
        """
        assert self._where is not None
        for place, buffer in self._where.buffers():
            self._name("frozen", [buffer], place)
        for place, parameter in self._where.parameters():
            self._name("trained" if parameter.requires_grad else "frozen", [parameter], place)
            self._name("gradients", [parameter.grad], place)
            if self._optimizer is not None and parameter in self._optimizer.state:
                state = tree_leaves(self._optimizer.state[parameter])
                self._name("optimizer_state", state, place)

    def _find_peak(self) -> TrackedPeak:
        totals = list(accumulate((change for _, change in self._changes), initial=0))
        total = max(totals)
        found: dict[str, Counter[Category]] = {}
        for number, change in self._changes[: totals.index(total)]:
            parts = found.setdefault(self._places[number], Counter())
            parts[self._parts.get(number, "transient")] += change
        assert self._where is not None
        kept = {
            place: {part: found[place][part] for part in CATEGORIES if found[place][part]}
            for place in self._where.names
            if place in found
        }
        return TrackedPeak(total, {place: parts for place, parts in kept.items() if parts})


def _storages(leaves: Iterable[Any]) -> Iterator[UntypedStorage]:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            continue
        if is_traceable_wrapper_subclass(leaf):  # such as a quantised weight: it holds others
            names, _ = leaf.__tensor_flatten__()
            yield from _storages(getattr(leaf, name) for name in names)
        elif leaf.layout == torch.strided:
            yield leaf.untyped_storage()


def to_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of the model on fake tensors: shapes without contents."""
    with unset_fake_temporarily(), FakeCopyMode(mode):
        return copy.deepcopy(model)
