#!/bin/sh
# Prints the path of a Python that Haptera can run on (3.11 or newer, with the venv module), or says in one
# line on standard error why there is none. PYTHON=/path/to/python decides alone; else python3 is preferred
# and the newest python3.x on PATH stands in for it.
set -u

# A version manager may put names on PATH that fail when they run, so each candidate is run, not only found.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

refuse() {
    echo "$1" >&2
    exit 1
}

how="set PYTHON=/path/to/python3.11"
if [ -n "${PYTHON:-}" ]; then
    candidates=$PYTHON
else
    candidates=$(printf '%s\n' python3 python3.14 python3.13 python3.12 python3.11)
fi

found="" without_venv=""
IFS='
'
for candidate in $candidates; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    version=$(version_of "$candidate") || continue
    [ -n "$version" ] || continue
    found=${found:-"$candidate is $version"}
    is_new_enough "$candidate" || continue
    if has_venv "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
    without_venv=${without_venv:-$version}
done

if [ -n "$without_venv" ]; then
    refuse "haptera needs Python's venv module, which Python $without_venv here lacks — install it (Debian, Ubuntu: apt-get install python$without_venv-venv) or $how"
elif [ -n "$found" ]; then
    refuse "haptera needs Python 3.11 or newer; $found — $how"
elif [ -n "${PYTHON:-}" ]; then
    refuse "haptera needs Python 3.11 or newer; PYTHON=$PYTHON does not run — $how"
else
    refuse "haptera needs Python 3.11 or newer; no python3 was found — install it or $how"
fi
