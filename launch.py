"""The program in a checkout: `python launch.py --help` says what it does (alexnet_jax/cli.py)."""

from alexnet_jax.cli import command

if __name__ == '__main__':
  command()
