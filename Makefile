# SPDX-License-Identifier: Apache-2.0
# A thin top over Meson: the targets that a newcomer types. As root: demo, test, install.
BUILD ?= build

.PHONY: all demo demo-stop test bench fuzz analyse coverage install uninstall clean

# The program and what is installed with it; 'ninja -C build' builds the tests too.
all: deps/.build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) >/dev/null
	@if [ -t 1 ]; then ninja -C $(BUILD) product; else echo "Building picket" && ninja --quiet -C $(BUILD) product; fi
	@ln -sf $(BUILD)/src/cli/picket picket

# Debian packages that are missing, and libduckdb by its lock file.
deps/.build: tools/packages.txt packaging/duckdb/package-lock.json
	@tools/install-packages build run
	@tools/fetch-duckdb
	@mkdir -p deps && touch $@

deps/.%: tools/packages.txt
	@tools/install-packages $*
	@mkdir -p deps && touch $@

demo: all
	@tools/demo start

demo-stop:
	@tools/demo stop

test: all deps/.test
	@tools/test

bench: all
	@tools/bench

fuzz: all deps/.analyse
	@tools/fuzz

analyse: all deps/.analyse
	@tools/analyse

coverage: all deps/.test deps/.analyse
	@tools/coverage

install: all
	@meson install -C $(BUILD) --no-rebuild

uninstall:
	@ninja -C $(BUILD) uninstall

clean:
	rm -rf build build-* picket
