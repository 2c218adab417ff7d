"The scorer: what it says of damage that it never saw, its file, its command, and a generator that is trained to please it"
import csv, inspect, os, random, shutil, subprocess, sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from perceptual_fastai.all import (EDSR, NIMA, AVA, WeightsUnavailable, bundled, damage, downscale, emd_loss, held_out_kinds, load_nima, nima_archs,
                                   nima_loss, nima_score, open_photo, read_ava, sample_photos, state_digest)

exe = shutil.which('perceptual-fastai', path=str(Path(sys.executable).parent)+os.pathsep+os.environ['PATH'])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return sample_photos(tmp_path_factory.mktemp('photos'))


@pytest.mark.parametrize('arch', nima_archs)
def test_any_size_and_a_gradient_for_every_pixel(arch):
    model,x = NIMA(arch).eval(),torch.randn(1, 3, 37, 50, requires_grad=True)
    p = model(x)
    (p*torch.arange(1, 11)).sum().backward()
    assert p.shape==(1,10) and abs(p.sum().item()-1)<1e-5 and (x.grad!=0).any(1).float().mean()>.9


def test_emd_in_closed_form():
    "All on i against all on j: |i-j| running sums differ by one"
    eye = torch.eye(10)
    for i in range(10):
        for j in range(10):
            for r in (1,2): assert abs(emd_loss(eye[i:i+1], eye[j:j+1], r).item()-(abs(i-j)/10)**(1/r))<1e-6
    assert abs(emd_loss(eye[[0,0]], eye[[0,9]]).item()-.9**.5/2)<1e-6, 'the root is taken per image'


@pytest.mark.parametrize('kind', held_out_kinds)
def test_damage_that_it_never_saw_costs_marks(kind, photos):
    clean = [downscale(open_photo(f), 224) for f in sorted((photos/'held_out').iterdir())]
    mean = lambda s: sum(float(nima_score(damage(o, kind, s, random.Random(0)))) for o in clean)/len(clean)
    a,b,c = mean(0), mean(.5), mean(1)
    assert a>b+.5 and b>c, (a, b, c)


def test_a_file_that_was_changed_is_refused(tmp_path):
    data = bytearray(bundled('nima_technical.safetensors').read_bytes())
    data[-1000] ^= 1
    (tmp_path/'x.safetensors').write_bytes(data)
    with pytest.raises(WeightsUnavailable, match='changed since'): load_nima(tmp_path/'x.safetensors')


def test_the_scorer_stays_as_it_is_while_a_generator_learns_to_please_it():
    loss = nima_loss(gamma=4., guard=True)
    torch.manual_seed(0) # after the scorer, which may have been loaded before
    model,x = EDSR(2, blocks=1, features=8, residual=True),torch.rand(2, 3, 24, 24)
    was = state_digest(loss.losses['nima'].func.state_dict())
    opt,y,seen = torch.optim.Adam(model.parameters(), 1e-3),torch.nn.functional.interpolate(x, scale_factor=2),[]
    loss.train()
    for _ in range(8):
        opt.zero_grad()
        value = loss(model(x), y)
        value.backward()
        opt.step()
        seen.append(value.item())
    assert seen[-1]<seen[0] and state_digest(loss.losses['nima'].func.state_dict())==was
    assert all(p.grad is None for p in loss.parameters())


def test_defaults_are_the_papers():
    import perceptual_fastai.nima as nima
    from fastai.learner import Learner
    says = lambda f: {k:p.default for k,p in inspect.signature(f).parameters.items()}
    assert {k:says(nima.ava_dls)[k] for k in ('bs','side','crop','held_out')}==dict(bs=128, side=256, crop=192, held_out=.2)
    assert {k:says(Learner.fit_nima)[k] for k in ('epochs','lr')}==dict(epochs=25, lr=1e-4)
    assert says(NIMA)['arch']=='mnasnet1_0' and says(nima_loss)['gamma']==.4


def test_lines_of_ava_that_are_of_no_use(tmp_path):
    (tmp_path/'images').mkdir()
    for i in (1,2): Image.new('RGB', (40,40), 'teal').save(tmp_path/'images'/f'{i}.jpg')
    (tmp_path/'images'/'3.jpg').write_bytes(b'broken')
    votes = ' 1'*10+' 0 0 7\n'
    (tmp_path/'AVA.txt').write_text('1 1'+votes+'2 2'+' 0'*10+' 0 0 7\n'+'3 3'+votes+'4 9'+votes+'5 2 1.5'+' 1'*9+' 0 0 7\n6 2'+' -1'+' 1'*9+' 0 0 7\n')
    ava = read_ava(tmp_path/'AVA.txt', tmp_path/'images', check=True)
    assert isinstance(ava, AVA) and [f.name for f in ava.files]==['1.jpg'] and [i for i,_ in ava.failed]==[2,3,4,5,6]


def test_command(photos, tmp_path):
    for f in (photos/'held_out').iterdir(): downscale(open_photo(f), 96).save(tmp_path/f'{f.stem}.png')
    Image.new('RGB', (20,20)).save(tmp_path/'small.png')
    r = subprocess.run([exe, 'nima', str(tmp_path), '--csv', str(tmp_path/'t.csv')], capture_output=True, text=True, timeout=400)
    assert r.returncode==1 and 'small.png: NIMA takes images of 32 pixels or more' in r.stdout and not r.stderr, (r.stdout, r.stderr)
    rows = list(csv.DictReader(open(tmp_path/'t.csv')))
    assert [o['photo'] for o in rows]==['chelsea.png','flower.png'] and all(1<=float(o['score'])<=10 for o in rows)
    r = subprocess.run([exe, 'nima', str(tmp_path/'chelsea.png'), '--weights', 'taste'], capture_output=True, text=True, timeout=400)
    assert r.returncode==1 and 'scorers that come with the library are technical' in r.stderr and len(r.stderr.splitlines())==1
