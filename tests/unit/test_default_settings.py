"""What a user set for JAX as a whole is no damage, and there again afterward."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from alexnet_jax.parallel import compat
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils.errors import UserError


@pytest.mark.usefixtures('x64')
def test_float64_is_off_within_and_on_after():
  with compat.default_settings():
    assert jnp.zeros(3, float).dtype == jnp.float32
  assert jnp.zeros(3, float).dtype == jnp.float64


@pytest.mark.parametrize('kind', [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_is_none_within_and_there_after(kind):
  mesh = jax.make_mesh((4,), ('x',), axis_types=(kind,))
  with jax.set_mesh(mesh):
    with compat.default_settings():
      assert jax.sharding.get_abstract_mesh().empty
      one = jax.device_put(np.ones(3), jax.devices()[1])
      assert jax.jit(lambda x: x + 1)(one).devices() == {jax.devices()[1]}
    assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
  assert jax.sharding.get_abstract_mesh().empty


def test_without_compiling_one_device_is_the_most():
  with jax.disable_jit():
    with pytest.raises(UserError, match=r'JAX_DISABLE_JIT is set, .* and not on 2; unset it, or'):
      mesh_lib.make_mesh(2, 2, 1)
    assert mesh_lib.make_mesh(2, 1, 1).devices.size == 1


def test_a_backend_that_cannot_start_is_told_as_that_once_it_is_needed():
  code = (
    'from alexnet_jax import experiment\n'
    'from alexnet_jax.configs import digits\n'
    'from alexnet_jax.parallel import mesh\n'
    'config = digits.get_config()\n'
    'print(experiment.checked(experiment.resolved(config), "x").model.num_classes)\n'
    'mesh.devices()\n'
  )
  environment = {**os.environ, 'JAX_PLATFORMS': 'none_such'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=environment, capture_output=True, text=True
  )
  assert done.stdout == '10\n'  # a config is checked before a backend starts
  assert 'UserError: JAX cannot start with JAX_PLATFORMS=none_such: ' in done.stderr
  assert 'unset it, or set it to cpu' in done.stderr
