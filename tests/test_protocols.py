"""fastai's protocols, with every loss and both kinds of `pair_dls`

fit, validate, predict, get_preds, show_results, Interpretation, export, load_learner: a learner of ours answers all
of them as fastai's own do, whatever its loss is and wherever its pairs come from. Losses and pairs are tables; the
next one is a row more."""
import shutil, subprocess, sys
from functools import partial

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.interpret import Interpretation
from fastai.learner import load_learner
from fastai.torch_core import set_seed
from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.features import LossNetwork
from perceptual_fastai.images import from_batch, to_batch
from perceptual_fastai.learner import enhance_learner
from perceptual_fastai.losses import (FeatureLoss, LayerLoss, MixedLoss, OfPrediction, charbonnier_loss, srcnn_loss,
                                      style_reconstruction, total_variation)
from perceptual_fastai.pairs import pair_dls
from perceptual_fastai.photos import open_photo
from perceptual_fastai.sr import EDSR

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:load_learner", "ignore:You are shadowing")
held = ['a3', 'a4', 'a5']
blurry = Crappifier.deblur(1.)


def plain(pred, target):
    "A loss that knows nothing of `reduction`"
    return (pred-target).abs().mean()

def network():
    return LossNetwork('squeezenet1_1', ['relu1', 'fire3'], weights=None)

def mixed():
    return MixedLoss(mse=(.5, F.mse_loss), l1=(.1, nn.L1Loss()), round=(.1, charbonnier_loss), own=(.1, plain), off=(0, plain),
                     seen=(.2, FeatureLoss(network(), (1.,1.), 1.)), smooth=(.1, OfPrediction(total_variation)))

losses = dict(
    features = lambda: FeatureLoss(network(), (1.,2.), 10.),
    shifted = lambda: FeatureLoss(network(), (1.,2.), 10., shift=2),
    layers = lambda: LayerLoss(network()),
    style = lambda: LayerLoss(network(), style_reconstruction),
    mixed = mixed,
    nested = lambda: MixedLoss(mix=(2., mixed()), l1=(1., F.l1_loss)),
    srcnn = lambda: srcnn_loss(network()),
    prediction = lambda: OfPrediction(total_variation, aim=.1),
    charbonnier = lambda: charbonnier_loss,
    l1 = nn.L1Loss,
    mse = nn.MSELoss)

pairs = dict(
    folders = dict(spoiled=True),
    fly = dict(spoiled=None, crappifier=blurry),
    twice = dict(spoiled=None, crappifier=Crappifier.bicubic(2), factor=2))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "A folder with `clean` and `spoiled` images, and one outside of it"
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for name in ('clean/a0', 'clean/a1', 'clean/a2', *(f'clean/{n}' for n in held), 'elsewhere/mine'):
        f = root/f'{name}.png'
        f.parent.mkdir(exist_ok=True)
        tiles = Image.fromarray(rng.integers(0, 256, (6,8,3)).astype(np.uint8))
        tiles.resize((50,38), Image.Resampling.BICUBIC).save(f)
    crappify_folder(root/'clean', root/'spoiled', blurry, progress=False)
    return root

def dls_of(kind, root, **kwargs):
    kw = pairs[kind] | kwargs
    if kw['spoiled']:
        kw = kw | dict(spoiled=root/'spoiled')
    return pair_dls(clean=root/'clean', size=32, bs=2, valid=held, device='cpu', **kw)

def learner(kind, root, path, loss, **kwargs):
    set_seed(0)
    generator = EDSR(pairs[kind].get('factor', 1), blocks=1, features=4)
    return enhance_learner(dls_of(kind, root), generator, loss, path=path, **kwargs)

def close(a, b, tol=1e-5):
    return torch.allclose(torch.as_tensor(a).float(), torch.as_tensor(b).float(), rtol=tol, atol=tol)


def fits(learn, file):
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[-1]).all()
    assert any((a!=b).any() for a,b in zip(before, learn.model.parameters()))

def gives_a_loss_per_image(learn, file):
    preds,targets,each = learn.get_preds(with_loss=True)
    assert preds.shape==targets.shape==(3,3,32,32) and each.shape==(3,)
    assert close(each.mean(), learn.validate()[0])
    if hasattr(learn.loss_func, 'reduction'):
        assert learn.loss_func.reduction=='mean' # as it was
    for i in range(3):
        with torch.no_grad():
            assert close(each[i], learn.loss_func(preds[i:i+1], targets[i:i+1]))

def predicts_the_file_as_it_is(learn, file):
    im = open_photo(file)
    with torch.no_grad():
        want = learn.model.eval()(to_batch(im))[0]
    for given in (file, str(file), im):
        shown,out,same = learn.predict(given)
        assert close(out, want) and close(same, want)
        pixels = np.array(from_batch(want[None])).astype(int)
        assert np.abs(shown.permute(1,2,0).numpy()-pixels).max()<=1 # fastai rounds down
    return want

def shows_results(learn, file):
    learn.show_results(max_n=2)
    assert plt.gcf().axes

def interprets(learn, file):
    interp = Interpretation.from_learner(learn)
    values,idxs = interp.top_losses()
    assert close(interp.losses.mean(), learn.validate()[0]) and close(values, interp.losses[idxs])
    worst,targets = interp[idxs[:1]][1:3]
    with torch.no_grad():
        assert close(learn.loss_func(worst, targets), values[0]) # the same damage and the same crop again
    plt.close('all')
    interp.plot_top_losses(2)
    assert f'loss {values[0]:.4g}' in ' '.join(ax.get_title() for ax in plt.gcf().axes)
    interp.show_results([0])

def loads_elsewhere(learn, file, tmp_path, monkeypatch):
    want = predicts_the_file_as_it_is(learn, file)
    learn.export('learner.pkl')
    (tmp_path/'away').mkdir()
    monkeypatch.chdir(tmp_path/'away')
    with load_learner(tmp_path/'learner.pkl').no_bar() as loaded: # fastai's context gives the learner
        assert close(loaded.predict(str(file))[2], want)


@pytest.mark.parametrize('kind', pairs)
@pytest.mark.parametrize('loss', losses)
def test_protocols(loss, kind, photos, tmp_path, monkeypatch):
    learn = learner(kind, photos, tmp_path, losses[loss]())
    with learn.no_bar(), learn.no_logging():
        for check in (fits, gives_a_loss_per_image, predicts_the_file_as_it_is, shows_results, interprets,
                      partial(loads_elsewhere, tmp_path=tmp_path, monkeypatch=monkeypatch)):
            check(learn, photos/'elsewhere'/'mine.png')
    plt.close('all')


def test_loads_in_another_process_without_the_images(photos, tmp_path):
    "Another process, another folder, and the images that it learnt from are gone"
    root,away,kinds = tmp_path/'photos',tmp_path/'away',('fly','twice')
    shutil.copytree(photos, root)
    away.mkdir()
    shutil.copy(photos/'elsewhere'/'mine.png', away)
    want = []
    for kind in kinds:
        learn = learner(kind, root, tmp_path, nn.L1Loss())
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
            want.append(learn.predict(photos/'elsewhere'/'mine.png')[2])
        learn.export(f'{kind}.pkl')
    shutil.rmtree(root)
    job = ('import sys, torch; from fastai.learner import load_learner\n'
           'for kind in sys.argv[1:]:\n'
           '    with load_learner(f"../{kind}.pkl").no_bar() as learn:\n'
           '        torch.save(torch.Tensor(learn.predict("mine.png")[2]), f"{kind}.pt")')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', job, *kinds], cwd=away, check=True)
    for kind,out in zip(kinds, want):
        assert close(torch.load(away/f'{kind}.pt'), out)


def test_an_exported_learner_holds_no_images(photos, tmp_path):
    learn = learner('fly', photos, tmp_path, nn.L1Loss())
    sizes = []
    for cache in (False, True):
        learn.dls = dls_of('fly', photos, cache=cache)
        learn.export('learner.pkl')
        sizes.append((tmp_path/'learner.pkl').stat().st_size)
    assert abs(sizes[1]-sizes[0])<500 # a cache of nine images would take 50,000 bytes


def test_pairs_stay_pairs(photos):
    "`test_dl` with pairs spoils and crops them as validation does, wherever they lie"
    for kind in ('fly', 'twice'):
        dls = dls_of(kind, photos)
        want = dls.valid.one_batch()
        for a,b in zip(want, dls.test_dl(dls.valid_ds.items, with_labels=True).one_batch()):
            assert close(a, b)
        assert close(want[0], dls.test_dl(dls.valid_ds.items).one_batch()[0]) # without the clean side
        mine = photos/'elsewhere'/'mine.png'
        x,y = dls.test_dl([(mine,mine)], with_labels=True).one_batch()
        assert y.shape==(1,3,32,32) and x.shape[-1]*pairs[kind].get('factor', 1)==32


class Weights(Callback):
    "Before each validation, the generator's last weights are replaced"
    def __init__(self, *values): self.values = values
    def before_validate(self):
        with torch.no_grad():
            self.learn.model.bias.fill_(self.values[self.epoch])


class Add(nn.Module):
    "Output = input + bias"
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
    def forward(self, x): return x+self.bias


def test_perfect_images_and_nan_in_the_best_of_epochs(photos, tmp_path):
    "A perfect image has no finite PSNR: that epoch can be the best; one that is not a number can't"
    shutil.copytree(photos, tmp_path/'photos')
    root = tmp_path/'photos'
    shutil.copy(root/'clean'/'a4.png', root/'spoiled'/'a4.png') # nothing to restore, so restored perfectly
    def best(*values, **kwargs):
        learn = enhance_learner(dls_of('folders', root), Add(), nn.L1Loss(), path=tmp_path, cbs=[
            Weights(*values), SaveModelCallback(monitor='psnr'), EarlyStoppingCallback(monitor='psnr', **kwargs)])
        with learn.no_bar(), learn.no_logging():
            learn.fit(len(values), 0.)
        return [row[2] for row in learn.recorder.values],learn.model.bias.item()
    psnrs,bias = best(.5, 0., float('nan'), .1, 9., patience=2)
    assert np.isfinite(psnrs[:2]).all() and np.isnan(psnrs[2]) and len(psnrs)==4 # stopped two epochs after the best
    assert psnrs[1]>100/3 and bias==0.
    psnrs,bias = best(float('nan'), .5, 0., patience=3)
    assert np.isnan(psnrs[0]) and len(psnrs)==3 and bias==0.
