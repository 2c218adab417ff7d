"""Kills, odd files, faults and crafted models, many times over, with counts

    python benchmarks/reliability.py [--times N] [--write]

Nothing may be lost, half-written or taken for something else, and no file may end the process; what is printed is what happened."""
import argparse, json, random, resource, shutil, subprocess, sys, tempfile, time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from perceptual_fastai.checkpoint import read_checkpoint
from perceptual_fastai.crappify import Crappifier, crappify_folder, noise
from perceptual_fastai.decode import read_image
from perceptual_fastai.enhance import Enhancer
from perceptual_fastai.files import all_files, atomic_write
from perceptual_fastai.model_files import FORMAT, VERSION, EnhancerError, load_enhancer, save_enhancer
from perceptual_fastai.photos import sample_photos
from perceptual_fastai.sr import EDSR
from perceptual_fastai.weights import WeightsUnavailable, read_state, state_digest

results = Path(__file__).parent/'results'/'reliability.md'
job = '''
import sys, time
from perceptual_fastai.crappify import Crappifier, crappify_folder, noise
slow = Crappifier(lambda im,rng: (time.sleep(.1), noise(im, 20, rng))[1], name='slow')
print('begins', flush=True)
crappify_folder(sys.argv[1], sys.argv[2], slow, workers=2, progress=False)
'''


def contents(folder): return {f.relative_to(folder).as_posix():f.read_bytes() for f in all_files(folder)}


def kills(times, d, rng):
    "A folder job killed at a random moment, again and again, until it ends by itself"
    src,dst,whole = sample_photos(d/'src'),d/'dst',d/'whole'
    same = Crappifier(lambda im,rng: noise(im, 20, rng), name='slow')
    crappify_folder(src, whole, same, progress=False)
    due,count = contents(whole),dict(kills=0, half_written=0, lost=0, other=0)
    for i in range(times):
        had = contents(dst) if dst.exists() else {}
        p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', job, str(src), str(dst)], stdout=subprocess.PIPE)
        p.stdout.readline()
        time.sleep(rng.uniform(0, .6))
        p.kill()
        p.wait()
        count['kills'] += 1
        now = contents(dst) if dst.exists() else {}
        count['half_written'] += sum(v!=due.get(k) for k,v in now.items())
        count['lost'] += len(had.keys()-now.keys())
        if len(now)==len(due): shutil.rmtree(dst)
    crappify_folder(src, dst, same, progress=False)
    count['other'] += contents(dst)!=due or bool(list(dst.rglob('.*.part')))
    return count


def flipped(data, rng, most=8):
    data = bytearray(data)
    for _ in range(rng.randint(1, most)): data[rng.randrange(len(data))] ^= 1<<rng.randrange(8)
    return bytes(data)


def same_state(a, b): return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def damaged(times, d, rng):
    "Model files, checkpoints and weights with up to eight bits flipped, or cut short"
    net = EDSR(2, blocks=1, features=4)
    save_enhancer(net, d/'m.safetensors')
    needed = dict(epoch=1, epochs=2, model=net.state_dict(), opt={}, random={}, averages=[], recorder={}, gen_mode=None, callbacks={})
    torch.save(needed, d/'c.ck')
    torch.save(net.state_dict(), d/'w.pth')
    readers = {'m.safetensors':lambda f: load_enhancer(f).model.state_dict(), 'c.ck':lambda f: read_checkpoint(f)['model'], 'w.pth':read_state}
    out = {}
    for name,read in readers.items():
        whole,count = (d/name).read_bytes(),dict(refused=0, harmless=0, silent=0, other=0)
        for i in range(times):
            f = d/f'bad{Path(name).suffix}'
            f.write_bytes(flipped(whole, rng) if i%4 else whole[:rng.randrange(len(whole))])
            try: count['harmless' if same_state(read(f), net.state_dict()) else 'silent'] += 1
            except (EnhancerError, WeightsUnavailable, ValueError) as e: count['refused' if f.name in str(e) else 'other'] += 1
            except Exception: count['other'] += 1
        out[name] = count
    return out


def odd_images(times, d, rng):
    "A folder of damaged images of many kinds through a job: what is refused by name, what is read, and does it go on?"
    im = Image.effect_noise((60,40), 60).convert('RGB')
    kinds = 'png','jpg','tif','webp','gif','bmp','ppm','tga','jp2'
    for i in range(times):
        f = d/'odd'/f'{i}.{kinds[i%len(kinds)]}'
        atomic_write(f, lambda p: im.save(p, {'jpg':'JPEG','tif':'TIFF','ppm':'PPM','jp2':'JPEG2000'}.get(f.suffix[1:], f.suffix[1:].upper())))
        data = f.read_bytes()
        f.write_bytes(flipped(data, rng, 20) if i%3 else data[:rng.randrange(1, len(data))])
    run = 'import sys; from perceptual_fastai.crappify import *; r = crappify_folder(sys.argv[1], sys.argv[2], Crappifier.deblur(), progress=False); print(len(r.written), len(r.failed))'
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', run, str(d/'odd'), str(d/'mended')], capture_output=True, text=True)
    read,failed = map(int, p.stdout.split()[:2]) if p.returncode==0 else (0,0)
    return dict(files=times, read=read, refused=failed, passed_over=times-read-failed if p.returncode==0 else 0, ended_the_process=int(p.returncode!=0))


values = [None, True, -1, 0, 1, 3, 1.5, 4096, 10**6, 10**9, 10**30, float('nan'), float('inf'), 'x', '', 'x'*300, [], [1]*100, [[[[[1]]]]], {}, {'a':1}, ['EDSR']]


def lied(about, rng):
    "A header with one or two of its values replaced"
    about = json.loads(json.dumps(about))
    for _ in range(rng.randint(1, 2)):
        where = rng.choice([o for o in (about, about['args'], about['footprint']) if isinstance(o, dict) and o])
        where[rng.choice(sorted(where))] = rng.choice(values)
    return about


def crafted(times, d, rng):
    "Model files whose checksum fits and whose header lies"
    net = EDSR(1, blocks=1, features=4)
    tensors,count,slowest = net.state_dict(),dict(refused=0, loaded=0, other=0),0.
    plain = dict(arch='EDSR', args=net.args, factor=1, enlarge=1, normalisation=None, footprint=asdict(Enhancer(net, normalisation=None).footprint), card={})
    was = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(times):
        text = json.dumps(lied(plain, rng))
        save_file(tensors, d/'lie.safetensors', dict(format=FORMAT, version=VERSION, about=text, sha256=state_digest(tensors, text)))
        t = time.process_time()
        try:
            load_enhancer(d/'lie.safetensors')(torch.rand(1,3,8,8))
            count['loaded'] += 1
        except EnhancerError as e: count['refused' if 'lie.safetensors' in str(e) else 'other'] += 1
        except Exception as e:
            count['other'] += 1
            print('crafted:', text, type(e).__name__, e)
        slowest = max(slowest, time.process_time()-t)
    return {**count, 'slowest':f'{slowest:.1f} s', 'memory':f'{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-was)/1024:.0f} MB'}


def full_disk(times, d, rng):
    "The folder job with a random limit on the size of files, then without: the same bytes as ever"
    src,count = d/'src',dict(runs=0, half_written=0, left_behind=0, other=0)
    due = contents(d/'whole')
    for i in range(times):
        dst = d/f'full{i}'
        limit = rng.choice([3000, 20_000, 60_000, 100_000])
        limited = f'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},{limit}))\n'+job
        subprocess.run([sys.executable, '-W', 'ignore', '-c', limited, str(src), str(dst)], capture_output=True)
        now = contents(dst)
        count['runs'] += 1
        count['half_written'] += sum(v!=due.get(k) for k,v in now.items())
        count['left_behind'] += len(list(dst.rglob('.*.part')))
        crappify_folder(src, dst, Crappifier(lambda im,rng: noise(im, 20, rng), name='slow'), progress=False)
        count['other'] += contents(dst)!=due
        shutil.rmtree(dst)
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--times', type=int, default=200)
    parser.add_argument('--write', action='store_true', help='to results/reliability.md')
    a = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as t:
        d = Path(t)
        rows = [('folder job, killed', kills(max(2, a.times//10), d, rng)), ('folder job, disk full', full_disk(max(2, a.times//20), d, rng)),
                ('damaged images', odd_images(a.times, d, rng)), *((f'damaged: {k}', v) for k,v in damaged(a.times, d, rng).items()), ('crafted model files', crafted(a.times, d, rng))]
    lines = ['| trial | what happened |', '|---|---|', *[f"| {k} | {', '.join(f'{n.replace(chr(95), chr(32))}: {v}' for n,v in c.items())} |" for k,c in rows]]
    text = '\n'.join(lines)
    print(text)
    if a.write:
        results.write_text(f'# Kills, odd files, faults and crafted models\n\n`python benchmarks/reliability.py --times {a.times}`, seed 0, torch {torch.__version__}. '
                           '*Silent* and *other* must be 0, and so must half written, lost, left behind and ended the process; *harmless* damage hit bytes that mean nothing.\n\n'+text+'\n')


if __name__=='__main__': main()
