"A NoGAN run that is killed outright in every stage, and comes to the same end as one in one piece"
import subprocess, sys, time

import pandas as pd
import torch

job = '''
import sys, time, warnings
warnings.simplefilter('ignore', FutureWarning)
from pathlib import Path
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.vision.gan import gan_critic
from perceptual_fastai.crappify import Crappifier, crappify_folder, downscale
from perceptual_fastai.features import LossNetwork
from perceptual_fastai.gan import NoganPlan, nogan
from perceptual_fastai.stop_rule import StopRule
from perceptual_fastai.pairs import pair_dls
from perceptual_fastai.files import atomic_write
from perceptual_fastai.photos import HELD_OUT, find_photos, open_photo, sample_photos

torch.set_num_threads(1)
root,name,pause = Path(sys.argv[1]),sys.argv[2],float(sys.argv[3])
clean,spoiled = root/'clean',root/'spoiled'
if not spoiled.exists():
    for f in find_photos(sample_photos(root/'photos'), progress=False):
        atomic_write(clean/f'{f.stem}.png', lambda p: downscale(open_photo(f), 96).save(p, 'PNG'))
    crappify_folder(clean, spoiled, Crappifier.johnson(4), progress=False)

class Slow(Callback):
    order = 95 # after the checkpoint
    def after_epoch(self): time.sleep(pause)
class Gen(nn.Sequential):
    pretrained = True # says so, to have the frozen stage, too
    def __init__(self): super().__init__(nn.Conv2d(3,8,3,padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(.1), nn.Conv2d(8,3,3,padding=1))
    def forward(self, x): return x+super().forward(x)

def at(folder, size, bs): return pair_dls(folder, clean, size, bs, valid=HELD_OUT, device='cpu')
torch.manual_seed(int(time.time()*1e6)%2**31 if name=='broken' else 1) # what was drawn before must not matter, first weights aside
rule = StopRule(*at(spoiled, 64, 2).valid.one_batch(), LossNetwork('squeezenet1_1', weights=None), every=2, patience=99)
torch.manual_seed(1)
table = nogan(at, spoiled, clean, root/name, Gen(), gan_critic(nf=4), plan=NoganPlan(64, 4, 2, 3, 1e-2, 3, 2e-3, 3, 1e-3, 80, 2, 2), rule=rule, cbs=Slow(), critic_thresh=2.)
table.drop(columns='time', errors='ignore').to_pickle(root/f'{name}.table')
rule.table().to_pickle(root/f'{name}.looks')
'''


def run(root, name, pause, kill_at=None):
    "Run the job; kill it once the file `kill_at` is there. The exit status"
    p = subprocess.Popen([sys.executable, '-c', job, str(root), name, str(pause)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if kill_at:
        end = time.time()+120
        while p.poll() is None and time.time()<end and not (root/name/kill_at).exists(): time.sleep(.01)
        assert p.poll() is None, p.communicate()[1]
        time.sleep(.2) # into the next epoch, or right after the checkpoint
        p.kill()
    err = p.communicate()[1]
    assert kill_at or p.returncode==0, err


def test_killed_in_every_stage_comes_to_the_same_end(tmp_path):
    run(tmp_path, 'whole', 0)
    for stage in ('1_frozen.ck', '2_generator.ck', 'rendered/coffee.png', '3_critic.ck', '4_duel.ck', '5_duel.ck'): run(tmp_path, 'broken', .3, stage)
    cut = torch.load(tmp_path/'broken'/'5_duel.ck', weights_only=True)
    assert cut['epoch']<cut['epochs'], 'killed too late to show anything'
    run(tmp_path, 'broken', 0)
    for what in ('table','looks'): pd.testing.assert_frame_equal(pd.read_pickle(tmp_path/f'whole.{what}'), pd.read_pickle(tmp_path/f'broken.{what}'), check_exact=True)
    a,b = [torch.load(tmp_path/n/'5_duel.ck', weights_only=True)['model'] for n in ('whole','broken')]
    assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)
