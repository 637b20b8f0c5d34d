"""What is printed of results."""

import pytest

from alexnet_jax.reports import printed


@pytest.mark.parametrize('classes', [5, 6])
def test_a_top_5_error_is_shown_of_more_than_five_classes(tmp_path, capsys, classes):
  errors = {'top1_error': 0.25, 'top5_error': 0.125, 'loss': 0.5}
  views = {'center_crop': errors, 'ten_views': errors}
  result = {
    'data': 'pets',
    'split': 'test',
    'images': 8,
    'classes': classes,
    'classes_with_images': 4,
    'members': [{'path': 'runs/pets', 'step': 7, **views}],
    **views,
  }
  printed.evaluation(tmp_path, result)
  out = capsys.readouterr().out
  assert f'pets, 8 images (test) of 4 of {classes} classes' in out
  assert '25.00%' in out
  for words in ('top-5', '12.50%'):
    assert (words in out) == (classes == 6)


def test_networks_are_compared_with_the_first(tmp_path, capsys):
  errors = {'top1_error': 0.25, 'top5_error': 0.125, 'loss': 0.5}
  views = {'center_crop': errors, 'ten_views': errors}

  def compared(center_crop, ten_views):
    return {
      'compared_with_first': {
        name: {'top1_difference': difference, 'margin_of_error': 0.0069}
        for name, difference in (('center_crop', center_crop), ('ten_views', ten_views))
      }
    }

  printed.evaluation(
    tmp_path,
    {
      'data': 'pets',
      'split': 'test',
      'images': 8,
      'classes': 4,
      'classes_with_images': 4,
      'members': [
        {'path': 'runs/base', 'step': 7, 'weight': 0.5, **views},
        {'path': 'runs/tanh', 'step': 7, 'weight': 0.5, **views, **compared(0.0233, -0.001)},
      ],
      **views,
      **compared(-0.01, 0.0),
    },
  )
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  title = 'top-1 error minus that of runs/base, percentage points and 95% interval'
  assert title.split() in lines
  assert ['runs/tanh', '+2.33', '±', '0.69', '-0.10', '±', '0.69'] in lines
  assert ['average', 'of', '2', '-1.00', '±', '0.69', '+0.00', '±', '0.69'] in lines
