"""How every program of this package starts and ends: errors on one line, exit statuses as documented in `errors`."""

import sys
from collections.abc import Callable

from speechlvm.errors import Interrupted, UserError


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits with its status.

    A `UserError` becomes one line on standard error and its own exit status; an interrupt from the keyboard becomes
    status 75. With ``--debug`` among the arguments the traceback is shown instead of hidden.
    """
    try:
        status = main() or 0
    except (UserError, KeyboardInterrupt) as error:
        if "--debug" in sys.argv[1:]:
            import traceback

            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted("interrupted; run the same command again to finish")
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        status = error.exit_status
    raise SystemExit(status)
