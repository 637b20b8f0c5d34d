"""The paper's ablations, and more of its choices undone one at a time.

Sections 3 to 5 and 7 of the paper; its differences, and those that the logs of the 2012 code show,
stand beside ours. Any config will do as the base; what changes nothing of it is left out.

Command:  python launch.py --mode=sweep --sweep=configs/sweeps/ablations.py --config=configs/digits.py
Cost:     17 variants apply to the digits and are run beside the base: 7 minutes on 2 cores, --jobs=2.
"""

from ml_collections import ConfigDict

from alexnet_jax.sweeps.spec import Reported, Sweep, Variant


def get_sweep(config: ConfigDict) -> Sweep:
  """Returns the sweep over a base."""
  return Sweep('Ablations', [*_norms(config), *_pools(config), *_columns(config), *_rest(config)])


def _norms(config: ConfigDict) -> list[Variant]:
  """Section 3.3."""
  model = config.model
  normed = model.response_norm.layers + model.within_norm.layers
  none = {'model.response_norm.layers': (), 'model.within_norm.layers': ()}
  variants = [
    Variant(
      'no_response_norm',
      none,
      'no response normalization (3.3)',
      paper=Reported(1.4, 1.2, where='ImageNet'),
      source=Reported(1.37, 1.15, where='ILSVRC-2012 validation'),
    ),
    Variant(
      'within_channel_norm',
      {**none, 'model.within_norm.layers': normed},
      'normalization within each map, not across neighboring ones',
    ),
  ]
  if model.num_columns > 1 and model.response_norm.layers:
    variants.append(
      Variant(
        'norm_over_all_channels',
        {'model.response_norm.over': 'all_channels'},
        "normalization across both columns' maps, as Caffe does",
      )
    )
  return variants


def _pools(config: ConfigDict) -> list[Variant]:
  """Section 3.4."""
  pool = config.model.pool
  return [
    Variant(
      'no_overlap',
      {'model.pool.window': pool.stride},
      'pools that do not overlap (3.4)',
      paper=Reported(0.4, 0.3, where='ImageNet'),
      source=Reported(0.39, 0.30, where='ILSVRC-2012 validation'),
    ),
    Variant(
      'average_pooling', {'model.pool.average': pool.layers}, 'mean instead of maximum pools'
    ),
  ]


def _columns(config: ConfigDict) -> list[Variant]:
  """Section 3.2."""
  if config.model.num_columns == 1:
    return []
  return [
    Variant(
      'one_column',
      {'model.num_columns': 1},
      'one column with half the kernels in conv1 to conv4 (3.2)',
      paper=Reported(1.7, 1.2, where='ImageNet'),
      source=Reported(1.70, 1.23, where='ILSVRC-2010 test'),
    ),
    Variant(
      'columns_never_talk',
      {'model.cross_column': ()},
      'columns that share nothing before fc8',
      # Its net 150 makes up for the lost parameters: 320 kernels in conv2, 8192 units in fc6.
      source=Reported(1.16, 1.12, where='ILSVRC-2012 validation, with wider conv2 and fc6'),
    ),
  ]


def _rest(config: ConfigDict) -> list[Variant]:
  """Sections 3.1, 4, 5 and 7."""
  model = config.model
  variants = []
  if model.dropout.layers:
    variants.append(Variant('no_dropout', {'model.dropout.rate': 0.0}, 'no dropout (4.2)'))
  variants += [
    Variant('tanh', {'model.activation': 'tanh'}, 'tanh instead of ReLU (3.1), the same rate'),
    Variant('no_flips', {'augment.flip': False}, 'no mirror images (4.1)'),
    Variant('no_crops', {'augment.crop_offsets': 1}, 'the center crop only (4.1)'),
    Variant(
      'no_lighting',
      {'augment.lighting.std': ()},
      'no PCA lighting (4.1)',
      paper=Reported(1.0, roughly='over', where='ImageNet'),
    ),
  ]
  normed = model.response_norm.layers + model.within_norm.layers
  for layer in ('conv2', 'conv3', 'conv4', 'conv5'):
    middle = layer in ('conv3', 'conv4')
    gone = [layer]
    if layer in normed:
      gone.append('its norm')
    if layer in model.cross_column and model.num_columns > 1:
      gone.append("the columns' exchange before it")
    variants.append(
      Variant(
        f'no_{layer}',
        {f'model.{layer}.features': 0},
        f'{" and ".join(gone)} left out (7)',
        paper=Reported(2.0, roughly='about', where='ImageNet, any of the middle layers')
        if middle
        else None,
      )
    )
  variants.append(
    Variant('no_weight_decay', {'optimizer.weight_decay': 0.0}, 'no weight decay (5)')
  )
  variants += [
    Variant(f'{preset}_initialization', {'model.initialization': preset}, description)
    for preset, description in _STARTS.items()
  ]
  return variants


# The 2012 code's for CIFAR-10 is for small nets: where it is the base, all of these are tried.
_STARTS = {
  'paper': "the paper's initial weights and biases (5)",
  'source': "the 2012 code's: wider in conv3 to conv5",
  'caffe': "Caffe's: biases of 0.1",
  'he': "He et al.'s initial weights",
}
