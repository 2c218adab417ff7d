"""Every tutorial and experiment in mode 'paper' as a dry run, from a foreign folder, with local stand-ins for the downloads

    python benchmarks/dry_run.py [--only NAME ...] [--shared DIR] [--kill [N]] [--twin [KIND]] [--batches N] [--work DIR]

In a dry run each epoch ends after N batches, two by default, and each training after an epoch; sizes, networks, losses and files are those of the paper.
"""
import argparse, ast, json, os, random, re, shutil, signal, subprocess, sys, tempfile, time, traceback
from contextlib import nullcontext
from pathlib import Path

root = Path(__file__).resolve().parent.parent
div2k = {'train':(1, 10), 'valid':(801, 808)} # first and last of the stand-ins' numbers


# stand-ins for downloads

def photos_at_hand(shared):
    "Some clean photos, opened"
    sys.path.insert(0, str(root))
    from perceptual_fastai.files import list_images
    from perceptual_fastai.photos import open_photo, sample_photos
    folder = shared/'photos'/'imagenet' if shared and (shared/'photos'/'imagenet').is_dir() else sample_photos()
    return [open_photo(f) for f in list_images(folder).files[:24]]


def pets(folder, shared, photos):
    "Photos of `shared`, or pieces of those at hand under such names; one in seven is smaller than 256 pixels, as in Pets"
    real = shared/'fastai_home'/'data'/'oxford-iiit-pet'/'images' if shared else None
    folder.mkdir(parents=True)
    if real and real.is_dir():
        for f in real.iterdir(): (folder/f.name).symlink_to(f.resolve())
        return f'{len(list(folder.iterdir()))} photos of {shared.name}'
    rng = random.Random(0)
    for i in range(84):
        w,h = (300,225) if i%7==0 else (500,375)
        im = photos[i%len(photos)].resize((w+60, h+60))
        x,y = rng.randrange(60),rng.randrange(60)
        im.crop((x, y, x+w, y+h)).save(folder/f"{'Bengal' if i%2 else 'beagle'}_{i+1}.jpg", quality=90)
    return '84 pieces of sample photos'


def larger(photos, folder, names, size):
    from PIL import Image
    folder.mkdir(parents=True)
    for i,name in enumerate(names):
        photos[i%len(photos)].resize(size, Image.Resampling.BICUBIC).save(folder/name, **(dict(compress_level=1) if name.endswith('png') else {}))


def state_of(arch, shared):
    "A state dict that torchvision takes, and where it is from; the classifier is one number, for nothing here classifies"
    import torch, torchvision
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device('meta') if arch.startswith('vgg') or arch=='alexnet' else nullcontext(): model = torchvision.models.get_model(arch)
        state = model.state_dict()
        for k,v in state.items():
            if k.startswith('classifier.') and v.ndim>1: state[k] = torch.full((), 1e-3).expand(v.shape) # takes no room in the file
            elif v.is_meta: state[k] = torch.randn(v.shape)*(2/v[0].numel())**.5 if v.ndim>1 else torch.full(v.shape, float(k.endswith(('weight','var'))))
    file = shared/'weights'/f'{arch}_in1k.pth' if shared else None
    if not (file and file.exists()): return state,'random numbers'
    known = {k:v.float() if v.is_floating_point() else v for k,v in torch.load(file, weights_only=True, map_location='cpu').items()}
    return state | known,f'{len(known)} of {len(state)} tensors of {file.name}'


def weights(folder, shared, text):
    "Files where torch.hub looks, for all architectures that are mentioned"
    import torch, torchvision
    found = {}
    folder.mkdir(parents=True)
    names = [k for k in torchvision.models.list_models(torchvision.models) if re.search(rf'\b{k}\b', text)]
    for arch in names + (['alexnet'] if 'lpips' in text.lower() and 'alexnet' not in names else []):
        state,found[arch] = state_of(arch, shared)
        torch.save(state, folder/Path(torchvision.models.get_model_weights(arch).IMAGENET1K_V1.url).name)
    return found


def stand_ins(work, shared, text, batches):
    "All that pages download; returns the environment in which they find it"
    home,hub = work/'fastai_home',work/'torch'
    if not (work/'ready').exists():
        for o in (home, hub): shutil.rmtree(o, ignore_errors=True)
        (home/'archive').mkdir(parents=True)
        (home/'config.ini').write_text('[DEFAULT]\ndata = data\narchive = archive\nstorage = tmp\nmodel = models\n')
        photos = photos_at_hand(shared)
        print('Pets:', pets(home/'data'/'oxford-iiit-pet'/'images', shared, photos))
        for part,(a,b) in div2k.items(): larger(photos, home/'data'/f'DIV2K_{part}_HR', [f'{i:04}.png' for i in range(a, b+1)], (2040,1356))
        larger(photos, home/'data'/'coco_sample'/'train_sample', [f'{i*1009:012}.jpg' for i in range(1, 25)], (640,480))
        larger(photos, home/'data'/'paintings', [f'{o}.jpg' for o in ('vangogh_starry_night','mosaic','candy')], (640,480))
        print('DIV2K: 10 and 8, COCO: 24, paintings: 3, enlarged photos')
        for k,v in weights(hub/'hub'/'checkpoints', shared, text).items(): print(f'{k}: {v}')
        (work/'ready').touch()
    commands = work/'bin'
    commands.mkdir(exist_ok=True)
    (commands/'perceptual-fastai').write_text(f'#!{sys.executable}\nimport sys\nfrom perceptual_fastai.cli import main\nsys.exit(main())\n')
    (commands/'perceptual-fastai').chmod(0o755)
    env = {k:v for k,v in os.environ.items() if not k.startswith('PERCEPTUAL_') and k.lower() not in ('no_proxy','jupyter_path')}
    nowhere = {k:'http://127.0.0.1:9' for k in ('http_proxy','https_proxy','HTTP_PROXY','HTTPS_PROXY')} # what has no stand-in fails at once
    return env | nowhere | dict(FASTAI_HOME=str(home), TORCH_HOME=str(hub), PERCEPTUAL_MODE='paper', PERCEPTUAL_DRY_RUN=str(batches), MPLBACKEND='Agg', HF_HUB_OFFLINE='1',
                                PYTHONPATH=os.pathsep.join(o for o in (str(root), env.get('PYTHONPATH')) if o), PYTHONUNBUFFERED='1',
                                PATH=os.pathsep.join([str(commands), env['PATH']]))


# one page, in a process of its own

def shell(line, names):
    "A line that begins with !"
    line = re.sub(r'\{([^{}]+)\}', lambda m: str(eval(m[1], names)), line)
    if re.match(r'\s*(python -m )?(pip|apt\S*)\b', line): return print('left out:', line)
    print('$', line, flush=True)
    subprocess.run(line, shell=True, check=True)


def as_python(source):
    "A cell without what only notebooks know"
    def one(line):
        found = re.match(r'(\s*)([!%]+)(.*)', line)
        if not found: return line
        space,kind,rest = found.groups()
        return f'{space}__shell__({rest!r})' if kind=='!' or (kind=='%' and rest.startswith('pip ')) else f'{space}pass # {kind}{rest}'
    return '\n'.join(map(one, source.split('\n')))


def run_cell(source, names):
    "Run a cell, and show the value that it ends on as a notebook would"
    tree = ast.parse(as_python(source))
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, '<cell>', 'exec'), names)
    if last is None: return
    value = eval(compile(last, '<cell>', 'eval'), names)
    if value is None or source.rstrip().endswith(';'): return
    for kind in ('_repr_html_', '_repr_png_'):
        if hasattr(value, kind): getattr(value, kind)()
    print(repr(value)[:2000])


def digest(learn):
    "Some of the weights, and the batch"
    import hashlib
    h = hashlib.sha256()
    for p in [*learn.model.parameters(), *learn.xb]: h.update(p.detach().flatten()[::997].float().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def watch_epochs(say):
    "Tell of each epoch that was trained to its end: from which weights, on which batch"
    from fastai.learner import Learner
    whole = Learner._with_events
    def with_events(self, f, event, *args, **kwargs):
        if event=='epoch': self._began = None
        if event=='batch' and self.training and getattr(self, '_began', None) is None: self._began = digest(self)
        whole(self, f, event, *args, **kwargs)
        if event=='epoch' and self._began: say(epoch=self._began)
    Learner._with_events = with_events


def run_page(page, events, kind):
    "Run all cells of a page in this process"
    sys.path.insert(0, str(root/'benchmarks'))
    from twin import twin
    def say(**facts):
        with open(events, 'a') as f: f.write(json.dumps(facts)+'\n')
    cells = [c for c in json.loads(Path(page).read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']
    names = dict(__name__='__main__')
    names |= dict(display=lambda *o: print(*map(repr, o)), __shell__=lambda line: shell(line, names))
    with twin(kind) if kind else nullcontext():
        watch_epochs(say)
        import matplotlib.pyplot as plt
        for i,c in enumerate(cells):
            source = ''.join(c['source'])
            if not source.strip(): continue
            start = time.time()
            try: run_cell(source, names)
            except BaseException as e:
                traceback.print_exc()
                where = [o.lineno for o in traceback.extract_tb(e.__traceback__) if o.filename=='<cell>'][:1]
                line = source.split('\n')[where[0]-1].strip() if where else ''
                say(failed=f'cell {i+1} of {len(cells)}, `{line}`: {type(e).__name__}: {e}')
                sys.stdout.flush()
                os._exit(1)
            plt.close('all')
            say(cell=i+1, seconds=round(time.time()-start, 1))
    sys.stdout.flush()
    os._exit(0) # whatever threads a page has left


# all pages

def files_of(folder): return {f:f.stat().st_mtime_ns for f in folder.rglob('*') if f.is_file()} if folder.exists() else {}


def checkpoints(folder):
    while True:
        try: return {k:v for k,v in files_of(folder).items() if k.suffix in ('.pth','.ck') and not k.name.startswith('.')}
        except FileNotFoundError: pass # renamed meanwhile


def one_run(page, here, events, env, kind, timeout, kill):
    "Status, seconds and peak memory of a run; with `kill`, until a checkpoint is written or replaced"
    before,start = checkpoints(here.parent.parent),time.time()
    job = [sys.executable, str(Path(__file__).resolve()), '--page', str(page), '--events', str(events), *(['--twin', kind] if kind else [])]
    with open(events.with_suffix('.log'), 'ab') as log: p = subprocess.Popen(job, cwd=here, env=env, stdout=log, stderr=log, start_new_session=True)
    status = None
    try:
        while status is None:
            pid,code,usage = os.wait4(p.pid, os.WNOHANG)
            if pid: status = os.waitstatus_to_exitcode(code)
            elif kill and checkpoints(here.parent.parent)!=before: status = 'killed'
            elif time.time()-start>timeout: status = 'late'
            else: time.sleep(.02 if kill else .2)
    finally:
        try: os.killpg(p.pid, signal.SIGKILL) # what it left behind, too
        except ProcessLookupError: pass
    if status in ('killed','late'): _,_,usage = os.wait4(p.pid, 0)
    p.returncode = 0
    return status,time.time()-start,usage.ru_maxrss/1024


def told(events, since=0): return [json.loads(o) for o in events.read_text().split('\n')[:-1]][since:] if events.exists() else []


def check(page, work, env, kind, timeout, kills):
    "Run a page, killed `kills` times on its way; a line of what was seen, and whether all is well"
    home = work/'pages'/page.stem
    here,events = home/'some'/'folder',home/'events.jsonl' # pages that write to ../../data stay inside
    shutil.rmtree(home, ignore_errors=True)
    here.mkdir(parents=True)
    runs,faults,seconds,peak = [],[],0,0
    for i in range(kills+1):
        n = len(told(events))
        status,took,most = one_run(page, here, events, env, kind, timeout, kill=i<kills)
        runs.append([o['epoch'] for o in told(events, n) if 'epoch' in o])
        seconds,peak = seconds+took,max(peak, most)
        if status!='killed': break
    says = told(events)
    if failed := [o['failed'] for o in says if 'failed' in o]: faults += failed
    elif status=='late': faults.append(f'not done after {timeout} s, {sum("cell" in o for o in says)} cells')
    elif status: faults.append(f'ended with status {status}')
    if again := [o for r in range(1, len(runs)) for o in runs[r] if o in sum(runs[:r], [])]: faults.append(f'{len(again)} epochs trained again')
    if kills and len(runs)<=kills and not faults: print(f'  {page.stem}: killed {len(runs)-1} times only, for no other checkpoint appeared')
    made = [f for f in files_of(home) if f.parent!=home]
    wants = re.search(r'\blab\.save\(', page.read_text(encoding='utf-8'))
    if wants and not faults and not any(f.name==f'{page.stem}.csv' for f in made): faults.append(f'no {page.stem}.csv')
    killed = f', killed {len(runs)-1} times' if kills else ''
    print(f"{page.stem}: {seconds:.0f} s, {peak:.0f} MB, {sum(map(len, runs))} epochs, {len(made)} files{killed}, {'; '.join(faults) or 'ok'}", flush=True)
    return not faults


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--only', nargs='+', metavar='NAME', help='pages, or beginnings of their names')
    p.add_argument('--shared', type=Path, help='a folder with fastai_home and weights (NAME_in1k.pth); sample photos and random numbers without it')
    p.add_argument('--kill', nargs='?', type=int, const=2, default=0, metavar='N', help='kill each page when a checkpoint appears, N times, and start it again')
    p.add_argument('--twin', nargs='?', const='cuda', choices=['cuda','twin'], help='pretend a GPU: tensors of two devices may not meet')
    p.add_argument('--batches', type=int, choices=[1,2], default=2, help='of an epoch; NoGAN needs two, one for each network')
    p.add_argument('--work', type=Path, help='where pages run; a temporary folder, removed afterwards, if left out')
    p.add_argument('--timeout', type=float, default=3600, help='seconds for a page')
    for o in ('--page', '--events'): p.add_argument(o, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.page: return run_page(a.page, a.events, a.twin)
    pages = [f for o in ('tutorials','experiments') for f in sorted((root/'nbs'/o).glob('*.ipynb')) if not f.name.startswith('_')]
    if a.only: pages = [f for f in pages if any(f.stem.startswith(o) for o in a.only)]
    if not pages: p.error('no such page')
    text = '\n'.join(f.read_text(encoding='utf-8') for f in [*pages, *(root/'perceptual_fastai').glob('*.py')])
    work = (a.work or Path(tempfile.mkdtemp(prefix='dry_run_'))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        env = stand_ins(work, a.shared and a.shared.resolve(), text, a.batches)
        good = [check(f, work, env, a.twin, a.timeout, a.kill) for f in pages]
    finally:
        if not a.work: shutil.rmtree(work, ignore_errors=True)
    print(f'{sum(good)} of {len(pages)} pages ok')
    return 0 if all(good) else 1


if __name__=='__main__': sys.exit(main())
