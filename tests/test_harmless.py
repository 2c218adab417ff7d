"""No model that comes along harms the photos that it says it is for: sixty pieces of ordinary photos, untouched and mildly damaged"""
import random

import numpy as np, pytest
from PIL import Image

from perceptual_fastai.crappify import Crappifier, blur, downscale, jpeg, noise
from perceptual_fastai.files import list_images
from perceptual_fastai.image_files import enhance_image
from perceptual_fastai.images import pixels
from perceptual_fastai.metrics import psnr
from perceptual_fastai.model_files import bundled_enhancers, load_enhancer
from perceptual_fastai.photos import open_photo, sample_photos

MOST = 60. # dB; what is equal would be infinitely near


@pytest.fixture(scope='module')
def sixty():
    "Six squares of each sample photo, none of which a model was trained on"
    rng,pieces = random.Random(0),[]
    for f in list_images(sample_photos()).files:
        im = downscale(open_photo(f), 320)
        for _ in range(6):
            x,y = rng.randrange(im.width-127),rng.randrange(im.height-127)
            pieces.append(im.crop((x, y, x+128, y+128)))
    assert len(pieces)==60
    return pieces


def near(a, b): return min(MOST, psnr(pixels(a), pixels(b)).item())


def gains(model, good, bad):
    "By how many dB each `bad` image comes nearer to the `good` one; a model that enlarges is compared with bicubic"
    out = []
    for g,b in zip(good, bad):
        made = enhance_image(b, model)
        was = b if b.size==g.size else b.resize(g.size, Image.Resampling.BICUBIC)
        out.append(near(made.resize(g.size, Image.Resampling.BICUBIC) if made.size!=g.size else made, g) - near(was, g))
    return np.array(out)


mild = {
    'JPEG 40':lambda im: jpeg(im, 40),
    'JPEG 60':lambda im: jpeg(im, 60),
    'JPEG 80':lambda im: jpeg(im, 80),
    'noise 4':lambda im: noise(im, 4, random.Random(1)),
    'blur .8':lambda im: blur(im, .8)}


def helps(got, damage):
    "In the mean; and no photo, the mean of its six pieces, loses more than .3 dB, no piece by itself more than .7"
    photos = got.reshape(-1, 6).mean(1)
    print(f'{damage}: mean {got.mean():+.2f} dB, least of a photo {photos.min():+.2f} dB, of a piece {got.min():+.2f} dB')
    assert got.mean()>0 and photos.min()>=-.3 and got.min()>=-.7, (got.mean(), photos.min(), got.min())


@pytest.mark.parametrize('damage', mild)
def test_restore_helps(sixty, damage): helps(gains(load_enhancer('restore'), sixty, [mild[damage](o) for o in sixty]), damage)


def test_restore_helps_what_the_web_has(sixty):
    small = [o.resize((64,64), Image.Resampling.LANCZOS) for o in sixty]
    got = gains(load_enhancer('restore'), small, [jpeg(o, 60) for o in small])
    helps(got, 'half, JPEG 60')


def test_restore_leaves_sound_photos_alone(sixty):
    model = load_enhancer('restore')
    kept = np.array([near(enhance_image(o, model), o) for o in sixty])
    print(f'untouched: mean {kept.mean():.1f} dB, least {kept.min():.1f} dB')
    assert kept.min()>=38, kept.min()
