"""Speed and memory of FeatureLoss as ratios against the usual notebook recipe, forward and backward.

The reference is what notebooks write: the whole VGG16-BN, batch-norms kept, hooks that store outputs, float32, contiguous.
Both get the same pictures and weights and must agree on the loss. Networks hold random numbers: time does not depend on them.
On a GPU both run as PyTorch does by default, with TF32 in convolutions; they are compared without it.

python benchmarks/feature_loss.py [--rounds N] [--compile] [--few N ...]   prints tables; a reading belongs into benchmarks/results/
python benchmarks/feature_loss.py --cost                      prints how cost grows with pixels and layers, as CSV
"""
import argparse, statistics, sys, warnings
from pathlib import Path

warnings.simplefilter('ignore', FutureWarning)
import torch
import torch.nn.functional as F
from torchvision.models import vgg16_bn

from measure import device, device_name, in_own_process, peak_memory, seconds, without_tf32
from perceptual_fastai.features import LossNetwork
from perceptual_fastai.losses import FeatureLoss

shapes = [(8,3,128,128), (4,3,256,256)]


class Reference(torch.nn.Module):
    "The notebook recipe, written out"
    def __init__(self, state):
        super().__init__()
        model = vgg16_bn(weights=None)
        model.load_state_dict(state)
        self.net,self.weights = model.features.eval().requires_grad_(False),(5,15,2)
        self.stored = {}
        for i in (22,32,42): self.net[i].register_forward_hook(lambda m,x,out,i=i: self.stored.__setitem__(i, out))
    def features(self, x, clone=False):
        self.net(x)
        return [o.clone() if clone else o for o in self.stored.values()]
    def forward(self, pred, target):
        want,have = self.features(target, clone=True),self.features(pred)
        gram = lambda x: x.flatten(2)@x.flatten(2).transpose(1,2)/x[0].numel()
        loss = F.l1_loss(pred, target)
        for w,a,b in zip(self.weights, have, want): loss = loss+w*F.l1_loss(a,b)+w**2*5e3*F.l1_loss(gram(a),gram(b))
        return loss


def both():
    torch.manual_seed(0)
    state = vgg16_bn(weights=None).state_dict()
    for k in state:
        if k.endswith('running_mean'): state[k].normal_(0, .1)
        if k.endswith('running_var'): state[k].uniform_(.5, 1.5)
    path = Path(__file__).with_name('.bench.pth')
    torch.save(state, path)
    try: return Reference(state).to(device),FeatureLoss(LossNetwork('vgg16_bn', weights=path)).to(device)
    finally: path.unlink()


def batch(shape):
    g = torch.Generator().manual_seed(1)
    target = torch.randn(shape, generator=g)
    return (target+.3*torch.randn(shape, generator=g)).to(device),target.to(device)


def step(loss, pred, target, dtype=None):
    pred = pred.detach().requires_grad_()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None): out = loss(pred, target)
    out.backward()
    return out.item()


def exact(loss, pred, target):
    "A step in float32, without the TF32 that a GPU's convolutions round to"
    with without_tf32(): return step(loss, pred, target)


def compiled(loss):
    "The same loss with its network compiled, for one shape; compiling happens at the first call"
    torch._dynamo.reset() # or the second shape would be compiled for any size
    loss.network.net.compile()
    return loss


def cost(rounds):
    "Seconds of a step against pixels (usual layers) and against the deepest layer (4x3x128x128)"
    print('kind,what,value,seconds')
    def median(loss, shape):
        pred,target = batch(shape)
        for _ in range(3): step(loss, pred, target)
        return statistics.median(seconds(lambda: step(loss, pred, target)) for _ in range(rounds))
    loss = FeatureLoss(LossNetwork('vgg16_bn', weights=None)).to(device)
    for side in (64,96,128,192,256,320): print(f'pixels,4x3x{side}x{side},{4*side**2},{median(loss, (4,3,side,side)):.3g}')
    for i,name in enumerate(LossNetwork('vgg16_bn', 'pre_pool', None).layers):
        loss = FeatureLoss(LossNetwork('vgg16_bn', [name], None), (1.,), 0.).to(device)
        print(f'layers,{name},{i+1},{median(loss, (4,3,128,128)):.3g}')


def peak(which, shape):
    "Peak memory of one step above that of the loaded networks, in MiB; on a CPU in a process of its own"
    return measure_peak(which, shape) if device.type=='cuda' else in_own_process(__file__, '--peak', which, *shape)[0]


def measure_peak(which, shape):
    ref,ours = both()
    pred,target = batch(shape)
    run = lambda *xs: step(ref if which=='reference' else ours, *xs, torch.bfloat16 if which=='bf16' else None)
    run(pred[:1,:,:32,:32], target[:1,:,:32,:32]) # what libraries set aside once is not counted
    return peak_memory(lambda: run(pred, target))/2**20


def variants(shape, args):
    "What is timed, {kind: step}; how far apart the losses are in float32; how long the first compiled step took, if any"
    ref,ours = both()
    pred,target = batch(shape)
    kinds = {'reference':lambda: step(ref, pred, target), 'float32':lambda: step(ours, pred, target),
             'bf16':lambda: step(ours, pred, target, torch.bfloat16)}
    if device.type=='cuda': kinds['reference without TF32'] = lambda: exact(ref, pred, target)
    for n in args.few:
        part = FeatureLoss(ours.network, few=n)
        kinds[f'bf16, {n} at a time'] = lambda part=part: step(part, pred, target, torch.bfloat16)
    cold = None
    if args.compile:
        fast = both()[1]
        run = lambda: step(fast, pred, target, torch.bfloat16)
        try: compiled(fast); cold,kinds['bf16 compiled'] = seconds(run),run
        except Exception as e: print(f"compiling failed, the rest goes on: {type(e).__name__}: {str(e)[:500]}", file=sys.stderr) # each compiler has errors of its own
    return kinds,abs(exact(ours, pred, target)/exact(ref, pred, target)-1),cold


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=5, help='steps of each kind, interleaved; the median counts')
    p.add_argument('--compile', action='store_true', help='measure a compiled network too, cold and warm')
    p.add_argument('--few', type=int, nargs='+', default=[], metavar='N', help='measure bf16 with the network looking at N pictures at a time, too')
    p.add_argument('--cost', action='store_true', help='how cost grows with pixels and layers')
    p.add_argument('--peak', nargs='+', help=argparse.SUPPRESS)
    args = p.parse_args()
    sys.stdout.reconfigure(line_buffering=True) # what was measured is seen, whatever happens later
    if args.peak: return print(measure_peak(args.peak[0], tuple(map(int, args.peak[1:]))))
    if args.cost: return cost(args.rounds)
    print(f'{device_name()}, median of {args.rounds} interleaved steps\n')
    print('| shape | kind | loss / reference | seconds | speed-up |\n|---|---|---|---|---|')
    off = []
    for shape in shapes:
        kinds,far,cold = variants(shape, args)
        off.append(far)
        value = {k:f() for k,f in kinds.items()}
        times = {k:[] for k in kinds}
        for i in range(args.rounds+2*(device.type=='cuda')): # a GPU's first ones don't count
            for k,f in kinds.items(): times[k].append(seconds(f))
        med = {k:statistics.median(v[-args.rounds:]) for k,v in times.items()}
        for k in kinds: print(f"| {'x'.join(map(str,shape))} | {k} | {value[k]/value['reference']:.6f} | {med[k]:.3g} | {med['reference']/med[k]:.2f} |")
        if cold: print(f"| {'x'.join(map(str,shape))} | first compiled step | | {cold:.1f} | |")
    print('\n| shape | reference MiB | ours, float32 | ratio | ours, bf16 | ratio |\n|---|---|---|---|---|---|')
    for shape in shapes:
        a,b,c = [peak(k, shape) for k in ('reference','float32','bf16')]
        print(f"| {'x'.join(map(str,shape))} | {a:.0f} | {b:.0f} | {b/a:.2f} | {c:.0f} | {c/a:.2f} |")
    print(f"\nIn float32 without TF32 the two losses differ by {max(off):.1g} of their value; allowed is 1e-4.")
    if not max(off)<1e-4: sys.exit('the losses are not the same')


if __name__=='__main__': main()
