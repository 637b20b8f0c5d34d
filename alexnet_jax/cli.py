r"""Trains, evaluates, predicts, draws, converts or sweeps an AlexNet.

  python launch.py --config=configs/digits.py
  python launch.py --config=configs/imagenet.py \
    --config.data.data_dir=$HOME/tensorflow_datasets
  python launch.py --workdir=runs/digits --config.train.num_epochs=60
  python launch.py --workdir=runs/digits --mode=evaluate
  python launch.py --workdir=runs/digits --mode=figures
  python launch.py --mode=convert --source=runs/digits \
    --target=digits.safetensors

  python launch.py --config=configs/image_folder.py \
    --config.data.data_dir=PHOTOS --workdir=runs/photos
  python launch.py --workdir=runs/photos --mode=predict --images=NEW_PHOTOS
  python launch.py --workdir=runs/photos --mode=evaluate \
    --config.data.data_dir=OTHER_PHOTOS
  python launch.py --mode=evaluate --members=runs/a,runs/b,runs/c \
    --workdir=runs/ensemble

  python launch.py --mode=sweep --sweep=configs/sweeps/ablations.py \
    --config=configs/digits.py

  python launch.py --mode=list
  python launch.py --config=configs/digits.py --mode=config
  python launch.py --config=configs/imagenet.py --mode=summary \
    --config.model.num_columns=1

A config that is not in the current folder is taken from those that come with
the program.

The same command resumes a run. SIGINT (Ctrl-C) saves and exits with 0;
SIGTERM, SIGUSR1 and SIGHUP (a terminal that closes) save and exit with 75,
which asks for a restart. Under srun or mpirun the same command trains, or
evaluates, on many hosts.
"""

import contextlib
import functools
import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from alexnet_jax import config_flag
from alexnet_jax.utils import config_fields, host, silence, streams
from alexnet_jax.utils.errors import EXIT_AGAIN, Stopped, UserError
from alexnet_jax.utils.signals import preemption

# absl would describe the flags of the file that was started, and exit with 1.
_HELP = {'--help', '-help', '--helpshort', '-helpshort', '-h', '-?', '--?'}

# Which modes take the config of --workdir where --config is left out.
_OF_A_RUN = ('train', 'prepare', 'summary', 'config', 'evaluate', 'figures')

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='What to run: a file of configs/; change its fields with --config.section.field=value'
  ' (--config.model.num_columns=1). Where the workdir has a config.json, that is the default, and its'
  ' fields are changed in the same way.',
)
_CONFIG_FLAG = flags.FLAGS['config']
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The run's folder, made if need be (default: runs/ and the config's name)."
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  [*_OF_A_RUN, 'predict', 'convert', 'sweep', 'list'],
  'train: train, or resume training; prepare: shrink the images once, as training does by itself'
  ' where it has not been done; summary: print the network as a table, and with --target draw it;'
  ' evaluate: the errors of the'
  " workdir's best checkpoint, or of --members, by center crop and by ten views; predict: the"
  ' classes of --images, photographs without labels, into a .csv file; figures: draw into'
  " the workdir what its best checkpoint has learned: the paper's figures 2, 3 and 4, activations,"
  " learning curves; or, for a sweep's folder, its tables and pictures; convert: read a network from"
  ' --source, of this project or another, and write it to --target; sweep: run what is missing of'
  ' --sweep, and write its table; list: the configs and sweeps that come with the program; config: every'
  ' field of --config, or of the run in --workdir, what it means, and what the paper has.',
)
_MEMBERS = flags.DEFINE_list(
  'members',
  None,
  'With --mode=evaluate: networks to evaluate alone and together, their probabilities averaged, and to'
  ' compare with the first, image by image: --members=runs/a,runs/b; each a workdir (its best'
  ' checkpoint), a checkpoint or a .safetensors file. Results go to --workdir (default: runs/ensemble).'
  ' Each network uses its own config; --config sets only data_dir, the batch size and the devices.',
)
_MEMBER_WEIGHTS = flags.DEFINE_list(
  'member_weights', None, "The members' weights in the average, as 1,1,2 (default: equal)."
)
_LAYER = flags.DEFINE_string(
  'layer',
  None,
  'For --mode=figures: the output by which training images are near, as fc6 or conv5_pool (default:'
  ' that of the last hidden layer, as in the paper). An unknown name prints the list of names.',
)
_COMPARE = flags.DEFINE_list(
  'compare',
  [],
  'For --mode=figures: other runs, whose learning curves to draw with this one'
  "'s: --compare=runs/relu,runs/tanh.",
)
_SOURCE = flags.DEFINE_string(
  'source',
  None,
  'For --mode=convert: a workdir, a checkpoint or a file of this project; or, with the --config of its'
  " network, Caffe's .caffemodel, TensorFlow users' .npy or .npz, an .onnx, or a checkpoint of PyTorch's,"
  ' whatever its ending: --config=configs/imagenet_caffe.py --source=bvlc_alexnet.caffemodel. There are'
  ' as many classes as the file has, unless --config.model.num_classes is given.',
)
_TARGET = flags.DEFINE_string(
  'target',
  None,
  'For --mode=summary: where to draw the network, as PNG, PDF and SVG: --target=network.svg. For'
  ' --mode=predict: the .csv file (default: predictions.csv in the workdir). For --mode=convert:'
  ' net.safetensors, a file of this project; net.jaxexport, which CPUs, GPUs and'
  ' TPUs run without this program; net.torch.safetensors or net.pth, a PyTorch state dict, and beside it'
  ' net.py, its torch.nn.Module; net.onnx.',
)
_IMAGES = flags.DEFINE_list(
  'images',
  None,
  'For --mode=predict: photographs to classify, files and folders, as --images=a.jpg,photos; a name with a'
  ' comma in double quotes, as --images=\'"a,b.jpg"\'. --workdir may be a checkpoint or a file of weights, too, with --target=FILE.csv.',
)
_MEAN = flags.DEFINE_string(
  'mean',
  None,
  "For --mode=convert: Caffe's mean image (imagenet_mean.binaryproto, ilsvrc_2012_mean.npy), as large as"
  ' images or as crops, or three numbers, in place of the mean color of the format.',
)
_CLASS_NAMES = flags.DEFINE_string(
  'class_names',
  None,
  'For --mode=convert: a text file with one class name per line, in the order of the labels.',
)
_SWEEP = flags.DEFINE_string(
  'sweep',
  None,
  'For --mode=sweep: a file of configs/sweeps/, whose variants of --config are run, each in a folder of'
  ' its own: --mode=sweep --sweep=configs/sweeps/ablations.py --config=configs/digits.py. The same'
  ' command resumes a sweep that was stopped.',
)
_JOBS = flags.DEFINE_integer(
  'jobs', 1, 'For --mode=sweep: how many runs at a time; they share the cores.', lower_bound=1
)
_SEEDS = flags.DEFINE_list(
  'seeds', None, "For --mode=sweep: seeds in place of the sweep's own, as --seeds=0,1,2."
)
_ONLY = flags.DEFINE_list(
  'only', None, 'For --mode=sweep: the base and these variants alone: --only=no_dropout,one_column.'
)
_LIST = flags.DEFINE_bool(
  'list',
  False,
  'With --mode=sweep: run nothing, but print the command line of each run that is missing; any'
  ' machine may take it. --mode=figures then gathers the table.',
)

_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  None,
  'Where several processes train or evaluate together and no launcher (srun, mpirun, Cloud TPU) tells'
  ' them of each other: host and port of the first, with --num_processes and --process_id:'
  ' --coordinator=node1:1234 --num_processes=2 --process_id=0.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'With --coordinator: how many processes there are.', lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'With --coordinator: which of them this is, from 0.', lower_bound=0
)

# Which modes read a flag.
_MODES = {
  'config': (*_OF_A_RUN, 'convert', 'sweep'),
  'workdir': ('train', 'prepare', 'summary', 'config', 'evaluate', 'predict', 'figures', 'sweep'),
  'members': ('evaluate',),
  'member_weights': ('evaluate',),
  'layer': ('figures',),
  'compare': ('figures',),
  'source': ('convert',),
  'target': ('convert', 'predict', 'summary'),
  'images': ('predict',),
  'mean': ('convert',),
  'class_names': ('convert',),
  'sweep': ('sweep',),
  'jobs': ('sweep',),
  'seeds': ('sweep',),
  'only': ('sweep',),
  'list': ('sweep',),
  'coordinator': ('train', 'evaluate'),
  'num_processes': ('train', 'evaluate'),
  'process_id': ('train', 'evaluate'),
}


def _check_flags(mode: str) -> None:
  """Raises UserError, naming them, for flags that the mode does not read."""
  unread = [
    name for name, modes in _MODES.items() if flags.FLAGS[name].present and mode not in modes
  ]
  if unread:
    modes = _MODES[unread[0]]
    read_by = f', or give {" or ".join(f"--mode={other}" for other in modes)}'
    names = ', '.join(f'--{name}' for name in unread)
    raise UserError(
      f'--mode={mode} does not read {names}; leave {"it" if len(unread) == 1 else "them"} out'
      + (read_by if len(modes) <= 3 else '')
    )


def _take_config_of_workdir(argv: Sequence[str]) -> str | None:
  """Has overrides change the config of --workdir where --config is left out.

  Returns:
    A message where there is no such config, or an override is mistaken; else None.
  """
  given = config_flag.names(argv[1:])
  overrides = [name for name in given if re.match(r'(no)?config\.', name)]
  if 'config' in given or not overrides:
    return None
  try:
    flags.FLAGS(list(argv), known_only=True)
  except flags.Error:  # of another flag, which will be told
    return None
  if _MODE.value == 'predict':
    return (
      f'--mode=predict does not read --{overrides[0]}; leave it out: the network has its own config'
    )
  if _MODE.value not in _OF_A_RUN or _MEMBERS.value is not None or _WORKDIR.value is None:
    return f'--{overrides[0]} changes a field of a config; give --config, such as configs/digits.py'
  try:
    path = _workdir()
    assert path is not None
    config = config_flag.of_workdir(path)
  except (UserError, OSError) as error:
    return str(error)
  if mistake := config_flag.field_mistake(overrides, dict(config_fields.flatten(config.to_dict()))):
    return mistake
  delattr(flags.FLAGS, 'config')  # a file's, in whose place the values are given
  try:
    config_flags.DEFINE_config_dict('config', config)
  except Exception as error:  # a value of another kind, as with a config's file
    return str(error).replace('\n', ' ')
  return None


def _names_config(argv: Sequence[str]) -> bool:
  """Whether a config will be read, which imports JAX."""
  return any(re.match(r'--?(no)?config\b', argument) for argument in argv[1:])


def _loading_jax() -> contextlib.AbstractContextManager[None]:
  """Shows on a terminal that what takes seconds is being imported."""
  from alexnet_jax.utils.display import waiting

  return waiting('loading JAX')


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses flags as absl does, with a message in place of a traceback."""
  # In a notebook the command before this one has left its values, and may have taken a workdir's config.
  if flags.FLAGS['config'] is not _CONFIG_FLAG:
    delattr(flags.FLAGS, 'config')
    flags.DEFINE_flag(_CONFIG_FLAG, module_name=__name__)
  for name in list(flags.FLAGS):
    flags.FLAGS[name].unparse()
    if name.startswith('config.'):
      delattr(flags.FLAGS, name)
  if _HELP & set(argv[1:]):
    described = (__doc__ or '').replace('python launch.py', host.program())
    print(f'{described}\nflags:\n{flags.FLAGS.module_help(__name__)}')
    sys.exit(0)
  argv = [*argv[:1], *(config_flag.renamed(config_flag.shipped(argument)) for argument in argv[1:])]
  sys.argv = argv  # where config_flags looks for overrides
  mistake = None
  with _loading_jax() if _names_config(argv) else contextlib.nullcontext():
    of_workdir = _take_config_of_workdir(argv)
    try:
      rest = list(flags.FLAGS(list(argv)))
    except Exception as error:  # a config's file and an override can raise any kind
      mistake = str(error).replace('\n', ' ')
    if 'config' in config_flag.names(argv):
      mistake = config_flag.mistake(argv, None if mistake else _CONFIG.value) or mistake
  mistake = of_workdir or mistake
  if mistake:
    print(f'{host.program_name()}: {mistake}', file=sys.stderr)
    sys.exit(2)
  return rest


def _workdir() -> Path | None:
  """The folder of --workdir; None where it was not given."""
  from alexnet_jax.utils import files

  return files.local(_WORKDIR.value, '--workdir') if _WORKDIR.value else None


def _config_and_workdir() -> tuple[ConfigDict, Path]:
  path = _workdir()
  if flags.FLAGS['config'].present:
    source = config_flags.get_config_filename(flags.FLAGS['config'])
    return _CONFIG.value, path or Path('runs') / config_flag.run_name(source)
  if path is None:
    raise UserError('pass --config, such as --config=configs/digits.py, or --workdir of a run')
  changed = _CONFIG.value  # by overrides alone
  return config_flag.of_workdir(path) if changed is None else changed, path


def _join() -> None:
  """Joins the other processes of this run, if there are any, before JAX looks for devices."""
  from alexnet_jax.parallel import multihost

  multihost.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)


def _load_jax() -> None:
  """Imports what every mode but config needs."""
  with _loading_jax():
    importlib.import_module('alexnet_jax.reports.printed')


def _fail(message: str) -> NoReturn:
  """Ends the process with exit code 1 and a message, of several processes printed once."""
  code = 1
  if 'alexnet_jax.parallel.multihost' in sys.modules:  # else nothing has been joined
    from alexnet_jax.parallel import multihost

    code = multihost.fail(message, code)
  else:
    print(message, file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  if not host.owns_process():  # a notebook's kernel, which goes on
    sys.exit(code)
  # Threads that Orbax leaves behind a write that failed would hold the process for ten minutes.
  os._exit(code)


def _run(config: ConfigDict, path: Path) -> None:
  """Each mode imports what it needs, so that the others, and mistakes, take no time."""
  _load_jax()
  from alexnet_jax import experiment
  from alexnet_jax.parallel import xla
  from alexnet_jax.reports import printed

  experiment.check(config)
  xla.use_cache()
  if _MODE.value in ('train', 'evaluate'):
    _join()
  if _MODE.value == 'summary':
    from alexnet_jax.utils import files

    printed.network(config, files.local(_TARGET.value, '--target') if _TARGET.value else None)
  elif _MODE.value == 'evaluate':
    from alexnet_jax.evaluation import evaluate
    from alexnet_jax.parallel import multihost

    overrides = (
      {} if _CONFIG.value is None else config_flags.get_override_values(flags.FLAGS['config'])
    )
    chosen = overrides.get('data.validation_split')
    evaluation = evaluate.evaluate_workdir(path, config, chosen)
    if multihost.is_first():
      printed.evaluation(path, evaluation)
  elif _MODE.value == 'figures':
    from alexnet_jax.reports import plot_run

    printed.pictures(path, *plot_run.draw(path, config, _LAYER.value, _COMPARE.value))
  elif _MODE.value == 'prepare':
    printed.preparation(config)
  else:
    from alexnet_jax.parallel import multihost
    from alexnet_jax.training import loop

    started = time.monotonic()
    result = loop.train_and_evaluate(config, path, shows_predictions=True)
    if multihost.is_first():
      printed.training(config, path, result, time.monotonic() - started)


def _convert() -> None:
  _load_jax()
  from alexnet_jax.convert import convert
  from alexnet_jax.reports import printed
  from alexnet_jax.utils import files

  if not _SOURCE.value or not _TARGET.value:
    raise UserError(
      'pass --source and --target, such as --source=runs/digits --target=digits.safetensors'
    )
  config = _CONFIG.value
  if config is not None:
    overrides = config_flags.get_override_values(flags.FLAGS['config'])
    if 'model.num_classes' not in overrides:
      config.model.num_classes = (
        None  # as many as the source has, of which the config knows nothing
      )
  network = convert.convert(
    _SOURCE.value,
    _TARGET.value,
    config,
    mean=_MEAN.value,
    class_names=_CLASS_NAMES.value,
    log=functools.partial(print, file=sys.stderr),
  )
  written = [files.expanded(_TARGET.value)]
  if module := convert.module_path(_TARGET.value):
    written.append(str(module))
  printed.conversion(network, written)


def _predict() -> None:
  _load_jax()
  from alexnet_jax.convert import convert
  from alexnet_jax.evaluation import photographs
  from alexnet_jax.parallel import xla
  from alexnet_jax.reports import printed

  path = _workdir()
  if path is None or _IMAGES.value is None:
    raise UserError(
      'pass --workdir and --images, such as --workdir=runs/photos --images=NEW_PHOTOS'
    )
  xla.use_cache()
  printed.classified(photographs.classify(path, _IMAGES.value, _TARGET.value, convert.read))


def _evaluate_members(members: Sequence[str]) -> None:
  _load_jax()
  from alexnet_jax.evaluation import evaluate
  from alexnet_jax.parallel import multihost, xla
  from alexnet_jax.reports import printed

  given = _MEMBER_WEIGHTS.value
  try:
    weights = None if given is None else [float(weight) for weight in given]
  except ValueError as error:
    raise UserError(
      f'--member_weights is {",".join(given or [])}; give a number for each, as 1,1,2'
    ) from error
  xla.use_cache()
  path = _workdir() or Path('runs') / 'ensemble'
  _join()
  evaluation = evaluate.evaluate_ensemble(members, weights, path, _CONFIG.value)
  if multihost.is_first():
    printed.evaluation(path, evaluation)


def _sweep(config: ConfigDict) -> int:
  """Runs what is missing and draws up the table; returns the exit code."""
  _load_jax()
  from alexnet_jax.checkpoints import workdir
  from alexnet_jax.sweeps import planning, report, runner, spec
  from alexnet_jax.utils import provenance

  if _SWEEP.value is None or _CONFIG.value is None:
    raise UserError(
      'pass --sweep and --config, such as --sweep=configs/sweeps/ablations.py --config=configs/digits.py'
    )
  flag = flags.FLAGS['config']
  config_file = config_flags.get_config_filename(flag)
  name = Path(_SWEEP.value).stem
  sweep = spec.read(_SWEEP.value, config)
  variants = {spec.BASE, *(variant.name for variant in sweep.variants)}
  plan = planning.plan(
    name,
    spec.chosen(sweep, _ONLY.value, _SEEDS.value),
    config,
    _workdir() or Path('runs') / f'{name}_{config_flag.run_name(config_file)}',
    config_file=config_file,
    overrides=config_flags.get_override_values(flag),
  )
  planning.check_folder(plan)
  runs = runner.missing(plan)
  say = functools.partial(print, file=sys.stderr)
  if plan.not_applying:
    say(f'not run, for they change nothing of this config: {", ".join(plan.not_applying)}')

  def write() -> None:
    for line in planning.changes(plan, variants):
      say(line)
    planning.write(plan, provenance.started_by())

  if _LIST.value:
    if not planning.is_recorded(plan):  # else it keeps its table
      with workdir.lock(plan.path, say):
        write()
    for run in runs:
      print(host.command(*run.command))
    if not runs:
      say('all runs are finished; --mode=figures makes the table')
    return 0
  program = os.path.abspath(sys.argv[0])
  with workdir.lock(plan.path, say):
    write()
    if min(_JOBS.value, len(runs)) > 1:
      runner.prepare_data(runs, program)
    failures = runner.run_all(runs, _JOBS.value, program)
    report.show(*report.write(plan.path))
  for failed, reason in failures.items():
    print(f'{host.program_name()}: {failed} failed: {reason}', file=sys.stderr)
  return 1 if failures else 0


def _leave(code: int) -> None:
  """Ends the process as it stands, the cursor that a progress bar had hidden shown again."""
  shown = b'\x1b[?25h' if os.isatty(2) else b''
  with contextlib.suppress(OSError):  # the terminal has closed
    os.write(2, shown + b'\nstopped; the same command resumes from here\n')
  os._exit(code)


def main(argv: Sequence[str]) -> int:
  """Runs one mode; returns the exit code."""
  logging.set_verbosity(logging.FATAL)  # Orbax logs the tracebacks of what it raises
  silence.silence_failed_writes()
  try:
    if len(argv) > 1:
      raise UserError(
        f'unexpected argument {argv[1]!r}; fields are set by --config.section.field=value'
      )
    _check_flags(_MODE.value)
    if _MODE.value not in ('train', 'evaluate') and host.launched(os.environ) > 1:
      raise UserError(f'--mode={_MODE.value} is for one process; start it without srun or mpirun')
    if _MODE.value == 'list':
      _load_jax()
      from alexnet_jax.reports import printed

      printed.choices()
      return 0
    if _MODE.value == 'convert':
      _convert()
      return 0
    if _MODE.value == 'predict':
      _predict()
      return 0
    if _MODE.value == 'figures' and (folder := _workdir()):
      from alexnet_jax.sweeps import report, sweep_file

      if (folder / sweep_file.NAME).exists():
        if unread := [name for name in ('layer', 'compare', 'config') if flags.FLAGS[name].present]:
          raise UserError(
            f'{folder} is the folder of a sweep, whose figures do not depend on --{unread[0]}; leave'
            ' it out, or give the --workdir of one run'
          )
        report.show(*report.write(folder))
        return 0
    if _MEMBERS.value is not None or _MEMBER_WEIGHTS.value is not None:
      _evaluate_members(_MEMBERS.value or [])
      return 0
    if _MODE.value == 'sweep':
      return _sweep(_CONFIG.value)
    config, path = _config_and_workdir()
    if _MODE.value == 'config':
      from alexnet_jax.reports import fields

      print(fields.of_config(config.to_dict()))
      return 0
    if _MODE.value in ('train', 'prepare') and host.owns_process():
      # Until the loop, which saves, takes the signals itself, there is nothing to save.
      signal.signal(signal.SIGINT, lambda *_: _leave(0))
      for signum in preemption():
        signal.signal(signum, lambda *_: _leave(EXIT_AGAIN))
    _run(config, path)
  except Stopped as stopped:
    from alexnet_jax.parallel import multihost

    if multihost.is_first():
      said = (
        'stopped and saved; the same command resumes from here'
        if stopped.saved
        else 'stopped before there was anything to save; the same command starts again'
      )
      print(said, file=sys.stderr)
    return 0 if stopped.signum == signal.SIGINT else EXIT_AGAIN
  except (UserError, OSError) as error:  # OSError: a full disk, a file of another user's
    message = f'{host.program_name()}: {error}'
    if isinstance(error, OSError):
      message += '\nFix this, then run the same command again.'
    _fail(message)
  except KeyboardInterrupt:
    return 130
  return 0


def command() -> None:
  """Runs the program: `python launch.py` in a checkout, `alexnet` where it is installed."""
  try:
    host.prepare_process()
  except UserError as error:
    print(f'{host.program_name()}: {error}', file=sys.stderr)
    sys.exit(1)
  owns_process = host.owns_process()
  if owns_process:
    streams.make_last()
  with contextlib.nullcontext() if owns_process else silence.process_state_restored():
    app.run(main, flags_parser=_parse)
