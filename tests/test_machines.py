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
    try:
        said = [p.communicate(timeout=600) for p in processes]
    finally:
        for p in processes: p.kill()
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
    out,_ = first.communicate(timeout=600) # does not wait for the dead
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
    assert out.startswith('10 written, 0 skipped, 0 failed') and results(dst)==whole # the last one tells of all


def test_a_training_refuses_a_part(photos, tmp_path, monkeypatch):
    from perceptual_fastai.datasets import prepare
    monkeypatch.setenv('PERCEPTUAL_PART', '1/2')
    with pytest.raises(ValueError, match='preparing photos needs the whole folder'):
        prepare(photos, tmp_path/'work', 64, Crappifier.johnson(4))


training = '''
import json, os, sys, warnings
warnings.simplefilter('ignore')
from pathlib import Path
import torch
from fastai.vision.all import Callback, F, set_seed
from fastai.distributed import *
from perceptual_fastai.checkpoint import Checkpoint
from perceptual_fastai.learner import enhance_learner, plain_log
from perceptual_fastai.pairs import pair_dls
from perceptual_fastai.sr import EDSR

torch.set_num_threads(1)
clean,bad,out,bs,last = *map(Path, sys.argv[1:4]),*map(int, sys.argv[4:])
class Break(Callback):
    order = 90 # after the checkpoint
    def after_epoch(self):
        if self.epoch==last: raise KeyboardInterrupt
set_seed(int(os.environ['RANK'])) # each begins with other weights, another order and other crops
dls = pair_dls(bad, clean, 24, bs, valid=['chelsea','flower','coffee'], repeat=4, device='cpu') # three held-out photos: no batch of 8, nor of 4
model = EDSR(1, 1, 8, residual=True)
for p in model.parameters(): torch.nn.init.normal_(p, std=.05)
learn,ck = enhance_learner(dls, model, F.l1_loss, path=out),Checkpoint(out/'train.ck')
try:
    with plain_log(learn), learn.distrib_ctx():
        learn.fit_one_cycle(4, 1e-2, cbs=[ck, Break()], start_epoch=ck.done)
except KeyboardInterrupt: pass
rec = learn.recorder
(out/f"{os.environ['RANK']}.json").write_text(json.dumps(dict(losses=[o.item() for o in rec.losses], values=[list(o) for o in rec.values])))
'''


def train(script, photos, out, n, bs, last=9):
    "The training in `n` processes of a launcher"
    pytest.importorskip('accelerate')
    out.mkdir(exist_ok=True)
    env = {k:v for k,v in os.environ.items() if k not in ('RANK','WORLD_SIZE','PERCEPTUAL_PART')}
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(n), str(script)]
    args = [*photos, out, bs, last]
    return subprocess.Popen([*run, *map(str, args)], env=env | dict(ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1'), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_processes_train_as_one_and_one_goes_on(photos, tmp_path):
    from perceptual_fastai.crappify import downscale
    from perceptual_fastai.photos import open_photo
    clean,bad,script = tmp_path/'clean',tmp_path/'bad',tmp_path/'train.py'
    clean.mkdir()
    for f in all_files(photos): downscale(open_photo(f), 40).save(clean/f'{f.stem}.png')
    crappify_folder(clean, bad, Crappifier.lesson7(), progress=False)
    script.write_text(training)

    one,two = [train(script, (clean,bad), tmp_path/name, *how) for name,how in dict(one=(1,8), two=(2,4,1)).items()]
    told = ended([one, two])
    assert [o.count('epoch ') for o in told]==[4,2], told # one process tells
    read = lambda name, rank=0: json.loads((tmp_path/name/f'{rank}.json').read_text())
    whole,first,second = read('one'),read('two'),read('two', 1)
    assert len(whole['losses'])==12 and len(first['losses'])==6 and first['losses']==second['losses']
    near = lambda a,b: pytest.approx(a, rel=2e-4)==b
    assert near(first['losses'], whole['losses'][:6]), (first, whole)
    assert near([v for o in first['values'] for v in o[:4]], [v for o in whole['values'][:2] for v in o[:4]])
    assert len({round(o, 6) for o in whole['losses']})==12 and whole['losses'][-1]<whole['losses'][0]

    ended([train(script, (clean,bad), tmp_path/'two', 1, 8)]) # another number of processes
    again = read('two')
    assert near(again['losses'], whole['losses']) and near([o[1] for o in again['values']], [o[1] for o in whole['values']]), (again, whole)
