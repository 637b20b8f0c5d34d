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
