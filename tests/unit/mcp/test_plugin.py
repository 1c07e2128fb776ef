"""What the plugin declares."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from dispatch_plugins.mcp import plugin


def test_the_surface_names_functions_that_exist():
    (surface,) = plugin.dispatch_surfaces(settings=None)

    assert surface.name == "mcp"
    assert callable(pkgutil.resolve_name(surface.process))
    assert callable(pkgutil.resolve_name(surface.session))


def test_neither_the_plugin_nor_the_session_module_imports_the_mcp_library():
    code = (
        "import sys, dispatch_plugins.mcp.plugin, dispatch_plugins.mcp.session\n"
        "print(sorted({'mcp', 'mcp_types', 'starlette'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
