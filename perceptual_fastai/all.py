"Everything for a notebook: `from perceptual_fastai.all import *`"
from .apart import *
from .checkpoint import *
from .crappify import *
from .critic import *
from .datasets import *
from .decode import *
from .enhance import *
from .features import *
from .files import *
from .gan import *
from .image_files import *
from .images import *
from .learned_loss import *
from .learner import *
from .losses import *
from .metrics import *
from .model_files import *
from .nima import *
from .paint import *
from .pairs import *
from .photos import *
from .sr import *
from .stop_rule import *
from .style import *
from .unet import *
from .weights import *

# names of earlier versions
from .files import FolderReport as CrappifyReport, FolderReport as EnhanceReport, atomic_write as write_whole
from .image_files import ImageData as Picture, enhance_data as enhance_picture, image_data as to_picture
from .image_files import open_image as open_picture, save_image as save_picture, to_pillow as from_picture

_earlier = dict(Generator='ImageGenerator', TransformBlock='JohnsonBlock', to_image='denormalise') # not for `*`: fastai has others of these names
__all__ = [o for o in globals() if not o.startswith('_')]

def __getattr__(name):
    if name in _earlier:
        return globals()[_earlier[name]]
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
