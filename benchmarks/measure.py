"""Time, peak memory and device names, for the scripts beside this one"""
import gc, os, platform, re, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path

import torch

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def sync():
    if device.type=='cuda': torch.cuda.synchronize()


def seconds(f):
    "Of one call of `f`"
    sync(); start = time.perf_counter()
    f()
    sync(); return time.perf_counter()-start


def device_name():
    "The device and torch's version, for a reading's first line"
    if device.type=='cuda': name = f"{torch.cuda.get_device_name()}, TF32 in convolutions {'on' if torch.backends.cudnn.allow_tf32 else 'off'}"
    else: name = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    return f'{name}, torch {torch.__version__}'


@contextmanager
def without_tf32():
    "A GPU's convolutions in whole float32"
    cudnn = torch.backends.cudnn
    before,cudnn.allow_tf32 = cudnn.allow_tf32,False
    try: yield
    finally: cudnn.allow_tf32 = before


def status(key): return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1])*1024


def peak_memory(f):
    "Bytes that `f` needs at its peak, beyond what was held before; on a CPU this wants a process of its own and Linux"
    gc.collect()
    if device.type=='cuda':
        base = torch.cuda.memory_allocated(); torch.cuda.reset_peak_memory_stats()
        f()
        return torch.cuda.max_memory_allocated()-base
    Path('/proc/self/clear_refs').write_text('5') # the peak starts anew
    base = status('VmRSS')
    f()
    return status('VmHWM')-base


def in_own_process(script, *args, exact=True):
    "The numbers that `script` prints last; a failure brings its last line. `exact`: what is freed goes back at once, so that only what is used shows; costs time"
    env = {**os.environ, **({'MALLOC_MMAP_THRESHOLD_':'65536'} if exact else {})}
    r = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True, env=env)
    if r.returncode: raise RuntimeError((r.stderr.strip() or f'stopped with status {r.returncode}').split('\n')[-1])
    return [float(o) for o in r.stdout.strip().split('\n')[-1].split()]
