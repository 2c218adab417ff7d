"Everything for a notebook: `from perceptual_fastai.all import *`"
from .crappify import *
from .enhance import *
from .features import *
from .gan import *
from .generators import *
from .learned_loss import *
from .learner import *
from .losses import *
from .metrics import *
from .model_files import *
from .pairs import *
from .photos import *
from .picture_files import *
