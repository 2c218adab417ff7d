"The page in a real browser, as the installed command serves it; and under load"
import io, json, os, re, shutil, signal, subprocess, sys, threading, time, zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason="the page needs Gradio: pip install '.[app]'")

exe = shutil.which('perceptual-fastai', path=str(Path(sys.executable).parent)+os.pathsep+os.environ['PATH'])
chrome = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
driver = shutil.which('chromedriver')
flags = '--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()


def brightener(path):
    "A model file that doubles the size and adds 51 of 255 levels"
    import torch
    from perceptual_fastai.all import EDSR, save_enhancer
    net = EDSR(2, blocks=1, features=4, residual=True)
    with torch.no_grad(): list(net.parameters())[-1].fill_(.2)
    return save_enhancer(net, path, normalisation=None, recipe='bicubic, and brighter', use='small images', not_for='the sun')


def twin(im): return np.minimum(np.asarray(im, dtype=int)+51, 255)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "The command: its address, its process, the folder for its temporary files"
    d = tmp_path_factory.mktemp('server')
    (d/'tmp').mkdir()
    models = [brightener(d/f'{n}.safetensors') for n in ('bright', 'again')]
    env = {**os.environ, 'TMPDIR':str(d/'tmp'), 'GRADIO_HEARTBEAT_INTERVAL':'0.5', 'PYTHONUNBUFFERED':'1'}
    p = subprocess.Popen([exe, 'app', '--model', *map(str, models), '--device', 'cpu', '--pixels', '9000000', '--result-pixels', '16000000', '--files', '12', '--waiting', '12'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    said = []
    threading.Thread(target=lambda: said.extend(iter(p.stdout.readline, '')), daemon=True).start()
    end = time.time()+400 # a busy machine takes its time
    while not any('http://' in o for o in said) and p.poll() is None and time.time()<end: time.sleep(.1)
    found = re.search(r'http://\S+', ''.join(said))
    assert found, ''.join(said)
    yield type('Server', (), dict(url=found.group(), pid=p.pid, tmp=d/'tmp', model=models[0]))
    p.send_signal(signal.SIGTERM)
    assert p.wait(90)==0, ''.join(said)
    assert 'Traceback' not in ''.join(said), ''.join(said)
    assert not list((d/'tmp').glob('perceptual_fastai-*')), 'temporary files are left'


def files_of(server, pattern='results-*'): return list(server.tmp.glob(f'perceptual_fastai-*/cache/{pattern}'))


# -- in the browser

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    if not (chrome and driver): pytest.skip('no Chromium with its driver here: apt-get install chromium chromium-driver')
    webdriver = pytest.importorskip('selenium.webdriver', reason='the browser is driven by Selenium: pip install selenium')
    from selenium.webdriver.chrome.service import Service
    o = webdriver.ChromeOptions()
    o.binary_location = chrome
    for f in flags: o.add_argument(f)
    down = tmp_path_factory.mktemp('downloads')
    o.add_experimental_option('prefs', {'download.default_directory':str(down)})
    o.set_capability('goog:loggingPrefs', {'performance':'ALL', 'browser':'ALL'})
    b = webdriver.Chrome(options=o, service=Service(driver))
    b.set_window_size(1280, 1000)
    b.downloads = down
    yield b
    b.quit()


def wait(f, seconds=180, what=''):
    end = time.time()+seconds
    while not (r := f()):
        assert time.time()<end, f'waited {seconds} s for {what}'
        time.sleep(.1)
    return r


def all_(b, css): return b.find_elements('css selector', css)
def texts(b, css): return b.execute_script('return [...document.querySelectorAll(arguments[0])].map(o => o.innerText.trim())', css)
def status(b): return ''.join(texts(b, '#pf-status p'))
def results(b): return texts(b, '#pf-gallery .thumbnail-item')
def choose(b, i):
    "Take a result from the gallery"
    want = results(b)[i]
    all_(b, '#pf-gallery .thumbnail-item')[i].click()
    wait(lambda: texts(b, '.pf-card h3')==[want], what=want)
def hidden(b, css): return b.execute_script('return (document.querySelector(arguments[0]) || {}).textContent || ""', css)


@pytest.fixture
def page(browser, server):
    "A fresh page"
    for w in browser.window_handles[1:]: browser.switch_to.window(w); browser.close()
    browser.switch_to.window(browser.window_handles[0])
    browser.get('about:blank'); browser.get(server.url)
    wait(lambda: all_(browser, '#pf-go') and all_(browser, '#pf-photos input[type=file]'), what='the page')
    return browser


def upload(b, *files, box='#pf-photos'):
    wait(lambda: all_(b, f'{box} input[type=file]'), what=box)[0].send_keys('\n'.join(map(str, files)))
    for f in files: wait(lambda: Path(f).stem[:8] in hidden(b, box), what=f'the upload of {f}')


def enhance(b, want):
    all_(b, '#pf-go')[0].click()
    wait(lambda: status(b)==want and len(results(b))==int(want.split()[0]), what=repr(want))


def noise(size, seed): return Image.fromarray(np.random.RandomState(seed).randint(0, 200, (size[1]//8, size[0]//8, 3)).astype(np.uint8)).resize(size)


def loaded(b, css):
    "Their natural sizes, once they are there"
    return wait(lambda: (lambda o: o if o and all(w for w,_ in o) else None)(b.execute_script(
        'return [...document.querySelectorAll(arguments[0])].map(o => [o.naturalWidth, o.naturalHeight])', css)), what=css)


def test_upload_enhance_slider_and_new_tab(page, server, tmp_path):
    from selenium.webdriver.common.keys import Keys
    Image.new('RGB', (60,40), (10,100,200)).save(tmp_path/'plain.png')
    upload(page, tmp_path/'plain.png')
    enhance(page, '1 result.')
    assert loaded(page, '#pf-compare .content img')==[[60,40], [120,80]]
    boxes = page.execute_script("return [...document.querySelectorAll('#pf-compare .content img')].map(o => JSON.stringify(o.getBoundingClientRect()))")
    assert boxes[0]==boxes[1] # one over the other
    slider, = all_(page, '#pf-at input[type=range]')
    clip = lambda: float(re.search(r'([\d.]+)%\)', page.execute_script("return document.querySelector('#pf-compare img.fixed').style.clipPath"))[1])
    at = lambda n: wait(lambda: abs(clip()-n)<.5, 10, f'{n} %, is {clip()}')
    at(50)
    slider.send_keys(Keys.ARROW_RIGHT*7); at(57)
    slider.send_keys(Keys.HOME); at(0)
    slider.send_keys(Keys.END); at(100)
    assert texts(page, '.pf-card h3')==['plain.png by bright'] and texts(page, '#pf-compare label')==['Before and after']

    for k,(link,want) in enumerate(zip(all_(page, '.pf-full'), ([60,40], [120,80]))):
        page.switch_to.window(page.window_handles[0])
        link.click()
        wait(lambda: len(page.window_handles)==k+2, what='a new tab')
        page.switch_to.window(page.window_handles[-1])
        assert loaded(page, 'img')==[want]
    data = urlopen(page.current_url).read()
    assert (np.asarray(Image.open(io.BytesIO(data)))==(61,151,251)).all()


def test_one_can_zoom_in(page, tmp_path):
    noise((160,120), 0).save(tmp_path/'plain.png')
    upload(page, tmp_path/'plain.png')
    enhance(page, '1 result.')
    loaded(page, '#pf-compare .content img')
    scale = lambda: [float(re.search(r'scale\(([\d.]+)', o)[1]) for o in
                     page.execute_script("return [...document.querySelectorAll('#pf-compare .content img')].map(o => o.style.transform)")]
    assert scale()==[1,1]
    all_(page, '#pf-in')[0].click()
    wait(lambda: scale()[0]==scale()[1]>1.9, 10, 'twice the size')
    all_(page, '#pf-in')[0].click()
    wait(lambda: scale()[0]==scale()[1]>3.8, 10, 'four times the size')
    all_(page, '#pf-out')[0].click()
    all_(page, '#pf-out')[0].click()
    wait(lambda: max(scale())<1.01, 10, 'the whole image')


def test_bad_files_are_named_and_the_others_go_on(page, tmp_path):
    (tmp_path/'broken.jpg').write_text('no photo'); Image.new('1', (4000,3000)).save(tmp_path/'bomb.png')
    Image.new('RGB', (60,40), 'teal').save(tmp_path/'good.jpg')
    upload(page, *(tmp_path/o for o in ('broken.jpg', 'bomb.png', 'good.jpg')))
    enhance(page, '1 result, 2 left out.')
    said, = texts(page, '.pf-failed')
    assert 'broken.jpg: not an image' in said and 'bomb.png: 4000x3000 pixels are more than' in said
    assert results(page)==['good.jpg by bright'] and str(tmp_path) not in page.page_source


def test_ten_uploads_at_once_with_two_models_and_a_zip(page, tmp_path):
    for i in range(10): Image.new('RGB', (50+i,40), (20*i,100,7)).save(tmp_path/f'photo_{i}.png')
    upload(page, *(tmp_path/f'photo_{i}.png' for i in range(10)))
    all_(page, '#pf-models input')[1].click()
    enhance(page, '20 results.')
    assert results(page)==[f'photo_{i}.png by {m}' for i in range(10) for m in ('bright', 'again')]
    choose(page, 13)
    assert loaded(page, '#pf-compare .content img')==[[56,40], [112,80]] and texts(page, '.pf-card h3')==['photo_6.png by again']
    all_(page, '#pf-zip')[0].click()
    wait((page.downloads/'results.zip').exists, what='the zip')
    with zipfile.ZipFile(page.downloads/'results.zip') as z:
        for m in ('bright', 'again'):
            for i in range(10):
                im = Image.open(z.open(f'{m}/photo_{i}.png'))
                assert im.size==(100+2*i, 80) and im.getpixel((9,9))==(min(255, 20*i+51), 151, 58)
        assert z.read('report.csv').count(b'written')==20


def test_by_keyboard_alone_and_nothing_from_elsewhere(page, server):
    from selenium.webdriver.common.keys import Keys
    page.get_log('performance')
    page.get(server.url)
    wait(lambda: all_(page, '#pf-example-0'), what='the page')
    def tab_to(test, n=60):
        for _ in range(n):
            page.switch_to.active_element.send_keys(Keys.TAB)
            if page.execute_script(f'let e=document.activeElement; return {test}'): return page.switch_to.active_element
        raise AssertionError(f'{n} tabs do not lead to {test}')
    tab_to("!!e.closest('#pf-photos')")                                       # the way to an upload is on the path
    tab_to("e.id=='pf-example-0'").send_keys(Keys.ENTER)
    wait(lambda: 'chelsea' in hidden(page, '#pf-photos'), what='the example')
    tab_to("!!e.closest('#pf-models')").send_keys(Keys.SPACE)                  # off,
    assert not all_(page, '#pf-models input')[0].is_selected()
    page.switch_to.active_element.send_keys(Keys.SPACE)                        # and on
    tab_to("e.id=='pf-go'").send_keys(Keys.ENTER)
    wait(lambda: status(page)=='1 result.', what='the result')
    slider = tab_to("e.type=='range'")
    slider.send_keys(Keys.ARROW_LEFT)
    assert slider.get_attribute('value')=='49'
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")=='solid'    # one sees where one is
    tab_to("e.id=='pf-in'").send_keys(Keys.ENTER)
    wait(lambda: 'scale(1)' not in page.execute_script("return document.querySelector('#pf-compare .content img').style.transform"), 10, 'a larger image')
    tab_to("e.classList.contains('pf-full')").send_keys(Keys.ENTER)
    wait(lambda: len(page.window_handles)==2, what='a new tab')

    asked = [json.loads(o['message'])['message'] for o in page.get_log('performance')]
    asked = {o['params']['request']['url'] for o in asked if o['method']=='Network.requestWillBeSent'}
    assert len(asked)>20 and not [o for o in asked if not o.startswith((server.url, 'data:', 'blob:', 'about:', 'chrome'))], asked
    assert not [o for o in page.get_log('browser') if o['level']=='SEVERE']


def test_scores_need_the_clean_photo(page, tmp_path):
    from importlib import import_module
    try: has_nima = import_module('perceptual_fastai.nima').nima_score(Image.new('RGB', (64,64)))>0
    except (ImportError, ValueError, OSError, RuntimeError): has_nima = False # no such module, or no weights for it
    from perceptual_fastai.metrics import psnr
    (tmp_path/'clean').mkdir()
    small = noise((64,48), 0); small.save(tmp_path/'a.png')
    clean = noise((128,96), 0); clean.save(tmp_path/'clean'/'a.png')
    upload(page, tmp_path/'a.png')
    enhance(page, '1 result.')
    card, = texts(page, '.pf-card')
    assert 'need the clean photo' in card and ('NIMA' in card)==has_nima
    all_(page, '#pf-more button')[0].click()
    upload(page, tmp_path/'clean'/'a.png', box='#pf-references')
    all_(page, '#pf-go')[0].click()
    wait(lambda: 'dB' in ''.join(texts(page, '.pf-card')), what='scores')
    import torch
    t = lambda a: torch.from_numpy(np.array(a)).permute(2,0,1)[None].float()/255
    up = small.resize((128,96), Image.Resampling.BICUBIC)
    cells = texts(page, '.pf-card td')
    assert f'{psnr(t(up), t(clean)).item():.2f} dB' in cells and cells[1].endswith((', better', ', worse')), cells


def test_what_is_missing_is_said(page):
    all_(page, '#pf-go')[0].click()
    wait(lambda: status(page)=='no photo yet; upload one, or take an example', what='the reason')
    all_(page, '#pf-example-1')[0].click()
    wait(lambda: 'flower' in hidden(page, '#pf-photos'), what='the example')
    all_(page, '#pf-models input')[0].click()
    all_(page, '#pf-go')[0].click()
    wait(lambda: status(page)=='no model chosen', what='the reason')


def test_a_model_of_ones_own(page, server, tmp_path):
    all_(page, '#pf-more button')[0].click()
    (tmp_path/'evil.safetensors').write_bytes(b'\x80\x04 a pickle')
    upload(page, tmp_path/'evil.safetensors', box='#pf-own')
    wait(lambda: 'evil.safetensors: this is a pickle' in hidden(page, '#pf-about-own'), what='the reason')
    assert str(server.tmp) not in hidden(page, '#pf-about-own')
    page.get(server.url)
    wait(lambda: all_(page, '#pf-more button'), what='the page')
    all_(page, '#pf-more button')[0].click()
    shutil.copy(server.model, tmp_path/'mine.safetensors'); Image.new('RGB', (30,20), 'teal').save(tmp_path/'a.png')
    upload(page, tmp_path/'mine.safetensors', box='#pf-own')
    wait(lambda: 'mine (yours): EDSR x2' in hidden(page, '#pf-about-own'), what='what it is')
    upload(page, tmp_path/'a.png')
    enhance(page, '2 results.')
    assert results(page)==['a.png by bright', 'a.png by mine (yours)']


def test_cancel_keeps_what_is_done_and_frees_the_queue(page, server, tmp_path):
    for i in range(8): noise((1600,1200), i).save(tmp_path/f'large_{i}.jpg', quality=60)
    upload(page, *(tmp_path/f'large_{i}.jpg' for i in range(8)))
    all_(page, '#pf-go')[0].click()
    wait(lambda: re.match('[1-6] of 8', status(page)), what='the first of eight')
    all_(page, '#pf-go-stop')[0].click()
    wait(lambda: status(page).startswith('Cancelled'), what='the end')
    n = len(results(page))
    time.sleep(2)
    assert status(page).startswith(f'Cancelled; {n} result') and len(results(page))==n<8
    assert all_(page, '#pf-zip')
    page.refresh()
    wait(lambda: all_(page, '#pf-example-1'), what='the page')
    all_(page, '#pf-example-1')[0].click()
    wait(lambda: 'flower' in hidden(page, '#pf-photos'), what='the example')
    enhance(page, '1 result.')


def test_enhance_right_after_cancel(page, tmp_path):
    "Five times Cancel and at once Enhance, at different moments of the run; the last one is done to its end"
    for i in range(3): noise((1200,900), i).save(tmp_path/f'large_{i}.jpg', quality=60)
    upload(page, *(tmp_path/f'large_{i}.jpg' for i in range(3)))
    go,stop = all_(page, '#pf-go')[0],all_(page, '#pf-go-stop')[0]
    go.click()
    for i in range(5):
        wait(lambda: re.match('Opening|[123] of 3|3 results', status(page)), what='the beginning') # or, with a slow browser, what is over already
        time.sleep(.3*i)
        stop.click(); go.click()
    wait(lambda: status(page)=='3 results.' and len(results(page))==3, what='the results of the last')


def test_how_far_the_first_photo_is(page, tmp_path):
    noise((2400,1600), 0).save(tmp_path/'large.jpg', quality=60)
    upload(page, tmp_path/'large.jpg')
    all_(page, '#pf-go')[0].click()
    seen = set()
    def told():
        seen.update(float(o) for o in re.findall(r'large.jpg by bright - ([\d.]+)%', hidden(page, '#pf-status')))
        return status(page)=='1 result.'
    wait(told, what='the result')
    assert len(seen)>2 and max(seen)>20, seen


def test_files_go_when_the_page_is_left(page, server, tmp_path):
    Image.new('RGB', (30,20), 'teal').save(tmp_path/'a.png')
    upload(page, tmp_path/'a.png')
    enhance(page, '1 result.')
    assert files_of(server)
    page.get('about:blank')
    wait(lambda: not files_of(server), what='the results to go')


def test_a_page_that_is_left_in_the_middle_leaves_nothing(page, server, tmp_path):
    for i in range(8): noise((1600,1200), i).save(tmp_path/f'large_{i}.jpg', quality=60)
    upload(page, *(tmp_path/f'large_{i}.jpg' for i in range(8)))
    all_(page, '#pf-go')[0].click()
    wait(lambda: re.match('[1-6] of 8', status(page)), what='the first of eight')
    page.get('about:blank')
    wait(lambda: not files_of(server), what='the results to go')
    wait(lambda: json.load(urlopen(f'{server.url.rstrip("/")}/gradio_api/queue/status'))['queue_size']==0, what='the queue to empty')
    time.sleep(1)
    assert not files_of(server)


def test_what_it_looks_like(page, tmp_path):
    "A calm page at both widths: nothing sticks out to the side, nothing overlaps the buttons"
    all_(page, '#pf-example-0')[0].click()
    wait(lambda: 'chelsea' in hidden(page, '#pf-photos'), what='the example')
    enhance(page, '1 result.')
    for width in (1280, 500):
        page.set_window_size(width, 1000); time.sleep(.5)
        assert page.execute_script('return document.documentElement.scrollWidth<=innerWidth')
        box = page.execute_script("let r=document.querySelector('#pf-compare .content').getBoundingClientRect(); return [r.width,r.height]")
        assert abs(box[0]/box[1]-432/288)<.02 and box[0]>250
    page.set_window_size(1280, 1000)


LOOK = """
const rgb = s => (s.match(/[\\d.]+/g) || [0,0,0,0]).map(Number), a = c => c.length<4 ? 1 : c[3]
const over = (c, d) => [0,1,2].map(i => c[i]*a(c)+d[i]*(1-a(c)))
const lum = c => c.slice(0,3).map(v => (v/=255)<=.04045 ? v/12.92 : ((v+.055)/1.055)**2.4).reduce((s,v,i) => s+v*[.2126,.7152,.0722][i], 0)
const behind = e => { for (let all=[]; ; e=e.parentElement) {
    if (e) { all.push(rgb(getComputedStyle(e).backgroundColor)); if (a(all.at(-1))<1) continue }
    return all.reverse().reduce((d, c) => over(c, d), [255,255,255]) } }
const seen = e => e.checkVisibility({opacityProperty:true, visibilityProperty:true}) && e.getBoundingClientRect().width>1
const name = e => `${e.tagName} ${e.id} ${e.className} ${e.innerText || e.ariaLabel || ''}`.slice(0, 90)
const texts = [...document.querySelectorAll('.gradio-container *')].filter(e => seen(e) && [...e.childNodes].some(n => n.nodeType==3 && n.data.trim()))
const faint = texts.filter(e => !e.closest('[disabled]')).map(e => { const d = behind(e), [x,y] = [lum(over(rgb(getComputedStyle(e).color), d)), lum(d)].sort((p,q) => q-p)
    return [(x+.05)/(y+.05), name(e)] }).filter(o => o[0]<4.5)
const hit = e => { const r = e.getBoundingClientRect(), l = (e.closest('label') || e).getBoundingClientRect(); return [Math.max(r.width,l.width), Math.max(r.height,l.height)] }
const small = [...document.querySelectorAll('.gradio-container :is(button,a,summary,input,select,textarea,[role=button])')]
    .filter(e => seen(e) && e.type!='file').map(e => [...hit(e).map(Math.round), name(e)]).filter(o => o[0]<44 || o[1]<44)
const mute = [...document.querySelectorAll('.gradio-container :is(button,a,input,select,textarea)')].filter(e => seen(e) && e.type!='file' &&
    !(e.innerText || e.ariaLabel || e.title || (e.labels && [...e.labels].some(l => l.innerText)))).map(name)
const dumb = [...document.querySelectorAll('.pf img, #pf-gallery img')].filter(e => !e.alt).map(name)
const levels = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].filter(seen).map(e => +e.tagName[1])
return {faint, small, mute, dumb, levels, n:texts.length}
"""


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_everyone_can_read_and_use_it(page, server, theme):
    "Contrast of 4.5:1, 44 pixels to touch, names for all that can be used, headings in order; with results and with all that folds open"
    page.get(f'{server.url}?__theme={theme}')
    wait(lambda: all_(page, '#pf-example-0'), what='the page')
    all_(page, '#pf-example-0')[0].click()
    wait(lambda: 'chelsea' in hidden(page, '#pf-photos'), what='the example')
    enhance(page, '1 result.')
    all_(page, '#pf-more button')[0].click()
    page.execute_script("document.querySelectorAll('details').forEach(o => o.open = true)")
    time.sleep(1)
    for width in (1280, 500):
        page.set_window_size(width, 1000); time.sleep(.5)
        got = page.execute_script(LOOK)
        assert got['n']>40 and not got['faint'], got['faint']
        assert not got['small'], got['small']
        assert not got['mute'] and not got['dumb'], (got['mute'], got['dumb'])
        steps = [b-a for a,b in zip(got['levels'], got['levels'][1:])]
        assert got['levels'][0]==1 and got['levels'].count(1)==1 and max(steps)<=1, got['levels']
    page.set_window_size(1280, 1000)


def test_what_each_model_is_for(page):
    assert texts(page, '#pf-about h3')==['bright', 'again'] and len(all_(page, '#pf-about img'))==2
    said = texts(page, '#pf-about article')[0]
    assert 'Small images. Enlarges by 2. Not for: the sun.' in said
    assert min(w/h for w,h in loaded(page, '#pf-about img'))>1.9 # before and after, side by side
    assert 'bicubic, and brighter' not in said
    all_(page, '#pf-about summary')[0].click()
    wait(lambda: 'bicubic, and brighter' in texts(page, '#pf-about article')[0], what='the card')
    assert all_(page, '#pf-models input')[0].is_selected() and not all_(page, '#pf-models input')[1].is_selected()


def test_two_models_side_by_side_each_with_its_score(page, tmp_path):
    "The two screens of Sunnak et al.: upload; then both results with their NIMA, each at full size in a new tab"
    from perceptual_fastai.nima import nima_score
    noise((96,64), 5).save(tmp_path/'a.png')
    upload(page, tmp_path/'a.png')
    all_(page, '#pf-models input')[1].click()
    enhance(page, '2 results.')
    rows = texts(page, '.pf-card tr')
    heads = rows[0].split('\t')
    assert [o.strip() for o in heads][-3:]==['uploaded', 'bright', 'again'], heads
    row, = [o.split('\t') for o in rows if o.startswith('NIMA')]
    want = nima_score(Image.open(tmp_path/'a.png'))
    assert abs(float(row[1])-float(want))<.011 and all(1<=float(o.split(',')[0])<=10 for o in row[1:]), row
    assert row[2]==row[3] # the same model twice
    for i in range(2):
        page.switch_to.window(page.window_handles[0])
        choose(page, i)
        all_(page, '.pf-full')[1].click()
        wait(lambda: len(page.window_handles)==i+2, what='a new tab')
        page.switch_to.window(page.window_handles[-1])
        assert loaded(page, 'img')==[[192,128]]


def test_a_photo_becomes_a_painting(page, server, tmp_path):
    from perceptual_fastai.paint import stylize
    photo = Image.fromarray(np.random.RandomState(3).randint(0, 255, (10,14,3)).astype(np.uint8)).resize((140,100), Image.Resampling.BICUBIC)
    photo.save(tmp_path/'a.png')
    upload(page, tmp_path/'a.png')
    tab, = [o for o in all_(page, 'button[role=tab]') if o.text=='Style']
    tab.click()
    wait(lambda: all_(page, '#pf-paint') and all_(page, '#pf-paint')[0].is_displayed(), what='the tab')
    assert texts(page, '#pf-manners h3')==['candy', 'mosaic', 'starry_night'] and len(loaded(page, '#pf-manners img'))==3
    got = page.execute_script(LOOK)
    assert not got['faint'] and not got['small'] and not got['mute'] and not got['dumb'], got
    all_(page, '#pf-paint')[0].click()
    wait(lambda: status(page)=='1 result.', what='the painting')
    assert texts(page, '.pf-card h3')==['a.png by candy'] and 'not scored' in texts(page, '.pf-card')[0]
    made = np.asarray(Image.open(next(o for o in files_of(server, 'results-*/candy/a.png'))), dtype=int)
    assert np.abs(made-np.asarray(stylize(photo, 'candy'), dtype=int)).max()<=1


def test_a_way_out_for_large_photos(page, tmp_path):
    noise((2800,2000), 0).save(tmp_path/'large.jpg', quality=60)
    upload(page, tmp_path/'large.jpg')
    enhance(page, '1 result.')
    note = ' '.join(texts(page, '.pf-card'))
    assert 'shrunk to 2366x1690 pixels first, enlarged by 1.69 in all' in note and '4732 × 3380 px' in note, note
    all_(page, '#pf-more button')[0].click()
    wait(lambda: len(all_(page, '#pf-large input'))==6 and all_(page, '#pf-large input')[1].is_displayed(), what='the choice')
    all_(page, '#pf-large input')[1].click()
    enhance(page, '1 result.')
    wait(lambda: 'its middle alone, 2366x1690 of 2800x2000 pixels' in ' '.join(texts(page, '.pf-card')), what='the middle')
    assert loaded(page, '#pf-compare .content img')==[[2366,1690], [4732,3380]]


# -- without one

def test_only_this_machine_is_let_in(server):
    import psutil
    listens = [o.laddr.ip for o in psutil.Process(server.pid).net_connections() if o.status=='LISTEN']
    assert listens==['127.0.0.1']


@pytest.mark.parametrize('path', ['/etc/passwd', '../../etc/passwd', str(Path(__file__).resolve())])
def test_other_files_are_not_handed_out(server, path):
    with pytest.raises(HTTPError) as e: urlopen(f'{server.url.rstrip("/")}/gradio_api/file={path}')
    assert e.value.code in (403, 404)


def test_fifty_uploads_from_ten_clients(server, tmp_path):
    import psutil
    from concurrent.futures import ThreadPoolExecutor
    from gradio_client import Client, handle_file
    def one(client, i):
        "Upload a picture of its own colour, and look at what comes back"
        f = tmp_path/f'colour_{i}.png'
        Image.new('RGB', (256,192), colour(i)).save(f)
        *_,z = client.predict([handle_file(f)], ['bright'], [], None, api_name='/enhance')
        with zipfile.ZipFile(z['value'] if isinstance(z, dict) else z) as o:
            assert o.namelist()==[f'bright/{f.name}', 'report.csv']
            im = Image.open(o.open(f'bright/{f.name}'))
            return im.size==(512,384) and (np.asarray(im)==np.add(colour(i), 51)).all()
    colour = lambda i: (4*i, 200-3*i, 17*i%200)
    def visitor(k, n):
        c = Client(server.url, verbose=False, download_files=tmp_path/f'client_{k}', httpx_kwargs=dict(timeout=90))
        try: return [one(c, i) for i in range(k*n, (k+1)*n)]
        finally: c.close()
    with ThreadPoolExecutor(10) as ex: list(ex.map(lambda k: visitor(k, 2), range(10))) # what is opened once is open now, threads and their memory too
    left = set(files_of(server))                   # of a browser's page, if one is open
    mem,start = psutil.Process(server.pid).memory_info,time.time()
    before = mem().rss
    with ThreadPoolExecutor(10) as ex: got = sum(ex.map(lambda k: visitor(k, 5), range(10)), [])
    took = time.time()-start
    assert len(got)==50 and all(got)
    wait(lambda: set(files_of(server))<=left, what='the results to go')
    grown = (mem().rss-before)/2**20
    print(f'50 uploads from 10 clients in {took:.1f} s; memory {before/2**20:.0f} MB, {grown:+.0f} MB after')
    assert grown<100, f'{grown:.0f} MB more than at the start'


def test_the_queue_is_bounded(server, tmp_path):
    "Forty visitors at once on twelve places: who finds none is told, and the others' work is done"
    from urllib.request import Request
    noise((480,360), 0).save(tmp_path/'a.jpg')
    api = f'{server.url.rstrip("/")}/gradio_api/'
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'+(tmp_path/'a.jpg').read_bytes()+b'\r\n--x--\r\n'
    path, = json.load(urlopen(Request(f'{api}upload', form, {'Content-Type':'multipart/form-data; boundary=x'})))
    fn = next(o['id'] for o in json.load(urlopen(f'{server.url.rstrip("/")}/config'))['dependencies'] if o['api_name']=='enhance')
    photo = dict(path=path, meta={'_type':'gradio.FileData'})
    def join(i):
        body = dict(data=[[photo], ['bright'], [], None, None, None], fn_index=fn, session_hash=f'visitor{i}')
        try: return urlopen(Request(f'{api}queue/join', json.dumps(body).encode(), {'Content-Type':'application/json'})).status,''
        except HTTPError as e: return e.code,e.read().decode()
    got = [join(i) for i in range(40)]
    told = [said for code,said in got if code!=200]
    assert 12<=len(got)-len(told)<40 and all('full' in o for o in told), got
    wait(lambda: json.load(urlopen(f'{api}queue/status'))['queue_size']==0, what='the queue to empty')
    wait(lambda: join(99)[0]==200, what='a place')
