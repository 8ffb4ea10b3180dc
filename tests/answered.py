"""main in a process of its own, for what it prints and what it loads."""

import subprocess
import sys


def answered(*arguments):
    """Run main in a process of its own; return exit code, stdout, stderr, and what it loaded."""
    code = (
        "import sys; from tfopt.main import main; code = main(sys.argv[1:]); "
        "print('LOADED' if 'tensorflow' in sys.modules else 'LIGHT'); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    *lines, loaded = result.stdout.splitlines()
    return result.returncode, "\n".join(lines), result.stderr, loaded
