#!/bin/sh
# Prints the path of a Python 3.10 to 3.13 that can make virtual environments; on failure says what was found and why it
# does not do. `PY=python3.12 make test` asks for that one.
probe='
import sys
version = "%d.%d.%d" % sys.version_info[:3]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("is Python " + version + ", and 3.10 to 3.13 is needed")
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit("is Python " + version + ", but cannot make virtual environments (" + str(error) + ")")
print(sys.executable)
'
reasons=""
for candidate in ${PY:-python3 python3.12 python3.13 python3.11 python3.10 python}; do
  found=$(command -v "$candidate" 2>/dev/null) || { [ -z "$PY" ] || reasons="  $candidate is not on the PATH"; continue; }
  if answer=$("$found" -c "$probe" 2>&1); then
    printf '%s\n' "$answer"
    exit 0
  fi
  reasons="$reasons
  $found $(printf '%s\n' "$answer" | head -n 1)"
done
{
  echo "[python] no usable Python 3.10 to 3.13 with venv."
  [ -z "$reasons" ] || printf '%s\n' "$reasons" | sed '/^$/d'
  echo "  Debian, Ubuntu   sudo apt-get install python3 python3-venv python3-dev"
  echo "  Fedora, RHEL     sudo dnf install python3 python3-devel"
  echo "  conda            conda create -n fastllm-dev -c conda-forge python=3.12 && conda activate fastllm-dev"
  echo "  macOS            brew install python@3.12"
  echo "  then again, or name one: PY=/path/to/python3.12 make demo"
} >&2
exit 1
