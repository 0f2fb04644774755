"""Flax NNX: builds a port, and says how the library names and stores each leaf."""

from equiv.backends.nnx.build import NAME as NAME
from equiv.backends.nnx.build import build as build
from equiv.backends.nnx.leaves import LEAVES as LEAVES
from equiv.backends.nnx.leaves import native_key as native_key
