"Folders that several processes share, and trainings in several processes"
import json, os, subprocess, sys, time
from collections import Counter

import pytest

from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.files import JOURNAL, all_files
from perceptual_fastai.photos import sample_photos

job = '''
import sys, time
from PIL import Image
from perceptual_fastai.files import folder_job
pause,src,dst = float(sys.argv[1]),*sys.argv[2:]
def turn(f, to):
    with Image.open(f) as im: out = im.convert('RGB').rotate(180)
    time.sleep(pause)
    return lambda p: out.save(p, 'PNG'), dict(width=out.width)
print(folder_job(src, dst, turn, lambda p: p.with_suffix('.png'), 'turn', table=f'{dst}/turn.csv'))
'''


def start(src, dst, pause=0, **env):
    "The job in a process of its own"
    clean = {k:v for k,v in os.environ.items() if k not in ('RANK','WORLD_SIZE','PERCEPTUAL_PART')}
    return subprocess.Popen([sys.executable, '-c', job, str(pause), str(src), str(dst)], env=clean | env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def two(src, dst, pause=0): return [start(src, dst, pause, RANK=str(i), WORLD_SIZE='2') for i in (0,1)]


def ended(processes):
    "What each of them said"
    said = [p.communicate(timeout=120) for p in processes]
    assert not [p.returncode for p in processes if p.returncode], said
    return [out for out,_ in said]


def results(dst): return {f.relative_to(dst).as_posix():f.read_bytes() for f in all_files(dst)}


def made(dst):
    "How often each result stands in the journals"
    lines = [json.loads(o) for f in dst.glob(f'{JOURNAL[:-6]}*.jsonl') for o in f.read_text().splitlines()]
    return Counter(o['file'] for o in lines if 'file' in o)


@pytest.fixture(scope='module')
def photos(tmp_path_factory): return sample_photos(tmp_path_factory.mktemp('photos'))


@pytest.fixture(scope='module')
def whole(photos, tmp_path_factory):
    "What one process makes of them"
    dst = tmp_path_factory.mktemp('whole')/'dst'
    ended([start(photos, dst)])
    return results(dst)


def test_two_processes_share_a_folder_and_one_of_them_is_killed(photos, whole, tmp_path):
    dst = tmp_path/'dst'
    first,second = two(photos, dst, .4)
    own = dst/f'{JOURNAL[:-6]}.2of2.jsonl'
    while second.poll() is None and not (own.exists() and 3<=len(own.read_text().splitlines())<5): time.sleep(.02)
    second.kill()
    second.wait()
    out,_ = first.communicate(timeout=120) # does not wait for the dead
    assert '5 written' in out and out.count('part 2 of 2 ended before it told; run it again')==5, out
    before = made(dst)
    assert 5<sum(before.values())<10 and max(before.values())==1, before

    again = ended(two(photos, dst))
    assert '0 failed' in again[0] and '10 written' not in again[0] and again[1].strip()=='part 2 of 2 is done', again
    got = results(dst)
    table = lambda files: [','.join(o.split(',')[:1]+o.split(',')[2:3]) for o in files['turn.csv'].decode().splitlines()]
    assert table(got)==table(whole) and len(table(got))==11 # the same photos, in the same order, nothing to remark
    assert {k:v for k,v in got.items() if k!='turn.csv'}=={k:v for k,v in whole.items() if k!='turn.csv'}
    assert len([k for k,n in made(dst).items() if n>1 and k!='turn.csv'])<=1 # one may have been killed on the way to its place
    assert not list(dst.rglob('.*.part'))


def test_each_file_once_whatever_the_number(photos, whole, tmp_path):
    dst = tmp_path/'dst'
    out = ended([start(photos, dst, RANK=str(i), WORLD_SIZE='3') for i in range(3)])
    assert '10 written, 0 skipped, 0 failed' in out[0] and [o.strip() for o in out[1:]]==['part 2 of 3 is done', 'part 3 of 3 is done']
    assert results(dst)==whole
    assert made(dst)==Counter(list(whole)) # each once, and one report
    assert '0 written, 10 skipped' in ended([start(photos, dst)])[0] # another number takes it up


def test_parts_that_do_not_run_at_one_time(photos, whole, tmp_path):
    dst = tmp_path/'dst'
    for i in (2,3,1):
        out = ended([start(photos, dst, PERCEPTUAL_PART=f'{i}/3')])[0]
        assert (dst/'turn.csv').exists()==(i==1), out
    assert 'part 1 of 3: 10 written' in out and results(dst)==whole


def test_a_training_refuses_a_part(photos, tmp_path, monkeypatch):
    from perceptual_fastai.datasets import prepare
    monkeypatch.setenv('PERCEPTUAL_PART', '1/2')
    with pytest.raises(ValueError, match='preparing photos needs the whole folder'):
        prepare(photos, tmp_path/'work', 64, Crappifier.johnson(4))
