"""Short names of classes are all different."""

import numpy as np
import pytest

from alexnet_jax.reports.short_names import short_names


def test_classes_whose_names_begin_alike_are_told_apart():
  names = ('crane, bird', 'crane, machine', 'tench, Tinca tinca', 'crane', '  , odd')
  assert short_names(names, 24) == [
    'crane, bird', 'crane, machine', 'tench', 'crane', '  , odd'
  ]  # fmt: skip
  long = ['a' * 40 + end for end in (', red', ', blue')]
  assert short_names(long, 16) == ['a' * 7 + '…aaa, red', 'a' * 7 + '…aa, blue']
  middle = ['a' * 30 + letter + 'z' * 30 for letter in 'bc']
  assert short_names(middle, 16) == [f'aaaaaaaaaaa… [{label}]' for label in (0, 1)]
  chinese = [f'北方常见的野生花卉第{number}种' for number in '一二三']
  assert short_names(chinese, 16) == [f'北方常…卉第{number}种' for number in '一二三']
  assert short_names(('one', 'one'), 16) == ['one [0]', 'one [1]']
  assert short_names(('one', 'one'), 16, (7, 9)) == ['one [7]', 'one [9]']


@pytest.mark.parametrize('length', [16, 24, 32])
def test_short_names_are_all_different_and_no_longer_than_asked(length):
  rng = np.random.default_rng(0)
  names = sorted({''.join(rng.choice(list('ab,猫 '), rng.integers(1, 60))) for _ in range(300)})
  short = short_names(names, length)
  assert len(set(short)) == len(names)
  assert all(sum(1 + (letter == '猫') for letter in name) <= length for name in short)


def test_only_imagenets_names_are_cut_at_a_comma():
  names = ('sea, north', 'lake', 'tench, Tinca tinca')
  assert short_names(names, 16) == ['sea, north', 'lake', 'tench']
