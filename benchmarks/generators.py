"""Images per second, multiply-adds and peak memory of each generator at 256x256 out, training step and inference.

The reference is the plain module, float32 and contiguous. Against it: channels_last, bf16 (autocast), and both; the fastest is marked.
Every variant must agree with the reference on its output. Weights are random: time does not depend on them.
On a GPU all run as PyTorch does by default, with TF32 in convolutions; they are compared without it.

python benchmarks/generators.py [--rounds N] [--bs N] [--only NAME ...] [--kinds KIND ...]        prints tables; a reading belongs into benchmarks/results/
"""
import argparse, statistics, sys, warnings

warnings.simplefilter('ignore', FutureWarning)
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from measure import device, device_name, in_own_process, peak_memory, seconds, without_tf32
from perceptual_fastai.sr import EDSR, MDSR, SRCNN, TransformNet
from perceptual_fastai.unet import unet

side = 256
generators = { # name: (input side, how to make it)
    'U-Net ResNet34':       (256, lambda: unet('resnet34', None, size=(side,side))),
    'TransformNet style':   (256, lambda: TransformNet(1)),
    'TransformNet style, resize':(256, lambda: TransformNet(1, up='resize')),
    'TransformNet x4':      (64, lambda: TransformNet(4)),
    'TransformNet x4, resize':(64, lambda: TransformNet(4, up='resize')),
    'TransformNet x8':      (32, lambda: TransformNet(8)),
    'SRCNN 9-1-5 x4':       (64, lambda: SRCNN(factor=4)),
    'SRCNN 9-5-5 x4':       (64, lambda: SRCNN(factor=4, middle=5)),
    'EDSR baseline x2':     (128, lambda: EDSR(2)),
    'EDSR baseline x4':     (64, lambda: EDSR(4)),
    'MDSR baseline x2':     (128, lambda: MDSR().at(2)),
    'MDSR baseline x4':     (64, lambda: MDSR().at(4)),
    'EDSR large x4':        (64, lambda: EDSR(4, 32, 256, .1)),
}
kinds = {'reference':(torch.contiguous_format, None), 'channels_last':(torch.channels_last, None),
         'bf16':(torch.contiguous_format, torch.bfloat16), 'bf16 channels_last':(torch.channels_last, torch.bfloat16)}


def setup(name, kind, bs):
    "Generator, input and target in the kind's memory layout, and the kind's dtype for autocast"
    torch.manual_seed(0)
    n,make = generators[name]
    layout,dtype = kinds[kind]
    x,y = torch.randn(bs,3,n,n),torch.randn(bs,3,side,side)
    return make().to(device, memory_format=layout),x.to(device, memory_format=layout),y.to(device),dtype


def infer(model, x, y, dtype):
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None): out = model.eval()(x)
    return out.float()


def train(model, x, y, dtype):
    model.train().zero_grad()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None): loss = F.l1_loss(model(x).float(), y)
    loss.backward()


def multiply_adds(name):
    "Of one picture's forward pass"
    model,x,y,_ = setup(name, 'reference', 1)
    with FlopCounterMode(display=False) as count: infer(model, x, y, None)
    return count.get_total_flops()/2


def peak(what, name, kind, bs):
    "Peak memory of one pass above that of the loaded generator, in MiB; on a CPU in a process of its own"
    return measure_peak(what, name, kind, bs) if device.type=='cuda' else in_own_process(__file__, '--peak', what, name, kind, bs)[0]


def measure_peak(what, name, kind, bs):
    model,x,y,dtype = setup(name, kind, bs)
    f = dict(train=train, infer=infer)[what]
    infer(model, x[...,:32,:32], y, dtype)
    return peak_memory(lambda: f(model, x, y, dtype))/2**20


def outputs(ready):
    "What every kind makes of the same pictures, without the TF32 that a GPU rounds to"
    with without_tf32(): return {k:infer(*o) for k,o in ready.items()}


def rates(name, bs, rounds, kinds):
    "Images per second of every kind: {kind: (inference, training)}"
    ready = {k:setup(name, k, bs) for k in kinds}
    outs = outputs(ready)
    for k,o in outs.items():
        off = ((o-outs['reference']).norm()/outs['reference'].norm()).item()
        if not off < (.05 if 'bf16' in k else 1e-3): raise RuntimeError(f'{name}, {k}: {off:.4f} off the reference')
    for o in ready.values(): train(*o)
    times = {(k,f):[] for k in kinds for f in (infer, train)}
    for _ in range(rounds+2*(device.type=='cuda')): # a GPU's first ones don't count
        for k,f in times: times[k,f].append(seconds(lambda: f(*ready[k])))
    return {k:tuple(bs/statistics.median(times[k,f][-rounds:]) for f in (infer, train)) for k in kinds}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=5, help='passes of each kind, interleaved; the median counts')
    p.add_argument('--bs', type=int, default=2, help='batch size')
    p.add_argument('--only', nargs='+', default=list(generators), choices=list(generators), metavar='NAME', help='some of the generators')
    p.add_argument('--kinds', nargs='+', default=list(kinds), choices=list(kinds), metavar='KIND', help='beside the reference; leave bf16 out where it is emulated, or wait')
    p.add_argument('--peak', nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peak: return print(measure_peak(*args.peak[:3], int(args.peak[3])))
    print(f'{device_name()}, batches of {args.bs}, {side}x{side} out, median of {args.rounds} interleaved passes; * is the fastest\n')
    print('| generator | kind | inference, images/s | / reference | training step, images/s | / reference |\n|---|---|---|---|---|---|')
    best,failed = {},[]
    for g in args.only:
        try: r = rates(g, args.bs, args.rounds, list(dict.fromkeys(['reference', *args.kinds])))
        except RuntimeError as e: failed.append(f'{g}: {e}'); continue # out of memory, or off the reference: the rest goes on
        best[g] = [max(r, key=lambda k: r[k][i]) for i in (0,1)]
        for k,v in r.items():
            cells = [f"{v[i]:.2f} | {v[i]/r['reference'][i]:.2f}{' *' if best[g][i]==k else ''}" for i in (0,1)]
            print(f"| {g} | {k} | {' | '.join(cells)} |", flush=True)
    print('\n| generator | parameters | multiply-adds, G | inference MiB: reference, fastest | training MiB: reference, fastest |\n|---|---|---|---|---|')
    for g in best:
        mib = [f"{peak(w, g, 'reference', args.bs):.0f}, {peak(w, g, best[g][i], args.bs):.0f}" for i,w in enumerate(('infer','train'))]
        n = sum(p.numel() for p in generators[g][1]().parameters())
        print(f"| {g} | {n:,} | {multiply_adds(g)/1e9:.2f} | {mib[0]} | {mib[1]} |", flush=True)
    if failed: sys.exit('\n'.join(['failed:', *failed]))


if __name__=='__main__': main()
