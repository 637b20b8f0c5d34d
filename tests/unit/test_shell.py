"""Commands as a shell reads them."""

import shlex

from alexnet_jax.utils import shell


def test_a_shell_reads_the_arguments_that_were_given():
  arguments = [
    '--mode=train',
    "--a=('conv1',)",
    "it's",
    '$HOME "x"',
    "'$'",
    '',
    'a b',
    'back\\slash',
  ]
  assert shlex.split(shell.join(arguments)) == arguments


def test_single_quotes_stand_within_double_ones():
  assert shell.join(['--a=()', "--b=('x', 'y')"]) == """'--a=()' "--b=('x', 'y')\""""
