"""The type of a network's parameters."""

from collections.abc import Mapping

import jax
import numpy as np

Params = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
"""{layer: {'kernel': array, 'bias': array}}; outside `shard_map` always of global shapes."""
