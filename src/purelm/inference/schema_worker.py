"""Run as a script: a JSON schema on the standard input, the regular expression of its JSON on the output.

A process of its own, with bounds on memory and time: a short schema can ask for an expression of any size, which the
library writes to the end. Imports nothing of purelm, so that it starts at once. Status 3: the schema cannot be used,
and the standard error says why. The argument is the bound on memory, in bytes.
"""

from __future__ import annotations

import resource
import sys


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    from outlines_core.json_schema import build_regex_from_schema

    try:
        pattern = build_regex_from_schema(sys.stdin.buffer.read().decode())
    except (ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 3
    sys.stdout.buffer.write(pattern.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
