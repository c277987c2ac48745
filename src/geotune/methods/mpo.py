"""MPO, matrix product operators (arXiv 2106.02205, arXiv 2303.16753).

    W[i_1 ... i_n, j_1 ... j_n] = T_1[i_1 j_1] T_2[i_2 j_2] ... T_n[i_n j_n]

T_k is d_(k-1) x i_k x j_k x d_k; the sizes of a layer factorise as I = i_1 ... i_n outputs and
J = j_1 ... j_n inputs. Successive singular value decompositions, from both ends to the middle, give
the tensors without truncation. The central tensor, which holds most of the parameters, stays
frozen; the others, the auxiliary tensors, train.

The auxiliary tensors left of the centre form a matrix P, those right of it a matrix Q, and both
start orthogonal, P_0 and Q_0. So the central tensor is P_0' W Q_0', and the updated weight
(P P_0') W (Q_0' Q): only P_0 and Q_0 are kept beside W, in the adapter, which makes it independent
of how a machine decomposes W. Training starts at the frozen features up to rounding.

Sizes are factorised as evenly as their divisors allow; of a prime number only the central factor
differs from one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import MpoOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.layer_updates import LayerUpdate, merge_updates, update_layers
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.target_layers import Layer, target_layers


class Mpo(MpoOptions, Method):
    """The auxiliary tensors of each linear layer's matrix product operator train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        if self.tensors % 2 == 0:
            near = f"{self.tensors - 1} or {self.tensors + 1}"
            problem = f"expected an odd number, for a central one, such as {near}"
            raise option_error("tensors", self.tensors, problem)
        layers = target_layers(backbone, self.targets, method="mpo", convolutions=False)
        update_layers(backbone, layers, lambda _, layer: AuxiliaryTensors(layer, self.tensors))
        return checked_encoder(backbone, self, merge=merge_updates)


def balanced_factors(number: int, count: int) -> list[int]:
    """Factorise a number into `count` factors of similar size; what remains is in the middle."""
    outer, rest = [], number
    for _ in range(count - 1):
        target = math.log(number) / count
        divisors = [d for d in range(1, rest + 1) if rest % d == 0]
        factor = min(divisors, key=lambda d: abs(math.log(d) - target))
        outer.append(factor)
        rest //= factor
    return [*outer[: count // 2], rest, *outer[count // 2 :]]


class AuxiliaryTensors(LayerUpdate):
    """The auxiliary tensors of a linear layer, `left` and `right` of the central one.

    `start_left` and `start_right` are their initial values.
    """

    decays = False

    def __init__(self, layer: Layer, count: int) -> None:
        super().__init__()
        weight = layer.weight.detach()
        outputs, inputs = (balanced_factors(size, count) for size in weight.shape)
        self.sizes = tuple(zip(outputs, inputs, strict=True))
        half = count // 2
        # (i_1 ... i_n, j_1 ... j_n) to (i_1 j_1, ..., i_n j_n)
        order = [axis for k in range(count) for axis in (k, count + k)]
        tensor = weight.reshape(*outputs, *inputs).permute(order)
        tensor = tensor.reshape([i * j for i, j in self.sizes])
        self.left = nn.ParameterList(_split_off(tensor, half))
        backwards = tensor.permute(*reversed(range(count)))
        self.right = nn.ParameterList(_split_off(backwards, half))
        for name, tensors in (("start_left", self.left), ("start_right", self.right)):
            for k, start in enumerate(tensors):
                self.register_buffer(f"{name}{k}", start.detach().clone())

    def updated_weight(self, layer: Layer) -> Tensor:
        """`(P P_0') W (Q_0' Q)` as `(outputs, inputs)`."""
        half, count = len(self.left), len(self.sizes)
        outputs, inputs = zip(*self.sizes, strict=True)
        order = [axis for k in range(count) for axis in (k, count + k)]
        tensor = layer.weight.reshape(*outputs, *inputs).permute(order)
        before = [self.get_buffer(f"start_left{k}") for k in range(half)]
        after = [self.get_buffer(f"start_right{k}") for k in range(half)]
        left = _contract(list(self.left)) @ _contract(before).T
        right = _contract(list(self.right)) @ _contract(after).T
        rows, columns = len(left), _reversed_order(right, self.sizes[:half:-1])
        middle = tensor.reshape(rows, -1, len(columns))
        updated = torch.einsum("ab,bmc,dc->amd", left, middle, columns)
        shape = [size for pair in self.sizes for size in pair]
        inverse = [*range(0, 2 * count, 2), *range(1, 2 * count, 2)]
        return updated.reshape(shape).permute(inverse).reshape(layer.weight.shape)

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """See `LayerUpdate.forward`."""
        with torch.autocast(x.device.type, enabled=False):  # products of orthogonal matrices
            weight = self.updated_weight(layer)
        return F.linear(x, weight, layer.bias)

    def merge(self, layer: Layer) -> None:
        """See `LayerUpdate.merge`."""
        layer.weight.copy_(self.updated_weight(layer))


def _split_off(tensor: Tensor, count: int) -> list[Tensor]:
    """Split the first tensors off by singular value decompositions, `(d_(k-1), i_k j_k, d_k)`.

    Signs are fixed by the largest entry of each singular vector.
    """
    split, rest, bond = [], tensor.reshape(1, -1).double(), 1
    for size in tensor.shape[:count]:
        matrix = rest.reshape(bond * size, -1)
        kept = min(matrix.shape)
        vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :kept]
        largest = vectors.abs().argmax(0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()
        split.append(vectors.reshape(bond, size, kept).float().contiguous())
        rest, bond = vectors.T @ matrix, kept
    return split


def _contract(tensors: list[Tensor]) -> Tensor:
    """Join tensors `(d_(k-1), i_k j_k, d_k)` to a matrix `(product of i_k j_k, d)`."""
    joined = tensors[0].flatten(0, 1)
    for tensor in tensors[1:]:
        joined = torch.einsum("ab,bcd->acd", joined, tensor).flatten(0, 1)
    return joined


def _reversed_order(matrix: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """Bring rows and columns from the order of the tensors, last first, to that of the weight."""
    shape = [i * j for i, j in sizes]
    n = len(shape)
    axes = [*reversed(range(n)), *(n + k for k in reversed(range(n)))]
    return matrix.reshape(*shape, *shape).permute(axes).reshape(matrix.shape)
