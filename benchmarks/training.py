"""Images per second and peak memory of a training, U-Net ResNet34 with FeatureLoss on VGG16, against the usual notebook recipe

The recipe is what notebooks write: fastai's `DataBlock` of two image files per pair, decoded for every crop, `unet_learner` as the course
has it, the whole loss network behind hooks, float32, contiguous. Ours is `pair_dls` with kept pixels, `fast_cbs` and `FeatureLoss`.
Networks hold random numbers: time does not depend on them. A *step* is one batch that lies on the device already; an *epoch* has the
loading, too. Both are measured in turns, in one process; memory in a process of its own for each. Seconds are the median of the rounds.

    python benchmarks/training.py [--sizes 128 256] [--bs 8] [--rounds 5] [--photos DIR]     prints tables; a reading belongs into results/
    python benchmarks/training.py --profile                                                  where the time of a step and of a batch goes
"""
import argparse, shutil, statistics, tempfile, time, warnings
from pathlib import Path

warnings.simplefilter('ignore')
import torch
from fastai.vision.all import (DataBlock, ImageBlock, NormType, Normalize, RandomResizedCrop, aug_transforms, imagenet_stats,
                               get_image_files, set_seed, unet_learner)
from torchvision.models import resnet34

from feature_loss import both
from measure import device, device_name, in_own_process, peak_memory, seconds
from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.learner import enhance_learner, fast_cbs
from perceptual_fastai.pairs import lesson7_augment, pair_dls
from perceptual_fastai.photos import find_photos, open_photo, sample_photos
from perceptual_fastai.unet import unet


def folders(work, photos, n=32):
    "Clean and spoiled JPEG files of a shorter side of about 375 pixels, as those of Pets"
    clean,spoiled = work/'clean',work/'spoiled'
    clean.mkdir()
    files = list(find_photos(photos or sample_photos(work/'samples'), progress=False))
    for i in range(n):
        im = open_photo(files[i%len(files)])
        k = 375/min(im.size)
        im.resize((round(im.width*k), round(im.height*k))).save(clean/f'{i}.jpg', quality=92)
    crappify_folder(clean, spoiled, Crappifier.lesson7(), progress=False)
    return clean,{o.stem:o for o in get_image_files(spoiled)}


def recipe(clean, spoiled, size, bs, loss):
    "The learner that notebooks write"
    block = DataBlock((ImageBlock,ImageBlock), get_items=get_image_files, get_x=lambda f: spoiled[f.stem], splitter=lambda o: (range(len(o)), [0]),
                      item_tfms=RandomResizedCrop(size, min_scale=.35), batch_tfms=[*aug_transforms(max_zoom=2.), Normalize.from_stats(*imagenet_stats)])
    dls = block.dataloaders(clean, bs=bs, num_workers=0 if device.type=='cpu' else 8, device=device)
    dls.c = 3
    return unet_learner(dls, resnet34, loss_func=loss, pretrained=False, n_out=3, blur=True, norm_type=NormType.Weight, wd=1e-3)


def ours(clean, spoiled, size, bs, loss):
    "This library's learner"
    dls = pair_dls(next(iter(spoiled.values())).parent, clean, size, bs, valid=['0.jpg'], cache=clean.parent/'pixels', augment=lesson7_augment(), device=device)
    return enhance_learner(dls, unet('resnet34', None), loss, metrics=[], cbs=fast_cbs(device))


def learners(work, photos, size, bs):
    "Name -> learner, both on the same files"
    work.mkdir()
    reference,loss = both()
    files = folders(work, photos)
    out = {}
    for name,make,l in (('recipe',recipe,reference), ('ours',ours,loss)):
        set_seed(0)
        out[name] = make(*files, size, bs, l)
    return out


class Fixed:
    "A loader that gives one batch of the device again and again"
    def __init__(self, dl, n): self.batch,self.n,self.dl = dl.one_batch(),n,dl
    def __len__(self): return self.n
    def __iter__(self): return iter([self.batch]*self.n)
    def __getattr__(self, k): return getattr(self.dl, k)


def fit(learn, n=0):
    "One epoch; of `n` steps of one batch if given"
    before = learn.dls.loaders
    if n:
        learn.dls.loaders = [Fixed(before[0], n), []]
    else:
        learn.dls.loaders = [before[0], []]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-4)
    learn.dls.loaders = before


def speeds(work, photos, size, bs, rounds):
    "Rows: images per second of either, and the ratio"
    both_,rows = learners(work, photos, size, bs),{}
    for kind,n in (('step',2), ('epoch',0)):
        took = {k:[] for k in both_}
        for r in range(rounds+1): # the first warms up
            for k,learn in both_.items():
                images = n*bs or len(learn.dls.train)*bs
                took[k].append(seconds(lambda: fit(learn, n))/images)
        each = {k:1/statistics.median(v[1:]) for k,v in took.items()}
        rows[f'{size} px, {kind}'] = each
    return rows


def peak(work, photos, size, bs, name):
    "Bytes of one step beyond the networks"
    learn = learners(work, photos, size, bs)[name]
    return peak_memory(lambda: fit(learn, 1))


def profile(work, photos, size, bs):
    "Where a step's time goes, and how long the loading of a batch takes"
    for name,learn in learners(work, photos, size, bs).items():
        dl = iter(learn.dls.train)
        load = statistics.median(seconds(lambda: next(dl)) for _ in range(2))
        x,y = learn.dls.one_batch()[:2]
        model,loss = learn.model.to(device).train(),learn.loss_func.to(device)
        fit(learn, 1)
        forward = seconds(lambda: model(x))
        out = model(x)
        start = time.perf_counter()
        value = loss(out, y)
        looked = time.perf_counter()-start
        print(f'| {name} | {load:.2f} | {forward:.2f} | {looked:.2f} | {seconds(value.backward):.2f} | {seconds(learn.opt.step):.2f} |')


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--sizes', type=int, nargs='+', default=[128,256])
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--photos', type=Path, help='a folder; the sample photos if left out')
    p.add_argument('--profile', action='store_true')
    p.add_argument('--peak', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp())
    try: report(a, work)
    finally: shutil.rmtree(work)


def report(a, work):
    if a.peak:
        name,size = a.peak
        return print(peak(work/'peak', a.photos, int(size), a.bs, name))
    print(f'{device_name()}, batches of {a.bs}\n')
    if a.profile:
        print('| seconds | load a batch | generator | loss network | backward | optimiser |\n|'+'---|'*6)
        return [profile(work/str(s), a.photos, s, a.bs) for s in a.sizes]
    print('| | recipe, images/s | ours, images/s | ratio | recipe, peak MB | ours, peak MB |\n|'+'---|'*6)
    for size in a.sizes:
        more = [f'--bs={a.bs}', *([f'--photos={a.photos}'] if a.photos else [])]
        mb = [in_own_process(__file__, '--peak', k, size, *more)[0]/2**20 for k in ('recipe','ours')]
        for k,v in speeds(work/str(size), a.photos, size, a.bs, a.rounds).items():
            print(f"| {k} | {v['recipe']:.2f} | {v['ours']:.2f} | {v['ours']/v['recipe']:.2f} | {mb[0]:.0f} | {mb[1]:.0f} |", flush=True)


if __name__=='__main__': main()
