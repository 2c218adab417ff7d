"""Are the recipes' tests any good? Change one setting, and see whether a test notices.

mutants.py             every mutant; exit status 1 if one lives, or if its text is no longer there
mutants.py GAN pairs   those whose module or test has one of these words in its name

Each mutant is one line of one module, in a copy of the package in a folder of its own; `tests/test_recipes.py` runs against
that copy, or one test of it. Libraries are imported once and inherited, so it takes seconds a mutant. Needs `os.fork`
(Linux, macOS). About six minutes on one idle core."""
import os
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter

root = Path(__file__).resolve().parent.parent

mutants = [ # module, what stands there, what stands there instead, which tests
    # files
    ('crappify', 'rng.randint(10,70)', 'rng.randint(30,70)', 'lesson7_quality'),
    ('crappify', 'rng.randint(10,70)', 'rng.randint(10,60)', 'lesson7_quality'),
    ('crappify', 'return jpeg(caption(im, str(q), xy), q)', 'return jpeg(caption(im, str(q), xy))', 'lesson7_quality'),
    ('crappify', 'return jpeg(caption(im, str(q), xy), q)', 'return caption(jpeg(im, q), str(q), xy)', 'lesson7_writes'),
    ('crappify', "im.save(buf, 'JPEG', quality=q)", "im.save(buf, 'JPEG')", 'lesson7_quality'),
    ('crappify', 'caption(im, str(q), xy)', "caption(im, '60', xy)", 'lesson7_quality'),
    ('crappify', "fill:str|tuple='white'", "fill:str|tuple='black'", 'lesson7'),
    ('crappify', 'rng.randint(0, im.width//2)', 'rng.randint(0, im.width)', 'lesson7_caption'),
    ('crappify', 'rng.randint(0, im.height//2)', 'rng.randint(0, im.height)', 'lesson7_caption'),
    ('crappify', 'rng.randint(0, im.width//2)', '0', 'lesson7_caption'),
    ('crappify', 'rng.randint(0, im.height//2)', 'im.height//4', 'lesson7_caption'),
    ('crappify', '    side:int=96, # Shorter side in pixels\n)->Crappifier', '    side:int=128, # Shorter side in pixels\n)->Crappifier', 'lesson7'),
    ('crappify', 'resample=Image.Resampling.BILINEAR', 'resample=Image.Resampling.BICUBIC', 'lesson7_shrinks'),
    ('crappify', "os.fsencode(f'{self.seed}/{name}')", "os.fsencode(f'{self.seed}')", 'damage_depends'),
    ('crappify', "os.fsencode(f'{self.seed}/{name}')", "os.fsencode(f'{name}')", 'damage_depends'),
    ('crappify', 'blur(modcrop(im, factor), 1.)', 'blur(modcrop(im, factor), 2.)', 'blurred'),
    ('crappify', 'ImageFilter.GaussianBlur(sigma)', 'ImageFilter.BoxBlur(sigma)', 'blurred'),
    ('crappify', 'im.height//factor), Image.Resampling.BICUBIC', 'im.height//factor), Image.Resampling.BILINEAR', 'blurred'),
    ('crappify', 'sigma:float=2.,', 'sigma:float=1.,', 'blurred'),
    # batches
    ('pairs', 'self.mirror = train and self.flip and random.random()<.5', 'self.mirror = False', 'training_crops'),
    ('pairs', 'self.mirror = train and self.flip', 'self.mirror = self.flip', 'training_crops'),
    ('pairs', 'if train else (.5,.5)', 'if False else (.5,.5)', 'training_crops'),
    ('pairs', 'if train else (.5,.5)', 'if True else (.5,.5)', 'training_crops'),
    ('pairs', 'fx,fy = (random.random(),random.random())', 'fx,fy = (random.random(),.5)', 'training_crops'),
    ('pairs', 'train,(low,high),wh = split_idx==0', 'train,(low,high),wh = True', 'training_crops'),
    ('pairs', 'zoom = random.uniform(low, most) if train else low', 'zoom = low', 'training_crops'),
    ('pairs', 'zoom = random.uniform(low, most) if train else low', 'zoom = random.uniform(low, most)', 'training_crops'),
    ('pairs', 'most = max(low, min(high, min(wh)/self.size))', 'most = high', 'zoom_ends'),
    ('pairs', 'zoom:tuple[float,float]=(1.,2.), # Zoom range', 'zoom:tuple[float,float]=(1.,1.2), # Zoom range', 'training_crops'),
    ('pairs', 'flip:bool=True, # Mirror half of the training crops? With', 'flip:bool=False, # Mirror half of the training crops? With', 'training_crops'),
    ('pairs', 'max_rotate=10.', 'max_rotate=45.', 'augmentation'),
    ('pairs', 'max_rotate=10.', 'max_rotate=0.', 'augmentation'),
    ('pairs', 'max_warp=.2', 'max_warp=0.', 'augmentation'),
    ('pairs', 'max_lighting=.2', 'max_lighting=0.', 'augmentation'),
    ('pairs', 'p:float=.75', 'p:float=.1', 'augmentation'),
    ('pairs', 'batch_tfms=[*(augment or []), normalise_batches()]', 'batch_tfms=augment', 'normalised'),
    ('pairs', 'self.way = random.choice(_ways) if train and self.turn else None', 'self.way = None', 'patches'),
    ('pairs', '_ways = (None, *Image.Transpose)', '_ways = (None, Image.Transpose.FLIP_LEFT_RIGHT)', 'patches'),
    ('pairs', 'x,y = random.randint(0, w-p),random.randint(0, h-p)', 'pass', 'patches'),
    ('pairs', 'valid=0.1, # Share', 'valid=0.2, # Share', 'held_out'),
    ('pairs', 'seed:int=42, # For the split', 'seed:int=43, # For the split', 'held_out'),
    ('pairs', 'size:int=128, # Side of the square crops, in pixels; with', 'size:int=96, # Side of the square crops, in pixels; with', '128_pixels'),
    ('pairs', 'bs:int=32, # Batch size', 'bs:int=16, # Batch size', '32_of_128'),
    ('images', 'return Normalize.from_stats(*imagenet_stats)', 'return Normalize.from_stats([.5]*3, [.5]*3)', 'normalised'),
    ('datasets', 'share:float=.1,', 'share:float=.2,', 'held_out'),
    # lesson 7's stages
    ('learner', 'epochs:int=10, # Of each stage', 'epochs:int=4, # Of each stage', 'lesson7_stages'),
    ('learner', 'sizes:tuple[int,int]=(128,256)', 'sizes:tuple[int,int]=(128,192)', 'lesson7_stages'),
    ('learner', 'bss:tuple[int,int]=(32,12)', 'bss:tuple[int,int]=(32,16)', 'lesson7_stages'),
    ('learner', 'Stage(a, m, True, slice(lr*10), epochs)', 'Stage(a, m, False, slice(lr*10), epochs)', 'lesson7_stages'),
    ('learner', 'Stage(b, n, True, slice(lr), epochs)', 'Stage(b, n, False, slice(lr), epochs)', 'lesson7_stages'),
    ('learner', 'slice(lr*10)', 'slice(lr)', 'lesson7_rates'),
    ('learner', 'slice(lr/100, lr)', 'slice(lr/10, lr)', 'lesson7_rates'),
    ('learner', 'slice(lr/1000, lr/10)', 'slice(lr/1000, lr)', 'lesson7_rates'),
    ('learner', 'epochs, .3)', 'epochs)', 'lesson7_rates'),
    ('learner', 'pct_start:float=.9', 'pct_start:float=.3', 'lesson7_rates'),
    ('learner', 'wd:float=1e-3', 'wd:float=1e-2', 'lesson7_rates'),
    ('learner', 'unet_splitter if isinstance(generator, Unet) else params', 'params', 'lesson7'),
    ('learner', 'learn.freeze() if frozen else learn.unfreeze()', 'learn.unfreeze()', 'lesson7_stages'),
    ('learner', 'im.resize(size, Image.Resampling.BILINEAR)', 'im.resize(size, Image.Resampling.BICUBIC)', 'restore_brings'),
    # NoGAN
    ('gan', 'frozen_epochs:int=2', 'frozen_epochs:int=1', 'nogan_epochs'),
    ('gan', 'gen_epochs:int=3', 'gen_epochs:int=1', 'nogan_epochs'),
    ('gan', 'critic_epochs:int=6', 'critic_epochs:int=3', 'nogan_epochs'),
    ('gan', 'gan_epochs:int=40', 'gan_epochs:int=4', 'nogan_epochs'),
    ('gan', 'big_epochs:int=10', 'big_epochs:int=0', 'nogan_epochs'),
    ('gan', 'big_size:int=192', 'big_size:int=128', 'nogan_epochs'),
    ('gan', 'big_bs:int=16', 'big_bs:int=32', 'nogan_epochs'),
    ('gan', 'p.big_epochs, p.big_size, p.big_bs', 'p.big_epochs, p.size, p.bs', 'nogan_epochs'),
    ('gan', 'p.gan_lr/2', 'p.gan_lr', 'nogan_duels'),
    ('gan', 'gan_lr:float=1e-4', 'gan_lr:float=1e-3', 'nogan_duels'),
    ('gan', "learn.freeze() if name=='1_frozen.ck' else learn.unfreeze()", 'learn.unfreeze()', 'nogan_epochs'),
    ('gan', 'dict(pct_start=.8)', 'dict(pct_start=.3)', 'nogan_rates'),
    ('gan', 'frozen_lr:float=3e-3', 'frozen_lr:float=1e-3', 'nogan_rates'),
    ('gan', 'slice(p.gen_lr/1000, p.gen_lr)', 'slice(p.gen_lr/10, p.gen_lr)', 'nogan_rates'),
    ('gan', 'critic_lr:float=1e-3', 'critic_lr:float=1e-2', 'nogan_rates'),
    ('gan', "dls_at(work/'rendered', p.size, p.bs)", 'dls_at(spoiled, p.size, p.bs)', 'nogan_epochs'),
    ('gan', "progress, 'fit', n, lr)", "progress, 'fit_one_cycle', n, lr)", 'nogan_duels'),
    ('gan', 'mom:float=0.,', 'mom:float=.9,', 'duel'),
    ('gan', 'sqr_mom=.99', 'sqr_mom=.999', 'duel'),
    ('gan', 'critic_thresh:float=.65', 'critic_thresh:float=.5', 'duel'),
    ('gan', 'critic_thresh:float=.65', 'critic_thresh:float=.67', 'duel'),
    ('gan', 'switcher=AdaptiveGANSwitcher(critic_thresh=critic_thresh), ', '', 'duel'),
    ('gan', 'critic_lr:float=5.', 'critic_lr:float=1.', 'duel'),
    ('gan', 'def after_step(self): self._times(1/self.mult)', 'def after_step(self): pass', 'duel'),
    ('gan', 'critic_weight:float=1.', 'critic_weight:float=50.', 'duel_weights'),
    ('gan', 'image_weight:float=50.', 'image_weight:float=1.', 'duel_weights'),
    ('gan', '(critic_weight, image_weight)', '(image_weight, critic_weight)', 'duel_weights'),
    ('gan', 'm.requires_grad_(True)', 'm', 'duel_trains'),
    ('gan', 'for p in (gan.critic if turn else gan.generator).parameters(): p.grad = None', 'pass', 'duel'),
    ('gan', 'torch.cat([fake.new_zeros(len(fake)), fake.new_ones(len(real))])', 'torch.cat([fake.new_ones(len(fake)), fake.new_zeros(len(real))])',
     'critic_alone'),
    ('gan', 'gan_critic() if critic is None', 'gan_critic(nf=64) if critic is None', 'critic_is'),
    ('critic', 'p:float=.15', 'p:float=.3', 'critic_of'),
    ('critic', "('conv1', p/2)", "('conv1', p)", 'critic_of'),
    ('critic', 'spectral:bool=True', 'spectral:bool=False', 'critic_of'),
    # losses and the networks that look
    ('losses', 'layer_weights:tuple=(5.,15.,2.)', 'layer_weights:tuple=(5.,10.,2.)', 'feature_loss'),
    ('losses', 'gram_weight:float=5e3', 'gram_weight:float=1e3', 'feature_loss'),
    ('losses', 'w**2*self.gram_weight', 'w*self.gram_weight', 'feature_loss'),
    ('losses', 'pixel_loss=F.l1_loss', 'pixel_loss=F.mse_loss', 'feature_loss'),
    ('losses', 'feature_loss=F.l1_loss', 'feature_loss=F.mse_loss', 'feature_loss'),
    ('losses', 'return f@f.transpose(1,2)/(c*h*w)', 'return f@f.transpose(1,2)/(h*w)', 'feature_loss or johnsons'),
    ('losses', '(a.float()-b.float()).pow(2).flatten(1).mean(1)', '(a.float()-b.float()).abs().flatten(1).mean(1)', 'johnsons'),
    ('losses', '(gram_matrix(a)-gram_matrix(b)).pow(2).sum((1,2))', '(gram_matrix(a)-gram_matrix(b)).pow(2).mean((1,2))', 'johnsons'),
    ('losses', "LossNetwork('vgg19', ['block2_conv2'])", "LossNetwork('vgg19', ['block5_conv4'])", 'srcnn_loss'),
    ('losses', "LossNetwork('vgg19', ['block2_conv2'])", "LossNetwork('vgg19', ['conv2_2'])", 'srcnn_loss'),
    ('losses', "LossNetwork('vgg19', ['block2_conv2'])", "LossNetwork('vgg16', ['block2_conv2'])", 'srcnn_loss'),
    ('losses', '_mse_01 if normalised else F.mse_loss', 'F.mse_loss', 'srcnn_loss'),
    ('losses', 'mse:float=.1', 'mse:float=.5', 'srcnn_loss'),
    ('losses', 'features:float=.9', 'features:float=.5', 'srcnn_loss'),
    ('features', 'def train(self, mode=True): return super().train(False)', 'def train(self, mode=True): return super().train(mode)', 'loss_network'),
    ('features', '.eval().requires_grad_(False)', '.eval()', 'loss_network'),
    ('features', "_fold_bn(model.eval().features)", "_fold_bn(model.features)", 'batch_norms'),
    ('features', 'v[-3:] if k.startswith', 'v[:3] if k.startswith', 'feature_loss'),
    ('features', "arch:str|nn.Module='vgg16_bn'", "arch:str|nn.Module='vgg16'", 'feature_loss'),
    ('features', "vgg16=['relu1_2','relu2_2','relu3_3','relu4_3','relu5_3']", "vgg16=['conv1_2','conv2_2','conv3_3','conv4_3','conv5_3']", 'taps_hold'),
    # LPIPS and DISTS
    ('metrics', "net:str='alex', # 'alex', 'vgg' or 'squeeze'; say", "net:str='squeeze', # 'alex', 'vgg' or 'squeeze'; say", 'lpips_is'),
    ('metrics', "vgg=('vgg16', 'pre_pool')", "vgg=('vgg16', None)", 'lpips_is'),
    ('metrics', 'f/(f.pow(2).sum(1, keepdim=True)+1e-8).sqrt()', 'f/(f.pow(2).sum(1, keepdim=True)+1e-2).sqrt()', 'lpips_is'),
    ('metrics', 'setattr(network.net, k, L2Pool())', 'pass', 'dists_is'),
    ('metrics', "for k in ('alpha','beta')", "for k in ('beta','alpha')", 'dists_is'),
    ('metrics', 'denormalise(pred, clamp=False) if self.normalised else pred', 'pred', 'dists_compares'),
    # generators
    ('sr', 'blocks:int=16, # Residual blocks\n', 'blocks:int=8, # Residual blocks\n', 'edsr'),
    ('sr', 'blocks:int=16, # Shared', 'blocks:int=8, # Shared', 'edsr'),
    ('sr', 'return x + self.scale*self.body(x)', 'return x + self.body(x)', 'edsr'),
    ('sr', 'EDSRBlock(n, ks=5), EDSRBlock(n, ks=5)', 'EDSRBlock(n), EDSRBlock(n)', 'edsr'),
    ('sr', 'features:tuple[int,int]=(64,32)', 'features:tuple[int,int]=(32,32)', 'srcnn_has'),
    ('sr', 'middle:int=1', 'middle:int=5', 'srcnn_has'),
    ('sr', '_same(channels, a, 9)', '_same(channels, a, 7)', 'srcnn_has'),
    ('sr', '5 if style else 4', '5', 'transform_net'),
    ('sr', "norm:str|None='batch', # 'batch', 'instance' or None\n        up", "norm:str|None='instance', # 'batch', 'instance' or None\n        up", 'transform_net'),
    ('sr', "up:str='transposed'", "up:str='resize'", 'transform_net'),
    ('sr', 'return self.middle + self.reach*x.tanh()', 'return x.tanh()', 'transform_net'),
    ('sr', 'self.last = nn.Identity() if residual else ScaledTanh()', 'self.last = nn.Identity()', 'transform_net'),
    ('unet', "arch='resnet34', # Name", "arch='resnet18', # Name", 'unet_is'),
    ('unet', 'blur:bool=True', 'blur:bool=False', 'unet_is'),
    ('unet', 'norm_type:NormType|None=NormType.Weight', 'norm_type:NormType|None=NormType.Batch', 'unet_is'),
    ('unet', 'self_attention=self_attention, y_range=y_range)\n    net.residual', 'y_range=y_range)\n    net.residual', 'unet_is'),
]


def chosen(words):
    return [m for m in mutants if not words or any(w.lower() in f'{m[0]} {m[3]}'.lower() for w in words)]

def preload():
    "What every child inherits"
    import matplotlib
    matplotlib.use('Agg')
    import fastai.vision.all, fastai.vision.gan, pandas, pytest, skimage.metrics, sklearn, torch, torchvision # noqa: F401
    torch.set_num_threads(1)

def passes(folder, test):
    "Does the test pass with the package in `folder`? In a process of its own"
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
    rc = 99
    try:
        import pytest
        os.chdir(folder)
        null = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(null, fd)
        sys.path.insert(0, str(folder))
        import perceptual_fastai
        if Path(perceptual_fastai.__file__).resolve().is_relative_to(folder.resolve()):
            os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'
            args = ['-x', '--assert=plain', '-q', '-p', 'no:warnings', '-p', 'no:cacheprovider', f'--basetemp={folder/"pytest"}']
            rc = int(pytest.main([*args, str(folder/'tests'/'test_recipes.py'), *(['-k', test] if test else [])]))
    finally:
        os._exit(rc)

def copy(to):
    shutil.copytree(root/'perceptual_fastai', to/'perceptual_fastai', ignore=shutil.ignore_patterns('__pycache__', 'weights'))
    (to/'perceptual_fastai'/'weights').symlink_to(root/'perceptual_fastai'/'weights')
    (to/'tests').mkdir()
    shutil.copy(root/'tests'/'test_recipes.py', to/'tests')
    return to

def verdict(module, old, new, test):
    "What became of one mutant"
    with tempfile.TemporaryDirectory() as tmp:
        file = copy(Path(tmp))/'perceptual_fastai'/f'{module}.py'
        text = file.read_text(encoding='utf-8')
        if old not in text:
            return 'GONE'
        file.write_text(text.replace(old, new), encoding='utf-8')
        return 'LIVED' if passes(Path(tmp), test) else 'killed'


def main(words):
    preload()
    with tempfile.TemporaryDirectory() as tmp:
        if not passes(copy(Path(tmp)), None):
            print('the tests fail without any mutant; see to that first')
            return 1
    start,counts = perf_counter(),{}
    for m in chosen(words):
        now = verdict(*m)
        counts[now] = counts.get(now, 0)+1
        print(f'{now:<7} {m[0]}: {" ".join(m[1].split())} -> {" ".join(m[2].split())}', flush=True)
    print(', '.join(f'{n} {k}' for k,n in counts.items()), f'in {perf_counter()-start:.0f} s')
    return int(set(counts)!={'killed'})


if __name__=='__main__':
    sys.exit(main(sys.argv[1:]))
