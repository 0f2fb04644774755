"""`jraph.GraphConvolution`, twice, against a Linen port that divides by the degree of the receiver alone."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from published_pair import Pair

NODES, EDGES = 6, 15


def published():
    import jraph

    def forward(nodes, senders, receivers):
        counts = jnp.array([NODES]), jnp.array([EDGES])
        graph = jraph.GraphsTuple(nodes, None, receivers, senders, None, *counts)
        for width in (8, 3):
            graph = jraph.GraphConvolution(hk.Linear(width), add_self_edges=True)(graph)
            graph = graph._replace(nodes=jax.nn.tanh(graph.nodes))
        return graph.nodes

    return hk.without_apply_rng(hk.transform(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, nodes, senders, receivers):
        adjacency = jnp.zeros((NODES, NODES)).at[receivers, senders].add(1.0) + jnp.eye(NODES)
        adjacency = adjacency / adjacency.sum(1, keepdims=True)
        for width in (8, 3):
            nodes = nn.tanh(adjacency @ nn.Dense(width)(nodes))
        return nodes


def by_hand(left):
    return {
        f"{new}/{leaf}": left[f"{old}/{short}"]
        for old, new in (("linear", "Dense_0"), ("linear_1", "Dense_1"))
        for short, leaf in (("w", "kernel"), ("b", "bias"))
    }


BATCH = {"nodes": "float32[6,4]", "senders": "int32[15]:6", "receivers": "int32[15]:6"}
BUG = "divides by the receiver's degree, not by the roots of both degrees"
PAIR = Pair(published, Port, BATCH, "different", by_hand, bug=BUG, needs=("jraph==0.0.6.dev0",))
