"""A user's mistake is told in words."""

from alexnet_jax.utils.errors import UserError


def test_ipython_shows_the_words_of_a_mistake_and_no_traceback():
  assert UserError('there is no x\npass y')._render_traceback_() == ['there is no x', 'pass y']
