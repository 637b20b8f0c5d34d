"""The flag --config and its overrides: values of None, files that come with the program, mistakes."""

import os
import re
import runpy
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from alexnet_jax.utils import config_fields, host, shell
from alexnet_jax.utils.errors import UserError, of_file


class _OptionalParser(flags.ArgumentParser):  # type: ignore[type-arg]  # absl 1.4 has none
  """Parses 'None' as None, and the rest as another parser does, whose errors name what it takes."""

  def __init__(self, parser: Any, takes: str):
    self._parser, self._takes = parser, takes

  def parse(self, argument: str) -> Any:
    if argument == 'None':
      return None
    try:
      return self._parser.parse(argument)
    except ValueError as error:
      raise ValueError(f'it must be {self._takes}') from error

  def flag_type(self) -> str:
    return str(self._parser.flag_type())


# --config.model.num_classes=None and the like; which fields may be None is checked with the config.
for _kind, _parser, _takes in (
  (bool, flags.BooleanParser(), 'True or False'),
  (int, flags.IntegerParser(), 'a whole number'),
  (float, flags.FloatParser(), 'a number'),
  (str, flags.ArgumentParser(), 'text'),
):
  config_flags.register_flag_parser_for_type(_kind, _OptionalParser(_parser, _takes))


def names(argv: Sequence[str]) -> list[str]:
  """The name of the flag in each argument, as 'config.train.seed'; '' where an argument is no flag."""
  return [arg.lstrip('-').split('=', 1)[0] if arg.startswith('-') else '' for arg in argv]


def mistake(argv: Sequence[str], config: Any) -> str | None:
  """A message where --config names no file with a config, or an override a field that it does not have.

  Args:
    argv: a command line with --config.
    config: what its file returned, as absl has read it; None where that failed, and the file is run
      again to say what it raises.
  """
  given = names(argv)
  if isinstance(config, ConfigDict):
    return field_mistake(given, dict(config_fields.flatten(config.to_dict())))
  at = given.index('config')
  named = [*argv[at].split('=', 1), *argv[at + 1 : at + 2], '']  # --config=FILE or --config FILE
  file, argument = split(named[1])
  if not file:
    return '--config names no file; give one, such as --config=configs/digits.py'
  path = Path(file)
  if path.suffix == '.json' and path.is_file():
    return f'{path} is what a run has written; resume that run with --workdir={shell.quote(str(path.parent))}'
  if path.is_dir():
    return f'{path} is a folder; --config takes a file, such as configs/digits.py'
  if not path.is_file():
    return f'there is no file {path} (--config); --mode=list lists those that come with the program'
  try:
    get_config = runpy.run_path(str(path)).get('get_config')
    if get_config is None:
      return (
        f'{path} has no get_config(); --config takes a file that has, such as configs/digits.py'
      )
    config = get_config() if argument is None else get_config(argument)
    if not isinstance(config, ConfigDict):
      return (
        f'{path}: get_config() returns a {type(config).__name__}, not a ConfigDict; start from'
        ' alexnet_jax.configs.imagenet.get_config()'
      )
    known = dict(config_fields.flatten(config.to_dict()))
  except Exception as error:  # whatever the user's file raises
    # A locked ConfigDict names the nearest field, after all that it has.
    reason = of_file(path, error)
    reason = re.sub(r' Other fields present: .*?(?=Did you mean|\Z)', ' ', reason)
    for old, new in config_fields.RENAMED_FIELDS.items():
      if f'"{old.rpartition(".")[2]}"' in reason:
        reason += f' It is now {new}.'
    if isinstance(error, SyntaxError) and error.filename == str(path):
      reason += '; --config takes a Python file with get_config()'
    return reason
  return field_mistake(given, known)


def field_mistake(given: Sequence[str], known: Collection[str]) -> str | None:
  """A message where an override names a field that a config does not have.

  Args:
    given: as `names` returns them, 'config.train.seed' and 'noconfig.augment.flip' among them.
    known: the fields of the config, as 'train.seed'.
  """
  matches = (re.fullmatch(r'(?:no)?config\.(.*)', flag) for flag in given)
  for field in (match[1] for match in matches if match):
    if not any(name == field or name.startswith(f'{field}.') for name in known):
      near = config_fields.nearest(field, known)
      hint = f'; did you mean config.{near}?' if near else ''
      return f'the config has no field {field!r}{hint}'
    if field not in known:
      first = next(name for name in known if name.startswith(f'{field}.'))
      return f'config.{field} is a section; set its fields one by one, such as --config.{first}=...'
  return None


def split(config: str) -> tuple[str, str | None]:
  """A config's file, and what its get_config is called with: 'FILE.py:STRING' or 'FILE.py'."""
  file, colon, argument = config.partition('.py:')
  return (f'{file}.py', argument) if colon else (config, None)


def run_name(config: str) -> str:
  """The workdir's name by default: 'digits' of configs/digits.py, 'FILE_STRING' of FILE.py:STRING."""
  file, argument = split(config)
  name = Path(file).stem if argument is None else f'{Path(file).stem}_{argument}'
  return re.sub(r'[^\w.=-]+', '_', name)


def shipped(argument: str) -> str:
  """Replaces a config's path by that of the file in the package, where the current folder has no such file.

  Args:
    argument: of the command line, as --config=configs/digits.py, or the path alone. A ~ is expanded,
      which no shell does in `--config=~/a.py`.
  """
  flag, equals, value = argument.partition('=') if argument.startswith('-') else ('', '', argument)
  file, _ = split(value)
  if file.endswith('.py') and file.startswith('~'):
    return f'{flag}{equals}{os.path.expanduser(value)}'
  shipped = Path(__file__).resolve().parent / file
  if file.endswith('.py') and not Path(file).exists() and shipped.is_file():
    return f'{flag}{equals}{shipped}{value.removeprefix(file)}'
  return argument


def renamed(argument: str) -> str:
  """Replaces a field's or a value's old name in an override, and says so on stderr."""
  match = re.fullmatch(r'(--?(?:no)?config\.)([^=\[]+)(.*)', argument, re.S)
  if match is None:
    return argument
  prefix, field, rest = match.groups()
  new_name = config_fields.current_name(field)
  value = config_fields.RENAMED_VALUES.get((field, rest.removeprefix('=')))
  new = f'{prefix}{new_name}{rest if value is None else f"={value}"}'
  if new != argument:
    print(f'{host.program_name()}: {argument} was renamed; using {new}', file=sys.stderr)
  return new


def of_workdir(path: Path) -> ConfigDict:
  """The config of a workdir, its fields typed as in configs; raises UserError where there is none."""
  from alexnet_jax import experiment
  from alexnet_jax.checkpoints import workdir
  from alexnet_jax.configs import imagenet

  value = workdir.read_config(path)
  if value is None:
    workdir.check_is_no_sweep(path)
    missing = 'has no config.json' if path.exists() else 'does not exist'
    raise UserError(f'{path} {missing}; give the workdir of a run, or --config for a new one')
  file = Path(path) / 'config.json'
  if renamed := config_fields.old_names(value):
    print(f'{file} has old names of fields: {", ".join(renamed)}', file=sys.stderr)
  return config_fields.typed_as(experiment.checked(value, str(file)), imagenet.get_config())
