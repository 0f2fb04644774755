"""Haiku: builds a port, and says how the library names and stores each leaf."""

from equiv.backends.haiku.build import NAME as NAME
from equiv.backends.haiku.build import build as build
from equiv.backends.haiku.leaves import LEAVES as LEAVES
from equiv.backends.haiku.leaves import SETTLED as SETTLED
from equiv.backends.haiku.leaves import native_key as native_key
