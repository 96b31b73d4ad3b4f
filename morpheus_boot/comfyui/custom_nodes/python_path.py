"""How ComfyUI's Python gets the nodes' packages behind its own, without a byte written into it.

PYTHONPATH alone would put them in front of site-packages, and a .pth file works only inside it. But a
``sitecustomize`` on PYTHONPATH runs at the end of the interpreter's own set-up (docs.python.org, "site"), before the
prestartup scripts of custom nodes, and in the processes that ComfyUI starts, too.

The folder of packages may come only after that: an entry of sys.path need not exist (guard/installation.py).
"""

from pathlib import Path
from typing import Final

from morpheus_boot.volume.publish import write_whole

_TEMPLATE: Final = '''\
"""Made by morpheus boot: the custom nodes' packages, behind all that this Python has."""

import importlib.machinery
import importlib.util
import site
import sys

sys.path[:] = [entry for entry in sys.path if entry != {here!r}]
site.addsitedir({packages!r})

# Another sitecustomize, which this one stands in front of.
_spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
if _spec is not None and _spec.loader is not None:
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["sitecustomize"] = _module
    _spec.loader.exec_module(_module)
'''


def write_python_path(folder: Path, packages: Path) -> Path:
    """Makes ``folder`` the one to put first on PYTHONPATH so that ``packages`` comes last on sys.path.

    Returns ``folder``. Raises OSError.
    """
    text = _TEMPLATE.format(here=str(folder), packages=str(packages))
    write_whole(folder / "sitecustomize.py", text.encode(), durable=False)
    return folder
