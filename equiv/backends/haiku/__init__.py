"""Haiku: builds ports; the native form of each canonical leaf."""

from equiv.backends.haiku.build import NAME as NAME
from equiv.backends.haiku.build import build as build
from equiv.backends.haiku.leaves import CONVERGED_COUNTER as CONVERGED_COUNTER
from equiv.backends.haiku.leaves import LEAVES as LEAVES
from equiv.backends.haiku.leaves import native_key as native_key
