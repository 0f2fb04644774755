"""Flax NNX: builds ports; the native form of each canonical leaf."""

from equiv.backends.nnx.build import NAME as NAME
from equiv.backends.nnx.build import build as build
from equiv.backends.nnx.leaves import LEAVES as LEAVES
from equiv.backends.nnx.leaves import native_key as native_key
