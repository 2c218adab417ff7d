"What every notebook begins with: warnings of other libraries that say nothing to its reader"
import warnings
warnings.simplefilter('ignore', FutureWarning) # fastai's import touches torch.jit
warnings.filterwarnings('ignore', 'You are shadowing') # fastai's GAN callback does so to fastai's learner
