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
    r = run('demo', '--out', tmp_path/'out', '--size', 48, '--epochs', 2, '--arch', 'resnet18')
    assert r.returncode==0, r.stderr
    for o in ('pixel', 'feat_0', 'feat_2', 'gram_2', 'learning rate', 'mean PSNR', 'learned weights', '100.00%'): assert o in r.stdout, o
    rows = list(csv.DictReader(open(tmp_path/'out'/'scores.csv')))
    assert [o['photo'] for o in rows]==['chelsea', 'flower']
    assert list(rows[0])==['photo', 'psnr_spoiled', 'psnr_restored', 'ssim_spoiled', 'ssim_restored', 'feature_spoiled', 'feature_restored']
    for f in ('before_after.png', 'losses.png'): Image.open(tmp_path/'out'/f).load()


@pytest.mark.parametrize('args,why', [(['demo', '--data', 'gone'], 'gone: no such folder'), (['demo', '--size', '8'], 'the least are'),
                                      (['demo', '--weights', 'gone.pth'], "weights='gone.pth': no such file"),
                                      (['crappify', 'gone', 'there'], 'gone: no such folder')])
def test_mistakes_are_one_line(args, why, tmp_path):
    r = run(*args, cwd=tmp_path)
    assert r.returncode==1 and why in r.stderr and 'Traceback' not in r.stderr
    assert len(r.stderr.strip().splitlines())==1
