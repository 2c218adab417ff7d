"Damaged files in a process of their own: refused by name, never the end of the process"
import os, subprocess, sys

import pytest

from pathlib import Path

script = Path(__file__).resolve().parent.parent/'benchmarks'/'decoders.py'
flips = 160 # of each kind; benchmarks/decoders.py makes 2,000 of each when it is run by itself


@pytest.mark.parametrize('kind,least', [('png16', .95), ('jpeg', .2), ('tiff', .3), ('webp', .25), ('gif', .1)])
def test_damage_is_refused_and_nothing_more(kind, least):
    "A process that crashes has another status; `least`: the share that must be found out, for most formats have no checksums"
    r = subprocess.run([sys.executable, str(script), '--kind', kind, '--flips', str(flips), '--child'], capture_output=True, text=True, timeout=400)
    assert r.returncode==0, (r.returncode, r.stdout, r.stderr)
    refused,read = map(int, r.stdout.split()[:2])
    assert refused+read==flips and refused>=least*flips, r.stdout


def test_a_folder_with_a_crashing_file_is_enhanced(tmp_path):
    "One byte of a 16-bit PNG flipped, which once took the process along: the file is in the report, the others are written"
    job = '''
import sys
import numpy as np
from pathlib import Path
from torch import nn
from perceptual_fastai.enhance import Enhancer
from perceptual_fastai.image_files import ImageData, enhance_folder, save_image
d = Path(sys.argv[1])
a = np.random.RandomState(0).randint(0, 65536, (40,50,3)).astype(np.uint16)
for i in range(12):
    save_image(ImageData(a), d/'src'/f'{i}.png')
    if i%3: continue
    data = bytearray((d/'src'/f'{i}.png').read_bytes())
    data[100+700*i] ^= 16
    (d/'src'/f'{i}.png').write_bytes(data)
r = enhance_folder(d/'src', d/'dst', Enhancer(nn.Identity(), normalisation=None), progress=False)
print(len(r.written), sorted(f.name for f,_ in r.failed), {why.split(':')[0] for _,why in r.failed})
'''
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(tmp_path)], capture_output=True, text=True)
    assert r.returncode==0, (r.returncode, r.stdout, r.stderr)
    assert r.stdout.strip()=="8 ['0.png', '3.png', '6.png', '9.png'] {'damaged or truncated'}"


def test_a_forked_worker_reads_after_its_parent_wrote(tmp_path):
    "libvips' threads stay behind in the parent; a reader that needed them would wait for ever"
    job = '''
import sys
import numpy as np
from multiprocessing import get_context
from pathlib import Path
from perceptual_fastai.image_files import ImageData, save_image
from perceptual_fastai.photos import open_photo
d = Path(sys.argv[1])
a = np.random.RandomState(0).randint(0, 256, (300,400,3)).astype(np.uint8)
names = ['a.png','a.jpg','a.tif','a.webp']
for n in names: save_image(ImageData(a), d/n)
with get_context('fork').Pool(2) as pool: print([o.size for o in pool.map(open_photo, [d/n for n in names])])
'''
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert r.returncode==0 and r.stdout.strip()==str([(400,300)]*4), (r.stdout, r.stderr)


def test_damaged_zstd_of_16_bits_is_refused_and_nothing_more(tmp_path):
    "The one way to 16 bits that goes through Pillow; every damaged copy is refused by name or read as 16 bits"
    job = '''
import random, sys
import numpy as np, tifffile
from pathlib import Path
from PIL import Image
from perceptual_fastai.photos import PhotoError, open_image
f,rng = Path(sys.argv[1])/'a.tif',random.Random(0)
a = np.random.RandomState(0).randint(0, 65536, (40,50,3)).astype(np.uint16)
Image.fromarray(a.reshape(40, -1)).save(f, compression='zstd', tiffinfo={277:1})
with tifffile.TiffFile(f, mode='r+b') as o:
    for k,v in dict(ImageWidth=50, SamplesPerPixel=3, BitsPerSample=(16,)*3, PhotometricInterpretation=2).items(): o.pages[0].tags[k].overwrite(v)
sound,refused = f.read_bytes(),0
assert (open_image(f).pixels==a).all()
for i in range(200):
    bad = bytearray(sound[:rng.randrange(1, len(sound))] if i%4==3 else sound)
    tail = len(bad)-400 if i%2 else 0 # where the tags are, or anywhere
    bad[rng.randrange(max(0, tail), len(bad))] ^= 1<<rng.randrange(8)
    f.write_bytes(bad)
    try: assert open_image(f, max_pixels=10**6).pixels.dtype in (np.uint8, np.uint16)
    except PhotoError as e:
        assert str(e).startswith(f'{f}: '), e
        refused += 1
print(refused)
'''
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert r.returncode==0 and int(r.stdout)>60, (r.stdout, r.stderr[-2000:])


def test_nothing_that_libvips_does_not_trust_is_needed(tmp_path):
    "With its untrusted loaders shut, every format is read and written as before, and a drawing is not"
    job = '''
import sys
import numpy as np, pyvips
from pathlib import Path
from perceptual_fastai.image_files import ImageData, WRITES, save_image
from perceptual_fastai.photos import open_image
d = Path(sys.argv[1])
a = np.random.RandomState(0).randint(0, 256, (30,40,3)).astype(np.uint8)
for o in WRITES: save_image(ImageData(a), d/f'a{o}')
pyvips.Image.new_from_array(a).copy(interpretation='srgb').gifsave(str(d/'a.gif'))
pyvips.Image.new_from_array(np.uint16(a)*257).copy(interpretation='rgb16').heifsave(str(d/'a.avif'), compression='av1', bitdepth=10)
assert all(open_image(f).pixels.shape==(30,40,3) for f in d.iterdir())
try: pyvips.Image.svgload_buffer(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
except pyvips.Error: print(len(list(d.iterdir())))
'''
    shut = {**os.environ, 'VIPS_BLOCK_UNTRUSTED':'1'}
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(tmp_path)], capture_output=True, text=True, timeout=300, env=shut)
    assert r.returncode==0 and r.stdout.strip()=='9', (r.stdout, r.stderr)
