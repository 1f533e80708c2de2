/* FL_ASSERT(condition): an invariant of ours, checked in every build. It aborts with file and line, as a broken invariant in the
 * data plane must not go on to write. (A Cython `assert` in a `noexcept nogil` function is swallowed.) Bad input is never an invariant.
 *
 * From Cython:   cdef extern from "check.h" nogil:
 *                    void FL_ASSERT(bint condition)
 */
#ifndef FASTLOG_CHECK_H
#define FASTLOG_CHECK_H

#include <stdio.h>
#include <stdlib.h>

__attribute__((noreturn, cold, noinline, unused)) static void fl_check_failed(const char *what, const char *file, int line) {
    fprintf(stderr, "fastlog: %s:%d: invariant broken: %s\n", file, line, what);
    fflush(stderr);
    abort();
}

#define FL_ASSERT(condition) (__builtin_expect(!!(condition), 1) ? (void)0 : fl_check_failed(#condition, __FILE__, __LINE__))

#endif
