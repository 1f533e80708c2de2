"""The load generator is built for these tests: it is no part of the package."""

from bench import build

build.build()
