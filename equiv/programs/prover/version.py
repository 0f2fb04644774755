"""Which prover gave a name: names of two provers mean different things."""

import hashlib
from pathlib import Path

import jax

from equiv.programs import draws, primitives
from equiv.programs.prover import algebra, loops, terms
from equiv.programs.prover import contractions as products
from equiv.programs.prover import rules as rewrites
from equiv.programs.prover import value_numbering as number

NAMING = (algebra, draws, loops, number, primitives, products, rewrites, terms)
"""What decides a name."""


def fingerprint() -> str:
    """A hash of the modules that give names, and the version of jax, whose equations are named."""
    content = hashlib.sha256(jax.__version__.encode())
    for module in NAMING:
        content.update(Path(str(module.__file__)).read_bytes())
    return content.hexdigest()
