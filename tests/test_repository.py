"What holds for the repository as a whole"
import json, re, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import distribution
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = sorted(f for f in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts)
cfg = ConfigParser(delimiters=['='])
cfg.read(root/'settings.ini')
cfg = cfg['DEFAULT']


def text_of(cell): return json.dumps([{k:v for k,v in o.items() if k!='data'} for o in cell.get('outputs', [])]) + ''.join(
    ''.join(v) if isinstance(v, list) else str(v) for o in cell.get('outputs', []) for k,v in o.get('data', {}).items() if k.startswith('text/')) + ''.join(cell['source'])


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook_is_fit_to_read(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    top = ''.join(nb['cells'][0]['source'])
    assert re.match(r'# .+\n\n> .+', top), 'the first cell is a title and a promise'
    assert path.stat().st_size < 300_000, 'a page stays under 300 KB'
    for cell in nb['cells']:
        assert not re.search(r'(?<![\w.:/])/(home|root|tmp|Users|work)/\w', text_of(cell)), f'a path of one machine in: {text_of(cell)[:300]}'
        assert '"output_type": "error"' not in text_of(cell)


def test_settings_are_the_single_source():
    d = distribution(cfg['lib_name'])
    import perceptual_fastai
    assert d.version==cfg['version']==perceptual_fastai.__version__
    assert d.metadata['Requires-Python']==f">={cfg['min_python']}"
    needs = [r for r in d.requires if 'extra' not in r]
    assert len(needs)==len(cfg['requirements'].split()) and len(d.requires)-len(needs)==len(cfg['dev_requirements'].split())+2*len(cfg['app_requirements'].split())
    assert (Path(perceptual_fastai.__file__).parent/'py.typed').exists()


def test_address_stands_in_settings_alone():
    named = [f for f in subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=root, capture_output=True, text=True).stdout.split()
             if Path(f).suffix in ('.py', '.yml', '.md', '.ini', '') and f"github.com/{cfg['user']}" in (root/f).read_text(encoding='utf-8', errors='ignore')]
    assert set(named) <= {'README.md', 'perceptual_fastai/_modidx.py'}, named  # made from settings.ini
    url = cfg['git_url'].replace('%(user)s', cfg['user']).replace('%(repo)s', cfg['repo'])
    assert url in (root/'README.md').read_text(encoding='utf-8')


def test_light_modules_stay_light():
    code = "import sys, perceptual_fastai.photos, perceptual_fastai.crappify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode==0
