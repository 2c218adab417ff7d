"""What no folder job may do, whichever command runs it: one table of cases, one of commands

A case spoils or fills folders in a way that people do; a command is a function of two folders. The next guard is a case more."""
import os, shutil, subprocess, sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch as mock

import pytest
from PIL import Image

from perceptual_fastai.cli import main
from perceptual_fastai.decode import Samples
from perceptual_fastai.files import JOURNAL, all_files, list_images

commands = ['crappify', 'enhance', 'score', 'train', 'demo']
makers = ['crappify', 'enhance'] # a result for every image
small = ['--size', '32', '--side', '64', '--epochs', '1']


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A generator that does nothing"
    from perceptual_fastai.all import EDSR, save_enhancer
    return save_enhancer(EDSR(1, blocks=1, features=4, residual=True), tmp_path_factory.mktemp('models')/'same.safetensors')


def image(path, colour='teal', size=(90,70), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert('RGB').save(path, **kwargs) if colour is None else Image.new('RGB', size, colour).save(path, **kwargs)
    return path


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    "These tests are about folders: a training takes no step, all around it is as ever"
    from perceptual_fastai import train
    def untrained(*args, make=train.enhance_learner, **kwargs):
        learn = make(*args, **kwargs)
        learn.fit_one_cycle,learn.lr_find = (lambda *a,**k: None),(lambda **k: SimpleNamespace(valley=1e-3))
        learn.recorder.losses,learn.recorder.iters,learn.recorder.values = [],[],[]
        return learn
    monkeypatch.setattr(train, 'enhance_learner', untrained)
    monkeypatch.setattr(train, 'plot_losses', lambda *a: None)


@pytest.fixture
def photos(tmp_path):
    for i in range(4): image(tmp_path/'photos'/f'p{i}.png', None)
    return tmp_path/'photos'


@pytest.fixture
def run(model, tmp_path, capsys):
    "Run a command in this process: status, what it said, and its rows"
    def go(command, src, dst, *more):
        if command=='score':
            restored = tmp_path/'restored'
            if not restored.exists(): shutil.copytree(src, restored, symlinks=True)
            argv = ['score', restored, src, '--csv', f'{dst}.csv']
        else:
            argv = dict(crappify=['crappify', src, dst, '--preset', 'deblur'], enhance=['enhance', src, dst, '--model', model, '--device', 'cpu'],
                        train=['train', src, dst, '--loss', 'l1', '--bs', '2', *small], demo=['demo', '--data', src, '--out', dst, '--arch', 'mobilenet_v3_small', *small])[command]
        capsys.readouterr()
        status = main([os.fspath(o) for o in [*argv, *more]])
        out,err = capsys.readouterr()
        return SimpleNamespace(status=status, said=out+err, results=results(dst))
    return go


def results(dst):
    "What a command made: its images, by name"
    found = [f for f in all_files(dst) if f.suffix in ('.png','.jpg')] if Path(dst).exists() else []
    return {f.relative_to(dst).as_posix():f.read_bytes() for f in found}




# -- what lies in the folder

@pytest.mark.parametrize('command', commands)
def test_results_inside_the_sources_twice(command, photos, run, monkeypatch):
    "cd photos; demo --data . twice: nothing of the first run goes into the second"
    monkeypatch.chdir(photos)
    first = run(command, Path('.'), Path('out'))
    assert first.status==0, first.said
    again = run(command, Path('.'), Path('out'))
    assert again.status==0, again.said
    assert again.results.keys()==first.results.keys() and not [o for o in again.results if 'out/' in o]
    assert len(list_images('.', leave_out=['out']).files)==4


@pytest.mark.parametrize('command', [o for o in commands if o!='score'])
def test_results_among_the_sources_are_refused(command, photos, run):
    before = results(photos)
    r = run(command, photos, photos)
    assert r.status==1 and 'is the folder of the images itself' in r.said and results(photos)==before, r.said
    assert not (photos/JOURNAL).exists()


@pytest.mark.parametrize('command', [o for o in commands if o!='score'])
def test_somebody_elses_files_stay(command, photos, run, tmp_path):
    "enhance small mine, where mine/p1.png is the user's own"
    mine = image(tmp_path/'mine'/'p1.png', 'gold')
    image(tmp_path/'mine'/'before_after.png', 'gold')
    before = results(tmp_path/'mine')
    r = run(command, photos, tmp_path/'mine')
    assert r.status==1 and 'holds files that this job did not make' in r.said and 'before_after.png' in r.said, r.said
    assert results(tmp_path/'mine')==before
    assert run(command, photos, tmp_path/'mine', '--overwrite').status==0


@pytest.mark.parametrize('command', makers)
def test_a_file_put_in_the_way_later_stays(command, photos, run, tmp_path):
    run(command, photos, tmp_path/'out')
    mine = image(tmp_path/'out'/'p1.png', 'gold').read_bytes()
    r = run(command, photos, tmp_path/'out')
    assert r.status==1 and 'p1.png' in r.said and 'this job did not make it' in r.said and r.results['p1.png']==mine


# -- done means the same bytes and the same settings

@pytest.mark.parametrize('command', makers)
def test_an_older_photo_in_its_place_is_another(command, photos, run, tmp_path):
    first = run(command, photos, tmp_path/'out')
    image(photos/'p2.png', 'navy')
    os.utime(photos/'p2.png', (1,1))
    again = run(command, photos, tmp_path/'out')
    assert '1 written, 3 skipped' in again.said
    assert [k for k in first.results if first.results[k]!=again.results[k]]==['p2.png']


@pytest.mark.parametrize('command', ['train', 'demo'])
def test_an_older_photo_changes_a_training(command, photos, run, tmp_path):
    first = run(command, photos, tmp_path/'out')
    assert first.status==0, first.said
    was = (photos/'p2.png').stat()
    Image.effect_noise((90,70), 90).convert('RGB').save(photos/'p2.png')
    os.utime(photos/'p2.png', ns=(was.st_atime_ns, was.st_mtime_ns))
    r = run(command, photos, tmp_path/'out')
    if command=='train': assert r.status==1 and 'holds a training with photos=' in r.said
    else: assert len(list((tmp_path/'out'/'clean').iterdir()))==2


def test_another_quality_is_another_result(photos, run, tmp_path):
    for i in range(4): image(photos/f'p{i}.jpg', None); (photos/f'p{i}.png').unlink()
    first = run('enhance', photos, tmp_path/'out', '--quality', '95')
    again = run('enhance', photos, tmp_path/'out', '--quality', '30')
    assert '4 written' in again.said and sum(map(len, again.results.values()))<sum(map(len, first.results.values()))
    assert '4 skipped' in run('enhance', photos, tmp_path/'out', '--quality', '30').said


@pytest.mark.parametrize('command,more,why', [('crappify', ['--seed', '7'], 'was made by crappify'), ('enhance', ['--model', 'x4'], 'was made by enhance'),
                                              ('train', ['--seed', '7'], 'holds a training with')])
def test_other_settings_for_the_whole_folder_are_refused(command, more, why, photos, run, tmp_path):
    first = run(command, photos, tmp_path/'out')
    r = run(command, photos, tmp_path/'out', *more)
    assert r.status==1 and why in r.said and r.results==first.results


# -- one odd file

@pytest.mark.parametrize('command', commands)
@pytest.mark.parametrize('error', [ModuleNotFoundError("No module named 'compression'"), TypeError('blob'), ZeroDivisionError(), __import__('lzma').LZMAError('corrupt'), __import__('struct').error('unpack'), RuntimeError('decoder')],
                         ids=lambda e: type(e).__name__)
def test_whatever_a_library_raises_fails_that_file_alone(command, error, photos, run, tmp_path):
    if command in ('train','demo') and not isinstance(error, TypeError): pytest.skip('the same path for all errors; one is enough for a training')
    run('score', photos, tmp_path/'first') # the restored copies, while all is well
    odd = photos/'p1.png'
    real = Samples.rows
    def breaks(self, *args):
        if Path(self.file.name)==odd: raise error
        return real(self, *args)
    with mock.object(Samples, 'rows', breaks): r = run(command, photos, tmp_path/'out')
    assert 'p1.png' in r.said and 'Traceback' not in r.said, r.said
    assert r.status==(0 if command in ('train','demo') else 1), r.said # a training leaves it out and goes on
    if command in makers: assert sorted(r.results)==['p0.png', 'p2.png', 'p3.png']


@pytest.mark.parametrize('command', commands)
def test_a_photo_too_large_for_the_memory_fails_in_one_line(command, photos, run, tmp_path):
    run('score', photos, tmp_path/'first')
    real = Samples.rows
    def full(self, *args):
        if Path(self.file.name)==photos/'p1.png': raise MemoryError
        return real(self, *args)
    with mock.object(Samples, 'rows', full): r = run(command, photos, tmp_path/'out')
    assert 'out of memory' in r.said and 'Traceback' not in r.said, r.said
    assert r.status==(command not in ('train','demo')), r.said # a training looks at all photos first, and goes on without that one
    assert 'p1' in r.said
    if command in makers: assert sorted(r.results)==['p0.png', 'p2.png', 'p3.png']


@pytest.mark.parametrize('command', commands)
def test_what_is_no_image_is_passed_over(command, photos, run, tmp_path):
    for n in ('Thumbs.db', 'desktop.ini', 'enhance.csv', 'p1.txt', 'p2.json', '.DS_Store'): (photos/n).write_text('not an image')
    r = run(command, photos, tmp_path/'out')
    assert r.status==0 and 'not scored' not in r.said and 'failed\n' not in r.said.replace('0 failed\n', ''), r.said


@pytest.mark.parametrize('command', makers)
def test_names_that_differ_in_case_or_extension_refuse_those_two(command, photos, run, tmp_path):
    image(photos/'IMG.png'); image(photos/'img.png')
    if command=='crappify': image(photos/'p3.jpg')
    r = run(command, photos, tmp_path/'out')
    assert r.status==1 and r.said.count('would become the same file')==(4 if command=='crappify' else 2), r.said
    assert set(r.results)=={'p0.png', 'p1.png', 'p2.png'} | ({'p3.png'} if command=='enhance' else set())


def test_a_name_that_lies_becomes_png_and_clashes_are_named(photos, run, tmp_path):
    "A PNG with alpha called .jpg is written as .png and said; beside a .png of that name both are refused"
    Image.new('RGBA', (60,40), (9,99,199,128)).save(photos/'cut.jpg', 'PNG')
    r = run('enhance', photos, tmp_path/'out')
    assert r.status==0 and 'cut.jpg: written as .png: JPEG has no transparency' in r.said and Image.open(tmp_path/'out'/'cut.png').mode=='RGBA', r.said
    image(photos/'cut.png')
    r = run('enhance', photos, tmp_path/'out2')
    assert r.status==1 and r.said.count('would become the same file')==2 and 'cut.png' not in r.results, r.said


def test_what_is_lost_is_in_the_report(photos, run, tmp_path):
    few = Image.effect_noise((60,40), 60).convert('RGB')
    for n in ('film.gif', 'film.webp', 'pages.tif'): few.save(photos/n, save_all=True, append_images=[few.rotate(180)])
    r = run('enhance', photos, tmp_path/'out')
    assert r.status==0 and r.said.count('1 of 2; the others are not kept')==3, r.said
    assert '1 of 2; the others are not kept' in (tmp_path/'out'/'enhance.csv').read_text()


def test_score_names_the_two_and_scores_the_others(photos, run, tmp_path):
    image(photos/'p3.jpg')
    r = run('score', photos, tmp_path/'out')
    assert r.status==1 and r.said.count('differ')>=2 and 'p0' in r.said and len((tmp_path/'out.csv').read_text().splitlines())==4, r.said


# -- names and links

@pytest.mark.parametrize('command', commands)
def test_names_that_are_no_utf8(command, photos, run, tmp_path):
    os.rename(photos/'p1.png', os.fsencode(photos/'caf')+b'\xe9.png')
    r = run(command, photos, tmp_path/'out', *(['--csv', tmp_path/'out.csv'] if command=='enhance' else []))
    assert r.status==0, r.said
    if command in makers: assert os.fsdecode(b'caf\xe9.png') in r.results
    if command in ('enhance','score'): assert 'caf\\xe9' in (tmp_path/'out.csv').read_text(encoding='utf-8')
    (photos/'half.png').write_bytes((photos/'p0.png').read_bytes()[:200]); os.rename(photos/'half.png', os.fsencode(photos/'half')+b'\xe9.png')
    r = run(command, photos, tmp_path/'out2')
    assert 'half\\xe9.png' in r.said and 'Traceback' not in r.said, r.said


@pytest.mark.parametrize('command', commands)
def test_linked_folders_are_followed_once_and_dead_links_named(command, photos, run, tmp_path):
    image(tmp_path/'elsewhere'/'far.png', None)
    (photos/'link').symlink_to(tmp_path/'elsewhere'); (photos/'loop').symlink_to(photos); (photos/'dead').symlink_to(tmp_path/'nowhere')
    r = run(command, photos, tmp_path/'out')
    if command in makers: assert 'link/far.png' in r.results and len(r.results)==5 and 'dead: a link to nothing' in r.said, r.said
    if command=='score': assert 'link/far' in (tmp_path/'out.csv').read_text()
    if command in ('train','demo'): assert 'left out: dead' in r.said and 'left out: loop' in r.said, r.said


@pytest.mark.parametrize('command', commands)
def test_an_unreadable_folder_is_named(command, photos, run, tmp_path):
    image(photos/'locked'/'x.png', None)
    real = os.scandir
    def scandir(p='.'):
        if Path(os.fsdecode(p)).name=='locked': raise PermissionError(13, 'Permission denied', str(p))
        return real(p)
    run('score', photos, tmp_path/'first')
    with mock('os.scandir', side_effect=scandir): r = run(command, photos, tmp_path/'out')
    assert 'locked' in r.said and 'Permission denied' in r.said and r.status==(0 if command in ('train','demo') else 1), r.said


@pytest.mark.parametrize('command', commands)
def test_the_longest_names(command, photos, run, tmp_path):
    os.rename(photos/'p1.png', photos/('n'*251+'.png'))
    r = run(command, photos, tmp_path/'out')
    assert r.status==0, r.said
    if command in makers: assert 'n'*251+'.png' in r.results


def test_two_runs_into_one_folder_leave_each_other_alone(photos, tmp_path):
    "Two processes at once; both end well, and all is there, whole"
    for i in range(20): image(photos/f'q{i}.png', None)
    job = [sys.executable, '-c', 'import sys; from perceptual_fastai.cli import main; sys.exit(main())', 'crappify', str(photos), str(tmp_path/'out'), '--preset', 'deblur']
    both = [subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both]==[0,0], said
    done = [f for f in (tmp_path/'out').iterdir() if f.suffix=='.png']
    assert len(done)==24 and not list((tmp_path/'out').glob('.*.part'))
    for f in done: Image.open(f).load()


# -- the disk, and what was left on it

@pytest.mark.parametrize('command', makers)
def test_a_full_disk_is_called_that_and_loses_nothing(command, photos, run, tmp_path, model):
    "Files of more than 3,000 bytes can't be written, which is how a full disk looks; p3 is small"
    image(photos/'p3.png')
    job = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (3000,3000))
from perceptual_fastai.cli import main
sys.exit(main({[command, str(photos), str(tmp_path/'out'), *(['--preset', 'deblur'] if command=='crappify' else ['--model', str(model), '--device', 'cpu'])]}))"""
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job], capture_output=True, text=True)
    assert r.returncode==1 and r.stdout.lower().count('file too large')==3 and 'Traceback' not in r.stderr, (r.stdout, r.stderr)
    assert list(results(tmp_path/'out'))==['p3.png'] and not list((tmp_path/'out').rglob('.*.part'))
    again = run(command, photos, tmp_path/'out')
    assert again.status==0 and '3 written, 1 skipped' in again.said, again.said


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path):
    job = """
import resource, sys
from pathlib import Path
import torch
from perceptual_fastai.files import atomic_write
d = Path(sys.argv[1])
def save(n):
    def write(p):
        with open(p, 'wb') as f: torch.save({'a':torch.ones(n)}, f)
    atomic_write(d/'train.ck', write)
save(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000,9000))
try: save(100_000)
except OSError as e: print(e.strerror, Path(e.filename).name, len(torch.load(d/'train.ck')['a']), len(list(d.iterdir())))
"""
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', job, str(tmp_path)], capture_output=True, text=True)
    assert r.stdout.strip()=='File too large train.ck 10 1', (r.stdout, r.stderr)


@pytest.mark.parametrize('name,data,why', [('settings.json', b'{"seed": 4', 'settings.json is damaged'), ('settings.json', b'[1]', 'settings.json is damaged'),
                                           ('train.ck', b'PK\x03\x04half', 'train.ck is damaged'), (JOURNAL, b'\x00\xff\n', 'is damaged')])
def test_damaged_notes_name_file_and_remedy(name, data, why, photos, run, tmp_path):
    assert run('train', photos, tmp_path/'out').status==0
    (tmp_path/'out'/name).write_bytes(data)
    r = run('train', photos, tmp_path/'out')
    assert r.status==1 and why in r.said and name in r.said and 'remove it' in r.said and 'Traceback' not in r.said, r.said


@pytest.mark.parametrize('command', [o for o in commands if o!='score'])
def test_what_a_killed_run_left_is_cleared(command, photos, run, tmp_path):
    from perceptual_fastai.files import HOST
    (tmp_path/'out').mkdir()
    dead = tmp_path/'out'/f'.{HOST}-{2**22+1}-0a0b0c0d.part'
    dead.touch()
    assert run(command, photos, tmp_path/'out').status==0 and not dead.exists()
