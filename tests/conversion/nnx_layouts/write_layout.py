"""Write the layout of a checkpoint of NNX as the installed release of flax has it: paths, shapes and dtypes.

    python write_layout.py flax_0_10.json    # in an environment with flax 0.10

The model is saved by orbax as flax's guide does it, and read back without a target; what is in the files is therefore
what a user of that release has on the disk.
"""

import json
import sys
import tempfile
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx


class Net(nnx.Module):
    """Two layers with dropout from one `Rngs`, which a layer holds as its release does."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)
        self.early = nnx.Dropout(0.5, rngs=rngs)
        self.late = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.late(nnx.relu(self.first(self.early(x)))))


def trained() -> dict[str, nnx.State]:
    """The states of model and optimizer after a step, as the release has them."""
    model = Net(nnx.Rngs(0, dropout=1))
    try:
        optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    except TypeError:  # before flax 0.10.7 there is no choice
        optimizer = nnx.Optimizer(model, optax.adam(0.1))
    gradients = nnx.grad(lambda net: jnp.sum(net(jnp.ones((1, 3))) ** 2))(model)
    try:
        optimizer.update(model, gradients)
    except TypeError:  # up to flax 0.10 the optimizer holds the model
        optimizer.update(gradients)
    if hasattr(optimizer, "model"):
        return {"state": nnx.state(optimizer)}
    return {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}


def layout_of(folder: Path) -> dict[str, list]:
    """Path to shape and dtype of every leaf of a checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder)
    tree = getattr(metadata.item_metadata, "tree", metadata.item_metadata)
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "dtype"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [
            list(getattr(leaf, "shape", None) or ()),
            str(leaf.dtype),
        ]
        for path, leaf in leaves
    }


def main(out: Path) -> None:
    """Save, read back, write."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkpoint"
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, trained())
        layout = layout_of(folder)
    rows = ",\n".join(f"  {json.dumps(path)}: {json.dumps(leaf)}" for path, leaf in sorted(layout.items()))
    out.write_text(f'{{"flax": "{flax.__version__}", "leaves": {{\n{rows}\n}}}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
