"""OPT of transformers against an NNX port whose positions start at row 0 of their table."""

from published.transformers_opt import BATCH, NEEDS, by_hand, make_port, published
from published_pair import Pair


def port(rngs):
    return make_port(rngs, 0)


PAIR = Pair(published, port, BATCH, "different", by_hand, bug="positions start at row 0 of their table", needs=NEEDS)
