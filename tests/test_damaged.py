"Damaged files in a process of their own: refused by name, never the end of the process"
import subprocess, sys

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
