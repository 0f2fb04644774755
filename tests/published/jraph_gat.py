"""`jraph.GAT` with Haiku layers against an NNX port that adds a score of the sender and one of the receiver."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

NODES, EDGES, WIDTH = 5, 14, 6


def published():
    import jraph

    def forward(nodes, senders, receivers):
        def score(sent, received, _):
            return jax.nn.leaky_relu(hk.Linear(1, name="score")(jnp.concatenate([sent, received], -1)))

        layer = jraph.GAT(hk.Linear(WIDTH, name="query"), score)
        counts = jnp.array([NODES]), jnp.array([EDGES])
        graph = jraph.GraphsTuple(nodes, None, receivers, senders, None, *counts)
        return hk.Linear(3, name="head")(layer(graph).nodes)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.project = nnx.Linear(4, WIDTH, rngs=rngs)
        self.from_sender = nnx.Linear(WIDTH, 1, rngs=rngs)
        self.from_receiver = nnx.Linear(WIDTH, 1, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, nodes, senders, receivers):
        hidden = self.project(nodes)
        scores = self.from_sender(hidden)[senders] + self.from_receiver(hidden)[receivers]
        scores = jax.nn.leaky_relu(scores)[:, 0]
        highest = jnp.full(NODES, -jnp.inf).at[receivers].max(scores)
        weights = jnp.exp(scores - highest[receivers])
        total = jnp.zeros(NODES).at[receivers].add(weights)
        messages = hidden[senders] * (weights / total[receivers])[:, None]
        return self.out(jax.nn.leaky_relu(jnp.zeros_like(hidden).at[receivers].add(messages)))


def by_hand(left):
    return {
        "project.kernel": left["query/w"],
        "project.bias": left["query/b"],
        "from_sender.kernel": left["score/w"][:WIDTH],
        "from_sender.bias": left["score/b"],
        "from_receiver.kernel": left["score/w"][WIDTH:],
        "out.kernel": left["head/w"],
        "out.bias": left["head/b"],
    }


BATCH = {"nodes": "float32[5,4]", "senders": "int32[14]:5", "receivers": "int32[14]:5"}
PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=("jraph==0.0.6.dev0",))
