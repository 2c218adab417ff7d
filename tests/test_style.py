"Style: the objective whatever network looks, tiles that agree, the styles that come along, the command"
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perceptual_fastai.all import (Enhancer, LossNetwork, StyleLoss, as_style, bundled_styles, enhance_array, gatys, open_photo, optimise_image, pixels,
                                   sample_photos, save_enhancer, sized_image, still_enhancer, style_learner, style_net, stylize, to_batch)
from perceptual_fastai.cli import main

class Louder(nn.Module):
    def __init__(self, net, by):
        super().__init__()
        self.net,self.by = net,by
    def forward(self, x): return self.net(x)*self.by


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return sample_photos(tmp_path_factory.mktemp('photos'))


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return LossNetwork(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()), ['1','3'])


@pytest.fixture(scope='module')
def photo(samples):
    return sized_image(samples/'held_out'/'chelsea.png', 64)


@pytest.fixture(scope='module')
def painting(samples):
    return open_photo(samples/'train'/'retina.jpg')


def test_the_networks_scale_does_not_count(photo, painting):
    torch.manual_seed(0)
    net,x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),to_batch(photo)
    value = [StyleLoss(LossNetwork(nn.Sequential(Louder(net, k)), ['0']), painting, style_side=64)(x.flip(3), x).item() for k in (.1,1,300)]
    assert max(value)-min(value)<1e-4*value[1]


def test_nothing_is_off_where_photo_and_painting_are_the_image(network, photo):
    x = to_batch(photo)
    loss = StyleLoss(network, photo, style_side=64, tv_weight=0.)
    assert loss(x, x).item()<1e-4 and loss(x.flip(1), x).item()>.01


def test_masks_that_share_the_image_see_their_own_half(network, photo, painting):
    left = Image.new('L', photo.size)
    left.paste(255, (0, 0, photo.width//2, photo.height))
    x = to_batch(photo).requires_grad_()
    loss = StyleLoss(network, painting, masks=[left], style_side=64, content_weight=0., tv_weight=0.)
    grad, = torch.autograd.grad(loss(x, x.detach()), x)
    assert grad[...,:photo.width//2-4].abs().sum()>0 and grad[...,photo.width//2+6:].abs().max()==0


def test_optimisation_lowers_the_objective_and_comes_back_from_nan(network, photo, painting):
    class Stumbles(StyleLoss):
        calls = 0
        def forward(self, a, b):
            self.calls += 1
            out = super().forward(a, b)
            return out*float('nan') if self.calls==5 else out
    x = to_batch(photo)
    image,trace = optimise_image(Stumbles(network, painting, style_side=64, cache=True), x, steps=25, tol=0.)
    best = trace.objective.min()
    assert trace.objective.isna().sum()==1 and best<.8*trace.objective[0]
    assert StyleLoss(network, painting, style_side=64)(image, x).item()==pytest.approx(best, rel=1e-4)


def test_the_same_seed_gives_the_same_image(network, photo, painting):
    made = [np.asarray(gatys(photo, painting, 3, network, 64, start='noise', seed=s, progress=False)[0]) for s in (1,1,2)]
    assert (made[0]==made[1]).all() and (made[0]!=made[2]).any()


@pytest.mark.parametrize('size', [(331,250), (200,97), (128,256)])
def test_tiles_agree_with_the_whole_image(size, samples):
    torch.manual_seed(1)
    enhancer,im = Enhancer(style_net(8).eval()),open_photo(samples/'train'/'coffee.png').crop((0, 0, *size))
    x = pixels(im)
    whole,still = enhancer(x),still_enhancer(enhancer, np.asarray(im), tile=200)
    assert (still(x)-whole).abs().max()<1e-3
    assert enhancer.footprint.field is None and still.footprint.field<100
    a,b = [np.asarray(stylize(im, enhancer, tile=t), dtype=int) for t in (None,160)]
    assert np.abs(a-b).max()<=1


@pytest.mark.parametrize('depth', ['uint8','uint16'])
def test_a_style_in_tiles_through_enhance_is_the_whole(depth, samples):
    im = open_photo(samples/'train'/'coffee.png').crop((0, 0, 403, 271))
    a = np.asarray(im).astype(depth)*(257 if depth=='uint16' else 1)
    whole,tiled = [np.asarray(enhance_array(a, as_style('candy'), t, progress=False), dtype=int) for t in (700,200)]
    most = np.iinfo(depth).max/255
    assert np.abs(whole-tiled).max()<=most and np.abs(whole-a).mean()>15*most


def test_style_learner_trains_on_the_objective(network, samples, painting):
    torch.manual_seed(0)
    learn = style_learner(painting, samples, network, 64, 2, style_net(8), dls=dict(repeat=2, device='cpu'))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 5e-3)
    seen = dict(zip(learn.recorder.metric_names[1:-1], learn.recorder.values[-1]))
    assert sum(float(seen[k]) for k in learn.loss_func.names)==pytest.approx(seen['valid_loss'], rel=1e-3)


@pytest.mark.parametrize('name', bundled_styles())
def test_a_style_that_comes_along_paints(name, photo):
    card,made = as_style(name).card,stylize(photo, name)
    assert made.size==photo.size and {'painting','objective','recipe','data'}<=set(card)
    moved = np.abs(np.subtract(made, photo, dtype=float)).mean()
    still = np.corrcoef(*[np.asarray(o.convert('L'), dtype=float).ravel() for o in (made, photo)])[0,1]
    assert moved>15 and still>.4


def test_command_paints_a_photo_and_a_folder_and_skips(tmp_path, samples, capsys):
    model = save_enhancer(style_net(8).eval(), tmp_path/'own.safetensors')
    assert main(['style', str(samples/'held_out'/'chelsea.png'), str(tmp_path/'out'/'cat.jpg'), '--style', str(model), '--side', '64'])==0
    assert Image.open(tmp_path/'out'/'cat.jpg').height==64
    folder = ['style', str(samples/'held_out'), str(tmp_path/'all'), '--style', str(model), '--side', '48']
    assert main(folder)==0 and len(list((tmp_path/'all').glob('*.png')))==2
    first = {f.name:f.stat().st_mtime_ns for f in (tmp_path/'all').glob('*.png')}
    assert main(folder)==0 and {f.name:f.stat().st_mtime_ns for f in (tmp_path/'all').glob('*.png')}==first


def test_command_optimises(tmp_path, samples):
    photo,painting = samples/'held_out'/'chelsea.png',samples/'train'/'retina.jpg'
    assert main(['style', str(photo), str(tmp_path/'out.png'), '--optimise', '--style', str(painting), '--steps', '2', '--side', '64',
                 '--network', 'efficientnet_lite0'])==0
    assert max(Image.open(tmp_path/'out.png').size)==64


@pytest.mark.parametrize('args,says', [
    (['--style', 'cubism'], 'no such model file'), (['--style', '{photo}'], '--optimise'), (['--strength', '2'], 'allowed are 0 to 1'),
    (['--optimise', '--strength', '.5'], 'leave it out'), (['--side', '8'], '8 pixels')])
def test_command_refuses_in_one_line(args, says, samples, tmp_path, capsys):
    photo = samples/'held_out'/'chelsea.png'
    model = save_enhancer(style_net(8).eval(), tmp_path/'own.safetensors')
    base = [] if '--style' in args else ['--style', str(model)]
    assert main(['style', str(photo), str(tmp_path/'out.png'), *base, *[o.format(photo=photo) for o in args]])==1
    said = capsys.readouterr()
    assert says in said.out+said.err and not (tmp_path/'out.png').exists()
