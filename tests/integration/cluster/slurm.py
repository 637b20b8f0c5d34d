"""A Slurm of two nodes on this machine's loopback, for tests; it needs root and Slurm's daemons."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ('slurmctld', 'slurmd', 'munged')


def missing():
  """Why there can be no Slurm here; None where there can."""
  absent = [name for name in DAEMONS if shutil.which(name) is None]
  if absent:
    return f'{", ".join(absent)} not installed (Debian: slurmctld slurmd slurm-client munge)'
  return None if os.geteuid() == 0 else 'Slurm is started by root alone'


class TwoNodes:
  """slurmctld and two slurmd, each of a node; use it in a `with`.

  Attributes:
    environment: for sbatch, srun and the like.
    names: of the nodes. The first is this machine's, as jax finds the first by its name.
  """

  def __init__(self, directory, cpus_per_node=1, ports=(16917, 17101, 17102)):
    self._directory, self._daemons = Path(directory), {}
    self.names = (socket.gethostname(), f'{socket.gethostname()}-2')
    self._conf = self._directory / 'slurm.conf'
    self.environment = {**os.environ, 'SLURM_CONF': str(self._conf)}
    for folder in ('state', 'log'):
      (self._directory / folder).mkdir(parents=True)
    node = 'NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs={} RealMemory=4000'
    host = self.names[0]
    lines = [
      'ClusterName=tests',
      f'SlurmctldHost={host}(127.0.0.1)',
      f'SlurmctldPort={ports[0]}',
      'AuthType=auth/munge',
      'SlurmUser=root',
      'SlurmdUser=root',
      'ProctrackType=proctrack/pgid',
      'TaskPlugin=task/none',
      'JobAcctGatherType=jobacct_gather/none',
      'MpiDefault=none',
      'ReturnToService=2',  # a node that comes back is used again
      'SlurmdTimeout=15',
      'KillWait=20',
      'MinJobAge=3600',
      'SelectType=select/cons_tres',
      'SelectTypeParameters=CR_Core',
      'SlurmdParameters=config_overrides',
      f'StateSaveLocation={self._directory}/state',
      f'SlurmdSpoolDir={self._directory}/spool.%n',
      f'SlurmctldPidFile={self._directory}/slurmctld.pid',
      f'SlurmdPidFile={self._directory}/slurmd.%n.pid',
      f'SlurmctldLogFile={self._directory}/log/slurmctld.log',
      f'SlurmdLogFile={self._directory}/log/slurmd.%n.log',
      *(
        node.format(name, host, port, cpus_per_node)
        for name, port in zip(self.names, ports[1:], strict=True)
      ),
      f'PartitionName=main Nodes={",".join(self.names)} Default=YES State=UP',
    ]
    self._conf.write_text('\n'.join(lines) + '\n')
    cgroup = 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\n'
    (self._directory / 'cgroup.conf').write_text(cgroup)

  def __enter__(self):
    _start_munge()
    self._start('slurmctld', ['slurmctld', '-D', '-f', str(self._conf)])
    for name in self.names:
      self.start_node(name)
    self.wait(lambda: self.run('sinfo', '-h', '-t', 'idle', '-o', '%D').strip() == '2', 60)
    return self

  def __exit__(self, *_):
    with contextlib.suppress(subprocess.CalledProcessError):
      self.run('scancel', '--full', '--user=root')
    for name in (*self.names, 'slurmctld'):
      if daemon := self._daemons.pop(name, None):
        daemon.terminate()
        daemon.wait(30)

  def _start(self, name, command):
    log = (self._directory / 'log' / f'{name}.out').open('ab')
    with log:
      self._daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

  def start_node(self, name):
    """Starts a node's daemon, for the first time or again."""
    self._start(name, ['slurmd', '-D', '-f', str(self._conf), '-N', name])

  def kill_node(self, name):
    """Kills a node's daemon and all that it has started, as a lost host would."""
    daemon = self._daemons.pop(name)
    daemon.kill()
    daemon.wait()
    mark = f'SLURMD_NODENAME={name}\0'.encode()
    for process in Path('/proc').iterdir():
      with contextlib.suppress(OSError):
        if process.name.isdecimal() and mark in (process / 'environ').read_bytes():
          os.kill(int(process.name), signal.SIGKILL)

  def run(self, *command, **options):
    """Runs one of Slurm's commands; returns what it prints."""
    options = {'env': self.environment, 'stderr': subprocess.STDOUT, 'text': True, **options}
    return subprocess.check_output(command, **options)

  def state(self, job):
    """A job's state and the number of its restarts, as ('RUNNING', 1)."""
    shown = self.run('scontrol', 'show', 'job', str(job))
    words = dict(word.split('=', 1) for word in shown.split() if '=' in word)
    return words['JobState'], int(words['Restarts'])

  def wait(self, until, seconds):
    """Waits until a function is true."""
    end = time.monotonic() + seconds
    while not until():
      if time.monotonic() > end:
        logs = [path.read_text()[-1500:] for path in (self._directory / 'log').glob('*.log')]
        raise TimeoutError('\n'.join(logs))
      time.sleep(0.5)


def _start_munge():
  if subprocess.run(['munge', '-n'], capture_output=True).returncode == 0:
    return
  user = pwd.getpwnam('munge')
  for folder in map(Path, ('/run/munge', '/var/log/munge', '/etc/munge')):
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, user.pw_uid, user.pw_gid)
  if not Path('/etc/munge/munge.key').exists():
    subprocess.run(['mungekey', '-c'], check=True)
    os.chown('/etc/munge/munge.key', user.pw_uid, user.pw_gid)
  subprocess.run(['su', '-s', '/bin/sh', 'munge', '-c', shutil.which('munged')], check=True)
