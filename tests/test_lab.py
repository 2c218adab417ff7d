"Experiments that stand on the lab: what is committed comes from the page's own cells"
import json, re
from pathlib import Path

import pandas as pd
import pytest

root = Path(__file__).resolve().parent.parent
results = root/'benchmarks'/'results'


def source(cell): return ''.join(cell['source'])


def cells(page): return json.loads(page.read_text(encoding='utf-8'))['cells']


by_card = ['00_bundled_models'] # makes model files, whose cards hold what it found
pages = [f for f in sorted((root/'nbs'/'experiments').glob('*.ipynb')) if f.stem not in by_card and any('perceptual_fastai.lab' in source(c) for c in cells(f))]


def outputs(page):
    "All that the page's code cells show, as text"
    found = [o for c in cells(page) if c['cell_type']=='code' for o in c['outputs']]
    return '\n'.join(''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/html', '')) for o in found)


@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_page_is_short_and_runs_small_by_itself(page):
    code = [c for c in cells(page) if c['cell_type']=='code']
    assert len(cells(page))<=45
    assert all(len(source(c).splitlines())<=21 for c in code)
    says = [m for c in code if (m := re.search(r"^mode = '(\w+)'", source(c), re.M))]
    assert [m[1] for m in says]==['small'], 'tests run a page as it is committed'
    assert not any('os.environ' in source(c) for c in code), 'the lab reads the environment'


def ran_small(page): return f"{page.stem}, mode 'small'" in outputs(page)


@pytest.mark.parametrize('page', filter(ran_small, pages), ids=lambda p: p.stem)
def test_a_page_that_ran_small_says_so(page):
    text = ' '.join(source(c) for c in cells(page) if c['cell_type']=='markdown')
    assert 'outputs saved here are of' in text
    file = results/f'{page.stem}.json'
    if file.exists(): # an earlier run's verdict stands at the top, with its date and mode
        facts = json.loads(file.read_text(encoding='utf-8'))
        assert facts['mode']!='small' and f"{facts['date']}, mode '{facts['mode']}'" in outputs(page)
    else:
        assert f'no results of {page.stem} are there yet' in outputs(page)


@pytest.mark.parametrize('page', [o for o in pages if not ran_small(o)], ids=lambda p: p.stem)
def test_saved_outputs_are_of_the_saved_results(page):
    facts,shown = json.loads((results/f'{page.stem}.json').read_text(encoding='utf-8')),outputs(page)
    assert facts['mode'] in ('cpu','paper') and f"{page.stem}, mode '{facts['mode']}'" in shown
    assert f"{facts['date']}, mode '{facts['mode']}'" in shown, 'the verdict at the top is of another run; run the page once more'
    for row in facts['verdict']: # at the top and, computed anew, at the end
        assert shown.count(row['claim'])==2, row
        assert shown.count(f"<td>{row['ours']}</td>\n      <td>{row['held']}</td>")>=2, row
    assert len(pd.read_csv(results/f'{page.stem}.csv')) and set(facts['versions'])>={'torch','fastai','perceptual_fastai'}
