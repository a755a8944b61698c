"""``sidegate-istioctl``: some commands of istioctl do a little more, the rest is istioctl."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

from rich.console import Console

from istioctl_patch import guide, install, support, tools
from istioctl_patch.analyze import analyze
from istioctl_patch.call import Call, parse
from istioctl_patch.uninstall import uninstall
from istioctl_patch.verify_install import verify_install

_ERR = Console(stderr=True)
NOT_DONE = 2


def main() -> None:
    """The exit code is istioctl's, or 2 where nothing was done."""
    try:
        sys.exit(_run(parse(sys.argv[1:])))
    except (support.Unsupported, tools.Missing, ValueError) as error:
        _ERR.print(f"[red]error[/red]: {error}", soft_wrap=True, highlight=False)
        sys.exit(NOT_DONE)
    except subprocess.CalledProcessError as error:
        if error.stderr:
            sys.stderr.write(error.stderr)
        sys.exit(error.returncode)


def _run(call: Call) -> int:
    """Does not return where the command is istioctl's own."""
    wants_help = call.has("help") or call.words[:1] == ("help",)
    match call.words:
        case ():
            return guide.show_help(call)
        case ("help",) | ("help" | "verify-install" | "install" | "upgrade" | "analyze"
              | "uninstall", *_) if wants_help:  # fmt: skip
            return guide.show_help(call)
        case _ if wants_help:
            pass
        case ("install" | "upgrade", *_):
            return install.install(call, _ERR)
        case ("manifest", "generate", *_):
            return install.generate(call, _ERR)
        case ("uninstall", *_):
            return uninstall(call, _ERR)
        case ("verify-install", *_):
            return verify_install(call)
        case ("analyze", *_):
            return analyze(call)
        case ("version", *_):
            return guide.show_version(call)
        case ("completion", *_):
            return guide.completion(call)
        case ("__complete" | "__completeNoDesc", *_):
            return guide.complete(call)
    return _be_istioctl(call)


def _be_istioctl(call: Call) -> NoReturn:
    os.execv(call.istioctl, [call.istioctl, *call.arguments])


if __name__ == "__main__":
    main()
