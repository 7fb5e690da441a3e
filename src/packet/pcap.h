/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture files. Reads classic pcap (both byte orders, micro- and nanoseconds) and pcapng (several
 * sections and interfaces; enhanced, simple and the old packet blocks; if_tsresol, if_tsoffset),
 * and gives out Ethernet frames whatever the link type: raw IP, BSD loopback and Linux cooked
 * captures get an Ethernet header made from what they carry. Memory is bounded by
 * PK_PCAP_FRAME_MAX. One thread at a time per reader or writer.
 */
#ifndef PICKET_PACKET_PCAP_H
#define PICKET_PACKET_PCAP_H

#include <stdio.h>

#include "base/common.h"
#include "base/error.h"

#define PK_PCAP_FRAME_MAX 262144u /* bytes; libpcap's largest snapshot length */

struct pk_pcap_frame {
    pk_nsec time; /* since the epoch; a simple packet block has none and takes the one before */
    const uint8_t *data; /* an Ethernet frame without checksum; valid until the next call */
    uint32_t len;
    uint32_t wire_len; /* as it was on the wire; > len where the capture cut it */
};

struct pk_pcap_reader;
/* Errors: PK_E_NOTFOUND, PK_E_INVALID (not a capture file). */
int pk_pcap_open(const char *path, struct pk_pcap_reader **ret_reader, struct pk_error *err);
/* Takes file over, also on failure. name is for messages. */
int pk_pcap_open_file(FILE *file, const char *name, struct pk_pcap_reader **ret_reader,
                      struct pk_error *err);
void pk_pcap_close(struct pk_pcap_reader *reader);
PK_DEFINE_CLEANUP(struct pk_pcap_reader, pk_pcap_close);
/* 1 = a frame, 0 = the end. PK_E_INVALID on a damaged file (all frames before the damage were
 * given), PK_E_UNSUPPORTED on a link type that is not known. */
int pk_pcap_next(struct pk_pcap_reader *reader, struct pk_pcap_frame *ret_frame,
                 struct pk_error *err);
/* Back to the first frame; for loops. */
int pk_pcap_rewind(struct pk_pcap_reader *reader, struct pk_error *err);

struct pk_pcap_writer;
/* A classic file of Ethernet frames with nanoseconds; an old one is replaced. */
int pk_pcap_create(const char *path, struct pk_pcap_writer **ret_writer, struct pk_error *err);
int pk_pcap_write(struct pk_pcap_writer *writer, pk_nsec time, const void *frame, size_t len,
                  struct pk_error *err);
/* Writes out what is buffered and says whether all of it got to the file. */
int pk_pcap_flush(struct pk_pcap_writer *writer, struct pk_error *err);
void pk_pcap_writer_free(struct pk_pcap_writer *writer);
PK_DEFINE_CLEANUP(struct pk_pcap_writer, pk_pcap_writer_free);

#endif
