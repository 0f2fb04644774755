"""`jraph.GraphNetwork` of two graphs with Haiku layers against Linen with a kernel for each part of its input."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from published_pair import Pair

NODES, EDGES = (2, 3), (4, 6)
SIZE = 5
PARTS = {"edge": (3, 4, 4, 2), "node": (4, SIZE, SIZE, 2), "graph": (SIZE, SIZE, 2)}


def published():
    import jraph

    def update(name):
        def joined(*parts):
            return jax.nn.relu(hk.Linear(SIZE, name=name)(jnp.concatenate(parts, -1)))

        return joined

    def forward(nodes, edges, whole, senders, receivers):
        counts = jnp.array(NODES), jnp.array(EDGES)
        graph = jraph.GraphsTuple(nodes, edges, receivers, senders, whole, *counts)
        found = jraph.GraphNetwork(update("edge"), update("node"), update("graph"))(graph)
        return found.nodes, found.edges, found.globals

    return hk.without_apply_rng(hk.transform(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, nodes, edges, whole, senders, receivers):
        def update(name, *parts):
            kernels = [nn.Dense(SIZE, number == 0, name=f"{name}_{number}") for number in range(len(parts))]
            return nn.relu(sum(kernel(part) for kernel, part in zip(kernels, parts, strict=True)))

        def add_up(values, places, count):
            return jnp.zeros((count, SIZE)).at[places].add(values)

        of_node, of_edge = np.repeat([0, 1], NODES), np.repeat([0, 1], EDGES)
        edges = update("edge", edges, nodes[senders], nodes[receivers], whole[of_edge])
        total = sum(NODES)
        leaving, coming = add_up(edges, senders, total), add_up(edges, receivers, total)
        nodes = update("node", nodes, leaving, coming, whole[of_node])
        return nodes, edges, update("graph", add_up(nodes, of_node, 2), add_up(edges, of_edge, 2), whole)


def by_hand(left):
    found = {}
    for name, sizes in PARTS.items():
        for number, rows in enumerate(np.split(left[f"{name}/w"], np.cumsum(sizes)[:-1])):
            found[f"{name}_{number}/kernel"] = rows
        found[f"{name}_0/bias"] = left[f"{name}/b"]
    return found


BATCH = {
    "nodes": "float32[5,4]",
    "edges": "float32[10,3]",
    "whole": "float32[2,2]",
    "senders": np.array([0, 1, 0, 1, 2, 3, 4, 2, 3, 4], "int32"),
    "receivers": np.array([1, 0, 0, 1, 3, 4, 2, 4, 2, 2], "int32"),
}
PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=("jraph==0.0.6.dev0",))
