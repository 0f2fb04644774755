"""A step of diffusers' `FlaxDDIMScheduler` on what a layer predicts against a Haiku port of the published formula."""

import haiku as hk
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from published_pair import Pair

STEPS, COUNT = 100, 10


class Published(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level):
        from diffusers.schedulers.scheduling_ddim_flax import FlaxDDIMScheduler

        scheduler = FlaxDDIMScheduler(STEPS, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        state = scheduler.set_timesteps(scheduler.create_state(), COUNT, x.shape)
        noise = nn.Dense(x.shape[-1], name="denoise")(x)
        return scheduler.step(state, noise, noise_level, x, return_dict=False)[0]


def port():
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS, dtype="float32"), dtype="float32")

    def forward(x, noise_level):
        before = noise_level - STEPS // COUNT
        now = jnp.asarray(kept)[noise_level]
        then = jnp.where(before >= 0, jnp.asarray(kept)[before], 1.0)
        noise = hk.Linear(x.shape[-1])(x)
        clean = jnp.clip((x - jnp.sqrt(1 - now) * noise) / jnp.sqrt(now), -1, 1)
        return jnp.sqrt(then) * clean + jnp.sqrt(1 - then) * noise

    return hk.without_apply_rng(hk.transform(forward))


def by_hand(left):
    return {"linear/w": left["denoise/kernel"], "linear/b": left["denoise/bias"]}


BATCH = {"x": "float32[3,6]", "noise_level": "int32[]:100"}
PAIR = Pair(Published, port, BATCH, "same", by_hand, needs=("diffusers==0.35.2",))
