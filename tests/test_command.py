"The installed command, in a process of its own"
import csv, os, shutil, subprocess, sys
from pathlib import Path

import pytest
from PIL import Image

exe = shutil.which('perceptual-fastai', path=str(Path(sys.executable).parent)+os.pathsep+os.environ['PATH'])


def run(*argv, cwd=None): return subprocess.run([exe, *map(str, argv)], capture_output=True, text=True, cwd=cwd, timeout=400)


def test_help_lists_commands_and_options():
    assert exe, 'perceptual-fastai is not installed: pip install .'
    r = run('--help')
    assert r.returncode==0 and 'demo' in r.stdout and 'crappify' in r.stdout
    r = run('demo', '--help')
    assert r.returncode==0
    for o in ('--out', '--data', '--size', '--epochs', '--arch', '--seed'): assert o in r.stdout


def test_demo_in_miniature(tmp_path):
    r = run('demo', '--out', tmp_path/'out', '--size', 48, '--epochs', 2, '--arch', 'mobilenet_v3_small')
    assert r.returncode==0, r.stderr
    for o in ('epoch 2 of 2: train_loss', 'pixel', 'feat_0', 'feat_2', 'gram_2', 'mean PSNR', 'ImageNet weights'): assert o in r.stdout, o
    assert '%' not in r.stdout and len(r.stdout.splitlines())<20 # no bars where nobody watches
    rows = list(csv.DictReader(open(tmp_path/'out'/'scores.csv')))
    assert [o['photo'] for o in rows]==['chelsea', 'flower']
    assert list(rows[0])==['photo', 'psnr_spoiled', 'psnr_restored', 'ssim_spoiled', 'ssim_restored', 'feature_spoiled', 'feature_restored']
    for f in ('before_after.png', 'losses.png'): Image.open(tmp_path/'out'/f).load()


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A small generator that doubles"
    from perceptual_fastai.all import EDSR, save_enhancer
    return save_enhancer(EDSR(2, blocks=1, features=8, residual=True), tmp_path_factory.mktemp('models')/'x2.safetensors')


def test_enhance_a_folder(model, tmp_path):
    src,dst = tmp_path/'src',tmp_path/'dst'
    (src/'sub').mkdir(parents=True)
    Image.new('RGB', (60,40), 'teal').save(src/'a.jpg'); Image.new('LA', (20,30), (99,128)).save(src/'sub'/'b.png')
    (src/'notes.txt').write_text('no photo')
    r = run('enhance', src, dst, '--model', model, '--tile', 32, '--device', 'cpu')
    assert r.returncode==0 and '2 written, 0 skipped, 0 failed' in r.stdout and 'passed over: notes.txt' in r.stdout and not r.stderr, (r.stdout, r.stderr)
    for f,size,mode in (('a.jpg', (120,80), 'RGB'), ('sub/b.png', (40,60), 'LA')):
        with Image.open(dst/f) as o: o.load(); assert (o.size, o.mode)==(size, mode)
    rows = {o['photo']:o for o in csv.DictReader(open(dst/'enhance.csv'))}
    assert {k:o['status'] for k,o in rows.items()}=={'a.jpg':'written', 'sub/b.png':'written'} and rows['a.jpg']['width']=='120'
    (src/'notes.txt').unlink()
    r = run('enhance', src, dst, '--model', model, '--device', 'cpu')
    assert r.returncode==0 and r.stdout.splitlines()==['0 written, 2 skipped, 0 failed', f'results: {dst}']


@pytest.mark.parametrize('name,factor', [('restore', 1), ('lesson7', 2), ('x4', 4)])
def test_models_that_come_along(name, factor, tmp_path):
    (tmp_path/'src').mkdir()
    Image.linear_gradient('L').resize((40,30)).convert('RGB').save(tmp_path/'src'/'a.png')
    r = run('enhance', tmp_path/'src', tmp_path/'dst', '--model', name, '--device', 'cpu')
    assert r.returncode==0, r.stderr
    with Image.open(tmp_path/'dst'/'a.png') as o: assert o.size==(40*factor, 30*factor)


def test_enhance_one_photo_as_a_module(model, tmp_path):
    Image.new('RGB', (60,40), 'teal').save(tmp_path/'cat.jpg')
    r = subprocess.run([sys.executable, '-m', 'perceptual_fastai', 'enhance', 'cat.jpg', '--model', str(model)], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode==0 and r.stdout.splitlines()==['cat.jpg: 60x40 -> 120x80 pixels, 0.0 MB uncompressed', 'written: cat_x2.jpg'], (r.stdout, r.stderr)
    with Image.open(tmp_path/'cat_x2.jpg') as o: assert o.size==(120,80)


def loaded(argv, names, cwd):
    "Exit status of a command, and which of the modules it loaded"
    job = f"import sys; from perceptual_fastai.cli import main; s = main({argv!r}); print(s, [o for o in {names!r} if o in sys.modules])"
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job], capture_output=True, text=True, cwd=cwd, timeout=400)
    assert r.returncode==0, r.stderr
    return r.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize('job', [['enhance', 'cat.jpg', '--device', 'cpu'], ['style', 'cat.jpg']])
def test_a_model_that_comes_along_needs_neither_fastai_nor_torchvision(job, tmp_path):
    heavy = ['fastai', 'torchvision', 'timm', 'sklearn', 'skimage', 'scipy', 'pandas', 'matplotlib', 'torch._dynamo', 'sympy']
    Image.new('RGB', (60,40), 'teal').save(tmp_path/'cat.jpg')
    assert loaded(job, heavy, tmp_path)=='0 []'


def test_mistakes_do_not_wait_for_torch(tmp_path):
    Image.new('RGB', (60,40), 'teal').save(tmp_path/'cat.jpg')
    for argv in (['enhance', 'cat.jpg', '--model', 'restroe'], ['enhance', 'dog.jpg'], ['train', 'gone', 'there']):
        assert loaded(argv, ['torch'], tmp_path)=='1 []'


def test_help_of_enhance():
    r = run('enhance', '--help')
    assert r.returncode==0
    for o in ('--model', '--tile', '--overlap', '--overwrite', '--csv', '--max-pixels'): assert o in r.stdout


@pytest.mark.parametrize('args,why', [(['demo', '--data', 'gone'], 'gone: no such folder'), (['demo', '--size', '8'], 'the least size is 32'),
                                      (['demo', '--weights', 'gone.pth'], "weights='gone.pth': no such file"),
                                      (['crappify', 'gone', 'there'], 'gone: no such folder'),
                                      (['enhance', '.', 'there', '--model', 'paint'], 'paint: no such model file')])
def test_mistakes_are_one_line(args, why, tmp_path):
    r = run(*args, cwd=tmp_path)
    assert r.returncode==1 and why in r.stderr and 'Traceback' not in r.stderr
    assert len(r.stderr.strip().splitlines())==1


def test_spoil_enhance_and_score_closes_with_a_gain(tmp_path):
    "crappify a b; enhance b c; score c a: better than score b a, for photos of twice the size that lesson 7 leaves"
    from perceptual_fastai.all import downscale, find_photos, open_photo, sample_photos
    a,b,c = (tmp_path/o for o in 'abc')
    a.mkdir()
    for f in find_photos(sample_photos(tmp_path/'photos')/'held_out'): downscale(open_photo(f), 192).save(a/f'{f.stem}.png')
    steps = ('crappify', a, b), ('enhance', b, c, '--model', 'lesson7', '--device', 'cpu'), ('score', b, a, '--csv', tmp_path/'b.csv'), ('score', c, a, '--csv', tmp_path/'c.csv')
    for o in steps:
        r = run(*o)
        assert r.returncode==0, (o, r.stdout, r.stderr)
    before,after = ({o['photo']:float(o['psnr_rgb']) for o in csv.DictReader(open(tmp_path/f'{n}.csv'))} for n in 'bc')
    assert list(before)==list(after)==['chelsea', 'flower']
    for k in before: assert after[k]>before[k]+.5, (before, after)


def test_train_enhance_and_nogan_in_miniature(tmp_path):
    from perceptual_fastai.all import downscale, find_photos, open_photo, sample_photos
    photos = tmp_path/'photos'
    photos.mkdir()
    for f in list(find_photos(sample_photos(tmp_path/'samples')/'train'))[:4]: downscale(open_photo(f), 96).save(photos/f'{f.stem}.png')
    r = run('train', photos, tmp_path/'x2', '--preset', 'x2', '--loss', 'l1', '--size', 32, '--side', 64, '--epochs', 1)
    assert r.returncode==0 and 'model.safetensors' in r.stdout, (r.stdout, r.stderr)
    r = run('train', photos, tmp_path/'x2', '--preset', 'x2', '--loss', 'l1', '--size', 32, '--side', 64, '--epochs', 2)
    assert r.returncode==0 and '1 of 2 epochs are done; the others are a cycle of their own' in r.stdout, (r.stdout, r.stderr)
    r = run('enhance', photos, tmp_path/'big', '--model', tmp_path/'x2'/'model.safetensors', '--device', 'cpu')
    assert r.returncode==0 and '4 written' in r.stdout, (r.stdout, r.stderr)
    r = run('nogan', photos, tmp_path/'gan', '--arch', 'srcnn', '--size', 48, '--side', 96, '--bs', 4, '--epochs', 1, '--critic-epochs', 1, '--gan-epochs', 1)
    assert r.returncode==0 and (tmp_path/'gan'/'model.safetensors').exists(), (r.stdout, r.stderr)
