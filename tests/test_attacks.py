"""What a stranger's file may not do: take much memory or time, run anything, or write where it is not asked to

Each kind of attack is made in a process of its own whose memory and time are measured; a refusal names the file."""
import json, subprocess, sys
from pathlib import Path

import pytest

measured = '''
import io, json, resource, struct, sys, time, zipfile, zlib
from pathlib import Path
import numpy as np, torch
from PIL import Image
torch.set_num_threads(1)
d = Path(sys.argv[1])
def used(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1024
said = {}
def attempt(name, path, do):
    "What came of it, seconds and MB"
    was,t = used(),time.process_time()
    try: res = do(path)
    except ValueError as e: res = f'{type(e).__name__}: {e}'
    except RuntimeError as e: res = f'{type(e).__name__}: {e}'
    said[name] = str(res),time.process_time()-t,used()-was
'''

models = measured+'''
from dataclasses import asdict
from safetensors.torch import save_file
from perceptual_fastai.enhance import Enhancer, enhance_array
from perceptual_fastai.model_files import FORMAT, VERSION, load_enhancer
from perceptual_fastai.sr import EDSR
from perceptual_fastai.weights import state_digest
net = EDSR(1, blocks=1, features=4)
foot = asdict(Enhancer(net, normalisation=None).footprint)
plain = dict(arch='EDSR', args=dict(factor=1, blocks=1, features=4), factor=1, enlarge=1, normalisation=None, footprint=foot, card={})
def model(name, tensors=net.state_dict(), text=None, **about):
    text = json.dumps({**plain, **about}) if text is None else text
    save_file(tensors, d/f'{name}.safetensors', dict(format=FORMAT, version=VERSION, about=text, sha256=state_digest(tensors, text)))
    return d/f'{name}.safetensors'
def use(path):
    enhance_array(np.zeros((1,1,3), np.uint8), load_enhancer(path))
    return 'done'
args = lambda **o: dict(args={**plain['args'], **o})
cases = dict(sound={}, least=dict(footprint={**foot, 'least':4096}), multiple=dict(footprint={**foot, 'multiple':4096}), stride=dict(footprint={**foot, 'stride':4096}),
             cost=dict(footprint={**foot, 'cost':0}), wide=dict(footprint={**foot, 'field':256, 'stride':192}), blocks=args(blocks=10**9), features=args(features=10**6),
             many=dict(tensors={f'body.{i}.weight':torch.zeros(1) for i in range(5000)}, **args(blocks=10**5)), scale=args(scale='x'), nan=args(scale=float('nan')),
             deep=dict(text='{"arch":'+'['*10**5+']'*10**5+'}'), list=dict(text='[1]'), number=dict(text='1'*10**4), arch=dict(arch=['EDSR']), args=dict(args=[1]),
             footprint=dict(footprint=[1]), norm=dict(normalisation=[[0]*10**5,[1]*10**5]), encoder=dict(arch='unet', args=dict(arch='vit_h_14')), card=dict(card=1))
for name,about in cases.items(): attempt(name, model(name, **about), use)
print(json.dumps(said))
'''

images = measured+'''
import subprocess
from perceptual_fastai.decode import read_image
def never(*args, **kwargs): raise SystemExit('a program was started')
subprocess.Popen.__init__ = never
def tiff(data, squeezed=8, depth=None, side=8):
    tags = {256:side, 257:side, 259:squeezed, 262:2, 277:3, 278:side, 279:len(data), **({32997:depth} if depth else {})}
    at = 8+2+12*(len(tags)+2)+4
    rows = [struct.pack('<HHII', k, 4, 1, v) for k,v in tags.items()]+[struct.pack('<HHII', 258, 3, 3, at), struct.pack('<HHII', 273, 4, 1, at+6)]
    rows.sort(key=lambda o: struct.unpack('<H', o[:2]))
    return b'II*\\0'+struct.pack('<IH', 8, len(rows))+b''.join(rows)+bytes(4)+struct.pack('<HHH', 8, 8, 8)+data
def png(side, data, *chunks):
    chunk = lambda k,o: struct.pack('>I', len(o))+k+o+struct.pack('>I', zlib.crc32(k+o))
    parts = (b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)), *chunks, (b'IDAT', data), (b'IEND', b'')
    return b'\\x89PNG\\r\\n\\x1a\\n'+b''.join(chunk(*o) for o in parts)
eight,much = zlib.compress(bytes(8*25)),zlib.compress(bytes(2**28), 9)
icon = png(26000, much)
files = dict(depth=tiff(bytes(192), 1, 2**20), deflated=tiff(much), png=png(8, much), texts=png(8, eight, *[(b'zTXt', b'k%d\\0\\0'%i+zlib.compress(bytes(2**23-9), 9)) for i in range(100)]),
             profile=png(8, eight, (b'iCCP', b'x\\0\\0'+much)), size=png(2**31-1, eight), icon=struct.pack('<HHHBBBBHHII', 0, 1, 1, 0, 0, 0, 0, 1, 32, len(icon), 22)+icon,
             eps=b'%!PS-Adobe-3.0 EPSF-3.0\\n%%BoundingBox: 0 0 9 9\\n', svg=b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', pdf=b'%PDF-1.7\\n',
             gif=b'GIF89a'+struct.pack('<HHBBB', 65535, 65535, 0x80, 0, 0)+bytes(6)+b','+struct.pack('<HHHHB', 0, 0, 65535, 65535, 0)+b'\\x02\\x02\\x4c\\x01\\0;')
for name,data in files.items():
    (d/f'{name}.png').write_bytes(data)
    attempt(name, d/f'{name}.png', lambda f: read_image(f).pixels.shape)
print(json.dumps(said))
'''

weights = measured+'''
from perceptual_fastai.weights import read_state
torch.save({'a':torch.zeros(1, dtype=torch.half).expand(3*10**9)}, d/'stretched.pth')
torch.save({'a':torch.zeros(10**6)}, d/'plain.pth')
with zipfile.ZipFile(d/'plain.pth') as z, zipfile.ZipFile(d/'packed.pth', 'w', zipfile.ZIP_DEFLATED) as packed:
    for o in z.namelist(): packed.writestr(o, z.read(o))
torch.save({'a':torch.sparse_coo_tensor(torch.zeros(1,1).long(), torch.ones(1), (10**12,))}, d/'sparse.pth')
for name in ('stretched','packed','sparse','plain'): attempt(name, d/f'{name}.pth', lambda f: list(read_state(f)))
print(json.dumps(said))
'''


def made(job, folder):
    "What came of each attack: what was said, seconds, MB"
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(folder)], capture_output=True, text=True, timeout=300)
    assert r.returncode==0, (r.returncode, r.stdout[-500:], r.stderr[-2000:])
    got = json.loads(r.stdout.splitlines()[-1])
    slow = {k:v for k,v in got.items() if v[1]>20 or v[2]>400}
    assert not slow, slow
    return {k:v[0] for k,v in got.items()}


def test_model_files_that_lie(tmp_path):
    "A header may say what it likes: it is refused by name, or costs what the weights explain"
    got = made(models, tmp_path)
    harmless = {'sound', 'cost', 'wide'} # what these say of memory and sight is measured, or makes tiles larger than need be
    assert {k for k,v in got.items() if v=='done'}==harmless, got
    for k in got.keys()-harmless: assert got[k].startswith('EnhancerError: ') and f'{k}.safetensors: ' in got[k] and len(got[k])<600, got[k]


def test_images_that_are_larger_than_they_look(tmp_path):
    got = made(images, tmp_path)
    eight = {'depth', 'deflated', 'png', 'texts', 'profile'}
    assert {k for k,v in got.items() if v=='(8, 8, 3)'}==eight, got
    for k in got.keys()-eight: assert got[k].startswith(('ValueError: ', 'Damaged: ')), got[k]


def test_weights_that_unfold(tmp_path):
    got = made(weights, tmp_path)
    assert got.pop('plain')=="['a']"
    for k,v in got.items(): assert v.startswith('WeightsUnavailable: ') and f'{k}.pth' in v, v


@pytest.fixture
def photos(tmp_path):
    from PIL import Image
    (tmp_path/'photos').mkdir()
    for name in ('=1+1.png', '\x1b[2J\x1b[31mred.png', 'a\u202egnp.png', 'plain.png'): Image.effect_noise((40,30), 60).convert('RGB').save(tmp_path/'photos'/name)
    (tmp_path/'photos'/'\x1b]0;x\x07bad.png').write_bytes(b'\x89PNG\r\n\x1a\nnothing')
    return tmp_path/'photos'


def test_names_command_neither_terminal_nor_spreadsheet(photos, tmp_path, capsys):
    from perceptual_fastai.all import EDSR, save_enhancer
    from perceptual_fastai.cli import main
    model = save_enhancer(EDSR(1, blocks=1, features=4, residual=True), tmp_path/'same.safetensors')
    assert main(['enhance', str(photos), str(tmp_path/'out'), '--model', str(model), '--device', 'cpu'])==1
    out,err = capsys.readouterr()
    report = (tmp_path/'out'/'enhance.csv').read_text()
    for o in (out, err, report): assert not set('\x1b\x07\u202e') & set(o), ascii(o)
    assert r'\x1b]0;x\x07bad.png' in out and "\n'=1+1.png," in report
    assert (tmp_path/'out'/'=1+1.png').exists() and (tmp_path/'out'/'a\u202egnp.png').exists() # the files keep their names


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    "Whoever may write into the folder can't make us write elsewhere: a temporary file has a name that can't be foreseen, and its target is replaced, not written through"
    from perceptual_fastai.files import atomic_write, temporary
    assert len({temporary(tmp_path).name for _ in range(100)})==100
    (tmp_path/'precious').write_text('mine')
    (tmp_path/'result').symlink_to(tmp_path/'precious')
    atomic_write(tmp_path/'result', lambda p: p.write_text('new'))
    assert (tmp_path/'precious').read_text()=='mine' and not (tmp_path/'result').is_symlink()


def test_a_decoder_that_crashes_or_hangs_takes_nobody_with_it(tmp_path, monkeypatch):
    from PIL import Image
    from perceptual_fastai import apart
    from perceptual_fastai.compare import Comparison, Limits
    sick = "import os, signal, sys\nif sys.argv[1].endswith('crash.png'): os.kill(os.getpid(), signal.SIGSEGV)\nwhile sys.argv[1].endswith('hang.png'): pass\n"
    monkeypatch.setattr(apart, '_task', sick+apart._task)
    files = [tmp_path/f'{o}.png' for o in ('crash','hang','sound')]
    for f in files: Image.new('RGB', (60,40), 'teal').save(f)
    got = {r.photo:r for r in Comparison(tmp_path/'results', Limits(seconds=4))(files, {'restore':'restore'})}
    assert 'SIGSEGV' in got['crash.png'].note and 'not decoded in 4 seconds' in got['hang.png'].note
    assert not got['crash.png'].file and not got['hang.png'].file and Image.open(got['sound.png'].file).size==(60,40)
