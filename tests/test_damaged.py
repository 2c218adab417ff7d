"Damaged files in a process of their own: refused by name, never the end of the process"
import subprocess, sys

job = '''
import io, random, sys, warnings
warnings.simplefilter('ignore')
import numpy as np
from pathlib import Path
from perceptual_fastai.photos import PhotoError
from perceptual_fastai.image_files import ImageData, open_image, save_image
d,rng = Path(sys.argv[1]),random.Random(0)
a = np.random.RandomState(0).randint(0, 65536, (24,31,3)).astype(np.uint16)
save_image(ImageData(a), d/'whole.png')
assert (open_image(d/'whole.png').pixels==a).all()
data = (d/'whole.png').read_bytes()
refused = sound = 0
for i in range(400):
    bad = bytearray(data)
    if i%4: bad[rng.randrange(len(bad))] ^= 1<<rng.randrange(8)
    else: bad = bad[:rng.randrange(1, len(bad))]
    (d/'bad.png').write_bytes(bad)
    try: open_image(d/'bad.png'); sound += 1
    except PhotoError as e: refused += 1; assert 'bad.png: ' in str(e), e
print(refused, sound)
'''


def test_damaged_16_bit_png_is_refused_and_nothing_more(tmp_path):
    r = subprocess.run([sys.executable, '-c', job, str(tmp_path)], capture_output=True, text=True)
    assert r.returncode==0, (r.returncode, r.stdout, r.stderr)
    refused,sound = map(int, r.stdout.split())
    assert refused+sound==400 and refused>390, (refused, sound)
