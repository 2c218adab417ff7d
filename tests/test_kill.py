"A folder job that is killed outright, and continued"
import subprocess, sys, time

from perceptual_fastai.crappify import Crappifier, crappify_folder
from perceptual_fastai.photos import all_files, sample_photos

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
