"""The bytes of all tensors that live at once, counted on any device: no allocator is asked.

On a CPU a process's own peak holds libraries and freed pages beside the tensors; here each storage
counts from the operation that made it until nothing refers to it.
"""

import weakref
from collections.abc import Iterable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Inside, `peak` is the most bytes that tensors held at once, backward and optimiser included.
    What a kernel takes for itself and gives back is not seen.

    Args:
        held: tensors that were there before.
    """

    def __init__(self, held: Iterable[Tensor] = ()):
        super().__init__()
        self._known = WeakIdKeyDictionary()
        self.live = self.peak = 0
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._see, out)
        return out

    def _see(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            size = storage.nbytes()
            self._known[storage] = size
            weakref.finalize(storage, self._gone, size)
            self.live += size
            self.peak = max(self.peak, self.live)
        return tensor

    def _gone(self, size: int) -> None:
        self.live -= size
