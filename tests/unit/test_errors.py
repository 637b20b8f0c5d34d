"""A user's mistake is told in words."""

from alexnet_jax.utils.errors import UserError, number_of


def test_ipython_shows_the_words_of_a_mistake_and_no_traceback():
  assert UserError('there is no x\npass y')._render_traceback_() == ['there is no x', 'pass y']


def test_one_thing_is_not_counted_as_several():
  assert [number_of(n, 'file') for n in (0, 1, 1000)] == ['0 files', '1 file', '1,000 files']
