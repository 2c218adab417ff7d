"""Seconds of processor time of one evaluation of the style objective and its gradient, which a step of L-BFGS needs, against a plain
formulation: the whole network, in the order NCHW, and the painting's Gram matrices and the photo's features anew at every step.

    python benchmarks/style.py --weights vgg16_in1k.pth --side 256 [--device cuda]
"""
import argparse
from time import perf_counter, process_time

import torch
from torchvision.models import vgg16

from perceptual_fastai.all import StyleLoss, denormalise, gram_matrix, load_weights, normalise, open_photo, sample_photos
from perceptual_fastai.all import style_net, style_network
from perceptual_fastai.all import content_distance, style_distance, to_batch, total_variation

_at = {3:'relu1_2', 8:'relu2_2', 15:'relu3_3', 22:'relu4_3'}


class Plain:
    "The same objective as one would first write it"
    def __init__(self, features, style):
        self.features,self.style = features,style
    def see(self, x):
        seen = {}
        for i,m in enumerate(self.features):
            x = m(x)
            if i in _at: seen[_at[i]] = x.clone() # the ReLUs work in place
        return seen
    def __call__(self, pred, target):
        image = denormalise(pred)
        mine,photo,painting = self.see(normalise(image)),self.see(target),self.see(self.style)
        style = sum(style_distance(gram_matrix(mine[k]), gram_matrix(painting[k])) for k in mine)
        return content_distance(mine['relu2_2'], photo['relu2_2'])+style*4/len(mine)+.5*total_variation(image)


def seconds(func, clock, sync, runs):
    "The shortest of several runs"
    best = float('inf')
    for _ in range(runs):
        start = clock()
        func()
        sync()
        best = min(best, clock()-start)
    return best


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--weights', help="a state dict for vgg16's features; torchvision's download if not given")
    p.add_argument('--side', type=int, default=256, help='of photo and painting, in pixels')
    p.add_argument('--runs', type=int, default=3)
    p.add_argument('--device', default='cpu')
    o = p.parse_args()
    cuda = o.device.startswith('cuda')
    clock,sync = (perf_counter, torch.cuda.synchronize) if cuda else (process_time, lambda: None)
    photo,painting = [open_photo(sample_photos()/k).resize((o.side,o.side)) for k in ('held_out/chelsea.png','train/coffee.png')]
    x,style = [to_batch(i).to(o.device) for i in (photo, painting)]
    network = style_network('vgg16', o.weights or 'imagenet').to(o.device)
    whole = vgg16(weights=None if o.weights else 'IMAGENET1K_V1')
    whole = load_weights(whole, o.weights) if o.weights else whole
    plain = Plain(whole.features.eval().requires_grad_(False).to(o.device), style)
    ours = StyleLoss(network, painting, style_side=o.side, cache=True)
    y = (x+.1*torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)).requires_grad_()
    def ours_bf16(a, b):
        with torch.autocast(a.device.type, torch.bfloat16): return ours(a, b)
    rows = {}
    for name,loss in {'plain':plain, 'StyleLoss':ours, 'StyleLoss, bfloat16':ours_bf16}.items():
        value = loss(y, x).mean()
        rows[name] = value.item(),seconds(lambda: loss(y, x).mean().backward(), clock, sync, o.runs)
    model = style_net(32).eval().to(o.device)
    with torch.no_grad():
        rows['one pass of style_net(32)'] = float('nan'),seconds(lambda: model(x), clock, sync, o.runs)
    print(f'{o.side} pixels, {o.device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n')
    print('| | objective | seconds | times as fast |\n|---|---|---|---|')
    for k,(v,s) in rows.items(): print(f"| {k} | {v:.4f} | {s:.3f} | {rows['plain'][1]/s:.2f} |")


if __name__=='__main__':
    main()
