# SPDX-License-Identifier: Apache-2.0
# A thin top over Meson: the targets that a newcomer types. As root: demo, test, install.
BUILD ?= build

.PHONY: all demo demo-stop test bench fuzz analyse coverage install clean

all: deps/.stamp
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) >/dev/null
	@ninja -C $(BUILD)
	@ln -sf $(BUILD)/src/cli/picket picket

# Debian packages that are missing, and libduckdb by its lock file.
deps/.stamp: tools/packages.txt packaging/duckdb/package-lock.json
	@tools/install-packages
	@tools/fetch-duckdb
	@mkdir -p deps && touch $@

demo: all
	@tools/demo start

demo-stop:
	@tools/demo stop

test: all
	@tools/test

bench: all
	@tools/bench

fuzz: all
	@tools/fuzz

analyse: all
	@tools/analyse

coverage: deps/.stamp
	@tools/coverage

install: all
	@meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf build build-* picket
