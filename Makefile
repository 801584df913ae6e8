# run_tracker: builds with PGXS (make, make install, make clean); `make help` lists the rest.
#
# There are two kinds of goals. Those in OWN_GOALS are handled in the first half, without PGXS: some of them
# must work on a machine that has no PostgreSQL yet, and others (check, installcheck) have a name that PGXS
# defines too. Everything else is plain PGXS, in the second half.

EXTENSION = run_tracker
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(EXTENSION).control)

OWN_GOALS = help deps deps-demo check demo installcheck install-built format format-check lint cppcheck clang-tidy bench \
	dist pg-config
GOALS := $(or $(MAKECMDGOALS),all)

# The PostgreSQL to build for: the first pg_config of PATH, unless it is the one of a client-only installation
# (no pgxs.mk); then the newest server under Debian's /usr/lib/postgresql. PG_CONFIG=... overrides.
pgxs_of = $(if $(1),$(wildcard $(shell $(1) --pgxs 2>/dev/null)))
ifndef PG_CONFIG
PG_CONFIG := $(firstword $(foreach c,pg_config $(shell ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -rV),\
	$(if $(call pgxs_of,$(c)),$(c))))
endif

ifneq (,$(and $(filter $(OWN_GOALS),$(GOALS)),$(filter-out $(OWN_GOALS),$(GOALS))))

# ---- Goals of both kinds, e.g. `make clean check`: one make for each, in the order given ----

.NOTPARALLEL:
.PHONY: $(GOALS)
$(GOALS):
	@$(MAKE) --no-print-directory $@

else ifneq (,$(filter $(OWN_GOALS),$(GOALS)))

# ---- Goals without PGXS ----

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: $(OWN_GOALS)

help:
	@echo 'make               build the library and sql/$(EXTENSION)--$(EXTVERSION).sql'
	@echo 'make install       install them for the PostgreSQL of PG_CONFIG (DESTDIR=... is honoured)'
	@echo 'make demo          install what is missing, build, install, and show the extension at work'
	@echo 'make check         install what is missing, build, install, and run every test'
	@echo 'make installcheck  run the tests against the installed extension (test/run --help: only some of them)'
	@echo 'make deps          install the packages that building and testing need (Debian, Ubuntu)'
	@echo 'make bench         measure; see bench/'
	@echo 'make format        clang-format the C files; make format-check only says what it would change'
	@echo 'make lint          cppcheck and clang-tidy'
	@echo 'make dist          archive of HEAD, for PGXN'
	@echo 'make clean         remove everything that was built'
	@echo
	@echo 'PG_CONFIG = $(or $(PG_CONFIG),none with PGXS found: make deps installs one)'

deps:
	@test/deps
deps-demo:
	@test/deps demo

# A new make for each step: PG_CONFIG can only be found once deps has run.
check: deps
	@$(MAKE) install-built
	@test/run

demo: deps-demo
	@$(MAKE) install-built
	@demo/run

# Root is needed for the copying at most, never for the build.
SUDO = $(if $(shell test -w "$$($(PG_CONFIG) --pkglibdir)" && echo writable),,sudo)
install-built:
	@$(MAKE) all
	@$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'

installcheck:
	@test/run regress isolation pgtap tap

# Another major version of clang-format lays some lines out differently; 14 is the one that counts.
CLANG_FORMAT ?= $(firstword $(shell command -v clang-format-14) clang-format)
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy-14) clang-tidy)
C_FILES = $(sort $(wildcard src/*.c))

format:
	$(CLANG_FORMAT) -i $(C_FILES) $(sort $(wildcard src/*.h))
format-check:
	@$(CLANG_FORMAT) --dry-run --Werror $(C_FILES) $(sort $(wildcard src/*.h))

lint: cppcheck clang-tidy

# cppcheck does not read PostgreSQL's headers (it would try their hundreds of configurations), so it is told
# about the macros that look like no C without them. (Their values cannot contain a semicolon.)
CPPCHECK_MACROS = -DPG_VERSION_NUM=150000 -DPG_MODULE_MAGIC= '-DPG_FUNCTION_INFO_V1(x)=' \
	'-Dforeach(c,l)=while ((c = next(l)))' '-Dforboth(a,b,c,d)=while ((a = next(b)) && (c = next(d)))' \
	'-Ddlist_foreach(i,h)=while ((i.cur = next(h)))' \
	'-Ddlist_foreach_modify(i,h)=while ((i.cur = next(h)))' \
	'-Dslist_foreach(i,h)=while ((i.cur = next(h)))'
cppcheck:
	@cppcheck --quiet --enable=warning,performance,portability --suppress=missingIncludeSystem --inline-suppr \
		--error-exitcode=1 -Isrc $(CPPCHECK_MACROS) src

clang-tidy:
	@$(CLANG_TIDY) --quiet --warnings-as-errors='*' \
		--checks='-*,clang-analyzer-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-narrowing-conversions,-clang-analyzer-security.insecureAPI.*' \
		$(C_FILES) -- -iquote src -isystem $(shell $(PG_CONFIG) --includedir-server) -D_GNU_SOURCE

bench:
	@bench/run

dist:
	git archive --format=zip --prefix=$(EXTENSION)-$(EXTVERSION)/ -o $(EXTENSION)-$(EXTVERSION).zip HEAD

# For test/run, so that both choose the same server.
pg-config:
	@echo '$(PG_CONFIG)'

else

# ---- PGXS ----

PGXS := $(call pgxs_of,$(PG_CONFIG))
ifeq (,$(PGXS))
$(error no PostgreSQL server headers found$(if $(PG_CONFIG), through PG_CONFIG=$(PG_CONFIG)). `make deps` installs them; \
	PG_CONFIG=/path/to/pg_config chooses a PostgreSQL)
endif

MODULE_big = $(EXTENSION)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
# Not -I: a header of ours must not hide one of the system with its name.
PG_CPPFLAGS = -iquote src

# The script is written in parts, one for each domain, and installed as one file.
SQL_PARTS := $(sort $(wildcard sql/[0-9][0-9]_*.sql))
SQL_SCRIPT := sql/$(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(SQL_SCRIPT)
DATA = $(filter-out $(SQL_SCRIPT),$(sort $(wildcard sql/$(EXTENSION)--*--*.sql)))

# Objects of source files that are gone since, too.
EXTRA_CLEAN = $(wildcard src/*.o src/*.bc) $(EXTENSION)-$(EXTVERSION).zip

# The tests run through test/run, see installcheck above.
NO_INSTALLCHECK = 1

include $(PGXS)

ifneq (,$(filter 9.% 10 11 12 13 14,$(MAJORVERSION)))
$(error $(EXTENSION) needs PostgreSQL 15 or newer; $(PG_CONFIG) belongs to $(MAJORVERSION))
endif

$(SQL_SCRIPT): $(SQL_PARTS)
	cat $(SQL_PARTS) /dev/null > $@

# Time stamps do not tell that a part was removed or renamed; the contents do.
ifneq (,$(shell cat $(SQL_PARTS) /dev/null | cmp -s - $(SQL_SCRIPT) || echo stale))
.PHONY: $(SQL_SCRIPT)
endif

# PGXS knows which header an object was made from only where the server was configured with --enable-depend,
# and never for bitcode. A stale object disagrees with the others about a struct: rebuild all of them.
$(OBJS) $(OBJS:.o=.bc): $(sort $(wildcard src/*.h))

endif
