/* A streaming decoder of snappy blocks: see compression_impl.h. Format: google/snappy, format_description.txt.
 *
 * The library decodes a block only in one go into memory of its claimed size; this one decodes into a window, so that memory does
 * not follow what a stranger claims.
 */
#include "compression_impl.h"

#include <endian.h>
#include <string.h>

enum { KEPT = 65536, SLACK = 64 };

int fl_snappy_begin(FlSnappy *s, const uint8_t *block, size_t n, uint8_t *window, size_t capacity) {
    uint64_t size = 0;
    size_t used = 0;
    for (int shift = 0;; shift += 7) {
        if (used == n || shift > 28) return FL_BAD;
        size |= (uint64_t)(block[used] & 0x7F) << shift;
        if (!(block[used++] & 0x80)) break;
    }
    if (size > UINT32_MAX) return FL_BAD;
    memset(s, 0, sizeof(*s));
    s->op = block + used;
    s->end = block + n;
    s->window = window;
    s->capacity = capacity;
    s->size = size;
    s->sliding = size > capacity;
    return FL_END;
}

/* Writes `length` bytes that repeat those `distance` bytes before them. With SLACK bytes of room behind, whole words may be written. */
static inline void repeat(uint8_t *to, size_t distance, size_t length, bool slack) {
    const uint8_t *from = to - distance;
    if (slack && distance >= 8) {
        for (size_t i = 0; i < length; i += 8) memcpy(to + i, from + i, 8);
    } else if (distance >= length) {
        memcpy(to, from, length);
    } else {
        for (size_t i = 0; i < length; i++) to[i] = from[i];
    }
}

/* Reads the next element: length and distance (0: a literal, whose bytes follow). */
static inline bool read_element(FlSnappy *s, const uint8_t *end) {
    const uint8_t *op = s->op;
    const uint32_t tag = *op++;
    const size_t left = (size_t)(end - op);
    uint16_t two;
    uint32_t four;
    switch (tag & 3) {
    case 0:
        s->length = (tag >> 2) + 1;
        s->distance = 0;
        if (tag >> 2 >= 60) {
            const size_t extra = (tag >> 2) - 59;
            if (left < extra) return false;
            four = 0;
            memcpy(&four, op, extra);
            four = le32toh(four);
            if (four == UINT32_MAX) return false;
            s->length = four + 1;
            op += extra;
        }
        s->op = op;
        return s->length <= (size_t)(end - op);
    case 1:
        if (left < 1) return false;
        s->length = 4 + (tag >> 2 & 7);
        s->distance = (tag >> 5) << 8 | op[0];
        s->op = op + 1;
        break;
    case 2:
        if (left < 2) return false;
        memcpy(&two, op, 2);
        s->length = 1 + (tag >> 2);
        s->distance = le16toh(two);
        s->op = op + 2;
        break;
    default:
        if (left < 4) return false;
        memcpy(&four, op, 4);
        s->length = 1 + (tag >> 2);
        s->distance = le32toh(four);
        s->op = op + 4;
    }
    return s->distance != 0;
}

int fl_snappy_next(FlSnappy *s, const uint8_t **piece, size_t *n) {
    const uint8_t *end = s->end;
    if (s->sliding && s->at == s->capacity) {
        memmove(s->window, s->window + s->capacity - KEPT, KEPT);
        s->at = KEPT;
        s->given = KEPT;
    }
    const size_t limit = s->sliding ? s->capacity : (size_t)s->size;
    while (s->at < limit && s->produced < s->size) {
        if (!s->length) {
            if (s->op == end || !read_element(s, end)) return FL_BAD;
            if (s->length > s->size - s->produced || s->distance > s->produced) return FL_BAD;
        }
        if (s->distance > s->at) return FL_FAR; /* for the rest of an element, too: the window may have slid since */
        uint8_t *to = s->window + s->at;
        const size_t room = limit - s->at;
        const size_t length = s->length < room ? s->length : room;
        if (s->distance) {
            repeat(to, s->distance, length, room >= length + SLACK);
        } else {
            if (length <= 16 && room >= SLACK && end - s->op >= 16)
                memcpy(to, s->op, 16);
            else
                memcpy(to, s->op, length);
            s->op += length;
        }
        s->at += length;
        s->produced += length;
        s->length -= (uint32_t)length;
    }
    if (s->at == s->given) return s->op == end ? FL_END : FL_BAD;
    *piece = s->window + s->given;
    *n = s->at - s->given;
    s->given = s->at;
    return FL_MORE;
}
