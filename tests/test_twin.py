"The pretend device of `benchmarks/twin.py` keeps tensors apart as a GPU does, and computes what the CPU computes"
import io, sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'benchmarks'))
from twin import twin

apart = pytest.raises(RuntimeError, match='same device')


@pytest.fixture(params=['twin','cuda'])
def device(request):
    if request.param=='cuda' and torch.cuda.is_available(): pytest.skip('there is a GPU here')
    with twin(request.param) as d: yield d


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3,4,3,padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4,3,3,padding=1))


def trained(device, opt=torch.optim.Adam):
    "Three steps; losses and weights, on the CPU"
    model,losses = net().to(device),[]
    x,opt = torch.rand(2,3,8,8).to(device),opt(model.parameters(), 1e-2)
    for _ in range(3):
        loss = F.mse_loss(model(x), x)
        loss.backward()
        assert all(p.grad.device==p.device==x.device for p in model.parameters())
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return losses,[p.detach().cpu() for p in model.parameters()]


def test_a_batch_has_to_be_where_the_model_is(device):
    model,x = net().to(device),torch.rand(1,3,8,8)
    with apart: model(x)
    with apart: net()(x.to(device))
    assert model(x.to(device)).device==device and model.cpu()(x).device==torch.device('cpu')


@pytest.mark.parametrize('opt', [torch.optim.Adam, torch.optim.SGD])
def test_values_are_those_of_the_cpu(device, opt):
    (losses,weights),(same,too) = trained('cpu', opt),trained(device, opt)
    assert losses==same and losses[-1]<losses[0] and all(torch.equal(a, b) for a,b in zip(weights, too))


def test_numpy_wants_the_cpu(device):
    x = torch.ones(2).to(device)
    for f in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.asarray([x[0]])):
        with pytest.raises(TypeError, match='can.t convert'): f()
    assert x.cpu().numpy().tolist()==x.tolist()==[1,1] and x.sum().item()==2 and float(x[0])==1


def test_what_cuda_takes_and_what_it_refuses(device):
    here,there = torch.ones(3),torch.ones(3, device=device)
    taken = [there*torch.tensor(2.), there[torch.tensor([0,2])], there+1, torch.zeros_like(here, device=device), there.new_tensor([1]), there.half(),
             torch.tensor([1.], device=device), torch.as_tensor(here, device=device), F.one_hot(there.long()), here.type_as(there), there.detach()[1:]]
    assert {x.device for x in taken}=={device} and here.device.type=='cpu'
    assert here.copy_(there*2).device.type=='cpu' and here.tolist()==[2,2,2]
    refused = [lambda: there.sum()+here, lambda: here.sum().add_(there.sum()), lambda: here[there.long()], lambda: torch.cat([here, there]),
               lambda: torch.stack([here.sum(), there.sum()]), lambda: there.add_(here), lambda: torch.where(there>0, there, here)]
    for f in refused:
        with apart: f()
    with pytest.raises(RuntimeError, match='generator'): torch.rand(2, device=device, generator=torch.Generator())


def test_gradients_go_back_to_where_they_belong(device):
    here = torch.ones(2, requires_grad=True)
    (here.to(device)*torch.ones(2, device=device)).sum().backward()
    assert here.grad.device.type=='cpu'
    there = torch.ones(2, device=device).requires_grad_()
    (there.cpu()*torch.ones(2)).sum().backward()
    assert there.grad.device==device

    twos = torch.full((2,), 2.)
    class Lost(torch.autograd.Function): # its forward pass is right, its backward pass is not
        @staticmethod
        def forward(ctx, x): return x*2
        @staticmethod
        def backward(ctx, g): return g*twos
    with apart: Lost.apply(there).sum().backward()


def test_files_and_threads_know_the_device(device):
    f,x = io.BytesIO(),torch.ones(2, device=device)
    torch.save(dict(here=torch.ones(2), there=x), f)
    for where,found in ((None, device), ('cpu', torch.device('cpu')), (device, device)):
        f.seek(0)
        assert torch.load(f, map_location=where, weights_only=True)['there'].device==found
    said = []
    def work():
        try: said.append(x+torch.ones(2))
        except RuntimeError as e: said.append(str(e))
    t = Thread(target=work)
    t.start()
    t.join()
    assert 'same device' in said[0]


def test_a_learner_trains_and_a_misplaced_tensor_is_found(device, tmp_path):
    from fastai.vision.all import L1LossFlat, default_device
    from perceptual_fastai.all import crappify_folder, Crappifier, enhance_learner, pair_dls, sample_photos
    assert default_device()==device
    sample_photos(tmp_path/'clean')
    crappify_folder(tmp_path/'clean', tmp_path/'spoiled', Crappifier.lesson7(), progress=False)
    dls = pair_dls(tmp_path/'spoiled', tmp_path/'clean', 48, 2, num_workers=0)
    x,y = dls.one_batch()
    assert type(x).__name__=='TensorImage' and x.device==y.device==dls.device==device
    learn = enhance_learner(dls, net(), L1LossFlat())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert next(learn.model.parameters()).device==device and learn.recorder.values[0][0]>0
    shift = torch.full((1,3,1,1), .1) # on the CPU
    learn.loss_func = lambda pred, targ: F.l1_loss(pred, targ+shift)
    with apart, learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)


def test_all_is_as_it_was_afterwards():
    x = torch.ones(2)
    with twin() as d: y = x.to(d)
    assert (x+y).device.type==y.device.type=='cpu' and y.numpy().tolist()==[1,1] and 'device' not in vars(torch.Tensor)
    assert not getattr(torch, 'twin').is_available() and len(trained(torch.device('cpu'))[0])==3 # optimisers ask whether there is an accelerator
