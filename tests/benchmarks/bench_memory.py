"""Peak memory of a comparison of a decoder, over that of one plain train step with the same optimizer.

`python tests/benchmarks/bench_memory.py [LAYERS] [WIDTH] [WORDS]`: each in a process of its own, so that nothing of one
is in the other's peak. Sizes are MiB of resident memory, libraries and compilation included.
"""

import multiprocessing
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

LENGTH = 32
"""Words of a sequence."""


def set_sizes(width: int, words: int) -> None:
    """Give the decoder of `deep_models` its sizes."""
    import deep_models

    deep_models.WIDTH, deep_models.WORDS, deep_models.LENGTH = width, words, LENGTH
    deep_models.HEADS = max(2, width // 32)


def plain_step(layers: int, width: int, words: int) -> None:
    """Initialise and train the decoder for one step, as a user does."""
    set_sizes(width, words)
    import deep_models
    import jax
    import jax.numpy as jnp
    import optax

    batch = {"words": jnp.zeros((2, LENGTH), jnp.int32)}
    model, optimizer = deep_models.LinenGpt(layers), optax.adamw(1e-3)

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: deep_models.words_loss(model.apply(p, batch["words"]), batch))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = model.init(jax.random.key(0), batch["words"])
    jax.block_until_ready(step(params, optimizer.init(params)))


def comparison(layers: int, width: int, words: int) -> None:
    """Compare Linen's decoder with that of NNX."""
    set_sizes(width, words)
    from dataclasses import replace

    import deep_models

    from equiv.comparison.pipeline import run_case
    from equiv.core.case_files import LoadedCase

    case = deep_models.gpt(layers)
    models = {name: build for name, build in case.models.items() if name != "haiku"}
    result = run_case(LoadedCase("decoder", "", replace(case, models=models)))
    print(f"  {result.verdicts}")


def _measure(name: str, connection, sizes: tuple[int, ...]) -> None:
    {"plain step": plain_step, "comparison": comparison}[name](*sizes)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(sizes: tuple[int, ...]) -> None:
    """Measure both, and print the ratio."""
    context, peaks = multiprocessing.get_context("spawn"), {}
    for name in ("plain step", "comparison"):
        clock = time.perf_counter()
        ours, theirs = context.Pipe()
        process = context.Process(target=_measure, args=(name, theirs, sizes))
        process.start()
        theirs.close()
        peaks[name] = ours.recv()
        process.join()
        print(f"{name}: {peaks[name]:.0f} MiB, {time.perf_counter() - clock:.0f} s")
    print(f"peak memory {peaks['comparison'] / peaks['plain step']:.2f} x that of a plain train step")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (12, 256, 8000))
