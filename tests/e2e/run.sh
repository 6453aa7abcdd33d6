#!/usr/bin/env bash
# Everything from outside: the release build as people run it, and the programs they use with it.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/need e2e
venv=target/e2e-venv
if ! cmp -s tests/e2e/requirements.txt $venv/requirements.txt; then
	python3 -m venv --clear $venv
	$venv/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/requirements.txt
	cp tests/e2e/requirements.txt $venv/
fi

# Run as root for BPF and network namespaces: leave no files in the tree that only root can remove.
scripts/as-root env PYTHONDONTWRITEBYTECODE=1 PATH="$PATH:/usr/sbin:/sbin" \
	$venv/bin/python -m pytest -p no:cacheprovider tests/e2e "$@"
