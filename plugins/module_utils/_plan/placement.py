# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which instance runs on which GPUs.

The rules, in this order: a GPU serves one instance; an instance stays on one host, or has as many GPUs on each of as
many hosts as its model says, all of one kind; what runs already and is still right stays where it is; what must run
(the given replicas, and one instance of every model with ``replicas: auto``) is placed before the rest, the largest
groups before the small ones, which fit into more gaps; replicas of a model go to the hosts that have the fewest of
them, so that losing a host loses the fewest; a group prefers one NVLink domain, then one NUMA node, and the smallest
gap that holds it, so that larger gaps stay whole.
Models with ``replicas: auto`` then share what is left: the next instance goes to the one that holds the fewest GPUs.

An instance that runs is taken away only to make room for what must run: first one that its model (``replicas: auto``)
can spare, of the model that holds the most GPUs; then smaller ones that must run themselves, which are placed again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .findings import natural_key
from .schema import Gpu, GpuKind, Host

#: What a group of GPUs shares, best first: the words are shown to the operator.
LINKS = ("one GPU", "one NVLink domain", "one NUMA node", "PCIe across NUMA nodes")


@dataclass(frozen=True)
class Demand:
    """What a model wants placed."""

    model: str
    #: Kind of GPU -> tensor-parallel size there; kinds that cannot serve the model are absent.
    sizes: Mapping[GpuKind, int]
    #: None: as many as its fair share.
    replicas: int | None
    #: Hosts of an instance, each with ``sizes`` GPUs.
    stages: int = 1


@dataclass(frozen=True)
class Share:
    """What an instance has on one of its further hosts."""

    host: str
    gpus: tuple[Gpu, ...]
    link: int


@dataclass(frozen=True)
class Running:
    """One instance of the plan that was applied last: what there is to keep."""

    model: str
    host: str
    name: str
    port: int
    pci_addresses: tuple[str, ...]
    #: (host, PCI addresses) of its further hosts.
    further: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Placed:
    """One instance on its GPUs; of one over several hosts ``host`` is the one that answers."""

    model: str
    host: str
    #: In the order of their index.
    gpus: tuple[Gpu, ...]
    #: Index in LINKS.
    link: int
    #: The instance that runs there already and stays; None for a new one.
    running: Running | None = None
    #: Its further hosts, in the order of its stages.
    further: tuple[Share, ...] = ()

    @property
    def every_gpu(self) -> int:
        """How many GPUs it has on all of its hosts."""
        return len(self.gpus) + sum(len(share.gpus) for share in self.further)


def nvlink_domains(gpus: Sequence[Gpu]) -> dict[str, int]:
    """Return the NVLink domain of each PCI address: GPUs that NVLink joins, directly or through others."""
    neighbours: dict[str, set[str]] = {gpu.pci_address: set() for gpu in gpus}
    for gpu in gpus:
        for peer in gpu.nvlink_peers:
            if peer in neighbours:
                neighbours[gpu.pci_address].add(peer)
                neighbours[peer].add(gpu.pci_address)
    domains: dict[str, int] = {}
    for number, start in enumerate(sorted(neighbours)):
        pending = [start]
        while pending:
            address = pending.pop()
            if address not in domains:
                domains[address] = number
                pending.extend(neighbours[address])
    return domains


class _HostState:
    """The free GPUs of one host."""

    def __init__(self, host: Host, order: int) -> None:
        self.name = host.name
        #: Only in a cluster the processes of several hosts are started and ended as one.
        self.clustered = host.backend == "kubernetes"
        #: Place of the host among all, in the order of people.
        self.order = order
        self.gpus = {gpu.pci_address: gpu for gpu in host.gpus}
        self.domains = nvlink_domains(host.gpus)
        self.used = 0
        self._free: dict[GpuKind, list[Gpu]] = {}
        for gpu in host.gpus:
            self._free.setdefault(gpu.kind, []).append(gpu)
        self._best: dict[tuple[GpuKind, int], tuple[int, tuple[Gpu, ...]] | None] = {}

    @property
    def free(self) -> list[Gpu]:
        """The free GPUs, in the order of their index."""
        return sorted((gpu for pool in self._free.values() for gpu in pool), key=lambda gpu: gpu.index)

    def is_free(self, gpu: Gpu) -> bool:
        """Tell whether a GPU of this host is free."""
        return gpu in self._free[gpu.kind]

    def free_of(self, kind: GpuKind) -> int:
        """Return how many GPUs of a kind are free."""
        return len(self._free.get(kind, ()))

    def best(self, kind: GpuKind, size: int) -> tuple[int, tuple[Gpu, ...]] | None:
        """Return (link, GPUs) of the best group of ``size`` free GPUs of a kind, or None."""
        key = (kind, size)
        if key not in self._best:
            self._best[key] = self._search(kind, size)
        return self._best[key]

    def _search(self, kind: GpuKind, size: int) -> tuple[int, tuple[Gpu, ...]] | None:
        free = self._free.get(kind, [])
        if len(free) < size:
            return None
        domains = self.domains
        by_both = _pools((domains[gpu.pci_address], gpu.numa_node, gpu) for gpu in free)
        if len(by_both) == 1:
            return (0 if size == 1 else 1), tuple(free[:size])
        # Within an NVLink domain, GPUs of one NUMA node come first.
        chosen = _smallest(by_both, size)
        if chosen is not None:
            return (0 if size == 1 else 1), chosen
        chosen = _smallest(_pools((domains[gpu.pci_address], 0, gpu) for gpu in free), size)
        if chosen is not None:
            return 1, chosen
        chosen = _smallest(_pools((gpu.numa_node, 0, gpu) for gpu in free), size)
        if chosen is not None:
            return 2, chosen
        return 3, tuple(free[:size])

    def link(self, gpus: Sequence[Gpu]) -> int:
        """Return what these GPUs share, as an index in LINKS."""
        if len(gpus) == 1:
            return 0
        if len({self.domains[gpu.pci_address] for gpu in gpus}) == 1:
            return 1
        return 2 if len({gpu.numa_node for gpu in gpus}) == 1 else 3

    def take(self, gpus: Sequence[Gpu]) -> None:
        """Mark GPUs as used."""
        taken = {gpu.pci_address for gpu in gpus}
        kind = gpus[0].kind
        self._free[kind] = [gpu for gpu in self._free[kind] if gpu.pci_address not in taken]
        self.used += len(gpus)
        self._best.clear()

    def give_back(self, gpus: Sequence[Gpu]) -> None:
        """Mark GPUs as free again."""
        kind = gpus[0].kind
        self._free[kind] = sorted([*self._free[kind], *gpus], key=lambda gpu: gpu.index)
        self.used -= len(gpus)
        self._best.clear()


def _pools(keyed: Iterable[tuple[int, int, Gpu]]) -> dict[tuple[int, int], list[Gpu]]:
    pools: dict[tuple[int, int], list[Gpu]] = {}
    for first, second, gpu in keyed:
        pools.setdefault((first, second), []).append(gpu)
    return pools


def _smallest(pools: Mapping[tuple[int, int], Sequence[Gpu]], size: int) -> tuple[Gpu, ...] | None:
    """Return ``size`` GPUs of the smallest pool that has so many, or None."""
    enough = [pool for pool in pools.values() if len(pool) >= size]
    if not enough:
        return None
    return tuple(min(enough, key=lambda pool: (len(pool), pool[0].index))[:size])


def _by_index(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    return tuple(sorted(gpus, key=lambda gpu: gpu.index))


class _Queue:
    """One model: what is placed of it, and the hosts that can still take an instance, best first.

    A host's rank gets worse with every instance there, so a heap with late correction finds the best one without a scan
    of all hosts. Where an instance is taken away the host's rank gets better, and it enters the heap once more.
    """

    def __init__(self, demand: Demand, states: Mapping[str, _HostState]) -> None:
        self.demand = demand
        self.states = states
        #: The best size first; the rest makes the order the same for every order of the input.
        self.sizes = sorted(
            ((size, kind) for kind, size in demand.sizes.items()),
            key=lambda item: (item[0], item[1].product, item[1].memory_mib, item[1].compute_capability),
        )
        self.counts: dict[str, int] = {}
        self.gpus = 0
        self.placed = 0
        self._heap: list[tuple[int, int, int, int, int, str]] | None = None

    @property
    def wanted(self) -> int:
        """How many instances must run."""
        return self.demand.replicas or 1

    def _choice(self, state: _HostState) -> tuple[int, int, tuple[Gpu, ...]] | None:
        """Return (size, link, GPUs) of the best group on a host, or None."""
        best: tuple[int, int, tuple[Gpu, ...]] | None = None
        for size, kind in self.sizes:
            if best is not None and size > best[0]:
                break
            found = state.best(kind, size)
            if found is not None and (best is None or found[0] < best[1]):
                best = (size, *found)
        return best

    def _rank(self, host: str) -> tuple[int, int, int, int, int, str] | None:
        state = self.states[host]
        choice = self._choice(state)
        if choice is None:
            return None
        return (self.counts.get(host, 0), choice[0], choice[1], state.used, state.order, host)

    def add(self, instance: Placed) -> None:
        """Count an instance and take its GPUs."""
        self.states[instance.host].take(instance.gpus)
        for share in instance.further:
            self.states[share.host].take(share.gpus)
        self.counts[instance.host] = self.counts.get(instance.host, 0) + 1
        self.gpus += instance.every_gpu
        self.placed += 1

    def remove(self, instance: Placed) -> None:
        """Take an instance away."""
        self.states[instance.host].give_back(instance.gpus)
        for share in instance.further:
            self.states[share.host].give_back(share.gpus)
        self.counts[instance.host] -= 1
        self.gpus -= instance.every_gpu
        self.placed -= 1

    def refresh(self, host: str) -> None:
        """Take note that a host has more room than before."""
        if self._heap is not None:
            rank = self._rank(host)
            if rank is not None:
                heapq.heappush(self._heap, rank)

    def place(self) -> Placed | None:
        """Place one more instance on the best host or hosts, or return None when there is no room."""
        if self.demand.stages > 1:
            return self._place_over_hosts()
        if self._heap is None:
            self._heap = [rank for rank in map(self._rank, self.states) if rank is not None]
            heapq.heapify(self._heap)
        heap = self._heap
        while heap:
            host = heap[0][-1]
            now = self._rank(host)
            if now is None:
                heapq.heappop(heap)
            elif now != heap[0]:
                heapq.heapreplace(heap, now)
            else:
                break
        else:
            return None
        state = self.states[host]
        choice = self._choice(state)
        if choice is None:
            return None
        _size, link, chosen = choice
        instance = Placed(self.demand.model, host, _by_index(chosen), link)
        self.add(instance)
        return instance

    def _place_over_hosts(self) -> Placed | None:
        """Place one more instance on as many hosts as it needs.

        Every host is looked at for each: such instances are large, so there are few.
        """
        for size, kind in self.sizes:
            able = [
                (self.counts.get(state.name, 0), found[0], state.used, state.order, state.name, found[1])
                for state in self.states.values()
                if state.clustered and (found := state.best(kind, size)) is not None
            ]
            if len(able) < self.demand.stages:
                continue
            chosen = sorted(sorted(able, key=lambda item: item[:4])[: self.demand.stages], key=lambda item: item[3])
            first, *others = [Share(host, _by_index(gpus), link) for __, link, __, __, host, gpus in chosen]
            instance = Placed(self.demand.model, first.host, first.gpus, first.link, further=tuple(others))
            self.add(instance)
            return instance
        return None


class _Placement:
    """The fleet while it is being filled."""

    def __init__(self, demands: Sequence[Demand], hosts: Sequence[Host]) -> None:
        ordered = sorted((host for host in hosts if host.gpus), key=lambda host: natural_key(host.name))
        self.states = {host.name: _HostState(host, order) for order, host in enumerate(ordered)}
        self.queues = {
            demand.model: _Queue(demand, self.states)
            for demand in sorted(demands, key=lambda d: natural_key(d.model))
            if demand.sizes
        }
        #: What runs and stays, per host; the only instances that may be taken away again.
        self.kept: dict[str, list[Placed]] = {}
        #: How many kept instances each model has on a host; hosts in the order of people.
        self.kept_of: dict[str, dict[str, int]] = {}
        self.new: list[Placed] = []

    def keep(self, running: Sequence[Running]) -> None:
        """Keep what runs and is still right: model, host, GPUs and tensor-parallel size, within the replicas."""
        for item in sorted(running, key=lambda r: (natural_key(r.host), natural_key(r.model), natural_key(r.name))):
            queue = self.queues.get(item.model)
            if queue is None or len(item.further) != queue.demand.stages - 1:
                continue
            places = ((item.host, item.pci_addresses), *item.further)
            found = [self._still_right(queue.demand, host, addresses) for host, addresses in places]
            shares = [share for share in found if share is not None]
            kinds, hosts_of_it = {share.gpus[0].kind for share in shares}, {share.host for share in shares}
            if len(shares) < len(found) or len(kinds) > 1 or len(hosts_of_it) < len(shares):
                continue
            first, *others = shares
            instance = Placed(item.model, item.host, first.gpus, first.link, item, tuple(others))
            queue.add(instance)
            self.kept.setdefault(item.host, []).append(instance)
            hosts = self.kept_of.setdefault(item.model, {})
            hosts[item.host] = hosts.get(item.host, 0) + 1
        for queue in self.queues.values():
            self._trim(queue)

    def _still_right(self, demand: Demand, host: str, addresses: Sequence[str]) -> Share | None:
        """Return what runs on a host if a new instance could have the same GPUs."""
        state = self.states.get(host)
        if state is None or (demand.stages > 1 and not state.clustered):
            return None
        gpus = _by_index(state.gpus[address] for address in addresses if address in state.gpus)
        if not gpus or len(gpus) != len(addresses) or demand.sizes.get(gpus[0].kind) != len(gpus):
            return None
        if any(gpu.kind != gpus[0].kind or not state.is_free(gpu) for gpu in gpus):
            return None
        return Share(host, gpus, state.link(gpus))

    def _trim(self, queue: _Queue) -> None:
        """Take away what is beyond the given replicas, from the hosts that have the most of the model."""
        while queue.demand.replicas is not None and queue.placed > queue.demand.replicas:
            host = max(queue.counts, key=lambda name: (queue.counts[name], self.states[name].order))
            self._take_away([[i for i in self.kept[host] if i.model == queue.demand.model][-1]])

    def _take_away(self, instances: Sequence[Placed]) -> None:
        for instance in instances:
            self.kept[instance.host].remove(instance)
            self.kept_of[instance.model][instance.host] -= 1
            self.queues[instance.model].remove(instance)
        for host in {host for item in instances for host in (item.host, *(share.host for share in item.further))}:
            for queue in self.queues.values():
                queue.refresh(host)

    def fill(self, displace: bool) -> None:
        """Place what must run, then share the rest; ``displace`` also moves what must run itself."""
        largest_first = sorted(self.queues.values(), key=lambda q: -min(q.demand.sizes.values()) * q.demand.stages)
        pending = True
        while pending:
            pending = False
            for queue in largest_first:
                while queue.placed < queue.wanted and self._put(queue):
                    pass
                # What made room for this one may have to be placed again.
                while queue.placed < queue.wanted and self._make_room(queue, displace) and self._put(queue):
                    pending = True
        sharing = [(q.gpus, n, q) for n, q in enumerate(self.queues.values()) if q.demand.replicas is None and q.placed]
        heapq.heapify(sharing)
        while sharing:
            _gpus, number, queue = sharing[0]
            if self._put(queue):
                heapq.heapreplace(sharing, (queue.gpus, number, queue))
            else:
                heapq.heappop(sharing)

    def _put(self, queue: _Queue) -> bool:
        instance = queue.place()
        if instance is not None:
            self.new.append(instance)
        return instance is not None

    def _make_room(self, queue: _Queue, displace: bool) -> bool:
        """Take away kept instances so that one more of this model has room; tell whether that was possible."""
        if queue.demand.stages > 1:
            # Room on one host is not enough; where there is none, all is planned anew (place).
            return False
        spare = sorted(
            (q for q in self.queues.values() if q is not queue and q.demand.replicas is None and q.placed > 1),
            key=lambda q: (-q.gpus, natural_key(q.demand.model)),
        )
        for donors in (*([donor] for donor in spare), spare):
            if self._take_from(queue, {q.demand.model: q.placed - 1 for q in donors}, only_smaller=False):
                return True
        # Smaller ones fit into more gaps: they are placed again.
        every = {name: q.placed for name, q in self.queues.items() if q is not queue}
        return displace and self._take_from(queue, every, only_smaller=True)

    def _take_from(self, queue: _Queue, spare: Mapping[str, int], only_smaller: bool) -> bool:
        """Take kept instances of some models (how many of each at most) from the host that loses the fewest."""
        best: tuple[tuple[int, int, int, int], list[Placed]] | None = None
        hosts: Iterable[str] = self.kept
        if len(spare) == 1:
            hosts = [host for host, count in self.kept_of.get(next(iter(spare)), {}).items() if count]
        # Those with the fewest of the model first: none that follows the first good one can be better.
        for host in sorted(hosts, key=lambda host: queue.counts.get(host, 0)):
            kept = self.kept[host]
            state = self.states[host]
            for size, kind in queue.sizes:
                left = dict(spare)
                victims: list[Placed] = []
                missing = size - state.free_of(kind)
                # The largest first: the fewest instances go.
                for instance in sorted(kept, key=lambda i: -len(i.gpus)):
                    if missing <= 0:
                        break
                    fitting = instance.gpus[0].kind == kind and (len(instance.gpus) < size or not only_smaller)
                    if fitting and left.get(instance.model, 0) > 0:
                        left[instance.model] -= 1
                        victims.append(instance)
                        missing -= len(instance.gpus)
                if missing > 0 or not victims:
                    continue
                rank = (len(victims), queue.counts.get(host, 0), size, state.order)
                if best is None or rank < best[0]:
                    best = (rank, victims)
            if best is not None and (best[0][0], best[0][2]) == (1, queue.sizes[0][0]):
                break
        if best is None:
            return False
        self._take_away(best[1])
        return True

    @property
    def missing(self) -> int:
        """How many of the instances that must run have no place."""
        return sum(max(0, queue.wanted - queue.placed) for queue in self.queues.values())

    @property
    def instances(self) -> list[Placed]:
        """All instances, those that stay first."""
        return [*(instance for kept in self.kept.values() for instance in kept), *self.new]


def place(
    demands: Sequence[Demand], hosts: Sequence[Host], running: Sequence[Running] = ()
) -> tuple[list[Placed], dict[str, list[Gpu]]]:
    """Return the instances, and the GPUs that stay free per host; the same for every order of the input.

    A model that wants more than there is gets what fits: the caller compares. ``running`` is kept wherever it is still
    right: what must run is moved only where it has no place otherwise, and all is planned anew only where that does not
    help either.
    """
    best = _filled(demands, hosts, running, displace=False)
    # What comes next moves more, and is taken only where it places more.
    for kept, displace in ((running, True), ((), False)) if running else ():
        if not best.missing:
            break
        placement = _filled(demands, hosts, kept, displace)
        if placement.missing < best.missing:
            best = placement
    return best.instances, {name: state.free for name, state in best.states.items()}


def _filled(demands: Sequence[Demand], hosts: Sequence[Host], running: Sequence[Running], displace: bool) -> _Placement:
    placement = _Placement(demands, hosts)
    placement.keep(running)
    placement.fill(displace)
    return placement
