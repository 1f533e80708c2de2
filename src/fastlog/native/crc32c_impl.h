/* CRC-32C kernels and the choice among them: see crc32c.pxd and crc32c_impl.c. */
#ifndef FASTLOG_CRC32C_IMPL_H
#define FASTLOG_CRC32C_IMPL_H

#include <stddef.h>
#include <stdint.h>

/* Makes the tables and chooses the kernel. Before any other call; calling it again changes nothing. */
void fl_crc32c_init(void);

/* The CRC of n bytes at p continuing `crc`. */
uint32_t fl_crc32c(uint32_t crc, const void *p, size_t n);

/* Kernels that this CPU can run, best first; the portable table is always the last of them. */
int fl_crc32c_kernels(void);
const char *fl_crc32c_name(int kernel);
uint32_t fl_crc32c_with(int kernel, uint32_t crc, const void *p, size_t n);

#endif
