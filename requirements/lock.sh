#!/usr/bin/env bash
# Resolves requirements/STACK.in into requirements/STACK.txt, every transitive version pinned. Needs uv.
set -euo pipefail
cd "$(dirname "$0")"
stack=${1:-openmmlab}
{
    echo "# Made from $stack.in by \`make lock\`; do not edit."
    uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
        --overrides overrides.txt "$stack.in" | grep -v "sys_platform == 'never'"
} >"$stack.txt.new"
mv "$stack.txt.new" "$stack.txt"
