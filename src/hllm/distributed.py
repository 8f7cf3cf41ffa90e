"""Distributed lets several processes work as one: who we are, what we share. In one process it does nothing.

Processes are started by torchrun, which tells each its number by environment variables.
"""

# Proved by tests/training/test_distributed.py.

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hllm.errors import ConfigError

_PATIENCE = timedelta(hours=4)  # others wait while the first process tokenises a catalogue, or writes
_joinings = itertools.count()
"""Numbers of the groups that this process has joined, one after another; the same in all processes."""


@final
class Group:
    """The processes that train one model together; each calls the same methods in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        """Number of this process, from 0."""
        self.size = size
        self.bytes_communicated = 0
        """What this process has handed to the others, over all calls."""

    @property
    def first(self) -> bool:
        """Return whether this process is the one that writes files."""
        return self.rank == 0

    def slice_of(self, count: int) -> slice:
        """Return this process's share of `count` things; shares differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, rows: Float[Tensor, "row dim"], sizes: Sequence[int]) -> Float[Tensor, "all dim"]:
        """Return the rows of all processes, in order of rank; `sizes` says how many each has.

        Differentiable: each process's rows get the sum of the gradients that all processes have for them.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self, tuple(sizes))  # type: ignore[no-untyped-call]
        return gathered

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; all get the same bits."""
        if self.size == 1 or not tensors:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):  # not a set: its order differs by process
            some = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in some]).to(_device())
            self.bytes_communicated += flat.nbytes
            dist.all_reduce(flat)
            for tensor, part in zip(some, flat.split([tensor.numel() for tensor in some]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def highest(self, *numbers: int) -> tuple[int, ...]:
        """Return the highest that any process gives for each number."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, device=_device())
        self.bytes_communicated += values.nbytes
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return tuple(values.tolist())

    def any(self, holds: bool) -> bool:
        """Return whether something holds in any process."""
        return bool(self.highest(int(holds))[0])

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Let one process after the other, in order of rank, do what is inside."""
        for turn in range(self.size):
            if turn == self.rank:
                yield
            self.wait()

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group, sizes: tuple[int, ...]) -> Tensor:
        ctx.group, ctx.sizes = group, sizes
        longest = max(sizes)
        padded = rows.new_zeros(longest, rows.shape[1])
        padded[: len(rows)] = rows
        group.bytes_communicated += padded.nbytes
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        ctx.group.add_up([gradient])
        start = sum(ctx.sizes[: ctx.group.rank])
        return gradient[start : start + ctx.sizes[ctx.group.rank]], None, None


def _number(variable: str, default: int) -> int:
    """Return a number that torchrun hands over in the environment; ConfigError if it is none."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {variable} is {text!r}, expected a number; unset it without torchrun"
        )
    return int(text)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started; alone, yield a group of one.

    Inside another `joined` it is the same group. The outermost one leaves the group at its end, when all processes have
    come there. A process that kept its connections until it ended was at times aborted then, by their threads.
    """
    if _number("WORLD_SIZE", 1) == 1 or "RANK" not in os.environ:
        yield Group()
        return
    if dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size())
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    store, rank, size = _meeting_point()
    # Under a name of its own: addresses that a group left in the store would be taken for those of the next.
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=dist.PrefixStore(f"hllm-{next(_joinings)}", store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        yield Group(rank, size)
        dist.barrier()  # an error in one process is not waited with: torchrun ends the others
    finally:
        dist.destroy_process_group()


@functools.cache
def _meeting_point() -> tuple[Any, int, int]:
    """Return the store in which torchrun's processes find each other, this process's number and how many there are."""
    try:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    except ValueError as error:  # a variable of torchrun's that is missing or no number
        raise ConfigError(f"the processes cannot find each other: {error}; start them with torchrun") from None
    return store, rank, size


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
