"""Functions of arrays: the networks, what they are made of, their losses and weights."""
