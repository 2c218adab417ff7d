"""Enlarging by 4: the bundled `x4` against FSRCNN, CARN-M and IMDN, in decibels, parameters, multiply-adds and seconds of one thread

    python benchmarks/peers.py --shared DIR [--model x4|FILE] [--repeats 3]

DIR has `benchmarks/set5`, `benchmarks/set14` and the peers' public weights in `peers/weights`. Every network gets the same small images
(Pillow's bicubic, a multiple of 4) and is asked in turn, so that a busy machine is busy for all; seconds are processor time, the least of
the repeats. Decibels on luma, four pixels of border left out. The peers' networks are written anew here, from their papers:
Dong et al. 2016 (FSRCNN), Ahn et al. 2018 (CARN-M), Hui et al. 2019 (IMDN).
"""
import argparse, time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from measure import device_name
from perceptual_fastai.crappify import Crappifier, modcrop
from perceptual_fastai.images import denormalise, luma, normalise, pixels
from perceptual_fastai.metrics import psnr
from perceptual_fastai.model_files import load_enhancer
from perceptual_fastai.photos import find_photos, open_photo


def conv(ni, no, ks=3, groups=1): return nn.Conv2d(ni, no, ks, padding=ks//2, groups=groups)


class FSRCNN(nn.Module):
    "Luma, (N,1,H,W) in [0,1]; shrink the channels, map, expand, one transposed convolution"
    def __init__(self):
        super().__init__()
        self.first_part = nn.Sequential(conv(1, 56, 5), nn.PReLU(56))
        layers = [conv(56, 12, 1), nn.PReLU(12)]
        for _ in range(4):
            layers += [conv(12, 12), nn.PReLU(12)]
        self.mid_part = nn.Sequential(*layers, conv(12, 56, 1), nn.PReLU(56))
        self.last_part = nn.ConvTranspose2d(56, 1, 9, 4, 4, output_padding=3)
    def forward(self, x): return self.last_part(self.mid_part(self.first_part(x)))


class Body(nn.Module):
    "Layers under the name `body`, as the public weights have them, with or without the way round"
    def __init__(self, *layers, around=False):
        super().__init__()
        self.body,self.around = nn.Sequential(*layers),around
    def forward(self, x): return F.relu(self.body(x)+x) if self.around else self.body(x)


class Cascade(nn.Module):
    "Three steps, each fused by a 1x1 convolution with all that came before; CARN-M's inner cascades have one block for all three"
    def __init__(self, block=None):
        super().__init__()
        self.shared = block is not None
        if self.shared:
            self.b1 = block
        else:
            self.b1,self.b2,self.b3 = [Cascade(self.cheap()) for _ in range(3)]
        self.c1,self.c2,self.c3 = [Body(conv(64*n, 64, 1), nn.ReLU()) for n in (2,3,4)]
    @staticmethod
    def cheap(): return Body(conv(64, 64, groups=4), nn.ReLU(), conv(64, 64, groups=4), nn.ReLU(), conv(64, 64, 1), around=True)
    def forward(self, x):
        seen = [x]
        for block,fuse in zip([self.b1]*3 if self.shared else (self.b1, self.b2, self.b3), (self.c1, self.c2, self.c3)):
            seen.append(block(x))
            x = fuse(torch.cat(seen, 1))
        return x


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)
    def forward(self, x): return self.shifter(x)


class CARNM(Cascade):
    "RGB in [0,1]"
    def __init__(self):
        super().__init__()
        self.sub_mean,self.add_mean,self.entry,self.exit = Shift(),Shift(),conv(3, 64),conv(64, 3)
        def up(): return [conv(64, 256, groups=4), nn.ReLU(), nn.PixelShuffle(2)]
        self.upsample = nn.ModuleDict(dict(up4=Body(*up(), *up())))
    def forward(self, x):
        x = super().forward(self.entry(self.sub_mean(x)))
        return self.add_mean(self.exit(self.upsample['up4'](x)))


class Contrast(nn.Module):
    "Weights of channels by their mean and deviation"
    def __init__(self):
        super().__init__()
        self.conv_du = nn.Sequential(conv(64, 4, 1), nn.ReLU(), conv(4, 64, 1), nn.Sigmoid())
    def forward(self, x): return x*self.conv_du(x.mean((2,3), keepdim=True)+x.std((2,3), keepdim=True, unbiased=False))


class Distil(nn.Module):
    "A quarter of the channels is put aside after each of three convolutions, and all quarters are brought together"
    def __init__(self):
        super().__init__()
        self.c1,self.c2,self.c3,self.c4,self.c5,self.cca = conv(64,64),conv(48,64),conv(48,64),conv(48,16),conv(64,64,1),Contrast()
    def forward(self, x):
        aside,rest = [],x
        for c in (self.c1, self.c2, self.c3):
            part,rest = F.leaky_relu(c(rest), .05).split((16,48), 1)
            aside.append(part)
        return self.c5(self.cca(torch.cat([*aside, self.c4(rest)], 1)))+x


class IMDN(nn.Module):
    "RGB in [0,1]"
    def __init__(self):
        super().__init__()
        self.fea_conv = conv(3, 64)
        for i in range(1, 7):
            setattr(self, f'IMDB{i}', Distil())
        self.c,self.LR_conv = nn.Sequential(conv(384, 64, 1), nn.LeakyReLU(.05)),conv(64, 64)
        self.upsampler = nn.Sequential(conv(64, 48), nn.PixelShuffle(4))
    def forward(self, x):
        first = x = self.fea_conv(x)
        seen = [x := getattr(self, f'IMDB{i}')(x) for i in range(1, 7)]
        return self.upsampler(self.LR_conv(self.c(torch.cat(seen, 1)))+first)


class ByLuma(nn.Module):
    "RGB in [0,1] by a network for luma (of 16 to 235 in 255); luma alone comes out, which is all that is scored"
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, x): return self.net(luma(x))


def weights(path):
    "Without the prefix and the factors that are not asked for"
    state = torch.load(path, weights_only=True, map_location='cpu')
    return {k.removeprefix('module.'):v for k,v in state.items() if not k.startswith(('upsample.up2','upsample.up3'))}


def peers(folder):
    "Name -> network"
    out = {}
    for name,net,file in (('FSRCNN',FSRCNN(),'fsrcnn_x4'), ('CARN-M',CARNM(),'carn_m'), ('IMDN',IMDN(),'imdn_x4')):
        net.load_state_dict(weights(folder/f'{file}.pth'))
        out[name] = ByLuma(net) if name=='FSRCNN' else net
    return out


class Ours(nn.Module):
    "A bundled model or a file; RGB in [0,1]"
    def __init__(self, name):
        super().__init__()
        self.net = load_enhancer(name).model.to(memory_format=torch.channels_last)
    def forward(self, x): return denormalise(self.net(normalise(x)))


def multiply_adds(net, x):
    "Of convolutions, in one pass"
    counts = []
    def count(m, inp, out): # a transposed convolution multiplies once per input
        counts.append((inp[0] if isinstance(m, nn.ConvTranspose2d) else out).numel()*m.weight[0].numel())
    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d,nn.ConvTranspose2d))]
    net(x)
    for h in handles:
        h.remove()
    return sum(counts)


def y_db(out:Tensor, clean:Tensor):
    "Both rounded to eight bits; luma, four pixels of border left out"
    out = out.clamp(0, 1)
    if out.shape[1]==1:
        a,b = [o[...,4:-4,4:-4] for o in (out, luma(clean))]
        return -10*((a-b)**2).mean().log10().item()
    return psnr((out*255).round()/255, clean, 'y', 4).item()


@torch.no_grad()
def table(nets, sets, repeats):
    "Decibels and seconds by network and set"
    rows = {k:{} for k in nets}
    for test,images in sets.items():
        pairs = [(pixels(Crappifier.bicubic(4)(o)), pixels(modcrop(o, 4))) for o in images]
        took = {k:[float('inf')]*len(pairs) for k in nets}
        for _ in range(repeats):
            for i,(x,_) in enumerate(pairs):
                for k,net in nets.items():
                    start = time.process_time()
                    net(x)
                    took[k][i] = min(took[k][i], time.process_time()-start)
        for k,net in nets.items():
            rows[k][f'{test}, dB'] = sum(y_db(net(x), y) for x,y in pairs)/len(pairs)
            rows[k][f'{test}, s'] = sum(took[k])
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--shared', type=Path, required=True)
    p.add_argument('--model', nargs='+', default=['x4'], help='bundled names or files')
    p.add_argument('--repeats', type=int, default=3)
    a = p.parse_args()
    torch.set_num_threads(1)
    nets = {k:o.eval() for k,o in (peers(a.shared/'peers'/'weights') | {o:Ours(o) for o in a.model}).items()}
    sets = {k:[open_photo(f) for f in find_photos(a.shared/'benchmarks'/k.lower(), progress=False)] for k in ('Set5','Set14')}
    print(f'{device_name()}, least of {a.repeats}\n')
    rows = table(nets, sets, a.repeats)
    heads = list(next(iter(rows.values())))
    print('| | parameters | multiply-adds for 1280x720 |', ' | '.join(heads), '|\n|'+'---|'*(len(heads)+3))
    for k,row in rows.items():
        n,macs = sum(o.numel() for o in nets[k].parameters()),multiply_adds(nets[k], torch.rand(1, 3, 180, 320))
        print(f'| {k} | {n:,} | {macs/1e9:.1f} G |', ' | '.join(f'{v:.2f}' for v in row.values()), '|')


if __name__=='__main__': main()
