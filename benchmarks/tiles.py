"""Peak memory and seconds of tiled enhancement by picture size, each in a process of its own, against the whole picture at once.

The generator is a small EDSR-like network of random numbers that keeps the size: neither time nor memory depends on them.
Memory is what the process needs at its peak beyond what it held before, less the output array; the input array was there before.

python benchmarks/tiles.py [--megapixels 1 4 12 48 108] [--tile N] [--whole 4]        prints a table; a reading belongs into benchmarks/results/

With --files an image goes from file to file instead (`enhance_file`), and memory is all that the process holds at its peak: Python, PyTorch,
the network at work, the image and its result. Beside it stands what was held before the image, after a small one, and how much of that are pages
of programs and libraries, which the system can drop and read again.

python benchmarks/tiles.py --files .tif .png .jpg [--megapixels 12 48 108]
"""
import argparse, tempfile, warnings
from pathlib import Path

warnings.simplefilter('ignore', FutureWarning)
import numpy as np
import torch
from torch import nn

from measure import device, device_name, in_own_process, peak_memory, seconds, status
from perceptual_fastai.enhance import Enhancer, enhance_array
from perceptual_fastai.image_files import enhance_file


class Block(nn.Module):
    def __init__(self, nf):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(nf, nf, 3, padding=1), nn.ReLU(), nn.Conv2d(nf, nf, 3, padding=1))
    def forward(self, x): return x+.1*self.body(x)


def generator(nf=16, blocks=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, nf, 3, padding=1), *[Block(nf) for _ in range(blocks)], nn.Conv2d(nf, 3, 3, padding=1))


def measure(megapixels, tile):
    "Bytes and seconds; a first small picture pays for what is loaded and measured once"
    enhancer = Enhancer(generator()).to(device)
    h = round((megapixels*1e6*3/4)**.5)
    a = np.random.default_rng(0).integers(0, 256, (h,round(megapixels*1e6/h),3), dtype=np.uint8) # 4:3
    enhance_array(a[:64,:64], enhancer, progress=False)
    out,took = [],[]
    most = peak_memory(lambda: took.append(seconds(lambda: out.append(enhance_array(a, enhancer, tile, progress=False)))))
    return most-(out[0].nbytes if device.type=='cpu' else 0),took[0]


def make(path, megapixels, alpha):
    "A file of noise on slopes, written in a process of its own"
    import pyvips
    h = round((megapixels*1e6*3/4)**.5)
    w = round(megapixels*1e6/h)
    slopes = pyvips.Image.xyz(w, h)*[255/w, 255/h]
    image = slopes.bandjoin(slopes[0]*.5+slopes[1]*.5)+pyvips.Image.gaussnoise(w, h, sigma=6)
    image = image.bandjoin(255-slopes[0]) if alpha else image
    image.cast('uchar').copy(interpretation='srgb').write_to_file(str(path))


def measure_file(src, tile):
    "Bytes at the peak, before, and before in pages of files, seconds; a first small image pays for what is loaded and measured once"
    import pyvips
    enhancer = Enhancer(generator(4, 1)).to(device)
    src,small = Path(src),Path(src).with_name('small.png')
    pyvips.Image.black(64, 64, bands=3).write_to_file(str(small))
    enhance_file(small, src.with_name('small_out.png'), enhancer)
    base,mapped,took = status('VmRSS'),status('RssFile'),[]
    dst = src.with_name(f'out{src.suffix}')
    more = peak_memory(lambda: took.append(seconds(lambda: enhance_file(src, dst, enhancer, tile=tile, progress=False) and None)))
    a,b = pyvips.Image.new_from_file(str(src)),pyvips.Image.new_from_file(str(dst))
    assert (a.width,a.height,a.bands)==(b.width,b.height,b.bands)
    return base+more,base,mapped,took[0]


def file_table(suffixes, megapixels, tile, folder, alpha):
    print('| file | megapixels | image and result, MiB | peak of the whole process, MiB | for the image, MiB | before, MiB | of that, pages of files | seconds |')
    print('|---|---|---|---|---|---|---|---|')
    for suffix in suffixes:
        for m in megapixels:
            with tempfile.TemporaryDirectory(dir=folder) as d:
                src = Path(d)/f'in{suffix}'
                in_own_process(__file__, '--make', src, '--megapixels', m, *['--alpha']*alpha)
                peak,base,mapped,took = in_own_process(__file__, '--file', src, '--tile', tile, exact=False)
            print(f'| {suffix} | {m:g} | {2*m*1e6*(3+alpha)/2**20:.0f} | {peak/2**20:.0f} | {(peak-base)/2**20:.0f} '
                  f'| {base/2**20:.0f} | {mapped/2**20:.0f} | {took:.0f} |', flush=True)


def child(megapixels, tile): return in_own_process(__file__, '--measure', megapixels, '--tile', tile, exact=False)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--megapixels', type=float, nargs='+', default=[1,4,12,48,108])
    p.add_argument('--tile', type=int, default=512, help='side of a tile, pixels')
    p.add_argument('--whole', type=float, default=4, help='also at once, up to this many megapixels')
    p.add_argument('--measure', type=float, help=argparse.SUPPRESS)
    p.add_argument('--files', nargs='*', help='from file to file, in these formats')
    p.add_argument('--alpha', action='store_true', help='with alpha')
    p.add_argument('--folder', help='where the files lie; must have room')
    p.add_argument('--make', help=argparse.SUPPRESS)
    p.add_argument('--file', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.make:
        make(args.make, args.megapixels[0], args.alpha)
        return print(0)
    if args.file: return print(*measure_file(args.file, args.tile))
    if args.files is not None:
        print(f'{device_name()}, tiles of {args.tile} pixels\n')
        return file_table(args.files or ['.tif'], args.megapixels, args.tile, args.folder, args.alpha)
    if args.measure: return print(*measure(args.measure, args.tile))
    print(f'{device_name()}, tiles of {args.tile} pixels\n')
    print('| megapixels | MiB | seconds | seconds per megapixel | whole: MiB | whole: seconds |\n|---|---|---|---|---|---|')
    peaks = {}
    for m in args.megapixels:
        peaks[m],took = child(m, args.tile)
        whole = '| – | –'
        if m<=args.whole:
            try: b,s = child(m, 10**6); whole = f'| {b/2**20:.0f} | {s:.2f}'
            except RuntimeError as e: whole = f'| {e} | –'
        print(f'| {m:g} | {peaks[m]/2**20:.0f} | {took:.2f} | {took/m:.2f} {whole} |', flush=True)
    large = [v for m,v in peaks.items() if m>=4]
    if len(large)>1: print(f'\nlargest over smallest peak from 4 megapixels on: {max(large)/min(large):.2f}')


if __name__=='__main__': main()
