"""Recipes: what the course and the papers set is what the file, the batch and the optimiser really had

Nothing here reads a setting where it is written. Photos are spoiled and looked at, batches are drawn and measured, whole
trainings run on networks of a few numbers while a callback notes what the optimiser has in every step.
`benchmarks/mutants.py` changes the settings one by one and sees that these tests notice."""
import math
import random
import warnings
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageFilter
from torch import nn

from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.data.transforms import RandomSplitter
from fastai.layers import NormType, SequentialEx
from fastai.torch_core import set_seed
from perceptual_fastai import crappify as crappify_room
from perceptual_fastai import features as features_room
from perceptual_fastai import metrics as metrics_room
from perceptual_fastai import unet as unet_room
from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.critic import patch_critic
from perceptual_fastai.datasets import pick_held_out
from perceptual_fastai.features import LossNetwork
from perceptual_fastai.gan import NoganPlan, critic_learner, nogan, nogan_learner
from perceptual_fastai.learner import enhance_learner, fit_stages, lesson7_stages, restore
from perceptual_fastai.losses import (FeatureLoss, LayerLoss, MixedLoss, gram_matrix, srcnn_loss, style_reconstruction,
                                      total_variation)
from perceptual_fastai.metrics import DISTS, LPIPS, dists, lpips
from perceptual_fastai.pairs import lesson7_augment, pair_dls
from perceptual_fastai.sr import EDSR, MDSR, SRCNN, TransformNet
from perceptual_fastai.unet import Unet, unet

torch.set_num_threads(1)
mean,std = torch.tensor([.485,.456,.406])[:,None,None],torch.tensor([.229,.224,.225])[:,None,None]


def near(a, b, tol=1e-5):
    return torch.allclose(torch.as_tensor(a).float(), torch.as_tensor(b).float(), rtol=tol, atol=tol)


# --- the files: what is spoiled, and how much

@pytest.fixture
def spoiled(monkeypatch):
    "Black photos spoiled by `lesson7`, with the JPEG tables of the round trip that each of them made"
    tables = []
    def note(f, *args, **kwargs):
        im = opened(f, *args, **kwargs)
        tables.append(im.quantization)
        return im
    opened = Image.open
    monkeypatch.setattr(Image, 'open', note)
    make,black = Crappifier.lesson7(),Image.new('RGB', (288,192))
    ims = [make(black, f'{i}.jpg') for i in range(250)]
    return SimpleNamespace(ims=ims, tables=tables)

def quality_tables():
    "Luma table -> JPEG quality"
    import io
    out = {}
    for q in range(1, 96):
        buf = io.BytesIO()
        Image.new('RGB', (8,8)).save(buf, 'JPEG', quality=q)
        out[tuple(Image.open(io.BytesIO(buf.getvalue())).quantization[0])] = q
    return out

def test_lesson7_quality_is_drawn_used_and_written(spoiled, monkeypatch):
    monkeypatch.undo()
    names = quality_tables()
    used = [names[tuple(t[0])] for t in spoiled.tables]
    assert len(used)==250 and min(used)==10 and max(used)==70 and len(set(used))>50
    words = []
    monkeypatch.setattr(crappify_room.ImageDraw.ImageDraw, 'text', lambda self, xy, text, fill=None: words.append((text, fill)))
    make = Crappifier.lesson7()
    for i in range(250):
        make(Image.new('RGB', (288,192)), f'{i}.jpg')
    assert [int(t) for t,_ in words]==used and {f for _,f in words}=={'white'}

def test_lesson7_writes_before_it_compresses(monkeypatch):
    calls = []
    def noted(name, f): return lambda *args: (calls.append(name), f(*args))[1]
    for name in ('downscale', 'caption', 'jpeg'):
        monkeypatch.setattr(crappify_room, name, noted(name, getattr(crappify_room, name)))
    Crappifier.lesson7()(Image.new('RGB', (288,192)), 'a')
    assert calls==['downscale', 'caption', 'jpeg']

def test_lesson7_caption_begins_anywhere_in_the_top_left_quarter(spoiled):
    left,top = [],[]
    for im in spoiled.ims:
        assert im.size==(144,96)
        ys,xs = np.nonzero(np.asarray(im.convert('L'))>170)
        left.append(xs.min())
        top.append(ys.min())
    assert max(left)<=72+4 and max(top)<=48+6
    assert min(left)<=8 and max(left)>=60 and min(top)<=8 and max(top)>=42

def test_lesson7_shrinks_by_bilinear_to_96(monkeypatch):
    monkeypatch.setattr(crappify_room, 'jpeg', lambda im, q: im)
    monkeypatch.setattr(crappify_room, 'caption', lambda im, *args: im)
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200,300,3)).astype(np.uint8))
    out = Crappifier.lesson7()(im, 'a')
    assert out.size==(144,96) and out.tobytes()==im.resize((144,96), Image.Resampling.BILINEAR).tobytes()

def test_damage_depends_on_name_and_seed_alone():
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120,120,3)).astype(np.uint8))
    a,b = Crappifier.lesson7(),Crappifier.lesson7(seed=42)
    assert a(im, 'x').tobytes()==b(im, 'x').tobytes()
    assert a(im, 'x').tobytes()!=a(im, 'y').tobytes() and a(im, 'x').tobytes()!=Crappifier.lesson7(seed=43)(im, 'x').tobytes()

def test_blurred_and_shrunk_inputs_of_the_papers():
    im = Image.fromarray(np.random.default_rng(1).integers(0, 256, (67,90,3)).astype(np.uint8))
    cut = im.crop((0, 0, 88, 64))
    small = cut.resize((22,16), Image.Resampling.BICUBIC)
    assert Crappifier.bicubic()(im, 'a').tobytes()==small.tobytes()
    soft = cut.filter(ImageFilter.GaussianBlur(1.0))
    assert Crappifier.johnson()(im, 'a').tobytes()==soft.resize((22,16), Image.Resampling.BICUBIC).tobytes()
    assert Crappifier.deblur()(im, 'a').tobytes()==im.filter(ImageFilter.GaussianBlur(2.0)).tobytes()
    flat,dot = np.zeros((41,41)),np.zeros((41,41), np.uint8)
    dot[20,20] = 255
    seen = np.asarray(Crappifier.deblur(1.)(Image.fromarray(np.stack([dot]*3, 2)), 'a'))[...,0]/255
    flat += seen/seen.sum()
    assert abs(math.sqrt((flat.sum(0)*(np.arange(41)-20)**2).sum())-1.)<.12 # sigma, measured


# --- the batches: crop, flip, zoom, place, normalisation, split

def gradients(w, h, n):
    "Red tells the column, green the row, blue the photo"
    x,y = np.meshgrid(np.linspace(0, 255, w), np.linspace(0, 255, h))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 10*n)], 2).round().astype(np.uint8))

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "`clean` 160x128, `spoiled` half of that"
    root = tmp_path_factory.mktemp('photos')
    for n in range(20):
        for name,size in dict(clean=(160,128), spoiled=(80,64)).items():
            (root/name).mkdir(exist_ok=True)
            gradients(*size, n).save(root/name/f'{n:02d}.png')
    return root

def boxes(y, w=160, h=128):
    "Side of the crop, its centre, and whether it is mirrored, of every image in a batch"
    y = torch.as_tensor(y)*std+mean
    n = y.shape[-1]
    out = []
    for im in y:
        x0,x1 = [im[0,:,i].mean().item()*(w-1) for i in (0,-1)]
        y0,y1 = [im[1,i].mean().item()*(h-1) for i in (0,-1)]
        out.append(((y1-y0)*n/(n-1), (x0+x1)/2, (y0+y1)/2, x0>x1))
    return [np.array(o) for o in zip(*out)]

def all_of(dl): return [torch.cat([o.as_subclass(torch.Tensor).cpu() for o in side]) for side in zip(*dl)]

def test_training_crops_are_zoomed_moved_and_mirrored_and_validation_crops_are_not(photos):
    random.seed(0)
    dls = pair_dls(photos/'spoiled', photos/'clean', 32, 6, valid=['00','01'], repeat=10, device='cpu')
    x,y = all_of(dls.train)
    assert len(y)==180
    assert (x-y).abs()[:,:2].mean()<.06 # both sides alike, each at its own resolution
    side,cx,cy,mirrored = boxes(y)
    assert 62<side.min()<70 and 122<side.max()<130 # zoom 1 to 2 of 128
    assert .35<mirrored.mean()<.65
    for c,n in ((cx,160), (cy,128)):
        at = (c-side/2)/(n-side).clip(8) # 0 to 1: where the crop lies in the room that it has
        inner = at[side<100]
        assert inner.min()<.15 and inner.max()>.85 and abs(inner.mean()-.5)<.12
    x,y = all_of(dls.valid)
    side,cx,cy,mirrored = boxes(y)
    assert len(y)==2 and not mirrored.any() and abs(side-128).max()<2 and abs(cx-79.5).max()<1 and abs(cy-63.5).max()<1

def test_zoom_ends_where_pixels_would_be_enlarged(photos):
    random.seed(0)
    dls = pair_dls(photos/'spoiled', photos/'clean', 96, 6, valid=['00','01'], repeat=4, device='cpu')
    side,*_ = boxes(all_of(dls.train)[1])
    assert 94<side.min()<102 and 120<side.max()<130

def test_augmentation_is_the_courses_on_both_sides_and_not_in_validation(photos):
    set_seed(0)
    kw = dict(size=32, bs=10, valid=['00','01'], repeat=10, flip=False, zoom=(1,1), device='cpu')
    dls = pair_dls(photos/'clean', photos/'clean', augment=lesson7_augment(), **kw)
    x,y = all_of(dls.train)
    assert near(x, y)
    assert near(all_of(dls.valid)[1], all_of(pair_dls(photos/'clean', photos/'clean', **kw).valid)[1])
    red,green = (y*std+mean)[:,0,8:24,8:24],(y*std+mean)[:,1,8:24,8:24]
    def slope(o, dim): return o.diff(dim=dim).mean((1,2))
    angle = torch.rad2deg(torch.atan2(slope(green, 2), slope(green, 1))).abs() # green runs down, unless it was turned
    assert 7<angle.max()<20 and .03<(angle<.3).float().mean()<.4
    bend = (slope(red[...,8:], 2)/slope(red[...,:8], 2)).log().abs() # a warp alone makes one half steeper than the other
    assert .3<bend.max()<.6 and .5<(bend>.01).float().mean()<.98
    light = (green.mean((1,2))-.5).abs() # warp and light together; either alone moves it by a tenth
    assert .13<light.max()<.25 and .03<(light<.004).float().mean()<.3

def test_batches_are_normalised_by_imagenet_on_both_sides(photos):
    dls = pair_dls(photos/'spoiled', photos/'clean', 32, 2, valid=['03'], device='cpu')
    for batch,name in zip(all_of(dls.valid), ('spoiled','clean')):
        im = Image.open(photos/name/'03.png')
        w,h = im.size
        crop = im.resize((32,32), Image.Resampling.BILINEAR, box=((w-h)/2, 0, (w+h)/2, h))
        want = (torch.from_numpy(np.array(crop)).permute(2,0,1)/255-mean)/std
        assert (batch[0]-want).abs().max()<.03 # half a level of eight bits

def test_patches_for_a_factor_are_placed_and_turned_eight_ways(photos):
    random.seed(0)
    dls = pair_dls(photos/'spoiled', photos/'clean', 32, 6, valid=['00'], factor=2, repeat=10, device='cpu')
    x,y = all_of(dls.train)
    ways,places = set(),[]
    for im in y*std+mean:
        across,down = (im[:2,:,-1]-im[:2,:,0]).mean(1),(im[:2,-1]-im[:2,0]).mean(1)
        axis = int(across[0].abs()<across[1].abs()) # does green, not red, run across?
        ways.add((axis, bool(across[axis]>0), bool(down[1-axis]>0)))
        places.append(im.mean((1,2))[:2])
    assert len(ways)==8
    places = torch.stack(places)
    assert (places.amin(0)<.2).all() and (places.amax(0)>.8).all()
    small = F.avg_pool2d(y, 2)
    assert (x-small)[:,:2].abs().mean()<.05
    side,cx,cy,mirrored = boxes(all_of(dls.valid)[1])
    assert not mirrored.any() and abs(side-32).max()<1.5 and abs(cx-79.5).max()<2 and abs(cy-63.5).max()<2

def test_a_tenth_is_held_out_as_in_the_course(photos):
    dls = pair_dls(photos/'spoiled', photos/'clean', 16, 2, device='cpu')
    names = [f.name for f in sorted((photos/'clean').iterdir())]
    want = {names[i] for i in RandomSplitter(.1, seed=42)(names)[1]}
    held = {round(float(im[2].mean()*.225+.406)*25.5) for im in all_of(dls.valid)[1]}
    assert {f'{i:02d}.png' for i in held}==want and len(want)==2
    assert len(pick_held_out([f'{i}.png' for i in range(100)]))==10

def test_a_batch_is_32_of_128_pixels(photos):
    x,y = pair_dls(photos/'spoiled', photos/'clean', repeat=2, device='cpu').one_batch()
    assert x.shape==y.shape==(32,3,128,128)


# --- the optimiser: every stage of both trainings

class Tiny(Unet):
    "The smallest network with an encoder of eight parts and a decoder"
    pretrained = True
    def __init__(self):
        SequentialEx.__init__(self, nn.Sequential(*[nn.Conv2d(3 if i==0 else 2, 2, 1) for i in range(8)]), nn.Conv2d(2, 3, 1))
    def forward(self, x): return x + SequentialEx.forward(self, x)

def numbers(module): return torch.cat([p.detach().flatten().clone() for p in module.parameters()])

class Spy(Callback):
    "What a fit had: its data, its epochs, and in every step the optimiser's settings"
    order = 1000
    def __init__(self): self.fits = []
    def before_fit(self):
        self.fit = SimpleNamespace(dls=self.dls, loss=self.learn.loss_func, epochs=0, steps=[], losses=[], moved={}, turns=[])
        self.fits.append(self.fit)
        model = getattr(self.model, 'generator', self.model)
        self.parts = {'encoder':model[0], 'decoder':model[1]} if isinstance(model, Tiny) else {'all':model}
        self.was = {k:numbers(m) for k,m in self.parts.items()}
        self.fit.asks = {k:any(p.requires_grad for p in m.parameters()) for k,m in self.parts.items()}
    def before_epoch(self): self.fit.epochs += 1
    def before_step(self):
        self.fit.steps.append([dict(o) for o in self.learn.opt.hypers])
        gan = getattr(self.learn, 'gan_trainer', None)
        self.fit.turns.append('generator' if gan is None or gan.gen_mode else 'critic')
        self.fit.losses.append(float(self.learn.loss))
    def after_fit(self):
        self.fit.moved = {k:not torch.equal(self.was[k], numbers(m)) for k,m in self.parts.items()}

def rates(fit, i=-1): return [step[i]['lr'] for step in fit.steps]

def rises(fit):
    "Share of the steps before the highest rate"
    lrs = rates(fit)
    return lrs.index(max(lrs))/len(lrs)

def had(fit, name): return {round(h[name], 8) for step in fit.steps for h in step}

def tensors(size, bs, folder=None, batches=2):
    "Batches of one pair of 8x8 images, which remember what was asked for"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batches, 3, 8, 8, generator=g)
    halves = [DataLoader(list(zip(x, x*.9+.3)), bs=1, device='cpu') for _ in range(2)]
    dls = DataLoaders(*halves, device='cpu')
    dls.asked = (size, bs)
    dls.folder = folder
    return dls

@pytest.fixture(scope='module')
def lesson7_fits(tmp_path_factory):
    "All of lesson 7's stages, with all their epochs"
    set_seed(0)
    spy = Spy()
    learn = enhance_learner(tensors(0, 0), Tiny(), F.l1_loss, metrics=[], cbs=[spy], path=tmp_path_factory.mktemp('lesson7'))
    with learn.no_bar(), learn.no_logging():
        table = fit_stages(learn, lesson7_stages(), tensors)
    return spy.fits,table

def test_lesson7_stages_sizes_epochs_and_freezing(lesson7_fits):
    fits,table = lesson7_fits
    assert [o.dls.asked for o in fits]==[(128,32), (128,32), (256,12), (256,12)]
    assert [o.epochs for o in fits]==[10]*4 and len(table)==40
    assert [o.asks for o in fits]==[dict(encoder=e, decoder=True) for e in (False, True, False, True)]
    assert [o.moved for o in fits[:2]]==[dict(encoder=e, decoder=True) for e in (False, True)]
    assert [bool(o) for o in table.frozen]==[True]*10+[False]*10+[True]*10+[False]*10

def test_lesson7_encoder_that_is_frozen_again_stays(lesson7_fits):
    assert [o.moved for o in lesson7_fits[0][2:]]==[dict(encoder=False, decoder=True), dict(encoder=True, decoder=True)]

def test_lesson7_rates_as_the_optimiser_had_them(lesson7_fits):
    fits,_ = lesson7_fits
    decoder = [1e-2, 1e-3, 1e-3, 1e-4]
    assert [max(rates(o)) for o in fits]==pytest.approx(decoder, rel=1e-6)
    for fit,first in ((fits[1], 1e-5), (fits[3], 1e-6)): # a slice: the encoder begins at its low end
        assert [max(rates(fit, i)) for i in (0, 1)]==pytest.approx([first, math.sqrt(first*max(rates(fit)))], rel=1e-6)
    assert [rises(o) for o in fits]==pytest.approx([.9, .9, .9, .3])
    assert all(had(o, 'wd')=={1e-3} for o in fits)

def test_restore_brings_the_image_to_size_by_bilinear():
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40,50,3)).astype(np.uint8))
    assert restore(nn.Identity(), im, (90,70)).tobytes()==im.resize((90,70), Image.Resampling.BILINEAR).tobytes()

@pytest.fixture(scope='module')
def nogan_fits(tmp_path_factory):
    "NoGAN whole, by the plan that comes with it"
    root = tmp_path_factory.mktemp('nogan')
    for i in range(2):
        for side,n in (('clean',i), ('spoiled',i+1)):
            (root/side).mkdir(exist_ok=True)
            gradients(32, 32, n).save(root/side/f'{i}.png')
    spy,generator,critic = Spy(),Tiny(),nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten())
    batches = iter([4, 4, 4, 1, 1]) # stages whose rate rises need a few steps
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        table = nogan(lambda folder,size,bs: tensors(size, bs, folder, next(batches)), root/'spoiled', root/'clean', root/'work',
                      generator, critic, cbs=[spy], progress=False)
    return SimpleNamespace(fits=spy.fits, table=table, root=root)

def test_nogan_epochs_sizes_and_freezing(nogan_fits):
    fits = nogan_fits.fits
    assert [o.epochs for o in fits]==[2, 3, 6, 40, 10]
    assert [o.dls.asked for o in fits]==[(128,32)]*4+[(192,16)]
    spoiled,rendered = nogan_fits.root/'spoiled',nogan_fits.root/'work'/'rendered'
    assert [o.dls.folder for o in fits]==[spoiled, spoiled, rendered, spoiled, spoiled]
    assert [o.moved for o in fits[:2]]==[dict(encoder=False, decoder=True), dict(encoder=True, decoder=True)]
    assert sorted(f.name for f in rendered.glob('*.png'))==['0.png', '1.png']

def test_nogan_rates_of_the_generator_and_the_critic_alone(nogan_fits):
    frozen,whole,critic = nogan_fits.fits[:3]
    assert rises(frozen)==pytest.approx(.8, abs=.08) and max(rates(frozen))==pytest.approx(3e-3, rel=.1)
    assert max(rates(critic))==pytest.approx(1e-3, rel=.02)
    assert max(rates(whole))==pytest.approx(1e-3, rel=.02) and max(rates(whole, 0))==pytest.approx(1e-6, rel=.02)
    assert all(had(o, 'wd')=={1e-3} for o in nogan_fits.fits)
    assert frozen.loss is whole.loss is F.mse_loss

def test_nogan_duels_have_adam_without_momentum_and_a_constant_rate(nogan_fits):
    for fit,lr in zip(nogan_fits.fits[3:], (1e-4, 5e-5)):
        assert had(fit, 'mom')=={0.} and had(fit, 'sqr_mom')=={.99} and had(fit, 'wd')=={1e-3}
        assert {round(r/(5 if turn=='critic' else 1), 9) for r,turn in zip(rates(fit), fit.turns)}=={lr}
        assert 'critic' in fit.turns


# --- the duel

class Fixed(nn.Module):
    "A critic whose loss is known: real images, which are bright, get `logit`, dark ones its negative"
    def __init__(self, loss):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(-math.log(math.exp(loss)-1)))
    def forward(self, x): return self.logit*x.mean((1,2,3)).sign()[:,None]

class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.zeros(3,1,1))
    def forward(self, x): return x+self.by

def duel(loss, tmp_path, epochs=2):
    "Spoiled images are -1, clean ones +1, so the image loss is 4"
    ones = torch.ones(4, 3, 4, 4)
    halves = [DataLoader(list(zip(-ones, ones)), bs=1, device='cpu') for _ in range(2)]
    spy,critic = Spy(),Fixed(loss)
    learn = nogan_learner(DataLoaders(*halves, device='cpu'), Shift(), critic, cbs=[spy], path=tmp_path)
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit(epochs, 1e-9)
    return spy.fits[0],critic

@pytest.mark.parametrize('loss', [.62, .649, .651, .68])
def test_duel_generator_has_a_step_where_the_critics_loss_is_below_065(loss, tmp_path):
    fit,_ = duel(loss, tmp_path)
    assert fit.turns==(['critic','generator']*4 if loss<.65 else ['critic']*8)

def test_duel_weights_rates_and_betas(tmp_path):
    fit,critic = duel(.6, tmp_path)
    for turn,lr,loss in zip(fit.turns, rates(fit), fit.losses):
        want = .6 if turn=='critic' else 1*F.softplus(critic.logit).item()+50*4
        assert loss==pytest.approx(want, rel=1e-4) and lr==pytest.approx(5e-9 if turn=='critic' else 1e-9)
    assert had(fit, 'mom')=={0.} and had(fit, 'sqr_mom')=={.99} and had(fit, 'wd')=={1e-3}

def test_duel_trains_networks_that_were_frozen(tmp_path):
    generator = Tiny().requires_grad_(False)
    learn = nogan_learner(tensors(8, 1), generator, nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten()), path=tmp_path)
    learn.create_opt()
    assert sum(p.numel() for g in learn.opt.param_lists for p in g)==sum(p.numel() for p in learn.model.parameters())

def test_whoever_does_not_train_in_a_duel_is_evaluated_and_stays(tmp_path):
    class Watch(Callback):
        order = 900
        def __init__(self): self.seen = []
        def before_step(self):
            gan,turn = self.learn.model,self.learn.gan_trainer.gen_mode
            idle,busy = (gan.critic,gan.generator) if turn else (gan.generator,gan.critic)
            self.seen.append((turn, idle.training, busy.training, all(p.grad is None for p in idle.parameters())))
    ones,watch = torch.ones(4, 3, 4, 4),Watch()
    halves = [DataLoader(list(zip(-ones, ones)), bs=1, device='cpu') for _ in range(2)]
    learn = nogan_learner(DataLoaders(*halves, device='cpu'), Shift(), Fixed(.6), cbs=[watch], path=tmp_path, switch_eval=True)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-9)
    assert {o[0] for o in watch.seen}=={True,False} and {o[1:] for o in watch.seen}=={(False, True, True)}

def test_critic_alone_learns_real_from_restored(tmp_path):
    class Watch(Callback):
        order = 900
        def after_pred(self): seen.append((self.xb[0].clone(), self.yb[0].clone()))
    seen,watch = [],Watch()
    learn = critic_learner(tensors(8, 1), nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten()), cbs=[watch], path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
    x,y = seen[0]
    assert y.tolist()==[0., 1.] and near(x[1], x[0]*.9+.3) # the restored image first
    out = torch.tensor([[1.,2.], [3.,-4.]])
    assert near(learn.loss_func(out, y), F.binary_cross_entropy_with_logits(out, torch.tensor([[0.,0.], [1.,1.]])))

def test_critic_is_the_courses_by_default(tmp_path):
    critic = critic_learner(tensors(8, 1), path=tmp_path).model
    convs = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert sum(p.numel() for p in critic.parameters())==44_705_665
    assert convs[0].out_channels==128 and convs[0].kernel_size==(4,4) and convs[-1].bias is None

def test_critic_of_this_library_drops_channels_and_bounds_its_weights():
    critic = patch_critic()
    rates = [m.p for m in critic.modules() if isinstance(m, nn.Dropout2d)]
    assert rates==pytest.approx([.075, .15, .15, .15])
    leaky = {m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)}
    convs = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert leaky=={.2} and all('parametrizations' in m._modules for m in convs)
    for _ in range(20):
        critic(torch.randn(1, 3, 32, 32)) # each pass improves the estimate of the norm
    assert all(torch.linalg.matrix_norm(m.weight.flatten(1), 2)<1.1 for m in convs)


# --- the losses

def thin_vgg(arch, seen=None):
    "torchvision's VGG with a sixteenth of the channels"
    from torchvision.models.vgg import VGG, cfgs, make_layers
    cfg = cfgs[dict(vgg16='D', vgg19='E')[arch.removesuffix('_bn')]]
    with torch.device('meta'):
        net = VGG(nn.Identity(), init_weights=False)
    net.features = make_layers([o if o=='M' else o//16 for o in cfg], batch_norm=arch.endswith('_bn'))
    del net.classifier
    return net

@pytest.fixture
def asked(monkeypatch):
    "What loss networks asked torchvision for; they get a thin one"
    seen = []
    def model(arch, weights='imagenet', seed=0):
        seen.append((arch, weights))
        return thin_vgg(arch)
    monkeypatch.setattr(features_room, 'torchvision_model', model)
    return seen

def gram(f): return torch.einsum('nahw,nbhw->nab', f, f)/(f.shape[1]*f.shape[2]*f.shape[3])

def pair(n=2, side=64):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, 3, side, side, generator=g),torch.randn(n, 3, side, side, generator=g)

def test_feature_loss_is_the_courses(asked):
    loss = FeatureLoss(LossNetwork())
    assert asked==[('vgg16_bn','imagenet')] and loss.network.layers==['relu3_3','relu4_3','relu5_3']
    x,y = pair()
    fs,ts = loss.network.features(x),loss.network.features(y)
    assert [o.shape[1:] for o in fs]==[(16,16,16), (32,8,8), (32,4,4)] # before the third, fourth and fifth pooling
    want = (x-y).abs().mean()
    for w,f,t in zip((5, 15, 2), fs, ts):
        want = want + w*(f-t).abs().mean() + w**2*5e3*(gram(f)-gram(t)).abs().mean()
    assert near(loss(x, y), want, 1e-4)

def test_taps_hold_what_comes_out_of_the_relu(asked):
    x,_ = pair()
    for arch in ('vgg16_bn','vgg19'):
        for layers in (None, 'pre_pool'):
            assert all((o>=0).all() and (o==0).any() for o in LossNetwork(arch, layers).features(x))

def test_johnsons_losses_square_and_divide_by_size(asked):
    x,y = pair()
    network = LossNetwork('vgg16', ['relu2_2','relu3_3'])
    fs,ts = network.features(x),network.features(y)
    assert near(LayerLoss(network)(x, y), sum((f-t).pow(2).mean() for f,t in zip(fs, ts)))
    style = sum((gram(f)-gram(t)).pow(2).sum((1,2)).mean() for f,t in zip(fs, ts))
    assert near(LayerLoss(network, style_reconstruction)(x, y)/style, 1.) # the numbers are tiny
    assert near(gram_matrix(fs[0]), gram(fs[0]))
    steps = (x[...,1:]-x[...,:-1]).abs().mean((1,2,3))+(x[...,1:,:]-x[...,:-1,:]).abs().mean((1,2,3))
    assert near(total_variation(x), steps)

def test_srcnn_loss_looks_at_vgg19s_block2_conv2(asked):
    loss = srcnn_loss()
    network = next(m for m in loss.modules() if isinstance(m, LossNetwork))
    assert asked==[('vgg19','imagenet')]
    x,y = pair()
    f,t = network.features(x),network.features(y)
    assert len(f)==1 and f[0].shape[1:]==(8,32,32) # the second block, after its ReLU
    assert (f[0]>=0).all() and isinstance(list(network.net)[-1], nn.ReLU) and sum(isinstance(m, nn.Conv2d) for m in network.net)==4
    loss(x, y)
    assert near(loss.parts['features.relu2_2'], .9*(f[0]-t[0]).pow(2).mean())
    assert near(loss.parts['mse'], .1*F.mse_loss(x*std, y*std)) # of images in [0, 1]

def test_a_loss_network_is_evaluated_and_gets_no_gradient(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(.5), nn.Conv2d(4, 4, 1))
    loss = FeatureLoss(LossNetwork(net, ['1','3']), (1.,1.))
    class Trains(Callback):
        def before_batch(self): self.learn.loss_func.train() # somebody does
    learn = enhance_learner(tensors(8, 1), Tiny(), loss, metrics=[], path=tmp_path, cbs=[Trains()])
    before = deepcopy(loss.network.state_dict())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    assert not any(m.training for m in loss.network.modules())
    assert all(torch.equal(before[k], v) for k,v in loss.network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in loss.network.parameters())
    x,y = pair()
    x.requires_grad_()
    loss(x, y).backward()
    assert (x.grad!=0).any() and all(p.grad is None for p in loss.network.parameters())
    assert not any(o.requires_grad for o in loss.target_features(y))

def test_a_bundled_network_of_batch_norms_sees_as_in_evaluation(asked, monkeypatch):
    set_seed(0)
    model = thin_vgg('vgg16_bn')
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, .5, 2)
    whole = deepcopy(model).eval().features
    monkeypatch.setattr(features_room, 'torchvision_model', lambda *args: model)
    x,_ = pair()
    with torch.no_grad():
        for got,i in zip(LossNetwork('vgg16_bn').train().features(x), (22, 32, 42)): # just before each max-pooling
            assert near(got, whole[:i+1](x), 1e-4)


# --- LPIPS and DISTS

@pytest.fixture
def wide(monkeypatch):
    "Networks of random numbers, without what is not looked through; and what was asked for"
    asked = []
    def model(arch, weights='imagenet', seed=0):
        asked.append((arch, weights))
        set_seed(seed)
        if arch!='vgg16':
            return torchvision.models.get_model(arch, weights=None)
        from torchvision.models.vgg import cfgs, make_layers
        net = nn.Module()
        net.features = make_layers(cfgs['D'])
        return net
    monkeypatch.setattr(features_room, 'torchvision_model', model)
    monkeypatch.setattr(metrics_room, 'torchvision_model', model)
    monkeypatch.setattr(metrics_room, '_kept', metrics_room._kept.__wrapped__) # nothing of this is kept for others
    return SimpleNamespace(asked=asked, model=model)

def convs_of(module): return [m for m in module.modules() if isinstance(m, nn.Conv2d)]

@pytest.mark.parametrize('net', ['alex', 'squeeze', 'vgg'])
def test_lpips_is_torchmetrics(net, wide):
    from torchmetrics.functional.image import lpips as theirs
    x,y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    got = lpips(x, y) if net=='alex' else lpips(x, y, net)
    assert wide.asked==[(dict(alex='alexnet', vgg='vgg16', squeeze='squeezenet1_1')[net], 'imagenet')]
    lib = theirs._NoTrainLpips(net=net, pnet_rand=True)
    for a,b in zip(convs_of(LPIPS(net, None).network), convs_of(lib.net)):
        b.load_state_dict(a.state_dict())
    assert near(got, lib(x, y, normalize=True).flatten(), 1e-5) and (got>1e-4).all()

def test_dists_is_torchmetrics(wide, monkeypatch):
    from torchmetrics.functional.image import dists as theirs
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = (x+.1*torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))).clamp(0,1)
    got = dists(x, y)
    assert wide.asked==[('vgg16', 'imagenet')]
    monkeypatch.setattr(theirs, 'vgg16', lambda weights: wide.model('vgg16'))
    assert near(got, theirs.DISTSNetwork()(x, y).detach(), 1e-5) and (got>1e-5).all()

def test_lpips_and_dists_train_a_learner_by_the_door_of_all_losses(wide, tmp_path):
    parts = dict(lpips=(1., LPIPS('squeeze', None)), l1=(1., F.l1_loss))
    for loss in (LPIPS('squeeze', None), MixedLoss(**parts), DISTS(None)):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(4, 3, 32, 32, generator=g)
        halves = [DataLoader(list(zip(x, x*.8+.3)), bs=2, device='cpu') for _ in range(2)]
        set_seed(0)
        learn = enhance_learner(DataLoaders(*halves, device='cpu'), Tiny(), loss, metrics=[], path=tmp_path)
        was = numbers(learn.model)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
            preds,targets,each = learn.get_preds(with_loss=True)
        assert not torch.equal(was, numbers(learn.model)) and each.shape==(4,) and (each>0).all()
        assert near(each.mean(), learn.loss_func(preds, targets).detach(), 1e-4)
        assert all(p.grad is None for p in loss.parameters())
        assert near(sum(loss.parts.values()), learn.loss_func(preds, targets).detach(), 1e-4)

def test_dists_compares_the_pixels_as_they_are_in_0_to_1(wide):
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    b = a*.6+.1
    known,plain = DISTS(None),DISTS(None, normalised=False)
    known((a-mean)/std, (b-mean)/std)
    plain(a, b)
    assert near(known.parts['image']/plain.parts['image'], 1., 1e-3) and plain.parts['image']>1e-3


# --- the generators

def empty(make, *args, **kwargs):
    with torch.device('meta'):
        return make(*args, **kwargs)

def count(model, weights_only=False): return sum(p.numel() for k,p in model.named_parameters() if not weights_only or k.endswith('weight'))

def convs(model): return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in model.modules() if isinstance(m, nn.Conv2d)]

def test_edsr_and_mdsr_have_the_papers_sizes():
    assert [round(count(empty(EDSR, f))/1e6, 2) for f in (2,3,4)]==[1.37, 1.55, 1.52]
    assert round(count(empty(EDSR, 2, 32, 256, .1))/1e6, 1)==40.7
    assert round(count(empty(MDSR))/1e6, 2)==3.23 and round(count(empty(MDSR, blocks=80))/1e6, 2)==7.95
    assert {m.kernel_size for m in empty(MDSR).pre.modules() if isinstance(m, nn.Conv2d)}=={(5,5)}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in empty(EDSR).modules())

def test_edsr_scales_what_a_block_adds():
    set_seed(0)
    x = torch.randn(1, 3, 8, 8)
    for scale in (1., .1):
        net = EDSR(1, 1, 4, scale) if scale!=1 else EDSR(1, 1, 4)
        head,(block,last),_,tail = net.layers[0],net.layers[1],net.layers[2],net.layers[3]
        h = head(x)
        inner = h + scale*block.body[2](F.relu(block.body[0](h)))
        assert near(net(x), tail(h + last(inner)))

def test_srcnn_has_the_papers_layers():
    luma,five = SRCNN(1),SRCNN(1, middle=5)
    assert convs(luma)==[(1,64,9,1), (64,32,1,1), (32,1,5,1)] and count(luma, True)==8032 and count(five, True)==57184
    assert convs(SRCNN())[0][:2]==(3,64)

def test_transform_net_has_johnsons_layers():
    x4,x8,style = [empty(TransformNet, f) for f in (4,8,1)]
    default = empty(TransformNet)
    assert default.factor==4 and convs(default)==convs(x4)
    assert convs(x4)==[(3,64,9,1), *[(64,64,3,1)]*8, (64,3,9,1)] # four residual blocks
    up = [m for m in x8.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(up)==3 and {m.stride for m in up}=={(2,2)} and {m.kernel_size for m in up}=={(3,3)}
    assert convs(style)==[(3,32,9,1), (32,64,3,2), (64,128,3,2), *[(128,128,3,1)]*10, (32,3,9,1)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in x4.modules())==1+8+2
    assert not any(isinstance(m, nn.InstanceNorm2d) for m in x4.modules())
    out = TransformNet(2, 1, 2).last(torch.tensor([-50., 0., 50.])[:,None,None,None].expand(3,3,1,1))
    for got,grey in zip(out, (0., .5, 1.)): # tanh, scaled to 0..1 before normalisation
        assert near(got*std+mean, torch.full((3,1,1), grey))

def test_unet_is_the_courses(monkeypatch):
    seen = []
    def model(arch, weights='imagenet', seed=0):
        seen.append((arch, weights))
        return torchvision.models.resnet18(weights=None)
    monkeypatch.setattr(unet_room, 'torchvision_model', model)
    net = unet(size=(32,32))
    assert seen==[('resnet34','imagenet')] and net.pretrained
    decoder = [m for m in net[1:].modules() if isinstance(m, nn.Conv2d)]
    assert all(hasattr(m, 'weight_g') for m in decoder if m.kernel_size==(3,3)) # weight norm
    assert any(isinstance(m, nn.AvgPool2d) for m in net.modules()) # blur
    assert not any(type(m).__name__=='SelfAttention' for m in net.modules())
    gan = unet('resnet34', None, (32,32), self_attention=True, y_range=(-3,3))
    assert any(type(m).__name__=='SelfAttention' for m in gan.modules())
    with torch.no_grad():
        assert gan.eval()(1e4*torch.randn(1, 3, 32, 32)).abs().max()<=3.001
    assert not any(isinstance(m, nn.AvgPool2d) for m in unet('resnet34', None, (32,32), blur=False, norm_type=NormType.Batch)[1:].modules())
