"""A user's mistake is told in words."""

import runpy

import pytest

from alexnet_jax.utils.errors import UserError, number_of, of_file


def test_ipython_shows_the_words_of_a_mistake_and_no_traceback():
  assert UserError('there is no x\npass y')._render_traceback_() == ['there is no x', 'pass y']


def test_one_thing_is_not_counted_as_several():
  assert [number_of(n, 'file') for n in (0, 1, 1000)] == ['0 files', '1 file', '1,000 files']


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('a = {}\n\nb = a["b"]\n', ", line 3: KeyError: 'b'"),
    ('def f(text):\n  return int(text)\n\n\nf("x")', ', line 2: ValueError: invalid literal'),
    ('import json\njson.loads("[")', ', line 2: JSONDecodeError: Expecting value'),
    ('x = 1\nx = (', ", line 2: SyntaxError: '(' was never closed"),
    ('raise RuntimeError("a\\n  b")', ', line 1: RuntimeError: a b'),
    ('from alexnet_jax.utils.errors import UserError\nraise UserError("it")', ', line 2: it'),
  ],
)
def test_what_a_users_file_raises_is_told_with_its_line(tmp_path, text, said):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  with pytest.raises(Exception) as error:  # noqa: PT011  (of any kind)
    runpy.run_path(str(file))
  assert of_file(file, error.value).startswith(f'{file}{said}')
