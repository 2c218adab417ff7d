"""README.md is nbs/index.ipynb as Markdown.

readme.py            writes README.md
readme.py --check    exit status 1 if README.md differs from what would be written
readme.py --command N    prints the N-th shell command of the README (1: the main job, 2: the tests)
"""
import difflib, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
readme,index = root/'README.md',root/'nbs'/'index.ipynb'


def render():
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(index, as_version=4)
    directive = lambda c, d: re.search(rf'^#\|\s*{d}\s*$', c.source, re.M)
    nb.cells = [c for c in nb.cells if not directive(c, 'hide')]
    silent = [c for c in nb.cells if c.cell_type=='code' and directive(c, 'echo: false')]
    for c in silent: c.source = ''
    nb.metadata['language_info'] = {'name':'python'}
    text,_ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'^```(python)?\n\s*```\n', '', text, flags=re.M)             # what is left of silent cells
    text = re.sub(r'^#\|.*\n', '', text, flags=re.M)
    text = re.sub(r'\]\((?!https?:|#)', '](nbs/', text)                          # links in nbs/ are relative to that folder
    text = re.sub(r'<style.*?</style>', '', text, flags=re.S)
    text = re.sub(r'^<div><progress.*\n', '', text, flags=re.M)                  # a bar that was on its way when the cell ended
    return '<!-- made from nbs/index.ipynb by .ci/readme.py: edit that notebook, not this file -->\n' + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def command(n): return re.findall(r'^```sh\n(.*?)^```', readme.read_text(encoding='utf-8'), re.M|re.S)[n-1].strip()


def check():
    want,have = render(),readme.read_text(encoding='utf-8')
    sys.stdout.writelines(difflib.unified_diff(have.splitlines(True), want.splitlines(True), 'README.md', 'from nbs/index.ipynb'))
    return int(want!=have)


if __name__=='__main__':
    if '--command' in sys.argv: print(command(int(sys.argv[-1])))
    elif '--check' in sys.argv: sys.exit(check())
    else: readme.write_text(render(), encoding='utf-8')
