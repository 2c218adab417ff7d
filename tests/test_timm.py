"timm's networks and EfficientNet-Lite0 as loss networks and encoders: values, files, export, sizes"
import pytest
import timm
import torch
import torch.nn.functional as F
from fastai.vision.all import Datasets, Learner, load_learner

from perceptual_fastai.features import LossNetwork, TimmFeatures, lite_stages
from perceptual_fastai.images import denormalise, normalise, seeded
from perceptual_fastai.metrics import feature_distance
from perceptual_fastai.model_files import load_enhancer, save_enhancer
from perceptual_fastai.unet import Unet, encoder, unet, unet_splitter
from perceptual_fastai.weights import WeightsUnavailable, efficientnet_lite, timm_model, timm_name

x = normalise(torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0)))
small = 'mobilenetv3_small_050'


# lists, own loops, hooks, getters (one with stages last in the shape, one that was trained at one size), in-place activations, other means
@pytest.mark.parametrize('name', ['timm/resnet18', small, 'convnext_atto', 'tf_efficientnet_lite0', 'test_vit', 'test_resnet', 'hardcorenas_a',
                                  'timm/densenet121', 'xception41', 'regnetx_002', 'swin_tiny_patch4_window7_224', 'vit_tiny_patch16_224'])
def test_values_are_timms(name):
    own = name.removeprefix('timm/')
    cfg = timm.get_pretrained_cfg(own)
    net = LossNetwork(name, 'pre_pool', None, seed=5)
    free = dict(dynamic_img_size=True) if cfg.fixed_input_size else {}
    with seeded(5):
        plain = timm.create_model(own, features_only=True, out_indices=range(len(net.layer_names)), **free).eval()
    inside = normalise(denormalise(x, clamp=False), (cfg.mean, cfg.std))
    with torch.no_grad():
        got,want = net.features(x),plain(inside)
    for a,b in zip(got, want, strict=True):
        b = b.permute(0,3,1,2) if b.shape!=a.shape else b
        assert (a-b).abs().max() <= 1e-5*b.abs().max()
    y = x.clone().requires_grad_()
    net.features(y)[-1].mean().backward()
    assert y.grad.abs().sum()>0 and all(p.grad is None for p in net.parameters())
    assert not any(m.training for m in net.train().modules())


def test_lite0_is_timms_with_its_own_preprocessing():
    model = efficientnet_lite().eval()
    plain = timm.create_model('tf_efficientnet_lite0', features_only=True).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    net = LossNetwork('efficientnet_lite0', 'pre_pool')
    with torch.no_grad():
        got,want = net.features(x),plain(2*denormalise(x, clamp=False)-1)
    for a,b in zip(got, want, strict=True): assert (a-b).abs().max() <= 1e-5*b.abs().max()


def test_taps_in_any_order_and_no_deeper():
    every = LossNetwork(small, 'pre_pool', None).features(x)
    net = LossNetwork(small, ['blocks.1','bn1'], None)
    for a,b in zip(net.features(x), (every[2], every[0]), strict=True): assert torch.equal(a, b)
    assert len(net.net.net.blocks)==2 and len(LossNetwork(small, ['bn1'], None).net.net.blocks)==0
    assert torch.equal(LossNetwork(small, ['bn1'], None).features(x)[0], every[0])
    assert not hasattr(LossNetwork('timm/resnet18', ['layer2'], None).net.net, 'layer3')
    assert LossNetwork(small, weights=None).layers==net.layer_names[:3]


def test_names():
    assert timm_name('resnet18') is None and timm_name('timm/resnet18')=='resnet18' and timm_name('resnet18.tv_in1k')=='resnet18.tv_in1k'
    assert timm_name('hf-hub:a/b') is None and timm_name('local-dir:/tmp') is None and timm_name('timm/resnet18.gone') is None
    with pytest.raises(ValueError, match='timm/resnet18'): LossNetwork('resnet18', weights=None)
    with pytest.raises(ValueError, match='timm/convnext_atto'): LossNetwork('convnext_ato', weights=None)
    with pytest.raises(ValueError, match='timm/convnext_atto'): unet('convnext_ato', None)
    with pytest.raises(ValueError, match='climbs back'): unet('vit_tiny_patch16_224', None)


def test_files_and_what_is_missing(tmp_path, monkeypatch):
    whole = timm_model(small, None, 7).eval()
    torch.save(whole.state_dict(), tmp_path/f'{small}.pth')
    with torch.no_grad(): want = whole.bn1(whole.conv_stem(x))
    assert torch.allclose(LossNetwork(small, weights=tmp_path/f'{small}.pth').features(x)[0], want, atol=1e-6)
    whole = timm_model('convnext_atto', None, 7)
    torch.save(whole.state_dict(), tmp_path/'atto.pth')
    a,b = LossNetwork('convnext_atto', weights=tmp_path/'atto.pth'),LossNetwork('convnext_atto', weights=None, seed=7)
    for f,g in zip(a.features(x), b.features(x), strict=True): assert torch.equal(f, g)
    assert a.source=='weights of atto.pth' and b.source=='random weights (seed 7)'
    with pytest.raises(WeightsUnavailable, match='does not fit'): LossNetwork('convnext_atto', weights=tmp_path/f'{small}.pth')
    state = whole.state_dict()
    torch.save({k:v for k,v in state.items() if not k.startswith('head.fc')}, tmp_path/'no_head.pth')
    LossNetwork('convnext_atto', weights=tmp_path/'no_head.pth')
    torch.save({k:v for k,v in state.items() if 'stages.1' not in k}, tmp_path/'part.pth')
    with pytest.raises(WeightsUnavailable, match='it lacks'): LossNetwork('convnext_atto', weights=tmp_path/'part.pth')
    def offline(*args, **kwargs): raise ConnectionError('no route to host')
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', offline)
    for make in (LossNetwork, unet):
        with pytest.raises(WeightsUnavailable, match=f'timm/{small}.*no route to host.*weights=None'): make(small)


def test_judge():
    judge = LossNetwork(small, weights=None)
    d = feature_distance(denormalise(x), denormalise(x.roll(1,-1)), judge)
    assert d.shape==(2,) and (d>0).all() and (feature_distance(denormalise(x), denormalise(x), judge)==0).all()


@pytest.mark.parametrize('arch', ['efficientnet_lite0', small, 'timm/resnet18'])
def test_model_files_need_no_weights(arch, tmp_path, monkeypatch):
    net = unet(arch, 'imagenet' if 'lite0' in arch else None, seed=4).eval()
    file = save_enhancer(net, tmp_path/'m.safetensors')
    gone = lambda *a, **k: pytest.fail('asked for weights')
    monkeypatch.setattr('perceptual_fastai.weights._lite_file', gone)
    monkeypatch.setattr('perceptual_fastai.weights._timm_pretrained', gone)
    again = load_enhancer(file).model
    with torch.no_grad(): assert torch.equal(again(x), net(x))
    assert isinstance(again, Unet) and again.args['arch']==arch


def first(i): return x[0]
def second(i): return x[1]


def test_learner_is_exported_frozen_and_loaded(tmp_path):
    for arch in ('efficientnet_lite0', small):
        dls = Datasets(range(4), [[first],[second]], splits=([0,1],[2,3])).dataloaders(bs=2)
        learn = Learner(dls, unet(arch, None, residual=True), loss_func=F.l1_loss, splitter=unet_splitter, path=tmp_path)
        assert len(learn.opt_func(unet_splitter(learn.model), lr=1).param_groups)==3
        learn.freeze()
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        learn.unfreeze()
        with learn.no_bar(), learn.no_logging(): learn.fit(1, slice(1e-5,1e-3))
        assert all(p.requires_grad for p in learn.model.parameters())
        learn.export('l.pkl')
        back = load_learner(tmp_path/'l.pkl').model.eval()
        with torch.no_grad(): assert torch.equal(back(x), learn.model.eval()(x))


@pytest.mark.parametrize('hw', [(32,32), (33,47), (97,131)])
def test_any_size(hw):
    for arch in ('efficientnet_lite0', small):
        y = torch.rand(1, 3, *hw)
        assert unet(arch, None).eval()(y).shape==y.shape


def test_no_wide_end():
    enc = encoder('mobilenetv3_large_100', None).eval()
    with torch.no_grad(): assert enc(x).shape==(2,160,3,3) # not the 960 that its classifier looks at
    assert sum(p.numel() for p in enc.parameters())<3_000_000


def test_groups():
    early,middle,late = unet_splitter(unet('efficientnet_lite0', None))
    lite0 = lite_stages(efficientnet_lite(weights=None))
    assert len(early)==len(list(lite0[:4].parameters())) and len(early)+len(middle)==len(list(lite0.parameters()))
    net = TimmFeatures('resnet18', weights=None)
    assert [sum(p.numel() for p in o) for o in net.halves()]==[683_072, 10_493_440] # as fastai cuts torchvision's
