"The page that the README's badge opens: it can be run on a machine that has nothing but the page"
import json, re
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
page = 'nbs/tutorials/quickstart.ipynb'
cells = json.loads((root/page).read_text(encoding='utf-8'))['cells']
code = [''.join(c['source']) for c in cells if c['cell_type']=='code']
cfg = ConfigParser()
cfg.read(root/'settings.ini')
cfg = cfg['DEFAULT']


def test_addresses_are_those_of_settings():
    text = '\n'.join(''.join(c['source']) for c in cells)
    colab = f"https://colab.research.google.com/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/{page}"
    assert f"%pip install -q git+{cfg['git_url']}\n" in text+'\n' and f']({colab})' in text
    assert f']({colab})' in (root/'README.md').read_text(encoding='utf-8') and f']({page})' in (root/'README.md').read_text(encoding='utf-8')


def test_installs_before_anything_of_ours_is_imported():
    first = next(i for i,o in enumerate(code) if 'pip install' in o)
    ours = next(i for i,o in enumerate(code) if re.search(r'(from|import) perceptual_fastai', o))
    assert first<ours and "find_spec('perceptual_fastai') is None" in code[first] and code[first].startswith('#| notest')


def test_needs_no_file_of_the_repository():
    assert not [o for o in code if '../' in o or 'settings.ini' in o or 'get_config' in o]
