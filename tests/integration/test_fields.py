"""What there is to choose: fields with their meanings, configs and sweeps with their cost."""

from pathlib import Path

from alexnet_jax.reports import fields
from alexnet_jax.utils import config_fields
from configs import digits, imagenet
from tests.launching import launch

ROOT = Path(__file__).parents[2]


def test_every_field_of_the_paper_has_a_meaning():
  said = fields.meanings()
  sections = ('optimizer.lr_multipliers', 'optimizer.weight_decay_multipliers')
  all_fields = [field for field, _ in config_fields.flatten(imagenet.get_config().to_dict())]
  assert len(all_fields) > 100
  assert [f for f in all_fields if not f.startswith(sections) and not said.get(f)] == []
  assert all(said[section] for section in sections)


def test_the_page_of_fields_is_current():
  page = (ROOT / 'docs' / 'fields.md').read_text('utf-8')
  assert page == fields.markdown()  # python -m alexnet_jax.reports.fields > docs/fields.md
  assert '| `model.conv*.features` | conv1 `96`, conv2 `256`,' in page


def test_comments_above_and_beside_a_field_are_its_meaning():
  source = """
def get_config():
  config.data = data = ConfigDict()
  # The first
  # of two lines.
  data.name = 'digits'
  data.size = 8  # pixels
  data.plain = 1
"""
  assert fields._of_comments(source) == {
    'data.name': 'The first of two lines.',
    'data.size': 'pixels',
  }


def test_every_config_and_sweep_is_listed_with_its_cost():
  code, out, err = launch('--mode=list')
  assert (code, err) == (0, '')
  files = [*ROOT.glob('configs/[!_]*.py'), *ROOT.glob('configs/sweeps/[!_]*.py')]
  names = [line for line in out.splitlines() if not line.startswith(' ')]
  assert sorted(names) == sorted(str(path.relative_to(ROOT)) for path in files)
  assert names[0] == 'configs/imagenet.py'
  assert all(choice.title and choice.cost for choice in fields.choices())
  assert max(map(len, out.splitlines())) < 80


def test_a_config_is_printed_with_what_differs_from_the_paper():
  code, out, err = launch('--config=configs/digits.py', '--mode=config', '--config.train.seed=7')
  assert (code, err) == (0, '')
  lines = out.splitlines()
  assert 'data.image_size = 8  # imagenet.py: 256' in lines
  assert 'train.seed = 7  # imagenet.py: 0' in lines
  assert 'optimizer.momentum = 0.9' in lines
  own, paper = (dict(config_fields.flatten(c.get_config().to_dict())) for c in (digits, imagenet))
  differing = {field for field, value in own.items() if value != paper[field]} | {'train.seed'}
  assert lines[0].startswith(f'# {len(differing)} of {len(own)} fields differ')
  assert sum('  # imagenet.py: ' in line for line in lines) == len(differing)
