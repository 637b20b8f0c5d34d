"""What a training step exchanges, read from the compiled program and held to a count by hand."""

import functools
import itertools
import math

import jax
import pytest

from alexnet_jax import experiment
from alexnet_jax.parallel import mesh
from benchmarks import communication
from benchmarks.communication import Exchange
from configs import imagenet
from tests.small import small_config

PAPER_PARAMETERS = 60_965_224


def config_named(name):
  """The paper's network or the small one, at so few images that it compiles in seconds.

  Their numbers are such that no maps happen to have as many bytes as a parameter array.
  """
  if name == 'paper':
    config = imagenet.get_config()
    config.train.batch_size = 6
    return config
  return small_config({'train.batch_size': 14})


@functools.cache
def found(name, data_devices, column_devices):
  """The network, and the exchanges of its compiled step, groups of one device among them."""
  if data_devices > 1 and jax.__version_info__ < (0, 10):
    pytest.skip(
      "XLA of JAX before 0.10 sums 16 of the metrics' 20 bytes with the gradients, under one name"
    )
  config = config_named(name)
  on = mesh.make_mesh(2, column_devices, data_devices)
  text = communication.compiled_step(config, on)
  assert 'ENTRY' in text
  net = experiment.make_network(config)
  return net, communication.exchanges(text, on.shape, alone=True)


def among_several(exchanges):
  return [exchange for exchange in exchanges if exchange.group_size > 1]


def bytes_of_parameters(net, column_devices):
  """Of each array, whole and as a device holds it."""
  image = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), 'float32')
  params = jax.eval_shape(net.init, jax.random.key(0), image)['params']
  sizes = {}
  for layer, arrays in params.items():
    for kind, array in arrays.items():
      sizes[f'{layer}/{kind}'] = 4 * array.size
      if (layer, kind) != ('fc8', 'bias'):
        sizes[f'half of {layer}/{kind}'] = 4 * array.size // column_devices
  return sizes


# data x column. The paper's network is compiled where its columns lie on two devices.
STEPS = [('paper', 1, 2), ('paper', 2, 2), ('small', 2, 1), ('small', 1, 1)]


@pytest.mark.parametrize(('name', 'data_devices', 'column_devices'), STEPS)
def test_a_step_exchanges_what_the_network_needs_and_nothing_else(
  name, data_devices, column_devices
):
  net, exchanges = found(name, data_devices, column_devices)
  grouped = communication.grouped(among_several(exchanges))
  batch = config_named(name).train.batch_size
  by_hand = communication.expected(net, batch, data_devices, column_devices)
  assert set(grouped) == set(by_hand)
  assert len(grouped) == len(by_hand) == 7 * (column_devices > 1) + 2 * (data_devices > 1)


def test_the_columns_of_the_paper_exchange_three_layers_maps_and_sum_the_logits():
  """The same without any code of the count by hand: numbers of the paper's figure 2."""
  _, exchanges = found('paper', 1, 2)
  exchanges = among_several(exchanges)
  maps = {'conv3': 13 * 13 * 256, 'fc6': 6 * 6 * 256, 'fc7': 4096}
  expected = {('all-reduce', 'fc8', False, 6 * 1000 * 4, 6 * 1000 * 4)}
  for layer, numbers in maps.items():
    whole = 6 * numbers * 4
    expected |= {
      ('all-gather', layer, False, whole // 2, whole),
      ('reduce-scatter', layer, True, whole, whole // 2),
    }
  assert len(exchanges) == 7
  assert {
    (e.kind, e.layer, e.backward, e.operand_bytes, e.result_bytes) for e in exchanges
  } == expected
  assert {(e.axis, e.group_size) for e in exchanges} == {('column', 2)}


def test_pairs_of_columns_sum_the_gradients_of_what_each_device_holds():
  _, exchanges = found('paper', 2, 2)
  gradients = [e for e in exchanges if e.layer == 'gradients']
  # Half of every array but the bias of fc8, which both columns have.
  assert sum(e.result_bytes for e in gradients) == 4 * (PAPER_PARAMETERS + 1000) // 2
  assert len(gradients) == 16
  assert {(e.kind, e.axis, e.group_size, e.backward) for e in gradients} == {
    ('all-reduce', 'data', 2, True)
  }


@pytest.mark.parametrize(
  ('name', 'data_devices', 'column_devices'), [step for step in STEPS if step[2] == 2]
)
def test_columns_exchange_no_parameter_and_no_gradient_of_one(name, data_devices, column_devices):
  # Not even of the bias of fc8: both columns have the logits' whole gradient, and so the bias's.
  net, exchanges = found(name, data_devices, column_devices)
  parameters = bytes_of_parameters(net, column_devices).values()
  between = [e for e in among_several(exchanges) if 'column' in e.axis]
  assert len(between) == 7
  for exchange in between:
    assert exchange.operand_bytes not in parameters
    assert exchange.result_bytes not in parameters


@pytest.mark.parametrize(
  ('name', 'data_devices', 'column_devices'), [step for step in STEPS if step[1] == 2]
)
def test_nothing_of_a_batch_is_exchanged_between_its_shares(name, data_devices, column_devices):
  net, exchanges = found(name, data_devices, column_devices)
  sizes = bytes_of_parameters(net, column_devices)
  held = sorted(
    size
    for array, size in sizes.items()
    if array.startswith('half of') or array == 'fc8/bias'  # on one device the half is the whole
  )
  between = [e for e in among_several(exchanges) if e.axis != 'column']
  assert {(e.axis, e.kind) for e in between} == {('data', 'all-reduce')}
  scalars = [e for e in between if e.shape == ()]
  # The loss, and the sums of losses, of errors (two kinds) and of images.
  assert sorted(e.dtype for e in scalars) == ['f32', 'f32', 'f32', 'f32', 's32']
  assert {e.layer for e in scalars} == {'metrics'}
  assert sorted(e.result_bytes for e in between if e.shape) == held


def test_one_device_exchanges_nothing():
  _, exchanges = found('small', 1, 1)
  assert {exchange.group_size for exchange in exchanges} <= {1}


def test_norms_over_all_channels_gather_their_layers_maps():
  config = small_config({'train.batch_size': 10, 'model.response_norm.over': 'all_channels'})
  on = mesh.make_mesh(2, 2, 1)
  net = experiment.make_network(config)
  exchanges = communication.exchanges(communication.compiled_step(config, on), on.shape)
  by_hand = communication.expected(net, 10, 1, 2)
  assert set(communication.grouped(exchanges)) == set(by_hand)
  [forward] = [e for e in by_hand if (e.kind, e.layer) == ('all-gather', 'norm')]
  assert forward.result_bytes == 10 * (7 * 7 * 16 + 3 * 3 * 32) * 4


# What follows reads small pieces of HLO, with 'data' of 2 by 'column' of 2 where axes are named.
AXES = {'data': 2, 'column': 2}


def read(line, axes=AXES, **options):
  return communication.exchanges(f'HloModule m, num_partitions=4\n\n{line}\n', axes, **options)


@pytest.mark.parametrize(
  ('groups', 'axis', 'size'),
  [
    ('{{0,1},{2,3}}', 'column', 2),
    ('{{2,3},{1,0}}', 'column', 2),
    ('[2,2]<=[4]', 'column', 2),
    ('{{0,2},{1,3}}', 'data', 2),
    ('[2,2]<=[2,2]T(1,0)', 'data', 2),
    ('{{0,1,2,3}}', 'data+column', 4),
    ('[1,4]<=[4]', 'data+column', 4),
    ('{}', 'data+column', 4),
    ('{{0,3},{1,2}}', '', 2),
    ("mesh['data'=2,'column'=2] {'column'}", 'column', 2),
    ("mesh['data'=2,'column'=2] {'data'}", 'data', 2),
    ("mesh['x'=2,'y'=2] {'x','y'}", 'data+column', 4),
  ],
)
def test_groups_in_any_spelling_tell_the_axis(groups, axis, size):
  line = f'%a = f32[6]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%add'
  assert read(line) == [Exchange('all-reduce', '', False, axis, size, 24, 24)]


def test_turned_groups_of_three_axes_are_told():
  axes = {'data': 2, 'column': 2, 'third': 3}
  for groups, axis in {
    '[4,3]<=[12]': 'third',
    '[6,2]<=[2,2,3]T(0,2,1)': 'column',
    '[6,2]<=[2,6]T(1,0)': 'data',
    '[3,4]<=[4,3]T(1,0)': 'data+column',
    '[2,6]<=[2,2,3]T(1,2,0)': 'data+third',
  }.items():
    [exchange] = read(f'%a = f32[] all-reduce(%x), replica_groups={groups}', axes)
    assert exchange.axis == axis


@pytest.mark.parametrize('groups', ['{{0},{1},{2},{3}}', '[4,1]<=[4]'])
def test_groups_of_one_are_left_out(groups):
  line = f'%a = f32[6]{{0}} all-reduce(%x), replica_groups={groups}'
  assert read(line) == []
  [alone] = read(line, alone=True)
  assert alone.group_size == 1
  assert communication.bytes_on_the_wire(alone) == 0


def test_groups_that_are_not_understood_are_an_error():
  with pytest.raises(ValueError, match='which devices'):
    read('%a = f32[6]{0} all-reduce(%x), replica_groups=mesh[x]')


@pytest.mark.parametrize(
  ('dtype', 'size'),
  [
    *[('f32', 4), ('bf16', 2), ('f16', 2), ('s32', 4), ('u32', 4), ('u8', 1), ('pred', 1)],
    *[('f64', 8), ('f8e4m3fn', 1), ('c64', 8)],
  ],
)
def test_numbers_have_their_bytes(dtype, size):
  [exchange] = read(f'%a = {dtype}[3,5]{{1,0:T(8,128)}} all-to-all(%x), replica_groups=[2,2]<=[4]')
  assert exchange.operand_bytes == exchange.result_bytes == 15 * size
  assert (exchange.dtype, exchange.shape) == (dtype, (3, 5))


def test_an_unknown_type_is_an_error():
  with pytest.raises(ValueError, match='f99'):
    read('%a = f99[3]{0} all-reduce(%x), replica_groups={}')


def test_what_goes_in_follows_from_the_kind():
  for kind, operand in {
    'all-gather': 24,
    'reduce-scatter': 96,
    'all-reduce': 48,
    'all-to-all': 48,
  }.items():
    [exchange] = read(f'ROOT %a = f32[3,4]{{1,0}} {kind}(%x), replica_groups={{{{0,1}},{{2,3}}}}')
    assert (exchange.kind, exchange.operand_bytes, exchange.result_bytes) == (kind, operand, 48)


def test_permutations_have_pairs_for_groups():
  [exchange] = read('%a = f32[3]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}')
  assert (exchange.group_size, exchange.operand_bytes) == (2, 12)
  [ring] = read('%a = f32[3] collective-permute(%x), source_target_pairs={{0,1},{2,3},{3,0},{1,2}}')
  assert (ring.group_size, ring.axis) == (4, 'data+column')


def test_combined_exchanges_are_taken_apart():
  line = (
    '%a = (f32[8]{0}, bf16[3,2]{1,0}, /*index=2*/f32[]) all-reduce(%x, %y, /*index=2*/%z),'
    ' replica_groups={{0,2},{1,3}}, to_apply=%add,'
    ' metadata={op_name="jit(step)/(transpose(jvp())/psum:transpose(jvp())/psum:psum)"}'
  )
  assert read(line) == [
    Exchange('all-reduce', 'gradients', True, 'data', 2, 32, 32),
    Exchange('all-reduce', 'gradients', True, 'data', 2, 12, 12),
    Exchange('all-reduce', 'metrics', False, 'data', 2, 4, 4),
  ]
  assert communication.grouped(read(line)) == [
    Exchange('all-reduce', 'gradients', True, 'data', 2, 44, 44),
    Exchange('all-reduce', 'metrics', False, 'data', 2, 4, 4),
  ]


@pytest.mark.parametrize(
  ('kind', 'type_', 'operand', 'result'),
  [
    ('all-gather', '(f32[2,3]{1,0}, f32[4,3]{1,0})', 24, 48),
    ('all-reduce', 'f32[4,3]{1,0}', 48, 48),
    ('reduce-scatter', '((f32[4,3]{1,0}), f32[2,3]{1,0})', 48, 24),
    ('all-to-all', '((f32[4,3]{1,0}), f32[4,3]{1,0}, s32[])', 48, 48),
    ('all-gather', '((f32[2]{0}, f32[4]{0}), (f32[4]{0}, f32[8]{0}))', 24, 48),
  ],
)
def test_an_exchange_that_starts_and_is_done_later_counts_once(kind, type_, operand, result):
  lines = (
    f'%s = {type_} {kind}-start(%x), replica_groups={{{{0,1}},{{2,3}}}}\n'
    f'  %d = f32[4,3]{{1,0}} {kind}-done(%s)'
  )
  [exchange] = communication.grouped(read(lines))
  assert exchange == Exchange(kind, '', False, 'column', 2, operand, result)


def test_a_permutation_in_two_parts_counts_once():
  lines = (
    '%s = (f32[5]{0}, f32[5]{0}, u32[], u32[]) collective-permute-start(%x),'
    ' source_target_pairs={{0,1},{1,0},{2,3},{3,2}}\n'
    '  %d = f32[5]{0} collective-permute-done(%s)'
  )
  assert read(lines) == [Exchange('collective-permute', '', False, 'column', 2, 20, 20)]


def test_a_layer_is_told_by_the_name_or_by_who_reads_and_who_made_the_maps():
  text = """HloModule m, num_partitions=2

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %q = f32[4]{0} negate(%p), metadata={op_name="jit(step)/transpose(jvp(AlexNet))/fc7/dot"}
}

ENTRY %main (x: f32[2]) -> f32[4] {
  %x = f32[2]{0} parameter(0)
  %named = f32[2]{0} all-reduce(%x), replica_groups={{0,1}}, metadata={op_name="jvp(A)/fc8/psum"}
  %before = f32[2]{0} negate(%named), metadata={op_name="jit(step)/jvp(AlexNet)/conv2/add"}
  %gather = f32[4]{0} all-gather(%before), replica_groups={{0,1}}, dimensions={0}
  %copy = f32[4]{0} copy(%gather)
  %conv3 = f32[4]{0} negate(%copy), metadata={op_name="jit(step)/jvp(AlexNet)/conv3/conv"}
  %fusion = f32[4]{0} fusion(%conv3), kind=kLoop, calls=%fused
  %scatter = f32[2]{0} reduce-scatter(%fusion), replica_groups={{0,1}}, dimensions={0}, \
metadata={op_name="jit(step)/transpose(jvp(AlexNet))/reduce_scatter"}
  ROOT %last = f32[2]{0} negate(%scatter), metadata={op_name="transpose(jvp(AlexNet))/conv1/add"}
}
"""
  assert [(e.layer, e.backward) for e in communication.exchanges(text)] == [
    ('fc8', False),
    ('conv3', False),
    ('fc7', True),
  ]


@pytest.mark.parametrize(
  ('kind', 'operand', 'result', 'sent'),
  [
    ('all-gather', 100, 400, 300),
    ('reduce-scatter', 400, 100, 300),
    ('all-reduce', 400, 400, 600),
    ('all-to-all', 400, 400, 300),
    ('collective-permute', 400, 400, 400),
  ],
)
def test_rings_send_what_the_formulas_say(kind, operand, result, sent):
  exchange = Exchange(kind, '', False, 'data', 4, operand, result)
  assert communication.bytes_on_the_wire(exchange) == sent


def test_maps_of_fewer_bytes_leave_logits_and_gradients_as_they_are():
  net = experiment.make_network(imagenet.get_config())
  wide, narrow = (communication.expected(net, 128, 2, 2, number) for number in (4, 2))
  for a, b in zip(wide, narrow, strict=True):
    halved = a.layer in ('conv3', 'fc6', 'fc7')
    assert b.result_bytes == (a.result_bytes // 2 if halved else a.result_bytes)


def test_the_plan_s_arrangements_send_what_a_few_lines_of_arithmetic_say():
  net = experiment.make_network(imagenet.get_config())
  convolutions = 34_944 + 307_456 + 885_120 + 663_936 + 442_624
  dense = PAPER_PARAMETERS - convolutions
  for (devices, images), name in itertools.product([(8, 128), (64, 16)], ['all', 'eight']):
    group = devices if name == 'all' else 8
    whole = group * images * (9216 + 4096 + 4096 + 3) * 4  # inputs there and back; softmax
    expected = 2 * whole * (group - 1) / group
    expected += 2 * convolutions * 4 * (devices - 1) / devices
    expected += 2 * dense * 4 / group * (devices // group - 1) / (devices // group)
    trick = communication.one_weird_trick(net, devices * images, devices, group)
    assert sum(map(communication.bytes_on_the_wire, trick)) == pytest.approx(expected)


@pytest.mark.parametrize('name', communication.ARRANGEMENTS)
def test_arithmetic_takes_longer_than_exchange_from_the_number_of_images_on(name):
  net = experiment.make_network(imagenet.get_config())
  link, flops, devices = 450e9, 200e12, 64

  def ratio(images):
    exchanged = communication.ARRANGEMENTS[name](net, devices * images, devices)
    seconds = sum(map(communication.bytes_on_the_wire, exchanged)) / link
    return images * communication.training_flop(net) / flops / seconds

  least = math.ceil(communication.least_images(net, name, devices, link, flops))
  assert ratio(least - 1) < 1 <= ratio(least)
  assert math.isinf(communication.least_images(net, 'one weird trick', 512, link, flops))


def test_the_plan_is_whole_tables():
  net = experiment.make_network(imagenet.get_config())
  lines = [line for line in '\n'.join(communication.plan(net)).splitlines() if line[:1] == '|']
  assert len(lines) == 2 * (len(communication.PLAN) + 2) + 3 + 2
  widths = [line.count('|') for line in lines]
  assert sorted(set(widths)) == [6, 8]
  assert '| 8 | 128 | 1,024 | 426.8 (426.8 + 0.0) |' in lines[2]
