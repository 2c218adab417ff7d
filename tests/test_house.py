"The house: imports go down, private names stay at home, and nothing of fastai's is replaced"
import ast, json, re
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
package = root/'perceptual_fastai'


def exported_to(notebook):
    "The module that a notebook writes, or None"
    found = re.search(r'#\| default_exp (\w+)', notebook.read_text(encoding='utf-8'))
    return found and found[1]


order = [m for m in map(exported_to, sorted((root/'nbs').glob('*.ipynb'))) if m] # by file name: the number is the layer, lab comes last


def imports(path):
    "Module and names of every import of ours"
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.level==1 or (node.module or '').startswith('perceptual_fastai.')):
            yield (node.module or '').split('.')[-1],[a.name for a in node.names]


def test_every_module_has_its_notebook():
    written_by_hand = {'__init__', '__main__', '_modidx', 'all', 'nb_imports'}
    assert {f.stem for f in package.glob('*.py')}-written_by_hand==set(order) and len(set(order))==len(order)


@pytest.mark.parametrize('module', order)
def test_imports_go_down_and_take_no_private_name(module):
    for source,names in imports(package/f'{module}.py'):
        lazy = module=='cli' # imports what a command needs when it is called
        assert source in order and (order.index(source)<order.index(module) or lazy), f'{module} imports {source}'
        assert not [o for o in names if o.startswith('_')], f'{module} takes {names} from {source}'


@pytest.mark.parametrize('folder', ['tests', 'benchmarks'])
def test_private_names_are_nobody_elses(folder):
    for path in (root/folder).glob('*.py'):
        for source,names in imports(path): assert not [o for o in names if o.startswith('_')], f'{path.name} takes {names} from {source}'


def test_star_replaces_nothing_of_fastai():
    import fastai.vision.all as theirs
    import perceptual_fastai.all as ours
    assert not [o for o in ours.__all__ if hasattr(theirs, o) and getattr(theirs, o) is not getattr(ours, o)]
    assert len(ours.__all__)==len(set(ours.__all__)) and 'FeatureLoss' in ours.__all__


def test_no_two_rooms_export_the_same_name():
    import importlib
    homes = {}
    for module in re.findall(r'^from \.(\w+) import \*', (package/'all.py').read_text(), re.M):
        for o in importlib.import_module(f'perceptual_fastai.{module}').__all__: homes.setdefault(o, []).append(module)
    assert not {k:v for k,v in homes.items() if len(v)>1}


def test_names_of_earlier_versions_can_be_had():
    from perceptual_fastai.all import (CrappifyReport, EnhanceReport, Generator, Picture, TransformBlock, denormalise, enhance_picture, from_picture,
                                       open_picture, save_picture, to_image, to_picture, write_whole)
    assert to_image is denormalise and Generator.__name__=='ImageGenerator' and TransformBlock.__name__=='JohnsonBlock' and CrappifyReport is EnhanceReport
    with pytest.raises(ImportError): from perceptual_fastai.all import never_there


def code_cells(notebook):
    for c in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
        if c['cell_type']=='code': yield ''.join(c['source'])


@pytest.mark.parametrize('notebook', [f for f in sorted((root/'nbs').glob('*.ipynb')) if exported_to(f)], ids=lambda f: f.stem)
def test_a_cell_that_imports_does_nothing_else(notebook):
    "To make the documentation, nbdev runs what is exported and every cell that imports, and no other"
    for source in code_cells(notebook):
        if re.search(r'^#\| *export', source, re.M) or source.startswith('%'): continue
        nodes = list(ast.walk(ast.parse(source)))
        imports = any(isinstance(o, (ast.Import, ast.ImportFrom)) for o in nodes)
        assert not (imports and any(isinstance(o, (ast.Expr, ast.Assign)) for o in nodes)), source
