"""What there is to choose: the fields of a config with what they mean, and the configs themselves.

python -m alexnet_jax.reports.fields > docs/fields.md

The meanings are those that stand beside the definitions: the comments in `configs/imagenet.py`, and
the docstrings of the network's parts.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_jax.configs import imagenet
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS
from alexnet_jax.utils import config_fields

CONFIGS = Path(imagenet.__file__).parent


class Choice(NamedTuple):
  """A config or a sweep that comes with the program.

  Attributes:
    name: as a command takes it, 'configs/digits.py'.
    title: what it is.
    cost: what it takes.
  """

  name: str
  title: str
  cost: str


def choices() -> list[Choice]:
  """The configs, then the sweeps, the paper's first of each."""
  found = []
  for folder, first in ((CONFIGS, 'imagenet.py'), (CONFIGS / 'sweeps', 'ablations.py')):
    for path in sorted(folder.glob('[!_]*.py'), key=lambda path: (path.name != first, path.name)):
      described = ast.get_docstring(ast.parse(path.read_text('utf-8'))) or ''
      cost = re.search(r'^Cost: +(.*?)(?=^\S|\Z)', described, re.M | re.S)
      name = f'configs/{path.relative_to(CONFIGS)}'
      title = described.split('\n', 1)[0]
      found.append(Choice(name, title, ' '.join(cost[1].split()) if cost else ''))
  return found


def meanings() -> dict[str, str]:
  """What each field of a config means, by its name, as 'model.num_columns'."""
  return {**_of_network(), **_of_comments(Path(imagenet.__file__).read_text('utf-8'))}


def _of_comments(source: str) -> dict[str, str]:
  """Comments beside or above the assignments to a config's fields, in a file of configs."""
  lines = source.split('\n')
  sections = {'config': ''}
  found: dict[str, str] = {}
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
      continue
    target, *aliases = node.targets
    assert isinstance(target, ast.Attribute)
    if not isinstance(target.value, ast.Name) or target.value.id not in sections:
      continue
    field = f'{sections[target.value.id]}{target.attr}'
    for alias in aliases:  # config.data = data = ...
      assert isinstance(alias, ast.Name)
      sections[alias.id] = f'{field}.'
    assert node.end_lineno is not None
    comment = lines[node.end_lineno - 1].partition('  # ')[2]
    above = node.lineno - 2
    if not comment:
      while lines[above].lstrip().startswith('# '):
        comment = f'{lines[above].lstrip()[2:]} {comment}'
        above -= 1
    if comment and field not in found:
      found[field] = comment.strip()
  return found


def _of_network() -> dict[str, str]:
  """The meanings of the fields of `model`, from the docstrings of AlexNet and its parts."""
  found = {}
  own = dict(_attributes(AlexNet))
  for field, value in AlexNet().to_config().items():
    if not isinstance(value, dict):
      found[f'model.{field}'] = own[field]
      continue
    part = type(getattr(AlexNet(), field))
    described: dict[str, str] = {}
    for base in reversed(part.__mro__):  # Bottleneck's are those of Dense
      described |= _attributes(base)
    found |= {f'model.{field}.{name}': described[name] for name in value}
  return found


def _attributes(described: type) -> Iterator[tuple[str, str]]:
  """The attributes that a docstring lists, with what it says of each."""
  listed = (inspect.getdoc(described) or '').partition('Attributes:\n')[2]
  for names, text in re.findall(r'^  (\w[\w, ]*): (.*(?:\n    .*)*)', listed, re.M):
    for name in names.split(', '):
      yield name, ' '.join(text.split())


def of_config(config: Mapping[str, Any]) -> str:
  """All fields of a config as lines, below what they mean; with imagenet.py's value where it differs.

  Args:
    config: the config, as its `to_dict` gives it.
  """
  paper, fields = (
    dict(config_fields.flatten(each)) for each in (imagenet.get_config().to_dict(), config)
  )
  differing = [field for field in fields if field in paper and fields[field] != paper[field]]
  lines = [f'# {len(differing)} of {len(fields)} fields differ from configs/imagenet.py, the paper']
  said, before = meanings(), {''}
  for field, value in fields.items():
    if (meaning := _meaning(field, said)) not in before:
      before.add(meaning)
      lines += ['', *(f'# {line}' for line in textwrap.wrap(meaning, 76, break_on_hyphens=False))]
    lines.append(f'{field} = {value!r}')
    if field in differing:
      lines[-1] += f'  # imagenet.py: {paper[field]!r}'
  return '\n'.join(lines)


def markdown() -> str:
  """The page of all fields, with imagenet.py's values; fields that each layer has are in one row."""
  lines = [
    '# Fields',
    '',
    "Every field of a config, its value in configs/imagenet.py (the paper's, where the paper has one) and what it",
    'means. Any of them is changed on the command line, as `--config.model.num_columns=1`; `--mode=config` prints those of',
    'a config or a run. "The 2012 code" is that of [Configs](configs.md). Written by'
    ' `python -m alexnet_jax.reports.fields`.',
  ]
  said = meanings()
  grouped: dict[str, dict[str, Any]] = {}
  for field, value in config_fields.flatten(imagenet.get_config().to_dict()):
    layers = [part for part in field.split('.') if part in LAYERS]
    kind = 'conv' if layers and layers[0] in CONVOLUTIONS else 'fc'
    own = field.startswith('model.')  # a layer's own number, not one that every layer has
    row = field.replace(f'.{layers[0]}', f'.{kind}*' if own else '.*') if layers else field
    grouped.setdefault(row, {})[layers[0] if layers else ''] = (field, value)
  section = ''
  for row, fields in grouped.items():
    if row.partition('.')[0] != section:
      section = row.partition('.')[0]
      lines += ['', f'## {section}', '', '| field | imagenet.py | |', '|---|---|---|']
    values = {layer: f'`{value!r}`' for layer, (_, value) in fields.items()}
    if len(set(values.values())) > 1:
      shown = ', '.join(f'{layer} {value}' for layer, value in values.items())
    else:
      shown = next(iter(values.values()))
    meaning = _meaning(next(iter(fields.values()))[0], said)
    lines.append(f'| `{row}` | {shown} | {meaning} |')
  return '\n'.join(lines) + '\n'


def _meaning(field: str, said: Mapping[str, str]) -> str:
  """A field's meaning, or that of the section which holds a value for each layer."""
  meaning = said.get(field) or said.get(field.rpartition('.')[0], '')
  return meaning[:1].upper() + meaning[1:]


if __name__ == '__main__':
  print(markdown(), end='')
