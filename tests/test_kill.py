"Folder jobs that are killed outright, or stopped by Ctrl-C, and continued"
import signal, subprocess, sys, time

from PIL import Image

from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.files import all_files
from perceptual_fastai.photos import sample_photos

job = '''
import sys, time
from perceptual_fastai.crappify import Crappifier, crappify_folder, noise
slow = Crappifier(lambda im,rng: (time.sleep(.3), noise(im, 20, rng))[1], name='slow')
crappify_folder(sys.argv[1], sys.argv[2], slow, workers=2, progress=False)
'''


def test_killed_run_continues_to_the_same_bytes(tmp_path):
    src,dst,whole = sample_photos(tmp_path/'src'),tmp_path/'dst',tmp_path/'whole'
    p = subprocess.Popen([sys.executable, '-c', job, str(src), str(dst)])
    while not list(dst.rglob('*.png')) and p.poll() is None: time.sleep(.02)
    p.kill(); p.wait()
    done = {f:f.stat().st_mtime_ns for f in all_files(dst)}
    assert 0<len(done)<10, 'killed too late or too early to show anything'

    from perceptual_fastai.crappify import noise
    same = Crappifier(lambda im,rng: noise(im, 20, rng), name='slow')
    r = crappify_folder(src, dst, same, progress=False)
    assert len(r.skipped)==len(done) and len(r.written)==10-len(done) and not r.failed
    assert {f:f.stat().st_mtime_ns for f in done}==done
    crappify_folder(src, whole, same, progress=False)
    assert {f.relative_to(dst):f.read_bytes() for f in all_files(dst)}=={f.relative_to(whole):f.read_bytes() for f in all_files(whole)}
    assert not list(dst.rglob('.*.part'))


def test_ctrl_c_leaves_whole_files_and_a_second_run_finishes(tmp_path):
    from perceptual_fastai.all import EDSR, save_enhancer
    src,dst = sample_photos(tmp_path/'src'),tmp_path/'dst'
    model = save_enhancer(EDSR(2, blocks=1, features=8, residual=True), tmp_path/'x2.safetensors')
    job = [sys.executable, '-c', 'import sys; from perceptual_fastai.cli import main; sys.exit(main())', 'enhance', str(src), str(dst), '--model', str(model), '--tile', '64', '--device', 'cpu']
    whole = lambda: {f:f.stat().st_mtime_ns for f in all_files(dst) if f.suffix!='.csv'} if dst.exists() else {}
    default = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) # a shell's background job would hand down that it is ignored
    p = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default)
    while not whole() and p.poll() is None: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=60)
    assert p.returncode==130 and err.strip()=='stopped', (p.returncode, out, err)

    done = whole()
    assert 0<len(done)<10, 'stopped too late or too early to show anything'
    for f in done:
        with Image.open(f) as o: o.load()
    assert not list(dst.rglob('.*.part')) and (dst/'enhance.csv').exists()
    r = subprocess.run(job, capture_output=True, text=True, timeout=300)
    assert r.returncode==0 and f'{10-len(done)} written, {len(done)} skipped, 0 failed' in r.stdout, (r.stdout, r.stderr)
    assert len(whole())==10 and {f:whole()[f] for f in done}==done
