"""Flax Linen: builds ports; the native form of each canonical leaf."""

from equiv.backends.linen.build import NAME as NAME
from equiv.backends.linen.build import build as build
from equiv.backends.linen.leaves import LEAVES as LEAVES
from equiv.backends.linen.leaves import native_key as native_key
