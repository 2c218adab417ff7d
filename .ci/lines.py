"""How code is written, per 100 lines of notebook code: lines over 140 characters, and lines with a semicolon.

lines.py            prints both for the rooms and for the experiments; exit status 1 where there are too many
lines.py -v         names each of them"""
import io, json, sys, tokenize
from pathlib import Path

root = Path(__file__).resolve().parent.parent
most = dict(long=.5, semicolon=1.)


def code(path): return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']


def with_semicolon(cell):
    "Numbers of the lines in which a semicolon stands between statements"
    plain = '\n'.join('' if line.lstrip().startswith(('%','!')) else line for line in cell.splitlines())
    return {t.start[0] for t in tokenize.generate_tokens(io.StringIO(plain).readline) if t.type==tokenize.OP and t.string==';'}


def count(paths, tell):
    found,n = dict(long=[], semicolon=[]),0
    for path in paths:
        for cell in code(path):
            lines = cell.splitlines()
            n += sum(bool(o.strip()) for o in lines)
            found['long'] += [(path, o) for o in lines if len(o)>140]
            found['semicolon'] += [(path, lines[i-1]) for i in sorted(with_semicolon(cell))]
    for kind,places in found.items():
        for path,line in places if tell else []: print(f'{kind}: {path.relative_to(root)}: {line.strip()[:100]}')
    return {k:100*len(v)/n for k,v in found.items()},n


groups = {'rooms':sorted((root/'nbs').glob('*.ipynb')), 'experiments':sorted((root/'nbs'/'experiments').glob('*.ipynb'))}
rates = {k:count(paths, '-v' in sys.argv) for k,paths in groups.items()}
for k,(rate,n) in rates.items(): print(f"{k:<12} {n:5} lines of code, per 100: {rate['long']:.2f} over 140 characters, {rate['semicolon']:.2f} with a semicolon")
sys.exit(any(rate[o]>=most[o] for rate,_ in rates.values() for o in most))
