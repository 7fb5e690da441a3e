/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interface's set-up through the ethtool ioctl: read, changed for a sensor, put back. What is to
 * be changed says spec/nic.h. Any thread; ioctl_fd is a socket of the interface's namespace.
 */
#ifndef PICKET_NODE_NIC_H
#define PICKET_NODE_NIC_H

#include "spec/nic.h"

#define PK_NIC_KEY_MAX 128u /* bytes of a hash key; the longest known has 52 */

/* How it was, to be put back. */
struct pk_nic_before {
    bool known;
    struct pk_nic_facts facts;
    bool pause_autoneg;
    uint8_t hash_transform;
    uint8_t hash_key[PK_NIC_KEY_MAX]; /* facts.hash_key_size bytes */
};

/* PK_E_NOTFOUND when there is no such interface; what a driver does not tell is 0. */
int pk_nic_read(int ioctl_fd, const char *name, struct pk_nic_facts *ret_facts,
                struct pk_error *err);
int pk_nic_remember(int ioctl_fd, const char *name, struct pk_nic_before *ret_before,
                    struct pk_error *err);
/* Changes what differs from the resolved spec. What cannot be changed is not a failure: it stays in
 * the list with why_not set. */
int pk_nic_apply(int ioctl_fd, const char *name, const struct pk_nic_spec *spec,
                 struct pk_nic_change changes[PK_NIC_SETTINGS], size_t *ret_count,
                 struct pk_error *err);
/* As it was. All of it is tried; the first fault is told. */
int pk_nic_restore(int ioctl_fd, const char *name, const struct pk_nic_before *before,
                   struct pk_error *err);

/* For plane.json. NULL = out of memory. */
json_t *pk_nic_before_to_json(const struct pk_nic_before *before);
int pk_nic_before_parse(const json_t *json, struct pk_nic_before *ret_before, struct pk_error *err);

/* {"set":[{"setting","from","to"}],"cannot":[{"setting","from","to","why"}]}: what is otherwise
 * than before, and of what the spec wants, what is not so: as tried (tried[count]), or set back by
 * somebody since. */
json_t *pk_nic_status(int ioctl_fd, const char *name, const struct pk_nic_spec *spec,
                      const struct pk_nic_before *before, const struct pk_nic_change *tried,
                      size_t count);

#endif
