"""Which request holds which pages, and which pages' contents can serve again.

What a prefill wrote of a whole chunk depends on the tokens from the window's start to the chunk's end, and on nothing
else. So such chunks are kept in a tree: a node is the pages of one chunk, its path from the root the tokens. A request
that begins as another did takes that one's pages in place of computing them, bit for bit the same. Nodes that no
request holds stay until their pages are needed, the least lately used first.

No request waits for pages once admitted: its lease holds from the start all that it can need.
"""

from __future__ import annotations

import collections
import dataclasses

Chunk = tuple[int, ...]


class _Node:
    """The pages of one chunk that follows its parent's; holders: the leases that have it in their path."""

    def __init__(self, parent: _Node | None, tokens: Chunk, pages: tuple[int, ...]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.pages = pages
        self.children: dict[Chunk, _Node] = {}
        self.holders = 0


@dataclasses.dataclass
class Lease:
    """What one request holds: the shared nodes of its first chunks (`path`), and its own pages after them.

    size: how many pages these are together. renewed: the request will need as many again for a later window, when
    others may hold what it shares now; so what it shares is promised to it from what is free.
    """

    size: int
    renewed: bool
    path: list[_Node] = dataclasses.field(default_factory=list)
    own: list[int] = dataclasses.field(default_factory=list)

    def pages(self) -> list[int]:
        """The page numbers, in the order of the tokens they hold."""
        return [page for node in self.path for page in node.pages] + self.own


class Pages:
    """Pages 1 to num_pages - 1 (page 0 is scratch), leased to requests; a chunk has chunk_pages of them.

    Always promised <= free + cached, so that `renew` and what was promised never fail.
    """

    def __init__(self, num_pages: int, chunk_pages: int, *, reuse: bool) -> None:
        self.total = num_pages - 1
        self._chunk_pages = chunk_pages
        self._reuse = reuse
        self._free = list(range(num_pages - 1, 0, -1))
        self._root = _Node(None, (), ())
        # Nodes that nobody holds, in the order in which they go. A child always comes before its parent: who held the
        # child held the parent too, and gives back the child first.
        self._idle: collections.OrderedDict[_Node, None] = collections.OrderedDict()
        self._promised = 0

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Pages that are kept for reuse, and that no request holds."""
        return len(self._idle) * self._chunk_pages

    @property
    def used(self) -> int:
        """Pages that requests hold."""
        return self.total - self.free - self.cached

    def lease(self, size: int, chunks: list[Chunk], *, renewed: bool) -> Lease | None:
        """A lease of `size` pages that begins with as many of the chunks as are known; None while pages are lacking.

        chunks: the first whole chunks of the text, those that may be taken from others. renewed: see Lease.
        """
        lease = Lease(size, renewed)
        return lease if self._begin(lease, chunks) else None

    def renew(self, lease: Lease, chunks: list[Chunk]) -> None:
        """Begins the lease anew, for another window's chunks; only where it is `renewed`."""
        self.end(lease)
        self._begin(lease, chunks)

    def end(self, lease: Lease) -> None:
        """Gives everything back; known chunks stay for reuse."""
        self._promise(lease, -len(lease.path))
        self._free.extend(reversed(lease.own))
        for node in reversed(lease.path):
            node.holders -= 1
            if not node.holders:
                self._idle[node] = None
        lease.path, lease.own = [], []

    def take(self, lease: Lease, number: int, tokens: Chunk) -> bool:
        """Puts known pages in place of the lease's own for chunk `number` of its text; False where there are none."""
        node = self._last(lease).children.get(tokens) if number == len(lease.path) else None
        if node is None or (lease.renewed and not node.holders and self._left() < self._chunk_pages):
            return False
        self._free.extend(lease.own[:self._chunk_pages])
        lease.own = lease.own[self._chunk_pages:]
        self._hold(lease, node)
        return True

    def keep(self, lease: Lease, number: int, tokens: Chunk) -> None:
        """Makes chunk `number` of the lease's text, now that it is written, known to others."""
        parent = self._last(lease)
        # One that is known already, or that follows one which is not shared, stays the lease's own.
        if not self._reuse or number != len(lease.path) or tokens in parent.children or (
                lease.renewed and self._left() < self._chunk_pages):
            return
        node = _Node(parent, tokens, tuple(lease.own[:self._chunk_pages]))
        lease.own = lease.own[self._chunk_pages:]
        parent.children[tokens] = node
        self._hold(lease, node)

    def forget(self) -> None:
        """Drops every chunk that nobody holds."""
        while self._idle:
            self._evict()

    def unused(self) -> list[int]:
        """The pages that hold nothing."""
        return list(self._free)

    def _left(self) -> int:
        """Pages that can be had without breaking a promise."""
        return self.free + self.cached - self._promised

    def _begin(self, lease: Lease, chunks: list[Chunk]) -> bool:
        path = self._known(chunks)
        # A known chunk that is idle is counted among the pages to be had until it is held.
        while path and lease.renewed and self._left() - self._idle_pages(path) < lease.size:
            path.pop()
        need = lease.size + self._idle_pages(path) - (0 if lease.renewed else len(path) * self._chunk_pages)
        if need > self._left():
            return False
        for node in path:
            self._hold(lease, node)
        lease.own = [self._page() for _ in range(lease.size - len(path) * self._chunk_pages)]
        return True

    def _idle_pages(self, path: list[_Node]) -> int:
        return self._chunk_pages * sum(not node.holders for node in path)

    def _known(self, chunks: list[Chunk]) -> list[_Node]:
        path, node = [], self._root
        for tokens in chunks:
            node = node.children.get(tokens)
            if node is None:
                break
            path.append(node)
        return path

    def _last(self, lease: Lease) -> _Node:
        return lease.path[-1] if lease.path else self._root

    def _hold(self, lease: Lease, node: _Node) -> None:
        node.holders += 1
        self._idle.pop(node, None)
        lease.path.append(node)
        self._promise(lease, 1)

    def _promise(self, lease: Lease, chunks: int) -> None:
        if lease.renewed:
            self._promised += chunks * self._chunk_pages

    def _page(self) -> int:
        if not self._free:
            self._evict()
        return self._free.pop()

    def _evict(self) -> None:
        node, _ = self._idle.popitem(last=False)
        del node.parent.children[node.tokens]
        self._free.extend(node.pages)
