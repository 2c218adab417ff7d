"""A pretend second device for machines without a GPU: computed on the CPU, but kept apart as a GPU's memory is

`with twin(): ...` makes `torch.device('twin')` work, and fastai's default device is it. What is moved there is a copy whose storage is
marked; every operation, in the backward pass and in other threads too, refuses tensors of both devices, as CUDA's operations do, and marks
what comes out. `with twin('cuda', capability=(7,5)): ...` calls the same device 'cuda', so that code that asks for a GPU by that name runs
its GPU branch, half precision included. Not imitated: memory that runs out, streams, and kernels' own numbers.
"""
import threading
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device('cpu')
THERE,EITHER = 'there','either' # marks of storages; no mark is the CPU. EITHER: made inside PyTorch, where the device asked for is not known
_no_modes = torch._C.DisableTorchFunction
_real = {k:getattr(torch._C.TensorBase, k) for k in ('device', 'to', 'numpy', 'new_tensor')}
_clone_storage = torch.UntypedStorage.clone
_now = None # the device that is pretended, if one is
_local = threading.local()


def _storage(x):
    try:
        with _no_modes(): return x.untyped_storage() if _real['device'].__get__(x).type=='cpu' else None
    except (NotImplementedError, RuntimeError): return None # sparse tensors have none


def mark_of(x):
    "Where a tensor is: THERE, EITHER or, on the CPU, None"
    return getattr(_storage(x), '_twin', None)


def _mark(x, mark):
    s = _storage(x)
    if s is not None and getattr(s, '_twin', None)!=mark: s._twin = mark
    return x


def _means(device):
    "Is it the pretended device?"
    if _now is None or device is None: return False
    return isinstance(device, int) or torch.device(device).type==_now.type


def _flat(o):
    if isinstance(o, Tensor): yield o
    elif isinstance(o, (list,tuple)):
        for x in o: yield from _flat(x)


# what a tensor says of itself

def _device(self):
    if mark_of(self)==THERE: return _now
    with _no_modes(): return _real['device'].__get__(self)


def _is_cpu(self): return _device(self).type=='cpu'
def _is_cuda(self): return _device(self).type=='cuda'
def _get_device(self): return 0 if mark_of(self)==THERE else -1


def _numpy(self, *args, **kwargs):
    if mark_of(self)==THERE:
        raise TypeError(f"can't convert {_now} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
    return _real['numpy'](self, *args, **kwargs)


# ways from one device to the other

def _wanted(args, kwargs):
    "What `Tensor.to` was asked for: device or None, and the other arguments by name"
    kwargs = dict(kwargs)
    first,names = (args[0] if args else kwargs.pop('other', None)),('non_blocking','copy')
    if isinstance(first, Tensor): kwargs |= dict(device=first.device, dtype=first.dtype)
    elif isinstance(first, torch.dtype): kwargs['dtype'] = first
    else:
        names = ('dtype',*names)
        if first is not None: kwargs['device'] = first
    kwargs |= dict(zip(names, args[1:]))
    return kwargs.pop('device', None),{k:v for k,v in kwargs.items() if v is not None}


def _really(self, *args, **kwargs):
    "PyTorch's own `to`; modes and subclasses come back to `Tensor.to` by name, which is `_to`"
    before,_local.really = getattr(_local, 'really', False),True
    try: return _real['to'](self, *args, **kwargs)
    finally: _local.really = before


def _to(self, *args, **kwargs):
    if getattr(_local, 'really', False): return _real['to'](self, *args, **kwargs)
    device,kwargs = _wanted(args, kwargs)
    here,there = mark_of(self)==THERE,_means(device)
    if _storage(self) is None or not (device is None or there or torch.device(device).type=='cpu'):
        return _really(self, CPU if there else device, **kwargs) if device is not None else _really(self, **kwargs)
    if device is None or here==there: return _really(self, CPU, **kwargs)
    out = _mark(_really(self, CPU, **(kwargs | dict(copy=True))), THERE if there else None)
    if out.requires_grad: out.register_hook(lambda g: _to(g, _now if here else CPU)) # gradients come back the same way
    return out


def _cpu(self, memory_format=torch.preserve_format): return _to(self, CPU, memory_format=memory_format)
def _cuda(self, device=None, non_blocking=False, memory_format=torch.preserve_format): return _to(self, 'cuda', memory_format=memory_format)
def _type_as(self, other): return _to(self, other)
def _pin_memory(self, *args): return self
def _is_pinned(self, *args): return False


def _new_tensor(self, data, *args, device=None, **kwargs):
    return _to(_real['new_tensor'](self, data, *args, **kwargs), self.device if device is None else device)


def _cloned(self):
    out = _clone_storage(self)
    if mark := getattr(self, '_twin', None): out._twin = mark
    return out


class _Asked(TorchFunctionMode):
    "Functions that are given a `device`, for instance `torch.zeros`"
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get('device')
        known = device is None or _means(device) or torch.device(device).type=='cpu'
        if not known or func is torch._C._nn._parse_to or (device is None and func not in _made): return func(*args, **kwargs)
        if _means(device) and getattr(kwargs.get('generator'), 'device', _now).type=='cpu':
            raise RuntimeError(f"Expected a '{_now.type}' device type for generator but found 'cpu'")
        before,_local.asked = getattr(_local, 'asked', False),True
        try: out = func(*args, **(kwargs if device is None else dict(kwargs, device=CPU)))
        finally: _local.asked = before
        if device is None or not isinstance(out, Tensor): return out
        given = [_storage(o) for o in _flat(list(args))]
        if any(o is _storage(out) for o in given): return _to(out, device) # `torch.as_tensor` copies only where it must
        return _mark(out, THERE if _means(device) else None)


# what every operation does

_across = {f'aten::{o}' for o in ('copy_', '_copy_from', '_foreach_copy_', 'set_', 'resize_', 'is_same_size')}
_indexing = {f'aten::{o}' for o in ('index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index', '_unsafe_index_put')}
_written = {} # operation -> names of the arguments that it changes


def _changes(func):
    if func not in _written:
        _written[func] = [(i,a.name) for i,a in enumerate(func._schema.arguments) if a.alias_info and a.alias_info.is_write]
    return _written[func]


def _refuse(func, tensors, changed, in_list):
    "Raise if a tensor of the CPU meets one of the other device; one number (dim 0) may, where it is only read"
    for x in tensors:
        if mark_of(x) is None and (x.dim() or any(x is o for o in (*changed, *in_list))):
            raise RuntimeError(f'Expected all tensors to be on the same device, but found at least two devices, {_now} and cpu! '
                               f'({func}, sizes {[tuple(o.shape) for o in tensors]})')


class _Same(TorchDispatchMode):
    "All tensors of an operation are on one device"
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        moved = _means(kwargs.get('device'))
        if moved: kwargs['device'] = CPU
        name = func._schema.name
        tensors = [*_flat(args), *_flat(list(kwargs.values()))]
        marks = {mark_of(o) for o in tensors}
        changed = [o for i,k in _changes(func) for o in _flat(args[i] if i<len(args) else kwargs.get(k))] if marks-{None} else []
        if THERE in marks and name not in _across:
            if None in marks:
                read = tensors if name not in _indexing else [o for o in tensors if not any(o is p for p in _flat(args[1]))]
                if name in _indexing and mark_of(args[0])!=THERE: read = tensors
                _refuse(func, read, changed, [o for a in args if isinstance(a, (list,tuple)) for o in _flat(a)] if name not in _indexing else [])
            if kwargs.get('generator') is not None and kwargs['generator'].device.type=='cpu':
                raise RuntimeError(f"Expected a '{_now.type}' device type for generator but found 'cpu'")
        out = func(*args, **kwargs)
        if tensors: result = THERE if THERE in marks else None if None in marks else EITHER
        else: result = None if getattr(_local, 'asked', False) else EITHER
        if moved: result = THERE
        for x in changed:
            if mark_of(x)==EITHER: _mark(x, result)
        if result and name not in _across:
            for x in _flat(out): _mark(x, result)
        return out


@contextmanager
def _modes():
    with _Same(), _Asked(): yield


_run_thread = threading.Thread.run
def _run_with_modes(self):
    if _now is None: return _run_thread(self)
    with _modes(): _run_thread(self)


# files remember where a tensor was

def _location(storage): return str(_now) if _now is not None and getattr(storage, '_twin', None)==THERE else None


def _restore(storage, location):
    if _now is None or not location.startswith(_now.type): return None
    storage._twin = THERE
    return storage


torch.serialization.register_package(5, _location, _restore) # before the CPU's own


# what PyTorch has for a device as a whole

def _rng(*args, **kwargs): return torch.zeros(16, dtype=torch.uint8)


def _functions(name, capability):
    gb = 2**30
    facts = SimpleNamespace(name=name, total_memory=15*gb, major=capability[0], minor=capability[1], multi_processor_count=40)
    zero = lambda *a, **k: 0
    def is_bf16_supported(including_emulation=True): return capability>=(8,0) or including_emulation
    found = dict(
        is_available=lambda: True, device_count=lambda: 1, current_device=zero, is_initialized=lambda: True, _is_in_bad_fork=lambda: False,
        get_device_name=lambda *a: name, get_device_capability=lambda *a: capability, get_device_properties=lambda *a: facts,
        mem_get_info=lambda *a: (12*gb, 15*gb), is_bf16_supported=is_bf16_supported, get_rng_state=_rng, get_rng_state_all=lambda: [_rng()],
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16])
    found |= {k:zero for k in ('memory_allocated', 'max_memory_allocated', 'memory_reserved', 'max_memory_reserved')}
    quiet = 'init _lazy_init _lazy_call set_device synchronize empty_cache ipc_collect reset_peak_memory_stats manual_seed manual_seed_all seed seed_all'
    def nothing(*args, **kwargs): return None
    return found | {k:nothing for k in (*quiet.split(), 'set_rng_state', 'set_rng_state_all')}


_autocast_init = torch.amp.autocast_mode.autocast.__init__
def _init_autocast(self, device_type, dtype=None, enabled=True, cache_enabled=None):
    if _means(device_type): device_type,dtype = 'cpu',dtype or torch.float16 # computed there
    _autocast_init(self, device_type, dtype, enabled, cache_enabled)


def _on_cpu(f): return lambda kind=None: f('cpu' if kind is None or _means(kind) else kind)


def _default_device(kind):
    "fastai's `default_device` is imported by name everywhere, so its code is changed, not the name"
    return eval(f"lambda use=-1: torch.device('cpu') if use is False or (use==-1 and defaults.use_cuda is False) else torch.device('{kind}', 0)").__code__


_tensor_patches = dict(device=property(_device), is_cpu=property(_is_cpu), is_cuda=property(_is_cuda), get_device=_get_device, numpy=_numpy, to=_to,
                       cpu=_cpu, type_as=_type_as, new_tensor=_new_tensor, pin_memory=_pin_memory, is_pinned=_is_pinned)
_made = {*_device_constructors(), torch.from_numpy, torch.frombuffer}


@contextmanager
def _set(owner, name, value):
    absent = object()
    before = vars(owner).get(name, absent)
    setattr(owner, name, value)
    try: yield
    finally: delattr(owner, name) if before is absent else setattr(owner, name, before)


@contextmanager
def twin(
    kind:str='twin', # What the device is called: 'twin', or 'cuda', so that code that asks for this name runs too
    name:str='a pretended GPU', # For `get_device_name`
    capability:tuple=(7,5), # A T4's, which has no bfloat16
): # Yields the device
    "Pretend a second device"
    global _now
    import fastai.torch_core as core
    import torch._dynamo # lists all functions when it is imported, and must not see ours
    if kind not in ('twin','cuda'): raise ValueError(f"kind={kind!r}; allowed are 'twin' and 'cuda'")
    if _now is not None: raise RuntimeError(f'{_now} is pretended already')
    if kind=='cuda' and torch.cuda.is_available(): raise RuntimeError('there is a GPU here; nothing has to be pretended')
    functions = _functions(name, capability)
    if kind=='twin' and not hasattr(torch, 'twin'):
        torch.utils.rename_privateuse1_backend('twin')
        module = ModuleType('torch.twin')
        # PyTorch asks for these from now on, also when nothing is pretended any more
        module.is_available,module.device_count,module._is_in_bad_fork = (lambda: False),(lambda: 0),(lambda: False)
        module.manual_seed_all = lambda seed: None
        torch._register_device_module('twin', module)
    owner = getattr(torch, kind)
    with ExitStack() as stack:
        patch = lambda *o: stack.enter_context(_set(*o))
        for k,f in functions.items(): patch(owner, k, f)
        for k,f in (_tensor_patches | (dict(cuda=_cuda) if kind=='cuda' else {})).items(): patch(Tensor, k, f)
        for k in ('_accelerator_graph_capture_health_check', '_cuda_graph_capture_health_check'): # ask the driver
            if hasattr(torch.optim.Optimizer, k): patch(torch.optim.Optimizer, k, lambda self: None)
        patch(torch.UntypedStorage, 'clone', _cloned)
        patch(threading.Thread, 'run', _run_with_modes)
        patch(torch.amp.autocast_mode.autocast, '__init__', _init_autocast)
        for k in ('is_autocast_enabled', 'get_autocast_dtype'): patch(torch, k, _on_cpu(getattr(torch, k)))
        code = core.default_device.__code__
        core.default_device.__code__ = _default_device(kind)
        _now = torch.device(kind, 0)
        try:
            with _modes(): yield _now
        finally:
            _now = None
            core.default_device.__code__ = code
