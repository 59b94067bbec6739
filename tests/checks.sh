#!/bin/sh
# Style, types, import rules, generated pages. The first that fails ends it, is named, and sets the exit code.
# sh tests/checks.sh [FOLDER]: FOLDER holds the programs of the environment to use; .venv/bin unless given.
set -eu
cd "$(dirname "$0")/.."
programs=${1:-.venv/bin}

check() {
    what=$1
    how=$2
    shift 2
    "$@" || {
        status=$?
        echo "FAILED: $what ($*). To fix it: $how." >&2
        exit "$status"
    }
}

check "style" "make format, then what ruff still names" "$programs/ruff" check
check "format" "make format" "$programs/ruff" format --check
check "types" "see the lines of mypy above" "$programs/mypy"
check "import rules" "see docs/contributing/architecture.md, who may import whom" "$programs/lint-imports" --no-logo
check "generated pages" "make docs" "$programs/python" docs/generate.py --check
check "list of files" "make docs" "$programs/python" docs/structure.py --check
