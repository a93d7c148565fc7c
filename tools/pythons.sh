#!/bin/sh
# Prints the path of each Python that Haptera supports (the classifiers of pyproject.toml) and that is found on PATH, one
# a line. Says on standard error which are missing, and fails where there is none.
set -u

# Where pyenv puts python3.x on PATH, each version answers to its name only if it is selected: all are, here.
if command -v pyenv >/dev/null 2>&1; then
    PYENV_VERSION="$(pyenv versions --bare --skip-aliases 2>/dev/null | tr '\n' ':')"
    export PYENV_VERSION
fi

found=""
for version in $(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml); do
    # The path of the interpreter itself, so that it is found again whatever is selected then.
    if python="$(PYTHON="python$version" tools/python.sh 2>/dev/null)" &&
        python="$("$python" -c 'import sys; print(sys.executable)')"; then
        found=yes
        echo "$python"
    else
        echo "there is no Python $version here" >&2
    fi
done
[ -n "$found" ] || { echo "none of the supported Pythons is here" >&2; exit 1; }
