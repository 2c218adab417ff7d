"""Seams of a trained U-Net: tiles against the whole picture, at the default overlap.

A U-Net looks farther than any tile, so tiles are an approximation. This trains one on the sample photos (`perceptual-fastai
train`), restores two of them once as a whole and once in tiles, and prints how far the two are apart.
"""
import argparse, tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perceptual_fastai.crappify import Crappifier
from perceptual_fastai.enhance import enhance_array
from perceptual_fastai.model_files import load_enhancer
from perceptual_fastai.photos import find_photos, open_photo, sample_photos
from perceptual_fastai.train import train

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--arch', default='resnet34', help='encoder of the U-Net')
p.add_argument('--epochs', type=int, default=8, help='of 128 crops of 64 pixels')
p.add_argument('--tile', type=int, nargs='+', default=[128, 192, 256], help='sides of the tiles')
args = p.parse_args()

with tempfile.TemporaryDirectory() as d:
    photos = sample_photos(Path(d)/'photos')
    train(photos, Path(d)/'out', arch=args.arch, loss='l1', size=64, epochs=args.epochs)
    enhancer = load_enhancer(Path(d)/'out'/'model.safetensors')
    print(f'\n{enhancer}, torch {torch.__version__}, {torch.get_num_threads()} threads; levels of 255')
    print('| photo | tile | overlap | changed by, mean | tiled - whole, mean | 99th percentile | at most |\n|---|---|---|---|---|---|---|')
    for f in find_photos(photos/'held_out', progress=False):
        good = open_photo(f)
        bad = np.array(Crappifier.lesson7()(good, f.name).resize(good.size, Image.Resampling.BILINEAR))
        whole = np.float64(enhance_array(bad, enhancer, 9999, progress=False))
        for tile in args.tile:
            for overlap in (0, None):
                diff = np.abs(enhance_array(bad, enhancer, tile, overlap, progress=False)-whole)
                print(f'| {f.stem} {good.width}x{good.height} | {tile} | {"default" if overlap is None else overlap} | {np.abs(whole-bad).mean():.2f} | {diff.mean():.3f} | {np.percentile(diff, 99):.1f} | {diff.max():.0f} |', flush=True)
