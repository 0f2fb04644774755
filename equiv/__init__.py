"""equiv: shows that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""
