"""Photos per second of processor time of `crappify_folder`, against the loops that one writes without it

The plain loop opens a photo with Pillow, spoils it by the course's recipe and saves a PNG; pooled, it runs in fastcore's `parallel` on two
processes. Ours is `crappify_folder` with one thread and with two: it keeps a journal, hashes what goes in and comes out, and moves whole
files. All are measured in turns; a second counts as one of the processor's, children included, so what else runs on the machine matters
little. The results have to be the same bytes. Large photos are small ones side by side, mirrored, so that they have real detail.

    python benchmarks/crappify.py [--photos DIR] [--small 64] [--large 6] [--rounds 3]     prints a table; a reading belongs into results/
    python benchmarks/crappify.py --profile                                                where the time of one photo goes
"""
import argparse, cProfile, os, pstats, shutil, statistics, tempfile, time
from pathlib import Path

from fastcore.parallel import parallel
from PIL import Image, ImageOps

from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.files import all_files
from perceptual_fastai.photos import find_photos, open_photo, sample_photos

lesson7 = Crappifier.lesson7()


def small_photos(files, dst, n):
    "JPEG files with a longer side of 500 pixels"
    dst.mkdir()
    for i in range(n):
        im = open_photo(files[i%len(files)])
        k = 500/max(im.size)
        im.resize((round(im.width*k), round(im.height*k))).save(dst/f'{i:04}.jpg', quality=92)


def large_photos(files, dst, n):
    "JPEG files of 12 megapixels"
    dst.mkdir()
    for i in range(n):
        out,tile = Image.new('RGB', (4000,3000)),(500,375)
        for k in range(64):
            part = ImageOps.fit(open_photo(files[(i+k)%len(files)]), tile)
            out.paste(ImageOps.mirror(part) if k%2 else part, (k%8*tile[0], k//8*tile[1]))
        out.save(dst/f'{i:04}.jpg', quality=92)


def plain(f, dst):
    "What the loop does with one photo"
    with Image.open(f) as im:
        lesson7(im.convert('RGB'), f.name).save(dst/f'{f.stem}.png')


def serial(src, dst):
    dst.mkdir()
    for f in sorted(src.iterdir()): plain(f, dst)


def pooled(src, dst):
    dst.mkdir()
    parallel(plain, sorted(src.iterdir()), dst=dst, n_workers=2, progress=False)


ways = {'plain loop':serial, 'plain loop, 2 processes':pooled,
        'crappify_folder, 1 thread':lambda src,dst: crappify_folder(src, dst, lesson7, workers=1, progress=False),
        'crappify_folder, 2 threads':lambda src,dst: crappify_folder(src, dst, lesson7, workers=2, progress=False)}


def took(f, *args):
    "Seconds of the processor, those of children included, and on the clock"
    a,start = os.times(),time.perf_counter()
    f(*args)
    b = os.times()
    return sum(b[:4])-sum(a[:4]),time.perf_counter()-start


def measured(src, work, rounds):
    "Way -> medians of seconds (processor, clock) for the folder; an error if two ways give other bytes"
    seconds,made = {k:[] for k in ways},{}
    for r in range(rounds+1): # the first warms up
        for i,(k,f) in enumerate(ways.items()):
            dst = work/f'out{i}'
            seconds[k].append(took(f, src, dst))
            made[k] = {o.name:o.read_bytes() for o in all_files(dst)}
            shutil.rmtree(dst)
    first,*others = made.values()
    assert all(o==first for o in others) and len(first)==len(all_files(src)), 'other bytes'
    return {k:[statistics.median(o) for o in zip(*v[1:])] for k,v in seconds.items()}


def profile(src, work):
    "The functions that take longest"
    for name,f in list(ways.items())[::2]:
        with cProfile.Profile() as p: f(src, work/'profiled')
        shutil.rmtree(work/'profiled')
        print(f'\n{src.name}, {name}')
        pstats.Stats(p).strip_dirs().sort_stats('tottime').print_stats(14)


def report(a, work):
    files = list(find_photos(a.photos or sample_photos(work/'samples'), progress=False))
    folders = {'500 px':small_photos, '12 MP':large_photos}
    for (name,make),n in zip(folders.items(), (a.small, a.large)): make(files, work/name, n)
    if a.profile:
        return [profile(work/name, work) for name in folders]
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {len(files)} photos to make {a.small} and {a.large} of\n')
    print('| photos | way | per processor second | to the plain loop | per second on the clock |\n|---|---|---|---|---|')
    for name,n in zip(folders, (a.small, a.large)):
        found = measured(work/name, work, a.rounds)
        base = found['plain loop'][0]
        for k,(cpu,clock) in found.items():
            print(f'| {name} | {k} | {n/cpu:.1f} | {base/cpu:.2f} | {n/clock:.1f} |', flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--photos', type=Path, help='a folder; the sample photos if left out')
    p.add_argument('--small', type=int, default=64)
    p.add_argument('--large', type=int, default=6)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--profile', action='store_true')
    a = p.parse_args()
    work = Path(tempfile.mkdtemp())
    try: report(a, work)
    finally: shutil.rmtree(work)


if __name__=='__main__': main()
