"""Mistral of transformers against an NNX port that counts the token itself in its window, as most others do."""

from published.transformers_mistral import BATCH, NEEDS, WINDOW, by_hand, make_port, published
from published_pair import Pair


def port(rngs):
    return make_port(rngs, WINDOW)


PAIR = Pair(published, port, BATCH, "different", by_hand, bug="a window of one token less", needs=NEEDS)
