"""What a worker on a Ray cluster holds: CPUs, and a GPU or TPU chip where there are some."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from purelm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Resources:
    """A worker's; a GPU may be a part of one."""

    cpus: float
    gpus: float = 0.0
    tpus: float = 0.0

    @property
    def on_cpu(self) -> bool:
        return not (self.gpus or self.tpus)

    def fitting(self, node: Mapping[str, float]) -> int:
        """How many such workers a node with these resources has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "TPU": self.tpus}
        return min(int(_amount(node, name) / amount + 1e-9) for name, amount in wanted.items() if amount)

    def __str__(self) -> str:
        parts = ((self.cpus, "CPUs"), (self.gpus, "GPUs"), (self.tpus, "TPU chips"))
        return " and ".join(f"{amount:g} {name}" for amount, name in parts if amount)


def share_out(nodes: Sequence[Mapping[str, float]], *, workers: int | None, cpus: int | None,
              gpus: float | None) -> tuple[int, Resources]:
    """How many workers, and what each holds.

    Args:
      nodes: Ray's resources of each, such as {"CPU": 8.0, "GPU": 1.0, ...}.
      workers, cpus, gpus: as asked for; None shares out what there is: a GPU or TPU chip each (or a part of a GPU,
        where there are more workers), and on CPU as many cores as lets all of them work at once.

    Raises:
      UserError: no node has that.
    """
    for name, value, least in (("workers", workers, 1), ("cpus_per_worker", cpus, 1), ("gpus_per_worker", gpus, 0)):
        if value is not None and value < least:
            raise UserError(f"--launcher=ray: {name}={value:g}: must be at least {least}")
    total = {name: sum(_amount(node, name) for node in nodes) for name in ("CPU", "GPU", "TPU")}
    if gpus is None:
        gpus = _part_of_a_gpu(total["GPU"], workers)
    tpus = 1.0 if total["TPU"] and not gpus else 0.0
    if cpus is None:
        cpus = 1 if gpus or tpus else _cores(nodes, workers)
    resources = Resources(float(cpus), gpus, tpus)
    room = sum(resources.fitting(node) for node in nodes)
    if not room:
        has = ", ".join(f"{amount:g} {name}" for name, amount in total.items() if amount) or "nothing"
        raise UserError(f"--launcher=ray: no node of the cluster has {resources}; all of it together has {has}")
    return (room if workers is None else workers), resources


def _part_of_a_gpu(total: float, workers: int | None) -> float:
    if not total:
        return 0.0
    return 1.0 / max(-(-(workers or 1) // int(total)), 1)


def _cores(nodes: Sequence[Mapping[str, float]], workers: int | None) -> int:
    """The smallest node's, or as many as give that many workers room."""
    sizes = [int(_amount(node, "CPU")) for node in nodes if _amount(node, "CPU") >= 1]
    if workers is None or not sizes:
        return min(sizes, default=1)
    for cores in range(max(sizes), 0, -1):
        if sum(size // cores for size in sizes) >= workers:
            return cores
    raise UserError(f"--workers={workers}: the Ray cluster has {sum(sizes)} CPUs, and a worker takes one at least")


def _amount(node: Mapping[str, float], name: str) -> float:
    return node.get(name, 0.0)
