"""Run cases on eight devices made of one CPU, and print what was found. `python tests/mesh_run.py NAME ...`."""

import os
import sys
from dataclasses import replace

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from sharded_ports import RULES, case, linen, nnx_model

from equiv.comparison.pipeline import make_run_result, run_case
from equiv.core.case import Case, Layer
from equiv.core.case_files import LoadedCase
from equiv.core.results_json import encode_results

MESHES = ({"data": 1, "model": 1}, {"data": 2, "model": 1}, {"data": 2, "model": 4}, {"data": 8, "model": 1})


def mapped(summed: bool = True, in_parts: bool = False):
    """A dense layer whose product is divided over the axis `model` by the user's own `shard_map`."""

    def build(rngs):
        import jax
        from flax import nnx
        from jax.sharding import PartitionSpec as P

        class Model(nnx.Module):
            def __init__(self):
                init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("model", None))
                self.w = nnx.Param(init(rngs.params(), (8, 8)))

            def __call__(self, x):
                def body(x, w):
                    y = x @ w
                    if in_parts:
                        part = jax.lax.psum_scatter(y, "model", tiled=True)
                        return jax.lax.all_gather(part, "model", tiled=True)
                    return jax.lax.psum(y, "model") if summed else y

                specs = {"in_specs": (P(None, "model"), P("model", None)), "out_specs": P()}
                return jax.shard_map(body, check_vma=False, **specs)(x, self.w[...]) * 2

        return Model()

    return build


def two(left, right, **options) -> Case:
    """A case of two models with one leaf."""
    given = {"meshes": ({"data": 2, "model": 4},), **options}
    rows = (Layer("w", "parameter", {"left": "w", "right": "w"}),)
    checks = ("outputs", "sharding")
    models = {"left": left, "right": right}
    return Case(guide="none", models=models, batch={"x": "float32[8,8]"}, layers=rows, checks=checks, **given)


def named(**options) -> Case:
    """A case of two ports that say the same."""
    given = {"rules": {**RULES, "batch": "data"}, "batch_axes": {"x": ("batch",)}, "meshes": MESHES, **options}
    return replace(case(linen(), nnx_model(), **given), batch={"x": "float32[8,8]"})


CASES = {
    "honest": named,
    "honest on one mesh": lambda: named(meshes=MESHES[2:3], checks=("outputs", "sharding")),
    "psum missing": lambda: two(mapped(), mapped(summed=False)),
    "psum missing in both": lambda: two(mapped(summed=False), mapped(summed=False)),
    "other collectives": lambda: two(mapped(), mapped(in_parts=True)),
    "nothing sharded": lambda: named(
        meshes=({"elsewhere": 2},), rules=(), batch_axes={}, checks=("outputs", "sharding")
    ),
    "not divisible": lambda: two(mapped(), mapped(), meshes=({"data": 1, "model": 3},)),
}


def main() -> None:
    """Run the named cases."""
    found = []
    for name in sys.argv[1:]:
        given = CASES[name]()
        found.append(run_case(LoadedCase(name, "", given)))
    from datetime import UTC, datetime

    sys.stdout.buffer.write(encode_results(make_run_result(found, datetime.now(UTC), 0.0)))


if __name__ == "__main__":
    main()
