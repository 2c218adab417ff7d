"""Runs notebooks from top to bottom with the Python that runs this file, changing none of them.

notebooks.py NB [NB ...]        exit status 1 if one of them fails; cells marked notest, slow or cuda are left out"""
import re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

left_out = {'notest', 'slow', 'cuda', 'eval: false'}


def marks(cell): return set(re.findall(r'^#\|\s*(.+?)\s*$', cell.source, re.M))


def run(path):
    nb = nbformat.read(path, as_version=4)
    nb.cells = [c for c in nb.cells if c.cell_type!='code' or not marks(c) & left_out]
    NotebookClient(nb, timeout=900, kernel_name='python3', resources={'metadata':{'path':str(path.parent)}}).execute()


failed = 0
for path in map(Path, sys.argv[1:]):
    start = time.time()
    try: run(path)
    except CellExecutionError as e:
        failed += 1
        print(f'{path}: {e}')
    else: print(f'{path}: passed in {time.time()-start:.0f} s', flush=True)
sys.exit(failed>0)
