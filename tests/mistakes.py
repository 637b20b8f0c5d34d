"""What users are told of their mistakes."""

import pytest

from alexnet_jax.utils.errors import UserError


def refusal(function, *arguments, **keywords):
  """The message that a user gets for a mistake: one or two lines."""
  with pytest.raises(UserError) as caught:
    function(*arguments, **keywords)
  message = str(caught.value)
  assert 1 <= len(message.splitlines()) <= 2
  return message
