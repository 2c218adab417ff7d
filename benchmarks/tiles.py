"""Peak memory and seconds of tiled enhancement by picture size, each in a process of its own, against the whole picture at once.

The generator is a small EDSR-like network of random numbers that keeps the size: neither time nor memory depends on them.
Memory is what the process needs at its peak beyond what it held before, less the output array; the input array was there before.

python benchmarks/tiles.py [--megapixels 1 4 12 48 108] [--tile N] [--whole 4]        prints a table; a reading belongs into benchmarks/results/
"""
import argparse, gc, platform, re, subprocess, sys, time, warnings
from pathlib import Path

warnings.simplefilter('ignore', FutureWarning)
import numpy as np
import torch
from torch import nn

from perceptual_fastai.enhance import Enhancer, enhance_array

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


class Block(nn.Module):
    def __init__(self, nf):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(nf, nf, 3, padding=1), nn.ReLU(), nn.Conv2d(nf, nf, 3, padding=1))
    def forward(self, x): return x+.1*self.body(x)


def generator(nf=16, blocks=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, nf, 3, padding=1), *[Block(nf) for _ in range(blocks)], nn.Conv2d(nf, 3, 3, padding=1))


def status(key): return int(re.search(rf'{key}:\s+(\d+)', Path('/proc/self/status').read_text())[1])*1024


def measure(megapixels, tile):
    "Bytes and seconds; a first small picture pays for what is loaded and measured once"
    enhancer = Enhancer(generator()).to(device)
    h = round((megapixels*1e6*3/4)**.5)
    a = np.random.default_rng(0).integers(0, 256, (h,round(megapixels*1e6/h),3), dtype=np.uint8) # 4:3
    enhance_array(a[:64,:64], enhancer, progress=False)
    gc.collect()
    if device.type=='cuda': torch.cuda.reset_peak_memory_stats(); base = torch.cuda.memory_allocated()
    else:
        Path('/proc/self/clear_refs').write_text('5') # Linux: the peak starts anew
        base = status('VmRSS')
    start = time.perf_counter()
    out = enhance_array(a, enhancer, tile, progress=False)
    seconds = time.perf_counter()-start
    if device.type=='cuda': return torch.cuda.max_memory_allocated()-base,seconds
    return status('VmHWM')-base-out.nbytes,seconds


def child(megapixels, tile):
    r = subprocess.run([sys.executable, __file__, '--measure', str(megapixels), '--tile', str(tile)], capture_output=True, text=True)
    if r.returncode: raise RuntimeError(r.stderr.strip().split('\n')[-1] or f'killed with status {r.returncode}')
    return [float(o) for o in r.stdout.split()]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--megapixels', type=float, nargs='+', default=[1,4,12,48,108])
    p.add_argument('--tile', type=int, default=512, help='side of a tile, pixels')
    p.add_argument('--whole', type=float, default=4, help='also at once, up to this many megapixels')
    p.add_argument('--measure', type=float, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure: return print(*measure(args.measure, args.tile))
    name = torch.cuda.get_device_name() if device.type=='cuda' else f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    print(f'{name}, torch {torch.__version__}, tiles of {args.tile} pixels\n')
    print('| megapixels | MiB | seconds | seconds per megapixel | whole: MiB | whole: seconds |\n|---|---|---|---|---|---|')
    peaks = {}
    for m in args.megapixels:
        peaks[m],seconds = child(m, args.tile)
        whole = '| – | –'
        if m<=args.whole:
            try: b,s = child(m, 10**6); whole = f'| {b/2**20:.0f} | {s:.2f}'
            except RuntimeError as e: whole = f'| {e} | –'
        print(f'| {m:g} | {peaks[m]/2**20:.0f} | {seconds:.2f} | {seconds/m:.2f} {whole} |', flush=True)
    large = [v for m,v in peaks.items() if m>=4]
    if len(large)>1: print(f'\nlargest over smallest peak from 4 megapixels on: {max(large)/min(large):.2f}')


if __name__=='__main__': main()
