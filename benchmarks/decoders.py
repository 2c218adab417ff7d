"""Seeded damage to image files through `open_image` and `open_photo`: what is refused, what is read, and that nothing else happens.

Of every four damaged copies, three have one bit flipped and one is cut short. Each kind has a process of its own, whose end would be seen:
a status below 0 is a crash, a time limit a hang, and an error that is not `PhotoError` ends it with a traceback.

python benchmarks/decoders.py [--flips 2000] [--seed 0]        prints a table; a reading belongs into benchmarks/results/
"""
import argparse, io, random, subprocess, sys, tempfile, time, warnings
from pathlib import Path

warnings.simplefilter('ignore')
import numpy as np
import tifffile
from PIL import Image

from perceptual_fastai.photos import PhotoError, as_photo, open_image, open_photo


def scene():
    "A photo-like image of 120x90: slopes, edges and noise"
    y,x = np.mgrid[:90,:120]
    rs = np.random.RandomState(0)
    a = np.dstack([x*2, y*2.8, 128+100*np.sin(x/9)*np.cos(y/7)])+rs.normal(0, 6, (90,120,3))
    a[30:60,40:80] = 255-a[30:60,40:80]
    return np.uint8(a.clip(0, 255))


def by_pillow(im, kind, **kwargs):
    file = io.BytesIO()
    im.save(file, kind, **kwargs)
    return file.getvalue()


def by_tifffile(a, **kwargs):
    file = io.BytesIO()
    tifffile.imwrite(file, a, photometric='rgb', metadata=None, **kwargs)
    return file.getvalue()


def zstd16(a):
    "A TIFF of 16 bits in zstd, which libvips' wheel cannot read: laid out by Pillow as grey, three times as wide, and called RGB afterwards"
    h,w,_ = a.shape
    file = io.BytesIO(by_pillow(Image.fromarray((np.uint16(a)*257).reshape(h, -1)), 'TIFF', compression='zstd', tiffinfo={277:1}))
    with tifffile.TiffFile(file, mode='r+b') as o:
        for k,v in dict(ImageWidth=w, SamplesPerPixel=3, BitsPerSample=(16,)*3, PhotometricInterpretation=2).items(): o.pages[0].tags[k].overwrite(v)
        return file.getvalue()


def png16(a):
    import pyvips
    v = pyvips.Image.new_from_memory(np.uint16(a)*257, a.shape[1], a.shape[0], 3, 'ushort').copy(interpretation='rgb16')
    return v.pngsave_buffer(keep='none')


def files(kind):
    "Sound files of a kind; damage goes round them"
    a = scene()
    im = Image.fromarray(a)
    cut = im.copy()
    cut.putalpha(Image.linear_gradient('L').resize(im.size))
    exif = Image.Exif()
    exif.update({0x010F:'Maker', 0x0112:6, 0x8769:{0x829A:.01}})
    exif = exif.tobytes()
    few = im.quantize(32)
    return dict(
        png16=lambda: [png16(a)],
        jpeg=lambda: [by_pillow(im, 'JPEG', quality=90, exif=exif), by_pillow(im, 'JPEG', progressive=True), by_pillow(im.convert('CMYK'), 'JPEG')],
        tiff=lambda: [by_pillow(im, 'TIFF', compression='tiff_lzw'), by_pillow(cut, 'TIFF', compression='tiff_adobe_deflate'),
                      by_tifffile(np.uint16(a)*257, predictor=True, compression='zlib'), by_tifffile(np.uint16(a)*257, tile=(32,32)), by_pillow(im, 'TIFF', exif=exif)],
        zstd16=lambda: [zstd16(a)],
        webp=lambda: [by_pillow(im, 'WEBP'), by_pillow(cut, 'WEBP'), by_pillow(cut, 'WEBP', lossless=True)],
        gif=lambda: [by_pillow(few, 'GIF'), by_pillow(few, 'GIF', transparency=3), by_pillow(few, 'GIF', save_all=True, append_images=[few.rotate(180)])],
    )[kind]()


kinds = ['png16','jpeg','tiff','zstd16','webp','gif']


def damaged(data, rng, i):
    if i%4==3:
        return data[:rng.randrange(1, len(data))]
    bad = bytearray(data)
    bad[rng.randrange(len(bad))] ^= 1<<rng.randrange(8)
    return bytes(bad)


def measure(kind, flips, seed, folder):
    "How many were refused and how many read, and the longest time that one took"
    rng,sound,counts,longest = random.Random(seed),files(kind),[0,0],0
    f = folder/'bad.bin' # the name has no say
    for i in range(flips):
        f.write_bytes(damaged(sound[i%len(sound)], rng, i//len(sound)))
        start = time.perf_counter()
        try:
            pic = open_image(f, max_pixels=10**6)
        except PhotoError as e:
            counts[0] += 1
            assert str(e).startswith(f'{f}: '), e
        else:
            counts[1] += 1
            assert open_photo(f, max_pixels=10**6).tobytes()==as_photo(pic).tobytes()
        longest = max(longest, time.perf_counter()-start)
    return *counts,round(longest, 3)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--flips', type=int, default=2000, help='damaged copies of each kind')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--kind', choices=kinds, help='this kind alone')
    p.add_argument('--child', action='store_true', help='in this process: refused, read, longest seconds')
    args = p.parse_args()
    if args.child:
        with tempfile.TemporaryDirectory() as d:
            return print(*measure(args.kind, args.flips, args.seed, Path(d)))
    import pyvips
    print(f'libvips {pyvips.version(0)}.{pyvips.version(1)}.{pyvips.version(2)}, Pillow {Image.__version__}, seed {args.seed}\n')
    print('| kind | damaged copies | refused | read | longest, seconds | crash or hang |\n|---|---|---|---|---|---|')
    for k in [args.kind] if args.kind else kinds:
        argv = [sys.executable, __file__, '--kind', k, '--flips', str(args.flips), '--seed', str(args.seed), '--child']
        try:
            r = subprocess.run(argv, capture_output=True, text=True, timeout=30+args.flips)
            says = r.stdout.split() if r.returncode==0 else ['–', '–', '–']
            end = 'none' if r.returncode==0 else f'status {r.returncode}: {r.stderr.strip().splitlines()[-1:]}'
        except subprocess.TimeoutExpired:
            says,end = ['–', '–', '–'],'hang'
        print(f"| {k} | {args.flips} | {' | '.join(says)} | {end} |", flush=True)


if __name__=='__main__': main()
