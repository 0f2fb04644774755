"""The version of the prover: names given by two versions of it are not comparable."""

import hashlib
from pathlib import Path

import jax

from equiv.programs import content, draws, identity, jaxpr, keep_casts, primitives, transform
from equiv.programs.prover import (
    algebra,
    chains,
    conditions,
    digits,
    joined,
    known_arrays,
    lookups,
    loops,
    masks,
    moves,
    one_hot,
    parts,
    pieces,
    rows,
    sharded,
    sums,
    terms,
)
from equiv.programs.prover import contractions as products
from equiv.programs.prover import rules as rewrites
from equiv.programs.prover import value_numbering as number

# The walk and the table of primitives too: they decide what is opened, commutes or is opaque. So do draws: which
# equations and keys a program has.
NAMING_MODULES = (
    *(
        algebra,
        chains,
        conditions,
        content,
        digits,
        draws,
        identity,
        jaxpr,
        joined,
        keep_casts,
        known_arrays,
        lookups,
        loops,
        masks,
        moves,
        number,
        one_hot,
        parts,
        pieces,
        primitives,
        rows,
        sharded,
        sums,
    ),
    *(products, rewrites, terms, transform),
)
"""The modules that decide a name."""


def fingerprint() -> str:
    """Hash the modules that decide names, and the version of jax, whose equations are named."""
    content = hashlib.sha256(jax.__version__.encode())
    for module in NAMING_MODULES:
        content.update(Path(str(module.__file__)).read_bytes())
    return content.hexdigest()
